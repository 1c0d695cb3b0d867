"""Votes that need no reward model, and sampling that stops early (majority.py)."""

import argparse
import json
import math

import pytest
import torch
from conftest import ROOT
from scipy.stats import beta
from test_cli import in_process, rows_of

import majority
from common import grading
from harness import solve, table

PROBLEMS = [
    "Start with 12. Add 5, multiply by 2. What is the result?",
    "Evaluate $94-18+12-27+22-3$.",
    "Evaluate $(86+9)\\div5$.",
]
SHORT = {"max_new_tokens": 120}


def said(answer, finished=True):
    text = f"Therefore, the final answer is: $\\boxed{{{answer}}}$."
    return majority.Solution(text, [], [], 0.0, finished, [1])


# --- how sure -------------------------------------------------------------------------------------


def test_borda_counts_ranks():
    assert grading.borda([0.1, 9.0, 3.0], power=1.0) == [1, 3, 2]
    assert grading.borda([5.0, 4.0], power=0.5) == [math.sqrt(2), 1]
    assert grading.borda([]) == []
    # Two of middling certainty beat the most certain one: 2 + 3 > 4.
    weights = grading.borda([4.0, 3.0, 2.0, 1.0], power=1.0)
    assert grading.weighted(["8", "7", "7", "9"], weights) == "7"


def test_only_the_most_confident_have_a_vote():
    confidences = [float(i) for i in range(1, 21)]
    assert grading.most_confident(confidences) == [0.0, 0.0, *confidences[2:]]
    assert grading.most_confident(confidences, share=0.1) == [0.0] * 18 + [19.0, 20.0]
    assert grading.most_confident([3.0, 2.0, 1.0], share=0.5) == [3.0, 2.0, 0.0]
    assert grading.most_confident([]) == []


def test_a_share_is_no_more_than_that_where_samples_are_equal():
    assert grading.most_confident([2.0, 5.0, 2.0, 2.0], share=0.5) == [2.0, 5.0, 0.0, 0.0]


def test_certainty_is_the_divergence_from_the_uniform_distribution():
    probs = torch.tensor([[0.25] * 4, [0.7, 0.1, 0.1, 0.1]])
    sure = {}
    majority.watcher("certainty", sure)(["flat", "peaked"], probs.log())
    kl = sum(0.25 * math.log(0.25 / p) for p in (0.7, 0.1, 0.1, 0.1))
    assert sure["flat"] == pytest.approx([0.0], abs=1e-6)
    assert sure["peaked"] == pytest.approx([kl], abs=1e-6)


def test_confidence_is_of_the_20_likeliest():
    probs = torch.tensor([0.5] + [0.02] * 20 + [0.001] * 100)
    sure = {}
    watch = majority.watcher("confidence", sure)
    for _ in range(2):
        watch(["one"], probs.log()[None])
    expected = -(math.log(0.5) + 19 * math.log(0.02)) / 20
    assert sure["one"] == pytest.approx([expected] * 2, abs=1e-5)


def test_a_solution_is_as_confident_as_its_least_confident_tenth():
    values = [5.0] * 20
    values[7:9] = [1.0, 2.0]
    assert majority.how_sure("certainty", values) == pytest.approx((18 * 5 + 3) / 20)
    assert majority.how_sure("confidence", values) == pytest.approx(1.5)
    assert majority.how_sure("confidence", [3.0]) == 3.0
    assert majority.how_sure("confidence", [1.0] * 10 + [2.0] * 5) == 1.0  # a window of 2


@pytest.mark.parametrize("weights", ["certainty", "confidence"])
def test_values_are_those_of_the_whole_text_read_anew(pair, weights):
    policy, tokenizer, _ = pair
    given = policy, tokenizer, PROBLEMS[:2]
    plain = majority.sample_solutions(*given, n=4, **SHORT)
    found = majority.sample_solutions(*given, n=4, weights=weights, **SHORT)
    for problem, ones, others in zip(PROBLEMS, plain, found):
        prompt = majority.encode_prompt(tokenizer, problem, majority.MATH_PROMPT, False)
        assert [one.tokens for one in ones] == [one.tokens for one in others]
        assert {one.value for one in ones} == {0.0}
        for one in others:
            ids = torch.tensor([prompt + one.tokens])
            with torch.inference_mode():
                logits = policy(ids).logits[0, len(prompt) - 1 : -1]
            sure = {}
            watch = majority.watcher(weights, sure)
            for distribution in logits:
                watch(["it"], distribution[None])
            assert one.value == pytest.approx(majority.how_sure(weights, sure["it"]), abs=1e-3)
    assert len({one.value for ones in found for one in ones}) > 2


# --- stopping early -------------------------------------------------------------------------------


def test_the_leader_stays_with_the_probability_of_the_beta_posterior():
    for first, second in [(0, 0), (1, 0), (4, 0), (5, 3), (40, 31), (200, 0)]:
        answers = [said(7)] * first + [said(8)] * second + [said(9)] * min(1, second)
        expected = beta.sf(0.5, first + 1, second + 1)
        assert majority.stays(answers) == pytest.approx(expected, abs=1e-12)
    assert majority.stays([said("0.5"), said("\\frac12"), said(7)]) == beta.sf(0.5, 3, 2)
    assert majority.stays([said(7, finished=False)] * 9) == 0.5  # a cut solution has no vote


def test_what_is_drawn_is_the_beginning_of_all(pair):
    policy, tokenizer, _ = pair
    given = policy, tokenizer, PROBLEMS
    settings = {"n": 28, "temperature": 0.8, **SHORT}
    everything = majority.sample_solutions(*given, **settings)
    turns = []
    stopped = majority.sample_solutions(
        *given, **settings, stop_at=0.95, on_step=lambda turn, children: turns.append(len(children))
    )
    counts = [len(ones) for ones in stopped]
    for some, ones in zip(stopped, everything):
        assert [one.tokens for one in some] == [one.tokens for one in ones[: len(some)]]
        assert len(some) in (8, 16, 24, 28)
        assert len(some) == 28 or majority.stays(some) >= 0.95
        for count in range(8, len(some), 8):
            assert majority.stays(some[:count]) < 0.95
    assert min(counts) == 8 and sum(turns) == sum(counts)
    never = majority.sample_solutions(*given, **settings, stop_at=1.0)
    assert [[one.tokens for one in ones] for ones in never] == [
        [one.tokens for one in ones] for ones in everything
    ]


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["certainty", "confidence"])
def test_the_vote_is_a_rule_of_the_row(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "6", "--limit", "3", "--weights", weights, "--output", "out.jsonl"]
    assert in_process("majority.py", *flags) == 0
    assert f"{weights}*" in capsys.readouterr().out
    header, *rows = rows_of(tmp_path / "out.jsonl")
    assert header["run"]["weights"] == weights
    for row in rows:
        voters = [one for one in row["completions"] if one["finished"] and one["answer"]]
        values = [one["value"] for one in voters]
        chosen = grading.weighted(
            [one["answer"] for one in voters], grading.WEIGHTS[weights](values)
        )
        assert set(row["predictions"]) == set(row["correct"]) == {"majority", weights}
        assert row["predictions"][weights] == chosen and "drawn" not in row
        assert all(one["scores"] == [] and one["value"] > 0 for one in row["completions"])

    # The same command goes on with its file, and the same without the flag is another run.
    assert in_process("majority.py", *flags) == 0
    assert "all was solved" in capsys.readouterr().err
    assert in_process("majority.py", "--n", "6", "--limit", "3", "--output", "out.jsonl") == 2
    assert "weights" in capsys.readouterr().err


def test_a_solution_whose_certainty_is_no_number_has_no_vote():
    voters = [{"value": value} for value in (3.0, None, 1.0)]
    assert solve.votes_by("certainty", voters) == [math.sqrt(2), 0.0, 1.0]
    assert solve.votes_by("confidence", voters) == [3.0, 0.0, 1.0]
    assert solve.votes_by("confidence", voters[1:2]) == [0.0]


def test_a_row_says_how_many_were_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "20", "--limit", "2", "--stop-at", "0.9", "--output", "out.jsonl"]
    assert in_process("majority.py", *flags) == 0
    _, *rows = rows_of(tmp_path / "out.jsonl")
    drawn = [row["drawn"] for row in rows]
    assert drawn == [len(row["completions"]) for row in rows] and min(drawn) < 20
    mean = sum(drawn) / len(drawn)
    counts = f"{mean:.1f} drawn, {mean:.1f} solutions finished and 0.0 cut, 20 at most"
    assert f"a problem: {counts}" in capsys.readouterr().out
    header = json.loads((tmp_path / "out.jsonl").read_text().split("\n")[0])["run"]
    assert header["batch_problems"] == 64 // 8 and header["stop_at"] == 0.9


@pytest.mark.parametrize("flag", [["--stop-at", "0.9"], ["--weights", "certainty"]])
def test_programs_have_no_vote(flag, tmp_path, monkeypatch, capsys):
    problem = {"id": "a", "problem": "Add.", "tests": "assert True"}
    (tmp_path / "code.jsonl").write_text(json.dumps(problem) + "\n")
    policy = ["--policy", str(ROOT / "tiny/policy")]
    flags = ["--problems", str(tmp_path / "code.jsonl"), "--run-code", *policy, *flag]
    assert in_process("majority.py", *flags) == 2
    assert f"{flag[0]} is of votes" in capsys.readouterr().err


def test_a_vote_tells_how_many_had_no_say():
    """Of four solutions one was cut, and one states nothing."""
    said = {"text": "The answer is 5.", "scores": [0.9], "finished": True, "answer": "5"}
    silent = {**said, "text": "No idea.", "answer": None}
    cut = {**said, "finished": False}
    row = {"completions": [said, said, silent, cut]}
    row["predictions"] = {"majority": "5", "best": "5", "weighted": "5"}
    text = table.vote(row, "last")
    assert "Answer: 5" in text and text.endswith("2 of 4 were cut, or state no answer")
    row["completions"] = [said, said]
    assert "state no answer" not in table.vote(row, "last")


def test_the_table_says_that_many_were_cut():
    usage = ["flops", "seconds", "generated_tokens", "policy_tokens", "prm_tokens"]
    row = {"distinct": 2, "usage": dict.fromkeys(usage, 1.0), "predictions": {}}
    args = argparse.Namespace(n=2, stop_at=None, reduction=None)
    for cut, told in ((False, False), (True, True)):
        row["completions"] = [
            {"text": "", "scores": [], "finished": not cut, "answer": "5"},
            {"text": "", "scores": [], "finished": True, "answer": "5"},
        ]
        assert told == any("--max-new-tokens" in line for line in table.cost_lines(args, [row]))
