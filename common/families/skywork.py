"""Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B."""

import torch

from common import chat
from common.families.weights import single_token
from common.loading import tensors


class Skywork:
    r"""Lines, with a value head (https://github.com/SkyworkAI/skywork-o1-prm-inference):

        {bos}{question}\n{step 1}\n{step 2}\n ...

    A step's score is the sigmoid of the value at the "\n" behind it, always a token of its own. To
    these models every line is a step. The lines of ours are encoded like that too, but only the
    score of the last is read. Published as pickles (--allow-pickle).
    """

    heads = ("v_head.summary.weight", "v_head.summary.bias")

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.newline = single_token(tokenizer, "\n")
        self.bos = tokenizer.bos_token_id

    def read_head(self, model, folder):
        if self.bos is None:
            self.bos = model.config.bos_token_id
        shapes = dict(zip(self.heads, [(1, model.config.hidden_size), (1,)]))
        self.weight, self.bias = tensors(folder, model.device, shapes)

    def opening(self, problem):
        return [self.bos, *chat.encode_between(self.tokenizer, "", problem, "\n")]

    def turn(self, step, number):
        tokens = []
        for line in step.split("\n"):
            tokens += chat.encode_between(self.tokenizer, "", line)
            tokens.append(self.newline)
        return tokens

    def score(self, hidden):
        return torch.sigmoid(hidden @ self.weight[0] + self.bias)
