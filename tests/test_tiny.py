"""The bundled pair: its task, and that its folders hold what tiny/train.py makes."""

import json
import random
import subprocess
import sys
from fractions import Fraction

import pytest
from conftest import ROOT

import beam
from common import chat, grading
from tiny import task
from tiny.tokenizer import build_tokenizer
from tiny.train import (
    corrupt,
    training_problem,
    write_problems,
)
from tiny.train import (
    test_problems as make_test_problems,
)

CHAIN = task.Problem(
    [("+", 12), ("*", 2), ("/", 8)], [Fraction(v) for v in (34, 46, 92)] + [Fraction(23, 2)], ""
)


@pytest.mark.parametrize(
    "steps, labels",
    [
        (
            [
                "## Step 1: Add 12\n$34+12=46$",
                "## Step 2: Multiply by 2\n$46\\times2=92$",
                "## Step 3: Divide by 8\n$92\\div8=11.5$",
                "Therefore, the final answer is: $\\boxed{\\frac{23}{2}}$. I hope it is correct.",
            ],
            [True] * 4,
        ),
        (
            ["## Step 1: Add 12\n$34+12=47$", "## Step 2: Multiply by 2\n$46\\times2=92$"],
            [False, False],
        ),  # never right again
        (
            ["## Step 1: Add 12\n$34+12=46$", "## Step 2: Multiply by 3\n$46\\times3=138$"],
            [True, False],
        ),
        (
            [
                "## Step 1: Add 12\n$34+12=46$",
                "Therefore, the final answer is: $\\boxed{46}$. I hope it is correct.",
            ],
            [True, False],
        ),
        (["## Step 2: Add 12\n$34+12=46$"], [False]),
    ],
)
def test_labels(steps, labels):
    assert task.label_steps(CHAIN, steps) == labels


def test_problems_are_what_they_say():
    rng, corrupted = random.Random(0), 0
    for _ in range(500):
        problem = task.make_problem(rng)
        assert (
            2 <= len(problem.operations) <= 8
            and problem.level == task.LEVEL[len(problem.operations)]
        )
        value = problem.values[0]
        for (sign, operand), after in zip(problem.operations, problem.values[1:]):
            value = task.calculate(value, sign, operand)
            assert value == after and 0 < value <= task.LARGEST
        steps = task.write_solution(rng, problem)
        assert all(task.label_steps(problem, steps))
        corrupted += not all(task.label_steps(problem, corrupt(rng, problem)))
        forms = task.ways_to_write(problem.answer)
        value = f"{problem.answer.numerator}/{problem.answer.denominator}"
        assert all(grading.is_correct(form, value) for form in forms)
    assert 480 < corrupted < 500  # now and then an operation is replaced by itself


def test_the_bundled_problems_are_held_out(tmp_path):
    problems = make_test_problems(0)
    write_problems(problems, tmp_path / "problems.jsonl")
    assert (tmp_path / "problems.jsonl").read_bytes() == (ROOT / "tiny/problems.jsonl").read_bytes()
    texts = {problem.text for problem in problems}
    assert len(texts) == len(problems) == 500
    rng = random.Random(0)
    assert not any(
        training_problem(rng, texts, group=1, length=1).text in texts for _ in range(3000)
    )
    rows = [json.loads(line) for line in (ROOT / "tiny/problems.jsonl").open()]
    assert [row["level"] for row in rows[:200]] == [1, 2, 3, 4, 5] * 40


def test_the_tokenizer_is_rebuilt_to_the_letter_and_has_llamas_habits(tmp_path):
    tokenizer = build_tokenizer(0)
    tokenizer.save_pretrained(tmp_path)
    for model in ("policy", "prm"):
        assert (tmp_path / "tokenizer.json").read_bytes() == (
            ROOT / "tiny" / model / "tokenizer.json"
        ).read_bytes()
    assert any(
        token.endswith("ĊĊ") and token != "ĊĊ" for token in tokenizer.get_vocab()
    )  # "$\n\n" is one token
    assert len(chat.encode(tokenizer, "90210")) == 5
    assert len(chat.encode(tokenizer, chat.MATH_PROMPT)) == 1
    spaced = tokenizer.apply_chat_template(
        [{"role": "user", "content": " hi \n\n"}], tokenize=False
    )
    assert "\n\nhi<|eot_id|>" in spaced


def test_the_folders_are_plain_checkpoints_and_small():
    size = 0
    for model in ("policy", "prm"):
        folder = ROOT / "tiny" / model
        assert json.loads((folder / "config.json").read_text())["architectures"] == [
            "LlamaForCausalLM"
        ]
        assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
            path.name for path in folder.iterdir()
        }
        size += sum(path.stat().st_size for path in folder.iterdir())
    assert size < 15e6


def test_the_prm_tells_right_steps_from_wrong_ones(pair):
    """A spot check on fresh problems; results/ has the figures on the policy's own solutions."""
    rng, right, wrong = random.Random("spot check"), [], []
    for _ in range(40):
        problem = task.make_problem(rng)
        solutions = [task.write_solution(rng, problem), corrupt(rng, problem)]
        root = beam.Node(None, 0, 1, text=problem.text)
        children = [beam.Node(root, 0, 0, text="\n\n".join(steps)) for steps in solutions]
        pair[2].read_problems([root])
        pair[2].score(children, "\n\n")
        for steps, child in zip(solutions, children):
            for label, score in zip(task.label_steps(problem, steps), child.scores, strict=True):
                (right if label else wrong).append(score)
    auc = sum((r > w) + (r == w) / 2 for r in right for w in wrong) / (len(right) * len(wrong))
    assert auc > 0.95


def test_training_runs_and_is_deterministic(tmp_path):
    """All five stages with a few steps each, twice: the same weights."""
    weights = []
    for attempt in ("a", "b"):
        command = [
            sys.executable,
            "-m",
            "tiny.train",
            "--shrink",
            "640",
            "--out",
            str(tmp_path / attempt),
        ]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        weights.append(
            [
                (tmp_path / attempt / model / "model.safetensors").read_bytes()
                for model in ("policy", "prm")
            ]
        )
    assert weights[0] == weights[1]
