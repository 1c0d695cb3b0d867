r"""From a problem to the token ids of a chat prompt.

Chat templates have three habits that break a step-by-step search, all silently:

- Llama 3's trims the content of every message. A search that hands it an unfinished answer loses
  the "\n\n" which ends its last step, and the policy writes that separator, or an empty step, again
  and again. Here the template only ever sees the question. What has been written so far stays as it
  is: token ids behind the prompt's.
- They write the BOS token, and so does the tokenizer when it encodes their text: two of them. Here
  only the template does.
- Llama 3.2's writes today's date into the prompt, so that a run changes by the day. Here the date
  is fixed.
"""

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


def encode_prompt(tokenizer, problem, system=MATH_PROMPT):
    """Token ids of the chat up to where the policy's answer begins.

    A template that knows no system role, and refuses it (Gemma, early Mistral) or drops it without
    a word, gets the system prompt at the head of the question.
    """
    messages = [{"role": "system", "content": system}, {"role": "user", "content": problem}]
    try:
        text = render(tokenizer, messages, add_generation_prompt=True)
    except TemplateError:
        text = ""
    if system not in text:
        messages = [{"role": "user", "content": f"{system}\n\n{problem}"}]
        text = render(tokenizer, messages, add_generation_prompt=True)
    return encode(tokenizer, text)
