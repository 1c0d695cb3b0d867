"""coverage.py on result files whose coverage, success and cost are known."""

import inspect
import itertools
import json
import math
import random

import numpy as np
import pytest
from conftest import ROOT

import compute_optimal
import coverage
from common.grading import majority, weighted
from coverage import (
    Samples,
    beta_coverage,
    coverage_at,
    crossing,
    fit_beta,
    forecast,
    interval,
    majority_limit,
    pool,
    power_law,
    success_at,
)

# --- synthetic result files -----------------------------------------------------------------------

GOLD = "7"


def sample(answer, score=None, finished=True, **more):
    scores = [] if score is None else [0.5, score]
    one = {"text": "", "answer": answer, "finished": finished, "scores": scores, "value": score}
    return one | more


def row(key, samples, rules=("majority",), **more):
    usage = {"policy_tokens": 110, "generated_tokens": 100, "prm_tokens": 0, "flops": 1100.0}
    found = {"id": key, "problem": f"What is {key}?", "answer": GOLD, "level": None}
    found |= {"completions": samples, "predictions": dict.fromkeys(rules), "usage": usage}
    return found | more


def write(path, rows, script="majority.py", n=4, seed=0, **settings):
    header = {"script": script, "n": n, "seed": seed, "policy": "P", "temperature": 0.8}
    lines = [{"run": header | settings | {"commit": "abc"}}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def votes(path, rights, n=4, seed=0, **settings):
    """A file of majority.py. rights: {id: how many of n are right}; the others say "8"."""
    rows = []
    for key, right in rights.items():
        rows.append(row(key, [sample(GOLD if i < right else "8") for i in range(n)]))
    return write(path, rows, n=n, seed=seed, **settings)


def report_of(capsys, tmp_path, *words):
    """(what is printed, the JSON) of a run that ends well."""
    out = tmp_path / "out.json"
    out.unlink(missing_ok=True)
    assert coverage.main([*map(str, words), "--json", str(out)]) == 0
    return capsys.readouterr().out, json.loads(out.read_text())


# --- the estimators -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_coverage_is_that_of_all_subsets(n):
    for right in range(n + 1):
        solved = [i < right for i in range(n)]
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(solved, k))
            wanted = sum(map(any, subsets)) / len(subsets)
            found = coverage_at(k, np.array([right, 0]), np.array([n, n]))
            assert found == pytest.approx([wanted, 0.0])


def test_coverage_of_large_numbers_and_beyond_the_samples():
    wanted = 1 - math.comb(9_900, 5_000) / math.comb(10_000, 5_000)
    assert coverage_at(5_000, np.array([100]), np.array([10_000])) == pytest.approx([wanted])
    with pytest.raises(ValueError, match="at 5"):
        coverage_at(5, np.array([1, 1]), np.array([8, 4]))


def judged(rng, n):
    """n samples with some that may not vote, as pool() takes them."""
    part = []
    for i in range(n):
        form = rng.choice(["a", "b", "c", None])
        score = rng.choice([0.1, 0.4, 0.7, 0.9, math.nan]) + 0.001 * i
        part.append((i, form, score, form == "a"))
    return part


def chosen(rule, part):
    """What a rule answers, by the functions that decide it everywhere else."""
    voters = [(form, score) for _, form, score, _ in part if form is not None]
    if rule == "majority":
        return majority([form for form, _ in voters], key=str)
    voters = [(form, score) for form, score in voters if math.isfinite(score)]
    if rule == "weighted":
        return weighted([form for form, _ in voters], [score for _, score in voters], key=str)
    return max(voters, key=lambda voter: voter[1], default=(None,))[0]


@pytest.mark.parametrize("rule", ["majority", "best", "weighted"])
def test_success_is_that_of_all_subsets(rule, monkeypatch):
    """Of equal votes any may win: the subsets are taken in every order."""
    monkeypatch.setattr(coverage, "SUBSETS", 20_000)
    rng = random.Random(rule)
    for n, k in [(5, 1), (5, 3), (6, 4), (4, 4)]:
        part = judged(rng, n)
        subsets = list(itertools.permutations(part, k))
        wanted = sum(chosen(rule, subset) == "a" for subset in subsets) / len(subsets)
        covered = sum(any(right for *_, right in subset) for subset in subsets) / len(subsets)
        samples = pool([part], n)
        draws = [success_at(k, samples, rule, np.random.default_rng(seed)) for seed in range(200)]
        found = np.mean(draws if k == n else draws[:1], axis=0)
        error = 0.1 if k == n else 0.015  # of 200 and of 20,000 draws
        assert found == pytest.approx([wanted, covered], abs=error)


def test_a_subset_that_may_not_vote_is_wrong():
    nobody = pool([[(0, None, 0.9, False), (1, None, 0.9, False)]], 2)
    for rule in ("majority", "best", "weighted"):
        assert success_at(1, nobody, rule, np.random.default_rng(0)) == (0.0, 0.0)


def test_an_interval_is_over_problems():
    values = np.array([0.0, 1.0] * 50)[:, None]
    low, high = interval(values)
    assert low[0] == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert high[0] == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
    assert [side[0] for side in interval(np.ones((9, 1)))] == [1.0, 1.0]


def test_the_limit_of_the_majority_vote():
    def problem(counts, right):
        answers = [i for i, count in enumerate(counts) for _ in range(count)] or [-1]
        size = len(answers)
        is_right = np.array([i == right for i in range(max(1, len(counts)))])
        none = np.full(size, math.nan)
        return Samples(size, np.arange(size), np.array(answers), none, None, is_right)

    problems = [
        problem([60, 4], 0),  # right
        problem([60, 4], 1),  # sure, and wrong
        problem([33, 31], 0),  # right, as far as one can tell
        problem([], None),  # no answer at all
    ]
    limit = majority_limit(problems)
    assert (limit["limit"], limit["wrong"], limit["close"]) == (0.5, 0.5, 0.25)


# --- how it goes on -------------------------------------------------------------------------------


def test_a_power_law_is_found_again():
    ks = 2.0 ** np.arange(9)
    fit = power_law(ks, np.exp(-1.5 * ks**-0.4), 32)
    assert (fit["a"], fit["b"]) == pytest.approx((-1.5, -0.4))
    assert fit["fitted_up_to"] == 32
    assert fit["max_error"] < 1e-9 and fit["heldout_error"] < 1e-9


def test_a_power_law_is_held_against_what_it_has_not_seen():
    ks = 2.0 ** np.arange(9)
    values = np.exp(-1.5 * ks**-0.4)
    values[-1] -= 0.1
    fit = power_law(ks, values, 32)
    assert (fit["a"], fit["b"]) == pytest.approx((-1.5, -0.4))
    assert fit["heldout_error"] == pytest.approx(0.1) == fit["max_error"]
    assert fit["mean_error"] == pytest.approx(0.1 / 9)


@pytest.mark.parametrize("values", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0.5, 1, 1]])
def test_no_power_law_without_two_points(values):
    assert power_law([1, 2, 4, 8], values, 4) is None


def test_a_beta_is_found_again_and_forecasts():
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 1.6, size=20_000)
    units = np.full(len(p), 64)
    right = rng.binomial(units, p)
    assert fit_beta(right, units) == pytest.approx([0.4, 1.6], rel=0.03)
    for k in (1, 10, 1000):
        assert beta_coverage(k, 0.4, 1.6) == pytest.approx((1 - (1 - p) ** k).mean(), abs=0.01)

    few, of = right[:400], units[:400]
    ks = [1, 2, 4, 8, 16, 32, 64]
    measured = np.array([coverage_at(k, few, of).mean() for k in ks])
    ahead = forecast(few, of, ks, measured)
    assert ahead["k"] == [64, 128, 256, 512, 1024]
    for k, value, low, high in zip(ahead["k"], ahead["coverage"], *ahead["interval"]):
        assert low < value < high and low < (1 - (1 - p) ** k).mean() < high
    assert ahead["error"] < 0.02 and ahead["heldout_error"] < 0.04


def test_a_forecast_that_does_not_fit_is_told():
    """Half of the problems are never solved, and the rest are by one sample in three."""
    units = np.full(200, 64)
    right = np.where(np.arange(200) < 100, 0, 21)
    ks = [1, 2, 4, 8, 16, 32, 64]
    measured = np.array([coverage_at(k, right, units).mean() for k in ks])
    ahead = forecast(right, units, ks, measured)
    assert ahead["error"] > coverage.TRUSTED


# --- files ----------------------------------------------------------------------------------------


def test_the_report(tmp_path, capsys):
    rights = {"all": 8, "none": 0, "half": 4, "one": 1}
    out, [report] = report_of(capsys, tmp_path, votes(tmp_path / "a.jsonl", rights, n=8))
    assert report["files"] == [str(tmp_path / "a.jsonl")]
    assert (report["problems"], report["samples"], report["k"]) == (4, 8, [1, 2, 4, 8])
    assert report["coverage"][0] == pytest.approx(13 / 32)
    assert report["coverage"][-1] == 0.75
    assert report["success"]["majority"][0] == pytest.approx(13 / 32, abs=0.05)
    assert report["success"]["majority"][-1] in (0.25, 0.5)  # half and half: either
    gap = report["coverage"][-1] - report["success"]["majority"][-1]
    assert report["gap"]["majority"][-1] == pytest.approx(gap)
    assert report["precision"]["majority"][-1] == pytest.approx(1 - gap / 0.75)
    low, high = report["coverage_interval"][-1]
    assert low <= 0.75 <= high
    assert report["majority_limit"]["wrong"] in (0.5, 0.75)
    named = {"files", "problems", "samples", "k", "coverage", "coverage_interval", "success"}
    named |= {"precision", "fit", "forecast", "flops"}
    assert named <= set(report)
    assert {"a", "b", "mean_error", "max_error", "heldout_error"} <= set(report["fit"] or "") or (
        report["fit"] is None
    )
    assert {"k", "coverage"} <= set(report["forecast"])
    for words in ("4 problems, 8 samples", "coverage", "perfect verifier", "limit of the majority"):
        assert words in out


def test_cost_reads_the_prompt_once(tmp_path, capsys):
    """110 positions, 100 of them sampled: a tenth of the samples costs 10 + 10 of 110."""
    file = votes(tmp_path / "a.jsonl", {"x": 1, "y": 2}, n=10)
    _, [report] = report_of(capsys, tmp_path, file, "--k", 1, 5, 10)
    assert report["flops"] == pytest.approx([200.0, 600.0, 1100.0])


def test_rules_of_a_prm_by_hand(tmp_path, capsys):
    rules = ("majority", "best", "weighted")
    samples = [sample("8", 0.3), sample("8", 0.2), sample(GOLD, 0.6), sample("9", None)]
    file = write(tmp_path / "a.jsonl", [row("x", samples, rules)], "best_of_n.py")
    _, [report] = report_of(capsys, tmp_path, file, "--k", 4)
    assert {rule: values[0] for rule, values in report["success"].items()} == {
        "majority": 0.0,  # 8 has two votes
        "best": 1.0,  # .6
        "weighted": 1.0,  # .6 against .5
    }


def test_a_cut_sample_is_a_sample_and_wrong(tmp_path, capsys):
    samples = [sample(GOLD, finished=False), sample("8"), sample(None), sample("14/2")]
    file = write(tmp_path / "a.jsonl", [row("x", samples)])
    _, [report] = report_of(capsys, tmp_path, file)
    assert report["coverage"] == pytest.approx([0.25, 0.5, 1.0])


def test_programs_are_right_if_they_passed(tmp_path, capsys):
    samples = [sample(None, passed=i == 0) for i in range(4)]
    rows = [row("x", samples, ("tests",), answer=None, tests="assert True")]
    out, [report] = report_of(capsys, tmp_path, write(tmp_path / "a.jsonl", rows))
    assert report["coverage"] == pytest.approx([0.25, 0.5, 1.0])
    assert report["success"] == {} and report["majority_limit"] is None


def test_seeds_are_pooled_and_settings_are_not(tmp_path, capsys):
    files = [votes(tmp_path / f"{seed}.jsonl", {"x": seed}, seed=seed) for seed in (0, 1)]
    other = votes(tmp_path / "hot.jsonl", {"x": 4}, temperature=1.3)
    out, [pooled, hot] = report_of(capsys, tmp_path, *files, other)
    assert pooled["files"] == files and pooled["samples"] == 8
    assert pooled["coverage"][0] == pytest.approx(1 / 8)
    assert hot["coverage"] == [1.0, 1.0, 1.0]
    assert "majority, temperature=0.8" in out and "majority, temperature=1.3" in out


def test_subtrees_of_dvts_are_its_units(tmp_path, capsys):
    """n = 4, M = 2: two subtrees, of which one is right. The first has no solution at all."""
    samples = [sample(GOLD, 0.9, subtree=1), sample("8", 0.1, subtree=1)]
    rows = [row("x", samples, ("weighted",)), row("y", samples[1:], ("weighted",))]
    file = write(tmp_path / "a.jsonl", rows, "dvts.py", beam_width=2)
    _, [report] = report_of(capsys, tmp_path, file)
    assert report["k"] == [2, 4]
    assert report["coverage"] == pytest.approx([0.25, 0.5])
    assert report["success"]["weighted"][-1] == 0.5
    assert report["majority_limit"] is None  # the theorem is about independent samples


def test_a_beam_search_is_known_at_its_own_n_alone(tmp_path, capsys):
    files = []
    for seed in (0, 1):
        rows = [row("x", [sample(GOLD if seed else "8", 0.9)], ("weighted",))]
        files.append(write(tmp_path / f"{seed}.jsonl", rows, "beam.py", n=4, seed=seed))
    _, [report] = report_of(capsys, tmp_path, *files)
    assert (report["k"], report["coverage"]) == ([4], [0.5])
    assert report["fit"] is None and report["forecast"] is None


def test_levels(tmp_path, capsys):
    rows = [row("a", [sample(GOLD)] * 4, level=1), row("b", [sample("8")] * 4, level="Level 5")]
    out, [report] = report_of(capsys, tmp_path, write(tmp_path / "a.jsonl", rows))
    assert report["levels"]["1"]["coverage"] == [1.0] * 3
    assert report["levels"]["Level 5"]["coverage"] == [0.0] * 3
    assert report["levels"]["1"]["majority"] == [1.0] * 3 and "by level" in out


def test_at_equal_flops():
    def curve(name, flops, values):
        return {"name": name, "flops": flops, "coverage": values}

    def key(one):
        return one["coverage"]

    a = curve("A", [1e9, 1e11], [0.5, 0.5])
    b = curve("B", [1e9, 1e11], [0.3, 0.7])
    assert crossing(a, b, key).startswith("from 10") and "B is ahead" in crossing(a, b, key)
    assert crossing(b, a, key).startswith("from 10") and "B is ahead" in crossing(b, a, key)
    lower = curve("C", [1e9, 1e11], [0.1, 0.2])
    assert crossing(a, lower, key) == "A is ahead from 1GFLOP to 100GFLOP"
    assert crossing(a, curve("D", [1e10], [0.9]), key) == "D is ahead at 10GFLOP"
    assert crossing(a, curve("E", [1e12, 1e13], [0.9, 0.9]), key) is None
    assert crossing(a, {**a, "name": "F"}, key) == "equal at 100GFLOP"


def test_what_is_missing_is_said(tmp_path, capsys):
    """A failed problem is left out; one with fewer samples ends k; a torn line does not count."""
    first = votes(tmp_path / "0.jsonl", {"x": 1, "y": 1})
    failed = {"id": "y", "problem": "What is y?", "answer": GOLD, "level": None, "error": "no"}
    half = write(tmp_path / "1.jsonl", [row("x", [sample(GOLD)] * 4), failed], seed=1)
    with open(half, "a") as file:
        file.write('{"id": "z"')
    assert coverage.main([first, half]) == 0
    out, err = capsys.readouterr()
    assert "1 problems failed and are left out" in err
    assert "'y'" in err and "k ends at 4" in err
    assert "2 problems, 4 samples" in out


FINE = {"x": 1, "y": 2}
GOOD = row("x", [sample(GOLD)] * 4)
REFUSED = {
    "no such file": (lambda path: str(path / "none"), ["none", "cannot be read"]),
    "no result file": (lambda path: put(path, "Dear diary,\n"), ["is no result file"]),
    "empty": (lambda path: put(path, ""), ["is no result file"]),
    "odd n": (lambda path: write(path / "f", [GOOD], n="4"), ["is no result file"]),
    "no rows": (lambda path: write(path / "f", []), ["has no solved problem"]),
    "odd row": (lambda path: write(path / "f", [GOOD, {"id": "y"}]), ["line 3", "no row"]),
    "no cost": (lambda path: write(path / "f", [GOOD | {"usage": {}}]), ["line 2"]),
    "too few": (
        lambda path: write(path / "f", [row("x", [sample(GOLD)] * 3)]),
        ["line 2", "3 completions, not n = 4"],
    ),
    "no answer": (
        lambda path: write(path / "f", [GOOD | {"answer": None}]),
        ["'x'", "no answer to be right about"],
    ),
    "a line of text": (lambda path: put(path, '{"run": {"script": "a", "n": 1}}\nx\n'), ["line 2"]),
}


def put(path, text):
    (path / "f").write_text(text)
    return str(path / "f")


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        coverage.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("name", REFUSED)
def test_odd_files_are_one_line(name, tmp_path, capsys):
    make, words = REFUSED[name]
    err = refused(capsys, make(tmp_path))
    assert all(word in err for word in words), err


def test_odd_flags_are_one_line_and_no_file_is_touched(tmp_path, capsys):
    file = votes(tmp_path / "a.jsonl", FINE)
    twin = votes(tmp_path / "b.jsonl", FINE)
    other = votes(tmp_path / "c.jsonl", {"x": 1, "z": 1}, temperature=1.0)
    asked = write(
        tmp_path / "d.jsonl", [GOOD | {"problem": "?"}, row("y", [sample("8")] * 4)], seed=3
    )
    (tmp_path / "there.json").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words, said in [
        ([file, "--k", 5], ["--k 5", "1 to 4"]),
        ([file, "--k", 0], ["--k 0"]),
        ([file, twin], ["seed", "a.jsonl"]),
        ([file, other], ["other problems", "'y'"]),
        ([file, asked], ["differ in problem 'x'"]),
        ([file, "--json", tmp_path / "there.json"], ["there already", "--overwrite"]),
        ([file, "--json", file, "--overwrite"], ["named twice"]),
        ([file, "--json", tmp_path / "no" / "out.json"], ["no such folder"]),
        ([file, "--plot", tmp_path / "out.jpg"], [".png"]),
        ([file, "--plot", tmp_path], ["no plain file"]),
        ([], ["--help"]),
    ]:
        err = refused(capsys, *words)
        assert all(word in err for word in said), err
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_picture(tmp_path, capsys):
    file = votes(tmp_path / "a.jsonl", {str(i): i % 5 for i in range(20)})
    picture = tmp_path / "out.png"
    assert coverage.main([file, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.write_bytes(b"old")
    assert coverage.main([file, "--plot", str(picture), "--overwrite"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.png"]


@pytest.mark.parametrize("name", ["BadInput", "amount", "write"])
def test_copies_are_identical(name):
    ours = inspect.getsource(getattr(coverage, name))
    assert ours == inspect.getsource(getattr(compute_optimal, name))
    text = (ROOT / "coverage.py").read_text()
    assert f"# Copied from compute_optimal.py\n{ours.splitlines()[0]}" in text
