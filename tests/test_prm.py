"""The PRM's incremental scores against a plain reading of whole dialogues."""

import math
import random
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from common import chat
from common.prm import BATCH_TOKENS, PACK_TOKENS, PRM, RLHFlow, Scorer, pack

PROBLEM = "Start with 12. Add 5, multiply by 2. What is the result?"
STEPS = ["## Step 1: Add 5\n$12+5=17$\n\n", "## Step 2: Multiply by 2\n$17\\times2=34$\n\n", "Therefore, the final answer is: $\\boxed{34}$. I hope it is correct."]
WRONG = ["## Step 1: Add 5\n$12+5=18$\n\n", "## Step 2: Multiply by 2\n$18\\times2=36$\n\n", "Therefore, the final answer is: $\\boxed{36}$. I hope it is correct."]


@cache
def whole_model(folder):
    """The checkpoint with its language model head, which scoring itself does without."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def full_score(prm, problem, steps) -> list[float]:
    """The published recipe word for word: the whole conversation, once for each step, softmax over "+" and "-"."""
    scores, conversation = [], []
    for i, step in enumerate(step.strip() for step in steps):
        conversation += [{"role": "user", "content": f"{problem} {step}" if i == 0 else step}, {"role": "assistant", "content": "+"}]
        ids = chat.encode(prm.tokenizer, chat.render(prm.tokenizer, conversation))
        plus, minus = prm.tokenizer.convert_tokens_to_ids(["+", "-"])
        assert ids[-2] == plus
        with torch.no_grad():
            logits = whole_model(prm.model.name_or_path)(torch.tensor([ids])).logits[0, -3]
        scores.append(logits[[plus, minus]].softmax(-1)[0].item())
    return scores


def test_step_by_step_equals_a_full_reading(pair):
    prm = pair[2]
    prm.start([PROBLEM])
    got, parents = [[], []], [0, 0]
    for steps in zip(STEPS, WRONG):
        for scores, new in zip(got, prm.score(parents, list(steps))):
            scores += new
        parents = [0, 1]
    assert got[0] == pytest.approx(full_score(prm, PROBLEM, STEPS), abs=1e-4)
    assert got[1] == pytest.approx(full_score(prm, PROBLEM, WRONG), abs=1e-4)


def test_a_whole_solution_at_once_equals_step_by_step(pair):
    prm = pair[2]
    prm.start([PROBLEM])
    once = prm.score([0, 0], ["".join(STEPS), "".join(WRONG)])
    assert once[0] == pytest.approx(full_score(prm, PROBLEM, STEPS), abs=1e-4)
    assert once[1] == pytest.approx(full_score(prm, PROBLEM, WRONG), abs=1e-4)


def test_random_trees(pair):
    """Children dropped, repeated and reordered, of ragged lengths, some without a step."""
    prm, rng = pair[2], random.Random(0)
    for _ in range(5):
        prm.start([PROBLEM])
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
    prm.start([PROBLEM])
    with_end, without = prm.score([0, 0], ["".join(STEPS) + "\n\n", "".join(STEPS)])
    assert len(with_end) == 3 and with_end == pytest.approx(without, abs=1e-5)


def test_peek_leaves_no_trace(pair):
    prm = pair[2]
    expected = full_score(prm, PROBLEM, STEPS)
    prm.start([PROBLEM])
    prm.score([0, 0], [WRONG[0], STEPS[0]])
    pool = list(prm.pool)
    ahead = prm.peek([WRONG[1], STEPS[1] + STEPS[2]])
    assert all(before is after for before, after in zip(pool, prm.pool, strict=True))  # nor is the cache copied for it
    assert ahead[1] == pytest.approx(expected[1:], abs=1e-4) and len(ahead[0]) == 1
    assert prm.score([1], [STEPS[1]])[0] == pytest.approx(expected[1:2], abs=1e-4)


def test_a_score_does_not_depend_on_its_siblings(pair):
    prm = pair[2]
    prm.start([PROBLEM])
    alone = prm.score([0], [STEPS[0]])[0]
    prm.start([PROBLEM])
    crowd = prm.score([0] * 40, [WRONG[0]] * 39 + [STEPS[0]])[-1]  # several rows of packed siblings
    assert crowd == pytest.approx(alone, abs=1e-5)


def test_a_step_beyond_the_context_has_no_score(pair, monkeypatch):
    prm = pair[2]
    prm.start([PROBLEM])
    whole = prm.score([0], ["".join(STEPS)])[0]
    monkeypatch.setattr(prm, "context", len(prm.family.opening(PROBLEM)) + len(prm.family.turn(STEPS[0].strip(), 1)))
    prm.start([PROBLEM])
    short = prm.score([0], ["".join(STEPS)])[0]
    assert short[0] == whole[0] and all(math.isnan(score) for score in short[1:])
    monkeypatch.setattr(prm, "context", prm.context - 1)
    prm.start([PROBLEM])
    assert all(math.isnan(score) for score in prm.score([0], ["".join(STEPS)])[0])


def test_several_problems_at_once(pair):
    """Prefixes of different length side by side, and children that change their order: as if each problem were alone."""
    prm = pair[2]
    problems = [PROBLEM, "Evaluate $7\\times3$.", "Mia has 12 coins. " * 20 + "How many coins does Mia have at the end?"]
    prm.start(problems)
    first = prm.score([2, 0, 1, 0], [STEPS[0], WRONG[0], STEPS[0], STEPS[0]])
    second = prm.score([3, 0, 2, 1, 2], [STEPS[1], STEPS[1] + STEPS[2], WRONG[1], WRONG[1], "\n\n"])
    paths = [(2, STEPS[:1]), (0, WRONG[:1]), (1, STEPS[:1]), (0, STEPS[:1])]
    for (problem, steps), scores in zip(paths, first):
        assert scores == pytest.approx(full_score(prm, problems[problem], steps), abs=1e-4)
    for parent, new, scores in zip([3, 0, 2, 1], [STEPS[1:2], STEPS[1:], WRONG[1:2], WRONG[1:2]], second):
        problem, steps = paths[parent]
        assert scores == pytest.approx(full_score(prm, problems[problem], steps + new)[1:], abs=1e-4)
    assert second[4] == []


def test_out_of_memory_halves_the_batch_and_changes_no_score(pair, monkeypatch):
    """Stands in for a GPU: more than two rows at a time are too many. Every call gets through, with the same scores."""
    prm, sizes, rng = pair[2], [], random.Random(4)

    def memory(_, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError

    calls = [([0] * 3, STEPS)]
    for _ in range(3):
        parents = [rng.randrange(len(calls[-1][0])) for _ in range(40)]
        calls.append((parents, [rng.choice([*STEPS, *WRONG, ""]) for _ in parents]))

    def run():
        prm.start([PROBLEM, "Evaluate $7\\times3$."])
        return [scores for call in calls for scores in prm.score(*call)] + prm.peek([STEPS[2]] * 40)

    expected, handle = run(), prm.model.register_forward_pre_hook(memory)
    try:
        assert all(got == pytest.approx(want, abs=1e-5) for got, want in zip(run(), expected, strict=True))
    finally:
        handle.remove()
    assert max(sizes) > 8 and sizes.count(2) > 8
    monkeypatch.setattr(prm, "_rows_at_once", lambda R, T, L: min(R, 3))  # what a GPU's estimate would do
    assert all(got == pytest.approx(want, abs=1e-5) for got, want in zip(run(), expected, strict=True))


@pytest.mark.parametrize("gigabytes, rows", [(10, 35), (100, 64), (0.1, 1)])
def test_the_estimate_for_a_gpu(monkeypatch, gigabytes, rows):
    """64 rows of 500 tokens behind 500 of prefix through Llama-3.1-8B in bfloat16: 0.22 GB each, added up by hand.

    1000 slots x (65,536 numbers in the caches, 8,192 in repeated heads, 500 of mask) + 500 x (8 x 4096 + 3 x 14,336)."""
    config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
                         head_dim=128, attn_implementation="sdpa")
    prm = PRM(SimpleNamespace(config=config, device=torch.device("cuda"), dtype=torch.bfloat16), None, None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gigabytes * 1e9 - 1e9, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3e9)  # 1 GB of it in the allocator's hands but unused
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2e9)
    assert prm._rows_at_once(64, 500, 500) == rows


def test_a_row_that_does_not_fit_alone_is_an_error(pair):
    prm = pair[2]

    def memory(*_):
        raise torch.cuda.OutOfMemoryError("full")

    handle = prm.model.register_forward_pre_hook(memory)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError, match="full"):
            prm.start([PROBLEM])
    finally:
        handle.remove()


def test_what_children_share_is_stored_once(pair):
    """40 children of one parent, then some of their children: of each a slot for every token, and of what is dropped none."""
    prm = pair[2]
    slots = lambda: {len(kv) for layer in prm.pool for kv in layer}
    prm.start([PROBLEM])
    opening, turn = len(prm.family.opening(PROBLEM)), [len(prm.family.turn(step.strip(), i)) for i, step in enumerate(STEPS, 1)]
    assert slots() == {opening}
    prm.score([0] * 40, [STEPS[0]] * 40)
    assert slots() == {opening + 40 * turn[0]}
    prm.score([7, 7, 3], [STEPS[1]] * 3)
    assert slots() == {opening + 2 * turn[0] + 3 * turn[1]}
    prm.score([2, 2], [STEPS[2], ""])
    assert slots() == {opening + turn[0] + turn[1] + turn[2]}
    assert (prm.slots >= 0).sum(1).tolist() == [opening + sum(turn), opening + turn[0] + turn[1]]


def test_children_that_are_not_kept_have_the_same_scores_and_no_children(pair):
    prm = pair[2]
    prm.start([PROBLEM])
    kept = prm.score([0] * 3, STEPS)
    prm.start([PROBLEM])
    opening = len(prm.pool[0][0])
    assert prm.score([0] * 3, STEPS, keep=False) == kept and len(prm.pool[0][0]) == opening
    with pytest.raises(IndexError):
        prm.score([0], [STEPS[1]])


def test_short_rows_are_not_padded_to_the_longest(pair):
    """Steps of 1 to 64 sentences: hardly more goes through the model than there is, and children go on from all of them.

    Steps that differ by less than another batch costs are one batch."""
    prm, batches = pair[2], []
    uneven, even = ["Add 5. " * 2 ** i for i in range(7)], ["Add 5. " * i for i in range(1, 8)]
    handle = prm.model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].numel()))
    try:
        prm.start([PROBLEM] * 7)
        batches.clear()
        first = prm.score(list(range(7)), uneven)
        assert len(batches) > 1 and sum(batches) <= sum(len(prm.family.turn(step.strip(), 1)) for step in uneven) + len(batches) * BATCH_TOKENS
        batches.clear()
        second = prm.score([6, 0, 3, 5, 1, 4, 2], even)
        assert len(batches) == 1
    finally:
        handle.remove()
    for i, step, scores in zip([6, 0, 3, 5, 1, 4, 2], even, second):
        assert first[i] + scores == pytest.approx(full_score(prm, PROBLEM, [uneven[i], step]), abs=1e-4)


def test_pack_keeps_families_together_and_rows_short():
    rng = random.Random(1)
    for _ in range(300):
        parents = [rng.randrange(6) for _ in range(rng.randint(1, 40))]
        segments = [[0] * rng.choice([0, 1, 30, 700]) for _ in parents]
        rows = pack(parents, segments)
        assert sorted(c for _, children in rows for c in children) == list(range(len(parents)))
        lengths = [sum(len(segments[c]) for c in children) for _, children in rows]
        assert lengths == sorted(lengths, reverse=True)
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
    prm.start([PROBLEM])
    prm.score([0], [STEPS[0]])
    prm.score([0], [STEPS[1]])
    handle.remove()
    assert seen == whole[:-2] and seen.count(prm.tokenizer.bos_token_id) == 1  # all but the last "+" and its end


def test_a_tokenizer_that_joins_tokens_over_the_edge_of_a_turn_is_refused(pair):
    _, tokenizer, prm = pair
    joined = type(tokenizer)(tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), bos_token=tokenizer.bos_token,
                             chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    RLHFlow(joined, prm.model, None)  # strange, but sound
    joined.add_tokens("Add+")
    with pytest.raises(ValueError, match="single tokens"):
        RLHFlow(joined, prm.model, None)


def test_any_function_in_a_prms_place():
    asked = []
    judge = Scorer(lambda problem, steps: asked.append((problem, *steps)) or len(steps) / 10)
    judge.start(["p", "q"])
    assert judge.score([1, 0, 1], ["a\n\n", "b\n\nc", " \n"]) == [[0.1], [0.1, 0.2], []]
    assert asked == [("q", "a"), ("p", "b"), ("p", "b", "c")]
    assert judge.peek(["x", "", "y"]) == [[0.2], [], [0.1]] and asked[3:] == [("q", "a", "x"), ("q", "y")]
    assert judge.score([1, 0], ["d", "e"]) == [[0.3], [0.2]] and asked[5:] == [("p", "b", "c", "d"), ("q", "a", "e")]
