"""RLHFlow/Llama3.1-8B-PRM-Deepseek-Data and -Mistral-Data."""

from common import chat
from common.families.weights import plus_minus_score


class RLHFlow:
    """A dialogue, in which every step is a user's turn and every answer is "+":

        user: {question} {step 1}   assistant: +   user: {step 2}   assistant: +   ...

    A step's score is P("+") against P("-") where the model's next answer is due. The answers fed
    back are all "+", right or not. That is how these models are used, and it lets one pass over a
    solution score all of its steps. Recipe: math-rm of
    https://github.com/RLHFlow/RLHF-Reward-Modeling. The bundled PRM is of this family.
    """

    heads = ()

    def __init__(self, tokenizer):
        before, reply, next_turn = fixed_text(tokenizer)
        self.tokenizer = tokenizer
        self.before = before
        self.reply = self.encode(reply)
        self.next_turn = self.encode(next_turn)

        parts = self.opening("1 + 1 = ?") + self.turn("## Step 1: Add", 1)
        parts += self.turn("It is 2.", 2)
        whole = f"{before}1 + 1 = ? ## Step 1: Add{reply}{next_turn}It is 2.{reply}"
        if self.encode(whole) != parts:
            raise ValueError(
                'its tokenizer does not write "+" and "-" as single tokens between the turns of '
                "its chat template"
            )

    def read_head(self, model, folder):
        self.score = plus_minus_score(self.tokenizer, model, folder)

    def encode(self, text):
        return chat.encode(self.tokenizer, text)

    def opening(self, problem):
        return chat.encode_between(self.tokenizer, self.before, problem)

    def turn(self, step, number):
        if number == 1:
            return chat.encode_between(self.tokenizer, " ", step) + self.reply
        return self.next_turn + chat.encode_between(self.tokenizer, "", step) + self.reply


def fixed_text(tokenizer):
    """What the chat template writes before the question, from a step's end to where "+" or "-" is
    due, and from the "+" to the next step."""
    turns = [("user", "<<question>>"), ("assistant", "+"), ("user", "<<step>>"), ("assistant", "+")]
    messages = [{"role": role, "content": content} for role, content in turns]
    before, question, rest = chat.render(tokenizer, messages).partition("<<question>>")
    middle, step, _ = rest.partition("<<step>>")
    if not (question and step and "+" in middle):
        raise ValueError("its chat template loses the question, a step or an answer")
    plus = middle.rindex("+")
    return before, middle[:plus], middle[plus:]
