"""Qwen/Qwen2.5-Math-PRM-7B and Qwen/Qwen2.5-Math-7B-PRM800K."""

import torch

from common import chat
from common.families.weights import single_token
from common.loading import tensors

PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."


class QwenMath:
    """Steps with a tag behind each, and a head of two classes (https://arxiv.org/abs/2501.07301):

        system: {PROMPT}   user: {question}   assistant: {step 1}<extra_0>{step 2}<extra_0> ...

    A step's score is the probability of the second class at the <extra_0> behind it.
    """

    heads = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tag = single_token(tokenizer, "<extra_0>")

    def read_head(self, model, folder):
        h = model.config.hidden_size
        shapes = dict(zip(self.heads, [(h, h), (h,), (2, h), (2,)]))
        self.w1, self.b1, self.w2, self.b2 = tensors(folder, model.device, shapes)

    def opening(self, problem):
        return chat.encode_prompt(self.tokenizer, problem, system=PROMPT)

    def turn(self, step, number):
        return [*chat.encode_between(self.tokenizer, "", step), self.tag]

    def score(self, hidden):
        inner = torch.relu(hidden @ self.w1.T + self.b1)
        return (inner @ self.w2.T + self.b2).softmax(-1)[:, 1]
