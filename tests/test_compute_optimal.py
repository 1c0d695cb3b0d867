"""compute_optimal.py on result files whose best choice is known."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import compute_optimal
import coverage
from compute_optimal import (
    best,
    budget_for,
    contenders,
    halves,
    levels_by,
    mean_and_error,
    two_fold,
    within_noise,
)

# --- synthetic result files -----------------------------------------------------------------------

GOLD = "7"


def sample(right, score=None):
    scores = [] if score is None else [0.5, score]
    value = 0.0 if score is None else score
    answer = GOLD if right else "8"
    return {"text": "", "answer": answer, "finished": True, "scores": scores, "value": value}


def row(key, correct, flops=100.0, samples=None, **more):
    usage = {"policy_tokens": 110, "generated_tokens": 100, "prm_tokens": 0, "flops": flops}
    found = {"id": key, "problem": f"What is {key}?", "answer": GOLD, "level": None}
    found |= {"completions": samples or [], "predictions": {}, "correct": correct, "usage": usage}
    return found | more


def result_file(path, rows, script="dvts.py", n=4, seed=0, **settings):
    header = {"script": script, "n": n, "seed": seed, "temperature": 0.8, "policy": "P"}
    if script != "majority.py":
        header |= {"prm": "R", "reduction": "last", "beam_width": 4}
    lines = [{"run": header | settings | {"commit": "abc"}}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tree(path, right, n=4, seed=0, flops=400.0, script="dvts.py", **settings):
    """A run of a tree search. right: {id: bool}."""
    rows = [row(key, {"weighted": good}, flops) for key, good in right.items()]
    return result_file(path, rows, script, n, seed, **settings)


def votes(path, shares, n=4, seed=0, flops=100.0, **settings):
    """A run of majority.py. shares: {id: how many of the n samples are right}."""
    rows = []
    for key, count in shares.items():
        samples = [sample(i < count) for i in range(n)]
        rows.append(row(key, {"majority": count > n / 2}, flops, samples))
    return result_file(path, rows, "majority.py", n, seed, **settings)


EASY = [f"easy-{i}" for i in range(10)]
HARD = [f"hard-{i}" for i in range(10)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A vote that solves the easy problems, a search that solves the hard ones; and calibration."""
    monkeypatch.chdir(tmp_path)
    votes(tmp_path / "vote.jsonl", dict.fromkeys(EASY, 4) | dict.fromkeys(HARD, 0))
    tree(tmp_path / "dvts.jsonl", dict.fromkeys(EASY, False) | dict.fromkeys(HARD, True))
    shares = dict.fromkeys(EASY, 7) | dict.fromkeys(HARD, 1)
    votes(tmp_path / "cal.jsonl", shares, n=8, seed=9)
    return tmp_path


def report_of(*flags, levels=2):
    """What --json writes."""
    flags = [*map(str, flags), "--levels", str(levels), "--json", "out.json", "--overwrite"]
    assert compute_optimal.main(flags) == 0
    with open("out.json", encoding="utf-8") as file:
        return json.load(file)


# --- the mathematics ------------------------------------------------------------------------------


def test_levels_are_equally_large_and_the_easiest_is_the_first():
    difficulty = {f"p{i}": i / 10 for i in range(10)}
    levels = levels_by(difficulty, 5)
    assert list(levels) == list(difficulty)
    assert levels["p9"] == levels["p8"] == "1" and levels["p0"] == levels["p1"] == "5"
    assert sorted(levels.values()) == sorted("1122334455")


def test_equal_difficulties_are_shared_out_by_id_and_not_by_place():
    keys = [f"p{i}" for i in range(40)]
    levels = levels_by(dict.fromkeys(keys, 0.5), 4)
    assert levels == {key: levels_by(dict.fromkeys(keys[::-1], 0.5), 4)[key] for key in keys}
    assert sorted(levels.values()) == sorted("1234" * 10)
    first = [levels[key] for key in keys[:10]]
    assert len(set(first)) > 1


def test_each_level_is_halved():
    levels = {f"p{i}": str(i % 3) for i in range(33)}
    half = halves(levels)
    assert list(half) == list(levels)
    for level in "012":
        sides = [half[key] for key in levels if levels[key] == level]
        assert sides.count(0) - sides.count(1) == 1
    levels = {f"p{i}": str(i % 3) for i in range(36)}
    assert halves(dict(list(levels.items())[::-1])) == halves(levels)  # by id, not by place


def test_of_equally_accurate_strategies_the_cheapest_is_the_best():
    accuracy = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    flops = np.array([[5.0, 5.0], [3.0, 3.0], [1.0, 1.0]])
    assert best(accuracy, flops, np.array([True, True])) == 1
    assert best(accuracy, flops, np.array([True, False])) == 0


def test_two_fold_chooses_on_the_other_half():
    accuracy = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    half = np.array([0, 0, 1, 1])
    level = np.array(["1"] * 4)
    chosen = two_fold(accuracy, np.ones_like(accuracy), level, half)
    assert chosen.tolist() == [1, 1, 0, 0]  # what was good on one half is bad on the other
    level = np.array(["1", "2", "1", "2"])
    accuracy = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert two_fold(accuracy, np.ones_like(accuracy), level, half).tolist() == [0, 1, 0, 1]


def test_luck_is_not_rewarded():
    """Fifty strategies of pure noise: the best of them looks good, two-fold it is one of them."""
    rng = np.random.default_rng(0)
    level = np.array(["1", "2"] * 40)
    half = np.array([0, 0, 1, 1] * 20)
    lucky = []
    scored = []
    for _ in range(60):
        accuracy = (rng.random((50, 80)) < 0.5).astype(float)
        flops = np.ones_like(accuracy)
        chosen = two_fold(accuracy, flops, level, half)
        scored.append(accuracy[chosen, np.arange(80)].mean())
        tops = [best(accuracy, flops, level == one) for one in "12"]
        lucky.append(np.mean([accuracy[top][level == one].mean() for top, one in zip(tops, "12")]))
    assert np.mean(lucky) > 0.65
    assert abs(np.mean(scored) - 0.5) < 0.03


def test_the_error_of_a_mean_by_hand():
    mean, error = mean_and_error(np.array([1.0, 0.0, 0.0, 1.0, 1.0]))
    assert mean == pytest.approx(0.6)
    assert error == pytest.approx(math.sqrt((3 * 0.16 + 2 * 0.36) / 4 / 5))


def test_contenders_are_those_within_noise_the_cheapest_first():
    good = np.array([1.0] * 9 + [0.0])
    near = np.array([1.0] * 8 + [0.0, 1.0])
    bad = np.zeros(10)
    flops = np.array([[3.0] * 10, [2.0] * 10, [1.0] * 10])
    everyone = np.ones(10, dtype=bool)
    assert contenders(np.array([good, near, bad]), flops, everyone) == [1, 0]
    # All problems lost by the same share: no spread, and yet a difference.
    assert contenders(np.array([good, good - 0.1, bad]), flops, everyone) == [0]

    some = np.array([True] * 8 + [False] * 2)  # without the two in which they differ
    assert contenders(np.array([bad, near - 1, good - 1]), flops, some) == [2, 1, 0]
    assert contenders(np.array([good, near + 5 * (flops[0] > 0), bad]), flops, some) == [1]
    mixed = np.array([1.0] * 4 + [0.0] * 4 + [9.0, 9.0])
    assert contenders(np.array([mixed, 1 - mixed, bad]), flops, some) == [1, 0]


def test_noise_is_two_standard_errors():
    assert within_noise(0.19, 0.1) and within_noise(-0.19, 0.1) and within_noise(0, 0)
    assert not within_noise(0.21, 0.1) and not within_noise(-0.01, 0)


def test_budget_for_an_accuracy():
    curve = [(4, 0.5), (16, 0.7), (64, 0.6), (256, 0.9)]
    assert budget_for(0.6, curve) == (pytest.approx(8), "=")  # half way, in log budget
    assert budget_for(0.7, curve) == (pytest.approx(16), "=")
    assert budget_for(0.75, curve) == (pytest.approx(128), "=")
    assert budget_for(0.5, curve) == (4, "=")
    assert budget_for(0.4, curve) == (4, "<")
    assert budget_for(0.95, curve) == (256, ">")


# --- whole reports --------------------------------------------------------------------------------


def test_a_vote_for_easy_problems_and_a_search_for_hard_ones(files, capsys):
    report = report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert report["levels"] == dict.fromkeys(EASY, "1") | dict.fromkeys(HARD, "2")
    assert report["budgets"] == [4] and report["strategies"] == ["majority", "dvts, weighted"]
    assert report["choice"] == {"1": {"4": "majority"}, "2": {"4": "dvts, weighted"}}
    cell = report["accuracy"]["1"]["4"]["majority"]
    assert (cell["accuracy"], cell["error"]) == (1.0, 0.0)
    assert report["accuracy"]["2"]["4"]["majority"]["accuracy"] == 0
    assert report["compute_optimal"]["4"]["accuracy"] == 1.0
    single = report["single"]["majority"]["4"]
    assert single["accuracy"] == single["difference"] == 0.5 and not single["within_noise"]
    # Twenty differences, half of them 1: variance 20 * .25 / 19, over 20 problems.
    assert single["difference_error"] == pytest.approx(math.sqrt(0.25 / 19))
    assert single["saved"]["bound"] == ">" and single["saved"]["factor"] == pytest.approx(1)
    assert single["saved"]["with_calibration"] == pytest.approx(4 / (4 + 8))
    assert report["compute_optimal"]["4"]["spent_with_calibration"] == 12
    assert report["compute_optimal"]["4"]["flops"] == pytest.approx((100 + 400) / 2)
    printed = " ".join(capsys.readouterr().out.split())
    assert "level 1 n = 4" in printed and "+50.0 ± 11.5" in printed and ": better" in printed


def test_calibration_on_scored_samples_is_said(files, capsys):
    report = report_of("vote.jsonl", "dvts.jsonl")
    assert report["levels"] == dict.fromkeys(EASY, "1") | dict.fromkeys(HARD, "2")
    assert "calibrate on a seed of its own" in capsys.readouterr().err
    report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert "seed" not in capsys.readouterr().err


def test_a_calibration_file_is_not_scored(files):
    report = report_of("vote.jsonl", "dvts.jsonl", "cal.jsonl", "--calibrate", "cal.jsonl")
    assert report["budgets"] == [4] and len(report["files"]) == 2


def test_levels_of_the_file_and_by_the_prm(files):
    rows = [row(key, {"weighted": True}, level=12 if key in EASY else 3) for key in EASY + HARD]
    result_file(files / "own.jsonl", rows, "beam.py")
    report = report_of("own.jsonl", "--difficulty", "file")
    assert report["levels"] == dict.fromkeys(EASY, "12") | dict.fromkeys(HARD, "3")
    assert list(report["choice"]) == ["3", "12"] and report["calibration"] == 0

    rows = []
    for key in EASY + HARD:  # the PRM thinks that the hard ones are easy; and no gold is looked at
        score = 0.9 if key in HARD else 0.2
        rows.append(row(key, {"weighted": True}, samples=[sample(key in EASY, score)] * 2))
    result_file(files / "bon.jsonl", rows, "best_of_n.py", n=2, seed=9)
    flags = ["--calibrate", "bon.jsonl", "--difficulty"]
    report = report_of("vote.jsonl", "dvts.jsonl", *flags, "prm")
    assert report["levels"] == dict.fromkeys(EASY, "2") | dict.fromkeys(HARD, "1")
    assert report_of("vote.jsonl", *flags, "oracle")["levels"]["easy-0"] == "1"


def test_seeds_are_pooled_by_problem(files):
    tree(files / "again.jsonl", dict.fromkeys(EASY + HARD, True), seed=1, batch_problems=3)
    report = report_of("dvts.jsonl", "again.jsonl", "--calibrate", "cal.jsonl")
    cells = report["accuracy"]
    assert report["strategies"] == ["dvts, weighted"]
    assert cells["1"]["4"]["dvts, weighted"]["accuracy"] == 0.5
    assert cells["1"]["4"]["dvts, weighted"]["error"] == 0  # each problem has one half
    assert cells["2"]["4"]["dvts, weighted"]["accuracy"] == 1


def test_samples_of_the_largest_run_stand_for_fewer(files):
    shares = dict.fromkeys(EASY, 8) | dict.fromkeys(HARD, 2)
    votes(files / "large.jsonl", shares, n=8, flops=1100.0)
    flags = ["dvts.jsonl", "--calibrate", "cal.jsonl"]
    cells = report_of("large.jsonl", *flags)["accuracy"]["2"]["4"]
    # 2 of 4 are right in 15 of 70 subsets, a tie that is won half of the time.
    assert cells["majority"]["accuracy"] == pytest.approx(15 / 70 / 2, abs=0.05)
    # Of 110 tokens read the prompt is 10: a share of 1/11.
    assert cells["majority"]["flops"] == pytest.approx(100 + 1000 / 2)
    again = report_of("large.jsonl", "vote.jsonl", *flags)["accuracy"]["2"]
    assert again["4"] == cells and again["8"]["majority"]["flops"] == pytest.approx(1100)
    votes(files / "other.jsonl", dict.fromkeys(EASY + HARD, 0), n=8, seed=1, flops=1100.0)
    cells = report_of("large.jsonl", "other.jsonl", *flags)["accuracy"]["2"]["4"]
    # Of 16 samples 2 are right: both are among 4 in 6 of 120 pairs.
    assert cells["majority"]["accuracy"] == pytest.approx(6 / 120 / 2, abs=0.02)


def test_the_prompt_is_read_once_and_the_prm_reads_more(files):
    """The share of the prompt is in all tokens read, those of the PRM too, as in coverage.py."""
    samples = [sample(True, 0.9)] * 4
    usage = {"policy_tokens": 110, "generated_tokens": 100, "prm_tokens": 90, "flops": 2000.0}
    verdicts = {"majority": True, "best": True, "weighted": True}
    rows = [row(key, verdicts, samples=samples, usage=usage) for key in EASY + HARD]
    result_file(files / "bon.jsonl", rows, "best_of_n.py")
    tree(files / "dvts.jsonl", dict.fromkeys(EASY + HARD, True), n=1)
    report = report_of("bon.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    single = report["single"]["best_of_n, weighted"]
    assert single["1"]["flops"] == pytest.approx(2000 * (0.05 + 0.95 / 4))
    [run], _ = coverage.pooled([coverage.File("bon.jsonl")])
    assert single["1"]["flops"] == pytest.approx(run.flops_at(1).mean())


def test_programs_are_right_if_they_pass(files):
    """A file of programs: no answers, "tests" is the rule, any of a subset will do."""
    rows = []
    for key in EASY + HARD:
        samples = [sample(False) | {"answer": None, "passed": i < 2} for i in range(4)]
        rows.append(row(key, {"tests": True}, samples=samples, answer=None, tests="assert f()"))
    result_file(files / "code.jsonl", rows, "majority.py", n=4)
    rows = [one | {"completions": one["completions"][2:]} for one in rows]
    rows = [one | {"correct": {"tests": False}} for one in rows]
    result_file(files / "two.jsonl", rows, "majority.py", n=2, temperature=0.1)
    report = report_of("code.jsonl", "two.jsonl")
    cells = report["accuracy"]["1"]["2"]
    assert cells["majority, temperature=0.8, tests"]["accuracy"] == pytest.approx(1 - 1 / 6)
    assert cells["majority, temperature=0.1, tests"]["accuracy"] == 0


def test_trees_are_not_subsampled(files):
    tree(files / "wide.jsonl", dict.fromkeys(EASY + HARD, True), n=16, seed=1)
    report = report_of("dvts.jsonl", "wide.jsonl", "--calibrate", "cal.jsonl")
    rows = report["single"]["dvts, weighted"]
    assert (rows["4"]["accuracy"], rows["16"]["accuracy"]) == (0.5, 1.0)


def test_samples_that_depend_on_each_other_are_not_subsampled(files, capsys):
    """Drawing stops when the answer is clear: fewer than n, and no estimate of pass@1."""
    rows = [row(key, {"majority": True}, samples=[sample(True)] * 3) for key in EASY + HARD]
    result_file(files / "stop.jsonl", rows, "majority.py", n=64, stop_at=0.95)
    report = report_of("stop.jsonl", "vote.jsonl", "--calibrate", "cal.jsonl")
    assert list(report["single"]["majority, stop_at=0.95"]) == ["64"]
    with pytest.raises(SystemExit):
        compute_optimal.main(["vote.jsonl", "dvts.jsonl", "--calibrate", "stop.jsonl"])
    assert "no independent samples" in capsys.readouterr().err


def test_rules_that_are_not_known_are_not_subsampled(files):
    """A vote weighed by what only its own script can know: its verdict at n, and no other."""
    rows = []
    for key in EASY + HARD:
        correct = {"majority": True, "mine": True}
        rows.append(row(key, correct, samples=[sample(True)] * 16))
    result_file(files / "sure.jsonl", rows, "majority.py", n=16, weights="mine")
    report = report_of("sure.jsonl", "vote.jsonl", "--calibrate", "cal.jsonl")
    assert list(report["single"]["majority, weights=mine, mine"]) == ["16"]
    assert list(report["single"]["majority"]) == ["4", "16"]


def test_votes_without_a_reward_model_are_subsampled(files):
    """The surest of the samples is right, and the others agree on what is wrong."""
    sure = [sample(True) | {"value": 9.0}] + [sample(False) | {"value": 1.0}] * 7
    rows = []
    for key in EASY + HARD:
        rows.append(row(key, {"majority": False, "confidence": True}, samples=sure))
    result_file(files / "sure.jsonl", rows, "majority.py", n=8, weights="confidence")
    report = report_of("sure.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert report["own_rules"] == ["majority, confidence", "dvts, weighted"]
    cells = report["accuracy"]["1"]["4"]
    # The first is among 4 of 8 in half of all subsets.
    assert cells["majority, confidence"]["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert cells["majority, majority"]["accuracy"] == 0


def test_every_rule_is_a_strategy_and_votes_come_first(files):
    rules = {"majority": False, "best": True, "weighted": True}
    rows = [row(key, rules, samples=[sample(True, 0.5)] * 2) for key in EASY + HARD]
    result_file(files / "bon.jsonl", rows, "best_of_n.py", n=2)
    report = report_of("dvts.jsonl", "bon.jsonl", "vote.jsonl", "--calibrate", "cal.jsonl")
    names = ["majority", *(f"best_of_n, {rule}" for rule in rules), "dvts, weighted"]
    assert report["strategies"] == names
    assert report["own_rules"] == ["majority", "best_of_n, weighted", "dvts, weighted"]
    assert report["search_of"]["best_of_n, best"] == "best_of_n"
    cells = report["accuracy"]["1"]["2"]
    assert cells["best_of_n, majority"]["accuracy"] == 0 and cells["best_of_n, best"]["n"] == 2


def test_by_default_the_largest_sample_calibrates(files):
    votes(files / "large.jsonl", dict.fromkeys(EASY, 0) | dict.fromkeys(HARD, 9), n=9)
    report = report_of("vote.jsonl", "large.jsonl", "dvts.jsonl")
    assert report["difficulty"] == {"by": "oracle", "file": "large.jsonl", "mean": {"1": 1, "2": 0}}
    assert report["levels"]["hard-0"] == "1" and report["calibration"] == 9
    votes(files / "again.jsonl", dict.fromkeys(EASY + HARD, 9), n=9, seed=1)
    report = report_of("vote.jsonl", "large.jsonl", "again.jsonl", "dvts.jsonl")
    assert report["difficulty"]["mean"] == {"1": 1, "2": 0.5} and report["calibration"] == 18


def test_budgets_in_flops_buy_what_they_can(files):
    votes(files / "vote.jsonl", dict.fromkeys(EASY + HARD, 8), n=8, flops=1100.0)
    tree(files / "dvts.jsonl", dict.fromkeys(EASY + HARD, True), n=2, flops=444.1)
    tree(files / "dvts8.jsonl", dict.fromkeys(EASY + HARD, True), n=8, flops=1500.0)
    flags = ["--calibrate", "cal.jsonl", "--budget", "flops"]
    report = report_of("vote.jsonl", "dvts.jsonl", "dvts8.jsonl", *flags)
    assert report["budgets"] == [445, 1500]  # what the dearest costs at 2 and at 8, rounded up
    single = report["single"]
    # 100 + 125 n <= 445
    assert single["majority"]["445"]["n"] == 2 and single["majority"]["1500"]["n"] == 8
    assert single["majority"]["445"]["spent"] == pytest.approx(350)
    assert single["dvts, weighted"]["445"]["n"] == 2
    assert single["dvts, weighted"]["1500"]["n"] == 8
    assert report["choice"]["1"] == {"445": "majority", "1500": "majority"}  # the cheapest
    assert report["calibration"] == 100
    optimal = report["compute_optimal"]["445"]
    assert optimal["spent_with_calibration"] == pytest.approx(450)
    factor = single["dvts, weighted"]["445"]["saved"]
    assert factor["factor"] == pytest.approx(444.1 / 350) and factor["bound"] == "="


def test_a_strategy_too_dear_for_a_budget_is_not_there(files, capsys):
    tree(files / "dvts.jsonl", dict.fromkeys(EASY + HARD, True), n=16)
    report = report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert list(report["accuracy"]["1"]["4"]) == ["majority"]
    assert report["single"]["majority"]["16"]["n"] == 4  # the largest of its runs
    printed = " ".join(capsys.readouterr().out.split())
    assert "majority 50.0 ± 11.5 +50.0 ± 11.5 more than was run (n = 4)" in printed
    assert list(report["single"]["dvts, weighted"]) == ["16"]


def test_within_noise_the_cheapest_is_named(files, capsys):
    nearly = dict.fromkeys(EASY + HARD, True) | {"easy-0": False, "hard-0": False}
    tree(files / "dear.jsonl", dict.fromkeys(EASY + HARD, True), script="beam.py", flops=900.0)
    tree(files / "cheap.jsonl", nearly, script="rebase.py", flops=300.0)
    report = report_of("dvts.jsonl", "dear.jsonl", "cheap.jsonl", "--calibrate", "cal.jsonl")
    assert report["choice"]["1"]["4"] == "beam, weighted"
    assert report["within_noise"]["1"]["4"] == ["rebase, weighted", "beam, weighted"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "level 1 n = 4 rebase, weighted, n = 4 90.0 ± 10.0 300FLOP best: beam, wei" in printed
    assert "best: beam, weighted, n = 4: 100.0 ± 0.0" in printed
    assert "beam, weighted, the best single one: within noise" in printed
    assert "the cheapest that it does not beat: rebase, weighted, n = 4, 300FLOP" in printed


def test_two_files_of_few_problems_are_compared_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = [f"p{i}" for i in range(6)]
    votes(tmp_path / "a.jsonl", dict.fromkeys(few, 3), n=4)
    tree(tmp_path / "b.jsonl", {key: i < 5 for i, key in enumerate(few)})
    assert compute_optimal.main(["a.jsonl", "b.jsonl", "--json", "few.json"]) == 0
    report = json.loads((tmp_path / "few.json").read_text())
    assert set(report["levels"].values()) == {"all"} and report["calibration"] == 0
    said = capsys.readouterr()
    assert "6 problems are too few for 5 levels: all are in one" in said.err
    assert "A alone, B alone right" in said.out and "+16.7 ± 16.7" in said.out
    with pytest.raises(SystemExit):
        compute_optimal.main(["a.jsonl", "b.jsonl", "--difficulty", "oracle"])


def test_the_cheapest_may_be_a_run_of_a_smaller_budget(files, capsys):
    """A large budget need not be spent: at n = 2 all is solved already."""
    everything = dict.fromkeys(EASY + HARD, True)
    tree(files / "small.jsonl", everything, n=2, script="rebase.py", flops=200.0)
    tree(files / "large.jsonl", everything, n=8, script="rebase.py", flops=800.0)
    report = report_of("small.jsonl", "large.jsonl", "--calibrate", "cal.jsonl")
    assert report["choice"]["1"]["8"] == "rebase, weighted"
    found = report["cheapest"]["1"]["8"]
    assert (found["strategy"], found["n"], found["flops"]) == ("rebase, weighted", 2, 200)
    assert report["unbeaten"]["8"] == {"strategy": "rebase, weighted", "n": 2, "flops": 200}
    said = capsys.readouterr()
    printed = " ".join(said.out.split())
    assert "level 1 n = 8 rebase, weighted, n = 2 100.0 ± 0.0 200FLOP best: rebase" in printed
    assert "a level has 10 problems" in said.err and "looks good" in said.err


def test_two_files_are_compared_problem_by_problem(files, capsys):
    names = [f"p{i}" for i in range(10)]
    tree(files / "a.jsonl", {key: i < 7 for i, key in enumerate(names)}, flops=200.0)
    tree(files / "b.jsonl", {key: 2 <= i < 8 for i, key in enumerate(names)}, script="beam.py")
    found = report_of("a.jsonl", "b.jsonl")["comparison"]
    (rule,) = found["rules"]
    assert (rule["won"], rule["lost"], rule["accuracy_a"], rule["accuracy_b"]) == (2, 1, 0.7, 0.6)
    # +1 twice, -1 once, 0 seven times: the mean is .1, the sum of squares 3 - 10 * .01.
    assert rule["difference"] == pytest.approx(0.1)
    assert rule["difference_error"] == pytest.approx(math.sqrt(2.9 / 9 / 10))
    printed = capsys.readouterr().out
    assert "+10.0 ± 18.0" in printed and "within noise, A is cheaper" in printed
    assert "is a choice at each level" not in printed  # there is one level
    swapped = report_of("b.jsonl", "a.jsonl")["comparison"]["rules"][0]
    assert (swapped["won"], swapped["lost"]) == (1, 2) and swapped["difference"] < 0


def test_two_seeds_of_one_strategy_can_be_compared(files):
    tree(files / "again.jsonl", dict.fromkeys(EASY + HARD, True), seed=1)
    found = report_of("dvts.jsonl", "again.jsonl", levels=1)["comparison"]["rules"][0]
    assert (found["won"], found["lost"]) == (0, 10)


# --- what differs between files -------------------------------------------------------------------


def test_other_models_and_settings_are_strategies_of_their_own(files, capsys):
    right = dict.fromkeys(EASY + HARD, True)
    tree(files / "q.jsonl", right, policy="Q")
    tree(files / "cold.jsonl", right, script="beam.py", temperature=0.1)
    tree(files / "wide.jsonl", right, beam_width=8)
    every = ["vote.jsonl", "dvts.jsonl", "q.jsonl", "cold.jsonl", "wide.jsonl"]
    report = report_of(*every, "--calibrate", "cal.jsonl")
    assert set(report["strategies"]) == {
        "majority, policy=P",
        "dvts, beam_width=4, policy=P, weighted",
        "dvts, beam_width=4, policy=Q, weighted",
        "beam, policy=P, weighted",
        "dvts, beam_width=8, policy=P, weighted",
    }
    said = capsys.readouterr().err
    assert "runs differ in policy" in said and "runs differ in temperature" in said
    assert "levels are those of policy P" in said


def test_a_long_setting_is_named_in_short(files):
    right = dict.fromkeys(EASY + HARD, True)
    for i in range(3):
        tree(files / f"{i}.jsonl", right, system=f"{i} Think, and then think some more. " * 9)
    report = report_of("0.jsonl", "1.jsonl", "2.jsonl", "--calibrate", "cal.jsonl")
    assert len(set(report["strategies"])) == 3 and max(map(len, report["strategies"])) < 70


def test_other_seeds_are_said(files, capsys):
    tree(files / "dvts.jsonl", dict.fromkeys(EASY + HARD, True), seed=5)
    report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert "seeds differ: 0 of vote.jsonl; 5 of dvts.jsonl" in capsys.readouterr().err
    lines = (files / "dvts.jsonl").read_text().replace('"commit": "abc"', '"commit": "def"')
    (files / "dvts.jsonl").write_text(lines)
    report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert "2 different values of commit" in capsys.readouterr().err


def test_failed_problems_are_left_out_of_all_and_said(files, capsys):
    before = report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    first, *rows = (files / "dvts.jsonl").read_text().splitlines()
    failed = {"id": "easy-0", "problem": "What is easy-0?", "answer": GOLD, "error": "OutOfMemory"}
    again = [first, json.dumps(failed), *rows]  # solved later: it has not failed
    (files / "dvts.jsonl").write_text("\n".join(again) + "\n")
    assert report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl") == before
    (files / "dvts.jsonl").write_text("\n".join([*again[:2], *rows[1:]]) + "\n")
    capsys.readouterr()
    report = report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert "easy-0" not in report["levels"] and len(report["levels"]) == 19
    assert report["single"]["majority"]["4"]["accuracy"] == pytest.approx(9 / 19)
    assert "that failed are left out: 1, such as 'easy-0' of dvts.jsonl" in capsys.readouterr().err


def test_the_order_of_rows_does_not_matter(files):
    before = report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    first, *rows = (files / "dvts.jsonl").read_text().splitlines()
    (files / "dvts.jsonl").write_text("\n".join([first, *rows[::-1]]) + "\n")
    assert report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl") == before


# --- what is refused ------------------------------------------------------------------------------


def edit(path, number, **changes):
    """Change fields of a row; None deletes one."""
    lines = path.read_text().splitlines()
    changed = json.loads(lines[number]) | changes
    changed = {key: value for key, value in changed.items() if value is not None}
    lines[number] = json.dumps(changed)
    path.write_text("\n".join(lines) + "\n")


def cut(path):
    """As a kill leaves it: the last line lacks its end."""
    path.write_text(path.read_text()[:-20])


FAULTS = {
    "no file": (lambda f: None, ["none.jsonl"], "none.jsonl cannot be read (No such file"),
    "a folder": (lambda f: None, ["."], ". cannot be read (Is a directory)"),
    "another file": (
        lambda f: (f / "dvts.jsonl").write_text("hello\n"),
        [],
        "dvts.jsonl is no result file",
    ),
    "an empty file": (lambda f: (f / "dvts.jsonl").write_text(""), [], "is no result file"),
    "no rows": (
        lambda f: result_file(f / "dvts.jsonl", []),
        [],
        "dvts.jsonl has no solved problem",
    ),
    "cut": (lambda f: cut(f / "dvts.jsonl"), [], "have other problems, such as 'hard-9'"),
    "no usage": (lambda f: edit(f / "dvts.jsonl", 3, usage=None), [], "line 4 is no row"),
    "free": (
        lambda f: edit(
            f / "dvts.jsonl",
            3,
            usage={"flops": 0, "policy_tokens": 1, "generated_tokens": 1, "prm_tokens": 0},
        ),
        [],
        "it has no cost",
    ),
    "half right": (
        lambda f: edit(f / "dvts.jsonl", 3, correct={"weighted": 0.5}),
        [],
        "was not checked by an answer",
    ),
    "a sample lost": (
        lambda f: edit(f / "vote.jsonl", 3, completions=[sample(True)]),
        [],
        "1 completions, not n = 4",
    ),
    "no answer": (
        lambda f: edit(f / "dvts.jsonl", 3, correct={}),
        [],
        "was not checked by an answer",
    ),
    "other rules": (
        lambda f: edit(f / "dvts.jsonl", 3, correct={"best": True}),
        [],
        "has other rules for 'easy-2'",
    ),
    "other gold": (
        lambda f: edit(f / "dvts.jsonl", 3, answer="17"),
        [],
        "differ in problem 'easy-2'",
    ),
    "other question": (
        lambda f: edit(f / "dvts.jsonl", 3, problem="Why?"),
        [],
        "differ in problem 'easy-2'",
    ),
    "a run twice": (
        lambda f: tree(f / "twin.jsonl", dict.fromkeys(EASY + HARD, True)),
        ["twin.jsonl"],
        "twin.jsonl has the seed of dvts.jsonl",
    ),
    "too many levels": (lambda f: None, ["--levels", "11"], "give fewer --levels"),
    "no level": (lambda f: None, ["--levels", "0"], "at least 1"),
    "levels in words": (lambda f: None, ["--levels", "two"], "invalid int value"),
    "no levels in the file": (
        lambda f: None,
        ["--difficulty", "file"],
        "has no level for 'easy-0'",
    ),
    "useless calibration": (
        lambda f: None,
        ["--difficulty", "file", "--calibrate", "cal.jsonl"],
        "leave --calibrate out",
    ),
    "calibration by a tree": (
        lambda f: tree(f / "beam.jsonl", dict.fromkeys(EASY + HARD, True), script="beam.py"),
        ["--calibrate", "beam.jsonl"],
        "no independent samples",
    ),
    "no scores": (
        lambda f: None,
        ["--difficulty", "prm", "--calibrate", "cal.jsonl"],
        "no PRM scores",
    ),
    "nothing tells": (lambda f: None, ["--difficulty", "prm"], "no file tells difficulty"),
    "other folder": (lambda f: None, ["--json", "no/o.json"], "there is no such folder"),
    "no plain file": (lambda f: (f / "d").mkdir(), ["--json", "d"], "d is no plain file"),
    "there already": (
        lambda f: (f / "o.json").write_text("mine"),
        ["--json", "o.json"],
        "o.json is there already",
    ),
    "an input": (
        lambda f: None,
        ["--json", "./vote.jsonl", "--overwrite"],
        "vote.jsonl is named twice",
    ),
    "one for both": (
        lambda f: None,
        ["--json", "o.png", "--plot", "o.png"],
        "o.png is named twice",
    ),
    "no picture": (lambda f: None, ["--plot", "o.pdf"], "ends in .png"),
    "no such flag": (lambda f: None, ["--nonsense"], "--nonsense"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_refused_is_one_line(fault, files, capsys):
    spoil, flags, said = FAULTS[fault]
    spoil(files)
    before = {path: path.read_bytes() for path in files.iterdir() if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        compute_optimal.main(["vote.jsonl", "dvts.jsonl", *flags])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if ": note: " not in line]
    assert said in line and ": error: " in line and out == ""
    assert {path: path.read_bytes() for path in files.iterdir() if path.is_file()} == before


def test_a_calibration_file_alone_is_refused(files, capsys):
    with pytest.raises(SystemExit) as stop:
        compute_optimal.main(["cal.jsonl", "--calibrate", "cal.jsonl"])
    assert stop.value.code == 2 and "nothing to be compared with" in capsys.readouterr().err


def test_other_levels_in_files_are_refused(files, capsys):
    rows = [row(key, {"weighted": True}, level=1) for key in EASY]
    result_file(files / "a.jsonl", rows)
    result_file(files / "b.jsonl", [one | {"level": 2} for one in rows], seed=1)
    with pytest.raises(SystemExit):
        compute_optimal.main(["a.jsonl", "b.jsonl", "--difficulty", "file"])
    assert "differ in the level of 'easy-0'" in capsys.readouterr().err


# --- outputs --------------------------------------------------------------------------------------


def test_the_picture_and_the_figures_are_written_whole(files):
    pytest.importorskip("matplotlib")
    flags = ["vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl", "--levels", "2"]
    for budget in ("n", "flops"):
        outputs = ["--plot", f"{budget}.png", "--json", f"{budget}.json", "--budget", budget]
        assert compute_optimal.main([*flags, *outputs]) == 0
        assert (files / f"{budget}.png").read_bytes().startswith(b"\x89PNG")
        json.loads((files / f"{budget}.json").read_text())
    (files / "n.png").write_text("old")
    assert compute_optimal.main([*flags, "--plot", "n.png", "--overwrite"]) == 0
    assert (files / "n.png").read_bytes().startswith(b"\x89PNG")
    assert not list(files.glob("*.part"))


def test_a_write_that_fails_leaves_the_old_file(files, capsys):
    (files / "o.json").write_text("old")

    def half(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(coverage.BadInput, match="No space left"):
        coverage.write("o.json", half)
    assert (files / "o.json").read_text() == "old" and not list(files.glob("*.part"))


def test_without_matplotlib_there_is_no_picture_and_no_work(files, capsys, monkeypatch):
    monkeypatch.setattr(coverage, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        compute_optimal.main(["vote.jsonl", "dvts.jsonl", "--plot", "o.png"])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and "pip install matplotlib==3.11.2" in err and out == ""


def test_lines_fit_a_terminal(files, capsys):
    report_of("vote.jsonl", "dvts.jsonl", "--calibrate", "cal.jsonl")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


def test_it_starts_without_torch_and_knows_no_harness():
    code = "import compute_optimal, sys; print('torch' in sys.modules, 'harness' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_help_says_how():
    command = [sys.executable, "compute_optimal.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--calibrate" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


# --- real files -----------------------------------------------------------------------------------


def test_a_file_that_a_script_wrote_is_read(tmp_path, monkeypatch):
    from test_cli import in_process

    monkeypatch.chdir(tmp_path)
    assert in_process("best_of_n.py", "--n", "4", "--limit", "6", "--output", "b.jsonl") == 0
    [run], _ = coverage.pooled([coverage.File("b.jsonl")])
    search = compute_optimal.Search([run])
    assert search.rules == ["majority", "best", "weighted"] and search.own_rule == "weighted"
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()[1:]]
    for rule in search.rules:
        assert search.accuracy(4, rule).tolist() == [row["correct"][rule] for row in rows]
        assert 0 <= search.accuracy(1, rule).mean() <= 1
    assert search.flops(4).mean() == pytest.approx(np.mean([r["usage"]["flops"] for r in rows]))
    assert (search.flops(1) > search.flops(4) / 4).all()
