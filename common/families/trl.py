"""PRMs that TRL trained: Qwen2ForTokenClassification and the like."""

from common import chat
from common.loading import tensors


class TRL:
    r"""Steps with a separator behind each, and a head of two classes
    (https://huggingface.co/docs/trl/prm_trainer):

        {bos}{question}{step 1}\n{step 2}\n ...

    A step's score is the probability of class 1, a right step, at the last token of the separator.
    That is "\n", as PRMTrainer has it unless it was told otherwise. Nothing stands between the
    question and the first step: it is how PRMTrainer joins a prompt and its completions.
    """

    heads = ("score.weight", "score.bias")

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.separator = chat.encode(tokenizer, "\n")

    def read_head(self, model, folder):
        if model.config.num_labels != 2:
            raise ValueError(f"it has {model.config.num_labels} classes, not wrong and right")
        shapes = dict(zip(self.heads, [(2, model.config.hidden_size), (2,)]))
        self.weight, self.bias = tensors(folder, model.device, shapes)

    def opening(self, problem):
        bos = self.tokenizer.bos_token_id
        tokens = chat.encode_between(self.tokenizer, "", problem)
        return tokens if bos is None else [bos, *tokens]

    def turn(self, step, number):
        return chat.encode_between(self.tokenizer, "", step) + self.separator

    def score(self, hidden):
        return (hidden @ self.weight.T + self.bias).softmax(-1)[:, 1]
