"""peiyi9979/math-shepherd-mistral-7b-prm."""

import re

from common import chat
from common.families.weights import plus_minus_score, single_token


class MathShepherd:
    """Numbered steps of one line, each with a tag behind it (https://arxiv.org/abs/2312.08935):

        {question} Step 1: {text} ки
        Step 2: {text} ки

    A step's score is P("+") against P("-") at its "ки". The heading of our policies' steps,
    "## Step 3: ", becomes "Step 3: ", others get that too, and line breaks become spaces. Published
    as pickles (--allow-pickle). Its tokenizer needs `pip install sentencepiece protobuf`.
    """

    heads = ()

    def __init__(self, tokenizer):
        single_token(tokenizer, "ки")
        self.tokenizer = tokenizer
        whole = tokenizer("1 + 1 = ? Step 1: Add. ки\nStep 2: It is 2. ки").input_ids
        parts = self.opening("1 + 1 = ?") + self.turn("## Step 1: Add.", 1)
        if whole != parts + self.turn("It is 2.", 2):
            raise ValueError(
                'its tokenizer does not keep "ки" and the line break behind it apart from steps'
            )

    def read_head(self, model, folder):
        self.score = plus_minus_score(self.tokenizer, model, folder)

    def opening(self, problem):
        start = self.tokenizer("").input_ids  # <s>
        tokens = chat.encode_between(self.tokenizer, "", problem, tags=("ки",))
        return start + tokens

    def turn(self, step, number):
        text = re.sub(r"^#*\s*Step \d+:\s*", "", step)
        text = re.sub(r"\s*\n\s*", " ", text)
        # Sentencepiece puts a space before whatever a string begins with. Encoded behind a letter,
        # which is then taken off again, the text gets the tokens that it has inside of a solution.
        space = " " if number == 1 else "\n"
        before = f"a{space}Step {number}: "
        tokens = chat.encode_between(self.tokenizer, before, text, " ки", tags=("ки",))
        return tokens[len(chat.encode(self.tokenizer, "a")) :]
