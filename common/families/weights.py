"""What several families need: tags that are one token, and the weights of heads that score."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from common import chat


def single_token(tokenizer, text):
    """The one token that a tag is. Raises ValueError if it is several: scores would be read in the
    wrong place."""
    tokens = chat.encode(tokenizer, text)
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
        raise ValueError(f"its tokenizer does not write {text!r} as a single token")
    return tokens[0]


def plus_minus_score(tokenizer, model, folder):
    """score(hidden) = P("+") / (P("+") + P("-")), the sigmoid of the difference of two logits.

    Of the 128k rows of the language head these two will do.
    """
    rows = [single_token(tokenizer, "+"), single_token(tokenizer, "-")]
    if model.config.tie_word_embeddings:
        plus, minus = model.get_input_embeddings().weight.detach()[rows].float()  # each [h]
    else:
        [head] = tensors(folder, model.device, "lm_head.weight", rows=rows)
        plus, minus = head
    return lambda hidden: torch.sigmoid(hidden @ (plus - minus))


@torch.inference_mode()
def share_of_plus_minus(prm, folder):
    """How probable it is that a model answers a step by "+" or "-" at all: near 1 for a PRM that
    scores by them, near 0 for a model that writes."""
    tokenizer = prm.tokenizer
    rows = [single_token(tokenizer, "+"), single_token(tokenizer, "-")]
    tokens = prm.family.opening("1 + 1 = ?") + prm.family.turn("## Step 1: Add\n$1+1=2$", 1)
    ids = torch.tensor([tokens], device=prm.model.device)
    hidden = prm.model(ids).last_hidden_state[0, -1].float().cpu()
    if prm.model.config.tie_word_embeddings:
        head = prm.model.get_input_embeddings().weight.float().cpu()
    else:
        [head] = tensors(folder, "cpu", "lm_head.weight")
    return (head @ hidden).softmax(-1)[rows].sum().item()


def tensors(folder, device, *names, rows=slice(None)):
    """Weights, or some rows of them, that a checkpoint has beside the model proper: in float32,
    never quantized. Raises ValueError if it lacks one."""
    found = {}
    shards = list(Path(folder).glob("*.safetensors"))
    for shard in shards or Path(folder).glob("pytorch_model*.bin"):
        if shard.suffix == ".safetensors":
            weights = load_file(shard)
        else:
            weights = torch.load(shard, map_location="cpu", mmap=True, weights_only=True)
        for name in names:
            if name in weights:
                found[name] = weights[name][rows].to(device, torch.float32)
    missing = sorted(set(names) - set(found))
    if missing:
        raise ValueError(f"it has no weights named {missing[0]}, with which PRMs like it score")
    return [found[name] for name in names]
