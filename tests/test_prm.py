"""The PRM's incremental scores against a plain reading of whole dialogues."""

import math
import random

import pytest
import torch
from naive import full_score
from tokenizers import Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

import beam
from common import chat
from common.families import RLHFlow
from common.prm import BATCH_TOKENS, Scorer, alike, split_steps

PROBLEM = "Start with 12. Add 5, multiply by 2. What is the result?"
OTHER = "Evaluate $7\\times3$."
STEPS = [
    "## Step 1: Add 5\n$12+5=17$\n\n",
    "## Step 2: Multiply by 2\n$17\\times2=34$\n\n",
    "Therefore, the final answer is: $\\boxed{34}$. I hope it is correct.",
]
WRONG = [
    "## Step 1: Add 5\n$12+5=18$\n\n",
    "## Step 2: Multiply by 2\n$18\\times2=36$\n\n",
    "Therefore, the final answer is: $\\boxed{36}$. I hope it is correct.",
]


def roots_of(prm, *problems):
    roots = [beam.Node(None, i, 9, text=problem) for i, problem in enumerate(problems)]
    prm.read_problems(roots)
    return roots


def scored(prm, *parents_and_texts, separator="\n\n"):
    """The children of these parents with these texts, scored."""
    children = [
        beam.Node(parent, parent.problem, 9, text=text) for parent, text in parents_and_texts
    ]
    prm.score(children, separator)
    return children


def test_step_by_step_equals_a_full_reading(pair):
    prm = pair[2]
    heads = roots_of(prm, PROBLEM) * 2
    for right, wrong in zip(STEPS, WRONG):
        heads = scored(prm, (heads[0], right), (heads[1], wrong))
    for head, steps in zip(heads, (STEPS, WRONG)):
        assert head.all_scores() == pytest.approx(full_score(prm, PROBLEM, steps), abs=1e-4)


def test_a_whole_solution_at_once_equals_step_by_step(pair):
    prm = pair[2]
    [root] = roots_of(prm, PROBLEM)
    once = scored(prm, (root, "".join(STEPS)), (root, "".join(WRONG)))
    for child, steps in zip(once, (STEPS, WRONG)):
        assert child.scores == pytest.approx(full_score(prm, PROBLEM, steps), abs=1e-4)


def test_random_trees_of_two_problems_interleaved(pair):
    """Nodes dropped, repeated and reordered, of ragged lengths, some without a step, of two trees
    at once. The PRM has no state: it does not matter what it has read in between.
    """
    prm = pair[2]
    rng = random.Random(0)
    texts = [*STEPS, *WRONG, "\n\n", "", "one\n\ntwo\n\n"]
    for _ in range(4):
        nodes = roots_of(prm, PROBLEM, OTHER)
        for _ in range(4):
            parents = [rng.choice(nodes) for _ in range(rng.randint(1, 9))]
            before = dict(vars(prm))
            new = scored(prm, *[(parent, rng.choice(texts)) for parent in parents])
            assert vars(prm) == before
            nodes += new
        for node in rng.sample(nodes, 6):
            root, *steps = node.path()
            whole = "".join(f"{step.text}\n\n" for step in steps)
            whole = [step for step in whole.split("\n\n") if step.strip()]
            assert node.all_scores() == pytest.approx(full_score(prm, root.text, whole), abs=1e-4)


def test_an_empty_last_step_has_no_score(pair):
    prm = pair[2]
    [root] = roots_of(prm, PROBLEM)
    with_end, without = scored(prm, (root, "".join(STEPS) + "\n\n"), (root, "".join(STEPS)))
    assert len(with_end.scores) == 3
    assert with_end.scores == pytest.approx(without.scores, abs=1e-5)


def test_a_score_does_not_depend_on_its_siblings(pair):
    prm = pair[2]
    [root] = roots_of(prm, PROBLEM)
    [alone] = scored(prm, (root, STEPS[0]))
    *_, crowd = scored(prm, *[(root, WRONG[0])] * 39, (root, STEPS[0]))
    assert crowd.scores == pytest.approx(alone.scores, abs=1e-5)


def test_a_step_beyond_the_context_has_no_score(pair, monkeypatch):
    prm = pair[2]
    [root] = roots_of(prm, PROBLEM)
    [whole] = scored(prm, (root, "".join(STEPS)))
    opening = prm.family.opening(PROBLEM)
    turn = prm.family.turn(STEPS[0].strip(), 1)
    monkeypatch.setattr(prm, "context", len(opening) + len(turn))
    [short] = scored(prm, (root, "".join(STEPS)))
    assert short.scores[0] == pytest.approx(whole.scores[0], abs=1e-6)
    assert all(math.isnan(score) for score in short.scores[1:])
    monkeypatch.setattr(prm, "context", prm.context - 1)
    [none] = scored(prm, (root, "".join(STEPS)))
    assert all(math.isnan(score) for score in none.scores)


def test_the_context_is_what_the_model_sees(pair):
    """The window of attention where there is one; no limit where the config names none."""
    _, tokenizer, prm = pair

    class Model:
        class config:
            max_position_embeddings = 4096
            sliding_window = 1024

    again = type(prm)(Model, tokenizer, prm.family)
    assert again.context == 1024
    del Model.config.sliding_window
    assert type(prm)(Model, tokenizer, prm.family).context == 4096
    del Model.config.max_position_embeddings
    assert type(prm)(Model, tokenizer, prm.family).context == math.inf


def test_a_node_keeps_what_can_be_continued(pair):
    """Keys and values of its own tokens, and none where it has ended."""
    prm = pair[2]
    [root] = roots_of(prm, PROBLEM)
    assert root.prm_kv.shape[3] == len(prm.family.opening(PROBLEM))
    going_on = beam.Node(root, 0, 9, text=STEPS[0])
    finished = beam.Node(root, 0, 9, text=STEPS[0], finished=True)
    cut = beam.Node(root, 0, 0, text=STEPS[0])
    blank = beam.Node(root, 0, 9, text="\n\n")
    prm.score([going_on, finished, cut, blank], "\n\n")
    assert going_on.prm_kv.shape[3] == len(prm.family.turn(STEPS[0].strip(), 1))
    assert finished.prm_kv is cut.prm_kv is blank.prm_kv is None
    assert len(finished.scores) == len(cut.scores) == 1 and blank.scores == []


def test_out_of_memory_halves_the_batch_and_changes_no_score(pair):
    """Stands in for a GPU: more than two rows at a time are too many."""
    prm = pair[2]
    rng = random.Random(4)
    sizes = []

    def memory(_, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError

    texts = [rng.choice([*STEPS, *WRONG, ""]) for _ in range(40)]

    def run():
        roots = roots_of(prm, PROBLEM, OTHER)
        first = scored(prm, *[(root, step) for root in roots for step in STEPS])
        return scored(prm, *[(first[i % 6], text) for i, text in enumerate(texts)])

    expected = run()
    hook = prm.model.register_forward_pre_hook(memory)
    try:
        for got, want in zip(run(), expected, strict=True):
            assert got.scores == pytest.approx(want.scores, abs=1e-5)
        assert max(sizes) == 6 and prm.model.rows_at_once == 1  # 6, 3, 1: nothing fails twice
    finally:
        hook.remove()
        del prm.model.rows_at_once


def test_a_row_that_does_not_fit_alone_is_an_error(pair):
    prm = pair[2]

    def memory(*_):
        raise torch.cuda.OutOfMemoryError("full")

    hook = prm.model.register_forward_pre_hook(memory)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError, match="full"):
            roots_of(prm, PROBLEM)
    finally:
        hook.remove()


def test_paths_are_laid_out_in_as_few_launches_whatever_their_number_and_length(pair):
    """On a GPU the host launches each of them: four in a layer, not one for each step of a row."""
    prm = pair[2]
    layer = prm.model.config.num_hidden_layers
    nodes = roots_of(prm, PROBLEM)
    counts = []
    for rows in (1, 8, 16):
        with Launches() as launches:
            nodes = scored(prm, *[(nodes[row % len(nodes)], STEPS[0]) for row in range(rows)])
        # Of each row: its places, on the host, and what its node keeps.
        counts.append(launches.count - 2 * rows)
    assert max(counts) - min(counts) < layer


class Launches(TorchDispatchMode):
    """Counts the operators that compute or move something."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def test_short_rows_are_not_padded_to_the_longest(pair):
    """Steps of 1 to 64 sentences: hardly more goes through the model than there is. Steps that
    differ by less than another batch costs are one batch."""
    prm = pair[2]
    uneven = ["Add 5. " * 2**i for i in range(7)]
    even = ["Add 5. " * i for i in range(1, 8)]
    [root] = roots_of(prm, PROBLEM)
    batches = []
    hook = prm.model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].numel()))
    try:
        first = scored(prm, *[(root, text) for text in uneven])
        needed = sum(len(prm.family.turn(text.strip(), 1)) for text in uneven)
        assert len(batches) > 1 and sum(batches) <= needed + len(batches) * BATCH_TOKENS
        batches.clear()
        second = scored(prm, *[(first[i], text) for i, text in zip([6, 0, 3, 5, 1, 4, 2], even)])
        assert len(batches) == 1
    finally:
        hook.remove()
    for node in second:
        steps = [step.text for step in node.path()[1:]]
        assert node.all_scores() == pytest.approx(full_score(prm, PROBLEM, steps), abs=1e-4)


def test_alike():
    assert alike([5]) == 1 and alike([100, 100, 90]) == 3
    assert alike([BATCH_TOKENS + 2, 1, 1]) == 1
    assert alike([100, 60, 20, 10]) == 3  # 0 + 40 + 80 tokens of padding are fewer than 128


def test_problem_and_template_as_published(pair):
    """What goes in is the template's own conversation, token by token, with one BOS."""
    prm = pair[2]
    contents = [f"{PROBLEM} {STEPS[0].strip()}", "+", STEPS[1].strip(), "+"]
    roles = ["user", "assistant"] * 2
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents)]
    whole = chat.encode(prm.tokenizer, chat.render(prm.tokenizer, messages))
    seen = []
    hook = prm.model.register_forward_pre_hook(lambda _, given: seen.extend(given[0][0].tolist()))
    [root] = roots_of(prm, PROBLEM)
    [first] = scored(prm, (root, STEPS[0]))
    scored(prm, (first, STEPS[1]))
    hook.remove()
    assert seen == whole[:-2]  # all but the last "+" and its end
    assert seen.count(prm.tokenizer.bos_token_id) == 1


def test_a_tokenizer_that_joins_tokens_over_the_edge_of_a_turn_is_refused(pair):
    _, tokenizer, prm = pair
    joined = type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token=tokenizer.bos_token,
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )
    RLHFlow(joined)  # strange, but sound
    joined.add_tokens("Add+")
    with pytest.raises(ValueError, match="single tokens"):
        RLHFlow(joined)


# --- steps, and any function in a PRM's place -----------------------------------------------------


def test_steps_are_what_the_separator_parts():
    node = beam.Node(None, 0, 9, text="a\n b\n\n\n  c")
    assert split_steps(node, "\n\n") == ["a\n b\n\n", "\n  c"]
    assert split_steps(node, "\n") == ["a\n", " b\n", "\n", "\n", "  c"]
    node.steps = ["a\n b", "\n\n\n  c"]
    assert split_steps(node, lambda tokens: False) == node.steps
    for separator in ("\n\n", "\n", "x", len):
        assert "".join(split_steps(node, separator)) == node.text


def test_a_function_is_asked_about_many_at_once_with_texts_as_they_were_written():
    asked = []

    def score(pairs):
        asked.append(pairs)
        return [len(solution) / 20 for _, solution in pairs]

    judge = Scorer(score)
    p, q = roots_of(judge, "p", "q")
    first = scored(judge, (q, " a\n\n"), (p, "  b\n\n    c"), (q, " \n"))
    assert asked == [[("q", " a\n\n"), ("p", "  b\n\n"), ("p", "  b\n\n    c")]]
    assert [child.scores for child in first] == [[0.2], [0.25, 0.5], []]
    scored(judge, (first[1], "d"), (first[0], "e"))
    assert asked[1] == [("p", "  b\n\n    cd"), ("q", " a\n\ne")]
    scored(judge, (first[0], "\n"))  # nothing to ask
    assert len(asked) == 2


@pytest.mark.parametrize(
    "scores, words",
    [
        ([0.5], "1 scores of 2"),
        ([0.5] * 3, "3 scores of 2"),
        ([0.5, 1.5], "returned 1.5"),
        (0.5, "a list of numbers, not 0.5"),
        (None, "a list of numbers, not None"),
        ([0.5, None], "a list of numbers, not .0.5, None"),
        (["high", 0.5], "a list of numbers"),
    ],
)
def test_a_function_that_answers_wrongly_is_an_error(scores, words):
    judge = Scorer(lambda pairs: scores)
    [root] = roots_of(judge, "p")
    with pytest.raises(ValueError, match=words):
        scored(judge, (root, "a\n\nb"))


def test_a_problem_that_was_not_read_is_an_error(pair):
    root = beam.Node(None, 0, 9, text=PROBLEM)
    with pytest.raises(ValueError, match="read_problems"):
        scored(pair[2], (root, STEPS[0]))


def test_the_separator_reaches_the_prm(pair):
    """A whole solution, line by line: by a string, and by a function that found the same steps."""
    prm = pair[2]
    [root] = roots_of(prm, PROBLEM)
    text = "".join(STEPS)
    [by_string] = scored(prm, (root, text), separator="\n")
    lines = [line for line in text.split("\n") if line]
    assert by_string.scores == pytest.approx(full_score(prm, PROBLEM, lines), abs=1e-4)
    child = beam.Node(root, 0, 9, text=text, steps=split_steps(by_string, "\n"))
    prm.score([child], lambda tokens: False)
    assert child.scores == pytest.approx(by_string.scores, abs=1e-5)
