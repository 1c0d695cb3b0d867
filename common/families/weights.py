"""What several families need: tags that are one token, and the weights of heads that score."""

import torch

from common import chat
from common.loading import tensors


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
    plus, minus = language_head(model, folder, rows)  # each [h]
    return lambda hidden: torch.sigmoid(hidden @ (plus - minus))


def share_of_plus_minus(prm, hidden, folder):
    """How probable "+" or "-" is at all behind a step: near 1 for a PRM that scores by them, near 0
    for a model that writes. hidden: [1, h], of the step's last token."""
    rows = [single_token(prm.tokenizer, "+"), single_token(prm.tokenizer, "-")]
    logits = hidden @ language_head(prm.model, folder, slice(None)).T  # [1, V]
    return logits.softmax(-1)[0, rows].sum().item()


def language_head(model, folder, rows):
    """[rows, h]. A model that scores is loaded without it, unless it is tied to the embeddings."""
    if model.config.tie_word_embeddings:
        return model.get_input_embeddings().weight.detach()[rows].float()
    shape = model.config.vocab_size, model.config.hidden_size
    [head] = tensors(folder, model.device, {"lm_head.weight": shape}, rows)
    return head
