r"""From a problem to the token ids of a chat prompt.

Chat templates have habits that break a step-by-step search, all silently:

- Llama 3's trims the content of every message. A search that hands it an unfinished answer loses
  the "\n\n" which ends its last step, and the policy writes that separator, or an empty step, again
  and again. Here the template only ever sees the question. What has been written so far stays as it
  is: token ids behind the prompt's.
- They write the BOS token, and so does the tokenizer when it encodes their text: two of them. Here
  only the template does.
- Llama 3.2's writes today's date into the prompt, so that a run changes by the day. Here the date
  is fixed.
- They mix what a user wrote with the tokens that mark turns, as text. A question that spells
  "<|eot_id|>" would end its own turn. Here text stays text: in what comes from outside, the name of
  a special token is characters like any others.
"""

import re
from functools import lru_cache

from jinja2 import TemplateError

# The prompt of Meta's own MATH evaluations of Llama 3.x, to which published figures belong.
MATH_PROMPT = """Solve the following math problem efficiently and clearly:

- For simple problems (2 steps or fewer):
Provide a concise solution with minimal explanation.

- For complex problems (3 steps or more):
Use this step-by-step format:

## Step 1: [Concise description]
[Brief explanation and calculations]

## Step 2: [Concise description]
[Brief explanation and calculations]

...

Regardless of the approach, always conclude with:

Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct.

Where [answer] is just the final number or expression that solves the problem."""

DATE = "26 Jul 2024"  # what Meta's template takes where no clock is at hand


def render(tokenizer, messages, **options):
    """The chat as text, with exactly one BOS where the model has one.

    messages: dicts with role and content. Raises ValueError if there is no chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: an instruction-tuned model is needed")
    return tokenizer.apply_chat_template(messages, tokenize=False, date_string=DATE, **options)


def encode(tokenizer, text):
    """Token ids of a text whose special tokens are already written out: none is added."""
    return tokenizer(text, add_special_tokens=False).input_ids


def encode_between(tokenizer, before, text, after="", tags=()):
    """Token ids of before + text + after, where text comes from outside.

    In it the names of special tokens, and tags, are encoded as characters.
    """
    if not special_names(tokenizer, tags).search(text):
        return encode(tokenizer, before + text + after)
    middle = as_characters(tokenizer, text, tags)
    return encode(tokenizer, before) + middle + encode(tokenizer, after)


def as_characters(tokenizer, text, tags=()):
    """Token ids of a text in which special tokens have no meaning: each name is cut in two."""
    ids = []
    for part in special_names(tokenizer, tags).split(text):
        if special_names(tokenizer, tags).fullmatch(part):
            ids += encode(tokenizer, part[:1])
            part = part[1:]
        ids += encode(tokenizer, part) if part else []
    return ids


@lru_cache(maxsize=8)
def special_names(tokenizer, tags=()):
    """A pattern, with one group, of the names that must not appear in text."""
    names = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = sorted(names | set(tokenizer.all_special_tokens) | set(tags), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, filter(None, names)))})" if names else r"(\Z.)")


def encode_prompt(tokenizer, problem, system=MATH_PROMPT, thinking=False):
    """Token ids of the chat up to where the policy's answer begins.

    system: None for whatever the template has without one, which may be its own; "" for none.
    A template that knows no system role, and refuses it (Gemma, early Mistral) or drops it without
    a word, gets the system prompt at the head of the question. thinking: let a model think before
    it answers, where its template has a switch for that (enable_thinking). Raises ValueError if the
    template loses the question.
    """
    options = {"add_generation_prompt": True, "enable_thinking": thinking}
    messages = [{"role": "user", "content": problem}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        text = render(tokenizer, messages, **options)
    except TemplateError:
        text = ""
    if not text or not within(system or "", text):
        messages = [{"role": "user", "content": f"{system}\n\n{problem}" if system else problem}]
        text = render(tokenizer, messages, **options)
    for what, part in (("question", problem), ("system prompt", system or "")):
        if not within(part, text):
            raise ValueError(f"its chat template loses the {what}: name another model")
    if not any(special_names(tokenizer).search(one["content"]) for one in messages):
        return encode(tokenizer, text)

    # Render marks in the place of the texts, and put these between what is around them.
    marks = [f"[text {i} of {len(messages)}]" for i in range(len(messages))]
    contents = [one["content"] for one in messages]
    marked = [{**one, "content": mark} for one, mark in zip(messages, marks)]
    rest = render(tokenizer, marked, **options)
    ids = []
    for mark, content in zip(marks, contents):
        before, _, rest = rest.partition(mark)
        ids += encode(tokenizer, before) + as_characters(tokenizer, content.strip())
    return ids + encode(tokenizer, rest)


def within(part, text):
    """Does text hold part, however its white space was changed?"""
    return "".join(part.split()) in "".join(text.split())


def end_of_turn(tokenizer):
    """The id of the token that the chat template writes behind an assistant's turn; None if it is
    no special one, or there is no telling."""
    answer = "[answer]"
    turns = [{"role": "user", "content": "[question]"}, {"role": "assistant", "content": answer}]
    try:
        _, found, behind = render(tokenizer, turns).rpartition(answer)
    except (TemplateError, ValueError):
        return None
    [first, *_] = [*encode(tokenizer, behind.lstrip()), None]
    token = tokenizer.added_tokens_decoder.get(first)
    return first if found and token is not None and token.special else None
