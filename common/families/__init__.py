"""Families of reward models: what differs from one to the next, a file each.

A family is made of a tokenizer, and raises ValueError if that is of another one. It has:

    heads                     names of the weights that it scores with, besides a language head's
    opening(problem)          -> token ids of what stands before the first step
    turn(step, number)        -> token ids of a step; the score is read at the last of them
    read_head(model, folder)  takes the weights that score, from the model or the checkpoint's files
    score(hidden)             -> [n], in [0, 1], of the hidden states at these tokens, [n, h]

To add one, write such a class in a file of its own and put it into FAMILIES and ARCHITECTURES.
"""

from common.families.math_shepherd import MathShepherd
from common.families.qwen_math import QwenMath
from common.families.rlhflow import RLHFlow
from common.families.skywork import Skywork
from common.families.trl import TRL

FAMILIES = {
    "rlhflow": RLHFlow,
    "math-shepherd": MathShepherd,
    "skywork": Skywork,
    "qwen-math": QwenMath,
    "trl": TRL,
}

ARCHITECTURES = {
    "LlamaForCausalLM": "rlhflow",
    "MistralForCausalLM": "math-shepherd",
    "Qwen2ForPrmModel": "skywork",
    "Qwen2ForProcessRewardModel": "qwen-math",
}


def family_of(config, tokenizer):
    """The name in FAMILIES, by the architecture in config.json (a dict). Raises ValueError if none
    here has it."""
    [architecture, *_] = config.get("architectures") or ["no architecture"]
    if architecture.endswith("ForTokenClassification"):
        return "trl"
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{architecture} is no PRM known here: if it scores like one, add --prm-family"
            f" ({', '.join(FAMILIES)})"
        )
    # Math-Shepherd is a Mistral saved as a Llama. Only RLHFlow's are chat models.
    if architecture == "LlamaForCausalLM" and not tokenizer.chat_template:
        return "math-shepherd"
    return ARCHITECTURES[architecture]
