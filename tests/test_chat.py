"""The prompt: what the template must not do to it."""

import re

import pytest

from common import chat


def ids_and_text(tokenizer, *args):
    ids = chat.encode_prompt(tokenizer, *args)
    return ids, tokenizer.decode(ids)


def test_one_bos(pair):
    _, tokenizer, _ = pair
    ids, _ = ids_and_text(tokenizer, "What is 1 + 1?", "## Step 1: Add 1\n$1+1=2$\n\n")
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id


def test_a_continued_answer_keeps_the_end_of_its_step(pair):
    _, tokenizer, _ = pair
    answer = "## Step 1: Add 1\n$1+1=2$\n\n"
    ids, text = ids_and_text(tokenizer, "What is 1 + 1?", answer)
    assert text.endswith("assistant<|end_header_id|>\n\n" + answer)
    # The template itself would have trimmed it: this is what the test is about.
    trimmed = tokenizer.apply_chat_template([{"role": "assistant", "content": answer}], tokenize=False)
    assert answer not in trimmed
    # ... and the ids of two steps are those of one, continued.
    two = chat.encode_prompt(tokenizer, "What is 1 + 1?", answer + "Therefore")
    assert two[: len(ids)] == ids and tokenizer.decode(two[len(ids):]) == "Therefore"


def test_the_date_is_fixed(pair):
    _, tokenizer, _ = pair
    for template in [tokenizer.chat_template, "{{ strftime_now('%d %b %Y') if date_string is not defined else date_string }}"]:
        clock = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, bos_token=tokenizer.bos_token, chat_template=template)
        assert re.findall(r"\d\d \w{3} \d{4}", chat.render(clock, [{"role": "user", "content": "?"}])) == [chat.DATE]


def test_a_template_without_a_system_role_gets_the_prompt_in_the_question(pair):
    _, tokenizer, _ = pair
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m['role'] }}]{{ m['content'] | trim }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    plain = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, bos_token=tokenizer.bos_token, chat_template=template)
    _, text = ids_and_text(plain, "What is 1 + 1?")
    assert text == f"<|begin_of_text|>[user]{chat.MATH_PROMPT}\n\nWhat is 1 + 1?[assistant]"


def test_a_model_without_a_template_is_refused(pair):
    _, tokenizer, _ = pair
    base = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="no chat template"):
        chat.encode_prompt(base, "What is 1 + 1?")
