"""The PRM's incremental scores against a plain reading of whole dialogues."""

import math
import random

import pytest
import torch
from tokenizers import Tokenizer

from common import chat
from common.prm import PACK_TOKENS, PlusMinusPRM, pack

PROBLEM = "Start with 12. Add 5, multiply by 2. What is the result?"
STEPS = ["## Step 1: Add 5\n$12+5=17$\n\n", "## Step 2: Multiply by 2\n$17\\times2=34$\n\n", "Therefore, the final answer is: $\\boxed{34}$. I hope it is correct."]
WRONG = ["## Step 1: Add 5\n$12+5=18$\n\n", "## Step 2: Multiply by 2\n$18\\times2=36$\n\n", "Therefore, the final answer is: $\\boxed{36}$. I hope it is correct."]


def full_score(prm, problem, steps) -> list[float]:
    """The published recipe word for word: the whole conversation, once for each step, softmax over "+" and "-"."""
    scores, conversation = [], []
    for i, step in enumerate(step.strip() for step in steps):
        conversation += [{"role": "user", "content": f"{problem} {step}" if i == 0 else step}, {"role": "assistant", "content": "+"}]
        ids = chat.encode(prm.tokenizer, chat.render(prm.tokenizer, conversation))
        plus, minus = prm.tokenizer.convert_tokens_to_ids(["+", "-"])
        assert ids[-2] == plus
        with torch.no_grad():
            logits = prm.model(torch.tensor([ids])).logits[0, -3]
        scores.append(logits[[plus, minus]].softmax(-1)[0].item())
    return scores


def test_step_by_step_equals_a_full_reading(pair):
    prm = pair[2]
    prm.start(PROBLEM)
    got, parents = [[], []], [0, 0]
    for steps in zip(STEPS, WRONG):
        for scores, new in zip(got, prm.score(parents, list(steps))):
            scores += new
        parents = [0, 1]
    assert got[0] == pytest.approx(full_score(prm, PROBLEM, STEPS), abs=1e-4)
    assert got[1] == pytest.approx(full_score(prm, PROBLEM, WRONG), abs=1e-4)


def test_a_whole_solution_at_once_equals_step_by_step(pair):
    prm = pair[2]
    prm.start(PROBLEM)
    once = prm.score([0, 0], ["".join(STEPS), "".join(WRONG)])
    assert once[0] == pytest.approx(full_score(prm, PROBLEM, STEPS), abs=1e-4)
    assert once[1] == pytest.approx(full_score(prm, PROBLEM, WRONG), abs=1e-4)


def test_random_trees(pair):
    """Children dropped, repeated and reordered, of ragged lengths, some without a step."""
    prm, rng = pair[2], random.Random(0)
    for _ in range(5):
        prm.start(PROBLEM)
        paths = [[]]
        for _ in range(4):
            parents = [rng.randrange(len(paths)) for _ in range(rng.randint(1, 9))]
            texts = [rng.choice([*STEPS, *WRONG, "\n\n", "", "one\n\ntwo\n\n"]) for _ in parents]
            scores = prm.score(parents, texts)
            paths = [paths[p] + [step for step in text.split("\n\n") if step] for p, text in zip(parents, texts)]
            for path, text, new in zip(paths, texts, scores):
                expected = full_score(prm, PROBLEM, path)
                assert new == pytest.approx(expected[len(path) - len([s for s in text.split("\n\n") if s]):], abs=1e-4)


def test_an_empty_last_step_has_no_score(pair):
    prm = pair[2]
    prm.start(PROBLEM)
    with_end, without = prm.score([0, 0], ["".join(STEPS) + "\n\n", "".join(STEPS)])
    assert len(with_end) == 3 and with_end == pytest.approx(without, abs=1e-5)


def test_peek_leaves_no_trace(pair):
    prm = pair[2]
    expected = full_score(prm, PROBLEM, STEPS)
    prm.start(PROBLEM)
    prm.score([0, 0], [WRONG[0], STEPS[0]])
    ahead = prm.peek([WRONG[1], STEPS[1] + STEPS[2]])
    assert ahead[1] == pytest.approx(expected[1:], abs=1e-4) and len(ahead[0]) == 1
    assert prm.score([1], [STEPS[1]])[0] == pytest.approx(expected[1:2], abs=1e-4)


def test_a_score_does_not_depend_on_its_siblings(pair):
    prm = pair[2]
    prm.start(PROBLEM)
    alone = prm.score([0], [STEPS[0]])[0]
    prm.start(PROBLEM)
    crowd = prm.score([0] * 40, [WRONG[0]] * 39 + [STEPS[0]])[-1]  # several rows of packed siblings
    assert crowd == pytest.approx(alone, abs=1e-5)


def test_a_step_beyond_the_context_has_no_score(pair, monkeypatch):
    prm = pair[2]
    prm.start(PROBLEM)
    whole = prm.score([0], ["".join(STEPS)])[0]
    room = len(chat.encode(prm.tokenizer, prm.opening + PROBLEM)) + len(prm._turn(STEPS[0].strip(), first=True))
    monkeypatch.setattr(prm.model.config, "max_position_embeddings", room)
    prm.start(PROBLEM)
    short = prm.score([0], ["".join(STEPS)])[0]
    assert short[0] == whole[0] and all(math.isnan(score) for score in short[1:])


def test_pack_keeps_families_together_and_rows_short():
    rng = random.Random(1)
    for _ in range(300):
        parents = [rng.randrange(6) for _ in range(rng.randint(1, 40))]
        segments = [[0] * rng.choice([0, 1, 30, 700]) for _ in parents]
        rows = pack(parents, segments)
        assert sorted(c for _, children in rows for c in children) == list(range(len(parents)))
        for parent, children in rows:
            assert children and all(parents[c] == parent for c in children)
            assert len(children) == 1 or sum(len(segments[c]) for c in children) <= max(PACK_TOKENS, *map(len, segments))


def test_problem_and_template_as_published(pair):
    """What goes in is the template's own conversation, token by token, with one BOS."""
    prm = pair[2]
    conversation = [
        {"role": "user", "content": f"{PROBLEM} {STEPS[0].strip()}"}, {"role": "assistant", "content": "+"},
        {"role": "user", "content": STEPS[1].strip()}, {"role": "assistant", "content": "+"},
    ]
    whole = chat.encode(prm.tokenizer, chat.render(prm.tokenizer, conversation))
    seen = []
    handle = prm.model.base_model.register_forward_pre_hook(
        lambda _, inputs, kwargs: seen.extend((inputs[0] if inputs else kwargs["input_ids"])[0].tolist()), with_kwargs=True
    )
    prm.start(PROBLEM)
    prm.score([0], [STEPS[0]])
    prm.score([0], [STEPS[1]])
    handle.remove()
    assert seen == whole[:-2] and seen.count(prm.tokenizer.bos_token_id) == 1  # all but the last "+" and its end


def test_a_tokenizer_that_joins_tokens_over_the_edge_of_a_turn_is_refused(pair):
    _, tokenizer, prm = pair
    joined = type(tokenizer)(tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), bos_token=tokenizer.bos_token,
                             chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    PlusMinusPRM(prm.model, joined)  # strange, but sound
    joined.add_tokens("Add+")
    with pytest.raises(ValueError, match="single tokens"):
        PlusMinusPRM(prm.model, joined)
