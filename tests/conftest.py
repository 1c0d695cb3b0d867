import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytest
import torch

torch.set_num_threads(1)  # the models are so small that threads cost more than they bring


@pytest.fixture(scope="session")
def pair():
    """The bundled policy with its tokenizer, and the bundled PRM."""
    import beam
    from common.prm import load_prm

    policy, tokenizer = beam.load_policy(
        str(ROOT / "tiny/policy"), four_bit=False, device=torch.device("cpu")
    )
    return (
        policy,
        tokenizer,
        load_prm(str(ROOT / "tiny/prm"), four_bit=False, device=torch.device("cpu")),
    )
