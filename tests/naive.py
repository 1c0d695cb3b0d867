"""The naive twin: what beam.sample_steps() and PRM.score() do, by reading everything anew."""

from functools import cache

import torch
from transformers import AutoModelForCausalLM

import beam
from common import chat


@torch.inference_mode()
def sample_steps(
    policy, tokenizer, parents, uniforms, to_the_end, *, separator, temperature, top_p
):
    """A row at a time, no cache: the whole text goes through the policy for each token."""
    children = []
    for parent, numbers in zip(parents, uniforms):
        text = [token for node in parent.path() for token in node.tokens]
        child = beam.Node(parent, parent.problem, parent.tokens_left)
        while not child.ended:
            logits = policy(torch.tensor([text + child.tokens])).logits[:, -1]  # [1, V]
            number = numbers[len(child.tokens), None]
            token = int(beam.sample(logits, number, temperature, top_p))
            child.tokens.append(token)
            child.tokens_left -= 1
            child.finished = token in policy.generation_config.eos_token_id
            child.text = tokenizer.decode(child.tokens, skip_special_tokens=True)
            if separator in child.text and not to_the_end:
                break
        children.append(child)
    return children


@cache
def whole_model(folder):
    """The checkpoint with its language head, which scoring itself does without."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def full_score(prm, problem, steps):
    """RLHFlow's recipe word for word: the whole conversation, once for each step, softmax over
    "+" and "-". Returns a score for each of steps."""
    model = whole_model(prm.model.name_or_path)
    plus_minus = prm.tokenizer.convert_tokens_to_ids(["+", "-"])
    scores = []
    messages = []
    for step in steps:
        content = step.strip() if messages else f"{problem} {step.strip()}"
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
        ids = chat.encode(prm.tokenizer, chat.render(prm.tokenizer, messages))
        assert ids[-2] == plus_minus[0]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -3]
        scores.append(float(logits[plus_minus].softmax(-1)[0]))
    return scores
