"""coverage.py on result files whose coverage, success and cost are known."""

import gzip
import itertools
import json
import math
import random
import re
import struct
from functools import partial

import numpy as np
import pytest
from conftest import ROOT

import coverage
from common.grading import WEIGHTS, majority, most_confident, weighted
from coverage import (
    Samples,
    beta_coverage,
    coverage_at,
    crossing,
    fit_beta,
    forecast,
    interval,
    majority_limit,
    overlap,
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
    header = {"script": script, "n": n, "seed": seed, "policy": "P", "commit": "abc"}
    lines = [{"run": header | {"temperature": 0.8} | settings}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def votes(path, rights, n=4, seed=0, **settings):
    """A file of majority.py. rights: {id: how many of n are right}; the others say "8"."""
    rows = []
    for key, right in rights.items():
        rows.append(row(key, [sample(GOLD if i < right else "8") for i in range(n)]))
    return write(path, rows, n=n, seed=seed, **settings)


@pytest.fixture(autouse=True)
def few_resamples(request, monkeypatch):
    """Intervals of whole reports may be rough: it is the functions whose intervals are tested."""
    if "tmp_path" in request.fixturenames:
        monkeypatch.setattr(coverage, "RESAMPLES", 100)


def report_of(capsys, tmp_path, *words):
    """(what is printed, the JSON) of a run that ends well."""
    out = tmp_path / "out.json"
    out.unlink(missing_ok=True)
    assert coverage.main([*map(str, words), "--json", str(out)]) == 0
    return capsys.readouterr().out, json.loads(out.read_text())


# --- the estimators -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, expected", [("certainty", [2 / 3, 1 / 3, 1]), ("confidence", [2 / 3, 1 / 3, 0])]
)
def test_votes_by_certainty_rank_anew_in_each_subset(rule, expected, tmp_path, capsys, monkeypatch):
    """Of 8 (most certain), 7, 7: of pairs that with 8 goes to 8, of all three 7 has more ranks."""
    best_tenth = partial(most_confident, share=0.1)
    monkeypatch.setitem(WEIGHTS, "confidence", best_tenth)
    samples = []
    for answer, value in [("8", 3.0), ("7", 2.0), ("7", 1.0)]:
        samples.append(sample(answer) | {"value": value})
    rows = [row(f"p{i}", samples, rules=("majority", rule)) for i in range(8)]
    file = write(tmp_path / "a.jsonl", rows, n=3, weights=rule)
    _, (report,) = report_of(capsys, tmp_path, file, "--k", "1", "2", "3")
    assert report["success"][rule] == pytest.approx(expected, abs=0.05)
    assert report["success"]["majority"][2] == 1


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
@pytest.mark.parametrize("drawn", [False, True])
def test_success_is_that_of_all_subsets(rule, drawn, monkeypatch):
    """Of equal votes any may win: the subsets are taken in every order. Where they are too many to
    take each, 20,000 are drawn."""
    if drawn:
        monkeypatch.setattr(coverage, "SUBSETS", 20_000)
        monkeypatch.setattr(math, "comb", lambda n, k: 20_001)
    rng = random.Random(rule)
    for n, k in [(5, 1), (5, 3), (6, 3), (6, 4), (6, 4), (4, 4), (6, 6)]:
        part = judged(rng, n)
        subsets = list(itertools.permutations(part, k))
        wanted = sum(chosen(rule, subset) == "a" for subset in subsets) / len(subsets)
        covered = sum(any(right for *_, right in subset) for subset in subsets) / len(subsets)
        samples = pool([part], n)
        found = success_at(k, samples, rule, np.random.default_rng(0))
        error = 0.015 if drawn else 1e-9
        assert found == pytest.approx([wanted, covered], abs=error)


def all_of(rule, *part):
    """Success with all samples: (answer, score, right) each."""
    samples = pool([[(i, *one) for i, one in enumerate(part)]], len(part))
    return success_at(len(part), samples, rule, np.random.default_rng(0))[0]


def test_equal_votes_share_the_win():
    right, wrong, other = ("7", 0.5, True), ("8", 0.5, False), ("9", 0.5, False)
    for rule in ("majority", "best", "weighted"):
        assert all_of(rule, right, wrong) == 0.5
        assert all_of(rule, right, wrong, other) == pytest.approx(1 / 3)
    # A sum of equal weights in another order is equal, whatever the last bit says.
    left = [("7", score, True) for score in (0.1, 0.2, 0.3)]
    assert all_of("weighted", *left, *[("8", score, False) for score in (0.3, 0.2, 0.1)]) == 0.5


def test_scores_may_be_zero_or_less():
    """An answer that is not in the subset never wins."""
    zero, less = ("7", 0.0, True), ("7", -3.0, True)
    silent = ("8", math.nan, False)
    for rule in ("best", "weighted"):
        assert all_of(rule, zero, silent) == 1.0
        assert all_of(rule, less, silent) == 1.0
    assert all_of("best", less, ("8", -5.0, False)) == 1.0


def test_success_is_over_random_subsets_of_at_least_a_hundred():
    """The first samples are right, the last are wrong: the order must not matter."""
    assert coverage.SUBSETS >= 100
    part = [(i, "7" if i < 20 else "8", 0.5, i < 20) for i in range(40)]
    for order in (part, part[::-1]):
        order = [(i, *one[1:]) for i, one in enumerate(order)]
        found, _ = success_at(4, pool([order], 40), "majority", np.random.default_rng(1))
        assert found == pytest.approx(0.5, abs=0.1)


def test_a_subset_that_may_not_vote_is_wrong():
    nobody = pool([[(0, None, 0.9, False), (1, None, 0.9, False)]], 2)
    empty = pool([[]], 2)  # a search that ended without a solution
    for rule in ("majority", "best", "weighted"):
        for samples in (nobody, empty):
            assert success_at(1, samples, rule, np.random.default_rng(0)) == (0.0, 0.0)
            assert success_at(2, samples, rule, np.random.default_rng(0)) == (0.0, 0.0)
    assert majority_limit([empty])["wrong"] == 1.0


def test_a_subtree_is_drawn_as_a_whole():
    """One of two subtrees has a right answer and a wrong one, the other a wrong one."""
    twice = pool([[(0, "7", 0.6, True), (0, "7", 0.5, True), (1, "9", 0.7, False)]], 2)
    assert (twice.units, twice.right_units()) == (2, 1)
    part = [(0, "7", 0.6, True), (0, "8", 0.5, False), (1, "9", 0.7, False)]
    samples = pool([part], 2)
    assert (samples.units, samples.right_units()) == (2, 1)
    for rule, one, both in [("majority", 0.25, 1 / 3), ("best", 0.5, 0), ("weighted", 0.5, 0)]:
        solved, covered = success_at(1, samples, rule, np.random.default_rng(0))
        assert solved == pytest.approx(one, abs=0.06) and covered == pytest.approx(0.5, abs=0.12)
        assert success_at(2, samples, rule, np.random.default_rng(0)) == pytest.approx([both, 1])


def test_an_interval_is_over_problems():
    values = np.array([0.0, 1.0] * 50)[:, None]
    low, high = interval(values)
    assert low[0] == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert high[0] == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
    for all_of_them, ends in ((1, [0.7007, 1]), (0, [0, 0.2993])):  # nine of nine: Wilson's
        sides = interval(np.full((9, 1), all_of_them))
        assert [side[0] for side in sides] == pytest.approx(ends, abs=1e-3)


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
    low, high = limit["interval"]
    assert low == 0.0 and high == 1.0  # of four problems, drawn anew


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


def test_a_forecast_is_held_against_what_an_eighth_of_the_samples_says(monkeypatch):
    fitted = []

    def uniform(right, units):
        fitted.append((right, units))
        return 1.0, 1.0  # coverage is k / (k + 1)

    monkeypatch.setattr(coverage, "fit_beta", uniform)
    right = np.repeat([0, 32, 64], 1000)
    ahead = forecast(right, np.full(3000, 64), [1, 2, 4, 8, 16, 32, 64], np.full(7, 0.9))
    assert ahead["heldout_error"] == pytest.approx(64 / 65 - 0.9)
    assert ahead["error"] == pytest.approx(0.4)  # at k = 1
    some, few = fitted[-1]
    assert set(few) == {8} and set(some[:1000]) == {0} and set(some[2000:]) == {8}
    assert some[1000:2000].mean() == pytest.approx(4, abs=0.2) and len(set(some)) > 5


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
    assert report["success"]["majority"][-1] == 0.375  # half and half is half a success
    gap = report["coverage"][-1] - report["success"]["majority"][-1]
    assert report["gap"]["majority"][-1] == pytest.approx(gap)
    assert report["precision"]["majority"][-1] == pytest.approx(1 - gap / 0.75)
    low, high = report["coverage_interval"][-1]
    assert low <= 0.75 <= high
    assert report["majority_limit"]["wrong"] in (0.5, 0.75)
    for words in ("4 problems, 8 samples", "coverage", "perfect verifier", "limit of the majority"):
        assert words in out


def test_precision_and_gap_are_of_the_same_problems(tmp_path, capsys):
    """Three of four are covered, the vote finds one of them: the rest is for a verifier."""
    file = votes(tmp_path / "a.jsonl", {"all": 4, "none": 0, "one": 1, "other": 1})
    out, [report] = report_of(capsys, tmp_path, file, "--k", 4)
    assert report["precision"] == {"majority": [pytest.approx(1 / 3)]}
    assert report["gap"] == {"majority": [0.5]}
    assert "75.0 [" in out and "25.0 (33)" in out
    assert "a perfect verifier would add 50.0 points to majority at k = 4" in out
    assert report["majority_limit"]["limit"] == 0.25 and report["majority_limit"]["wrong"] == 0.75
    assert "limit of the majority vote: 25.0 %" in out
    assert "for 75.0 % of problems the favourite answer is wrong" in out


def test_precision_of_nothing_is_none(tmp_path, capsys):
    out, [report] = report_of(capsys, tmp_path, votes(tmp_path / "a.jsonl", {"x": 0, "y": 0}))
    assert report["coverage"] == [0.0] * 3 and report["success"] == {"majority": [0.0] * 3}
    assert report["precision"] == {"majority": [None] * 3} and "0.0 (-)" in out
    assert report["fit"] is None


def test_the_columns_of_full_coverage_do_not_touch(tmp_path, capsys):
    out, _ = report_of(capsys, tmp_path, votes(tmp_path / "a.jsonl", {"x": 4, "y": 4}))
    assert re.search(r"100\.0 \[34\.2, 100\.0\] +100\.0 \(100\)", out)


def test_rules_see_the_same_subsets(tmp_path, capsys):
    """With one sample there is nothing to choose; and what else is asked changes no figure."""
    samples = [sample(GOLD if i % 3 else "8", 0.1 + 0.01 * i) for i in range(16)]
    rows = [row(key, samples, ("majority", "best", "weighted")) for key in "xyz"]
    file = write(tmp_path / "a.jsonl", rows, "best_of_n.py", n=16)
    _, [report] = report_of(capsys, tmp_path, file)
    ones = {values[0] for values in report["success"].values()}
    assert ones == {report["coverage"][0]} == {10 / 16}
    _, [alone] = report_of(capsys, tmp_path, file, "--k", 4)
    for rule, values in report["success"].items():
        assert alone["success"][rule] == [values[2]]


# All but "interval" of the forecast and what is ours.
NAMED = {
    "files": list,
    "problems": int,
    "samples": int | float,
    "k": list,
    "coverage": list,
    "coverage_interval": list,
    "success": dict,
    "success_interval": dict,
    "precision": dict,
    "fit": dict,
    "forecast": dict,
    "flops": list,
}


def test_the_json_has_the_fields_that_are_promised(tmp_path, capsys):
    rights = {str(i): [0, 1, 3, 9, 20, 30][i % 6] for i in range(24)}
    file = votes(tmp_path / "a.jsonl", rights, n=32)
    out = tmp_path / "out.json"
    assert coverage.main([file, "--json", str(out)]) == 0

    def no_constant(name):
        raise ValueError(f"{name} is no JSON")

    reports = json.loads(out.read_text(), parse_constant=no_constant)
    assert type(reports) is list
    [report] = reports
    for name, kind in NAMED.items():
        assert isinstance(report[name], kind), name
    assert set(report["fit"]) >= {"a", "b", "mean_error", "max_error", "heldout_error"}
    assert set(report["forecast"]) >= {"k", "coverage", "interval", "heldout_error"}
    assert report["k"] == [1, 2, 4, 8, 16, 32]
    for name in ("coverage", "coverage_interval", "flops"):
        assert len(report[name]) == 6
    for name in ("success", "precision"):
        assert list(report[name]) == ["majority"] and len(report[name]["majority"]) == 6
    assert len(report["forecast"]["k"]) == len(report["forecast"]["coverage"])


def test_fits_are_of_all_samples_whatever_is_shown(tmp_path, capsys):
    """Fitted on k <= n/8, held against n, and the forecast begins at n."""
    rights = {str(i): [0, 1, 3, 9, 20, 60][i % 6] for i in range(60)}
    file = votes(tmp_path / "a.jsonl", rights, n=64)
    _, [full] = report_of(capsys, tmp_path, file)
    assert full["fit"]["fitted_up_to"] == 8
    assert full["forecast"]["k"] == [64, 128, 256, 512, 1024]
    fit, measured = full["fit"], full["coverage"]
    errors = [abs(math.exp(fit["a"] * k ** fit["b"]) - c) for k, c in zip(full["k"], measured)]
    assert fit["heldout_error"] == pytest.approx(errors[-1])
    assert fit["max_error"] == pytest.approx(max(errors))
    assert fit["mean_error"] == pytest.approx(np.mean(errors))
    for words in (["--k", 1, 64], ["--k", 2]):
        _, [some] = report_of(capsys, tmp_path, file, *words)
        assert (some["fit"], some["forecast"]) == (full["fit"], full["forecast"])


def test_a_fit_that_does_not_hold_is_said(tmp_path, capsys):
    """Bent: half of the problems are never solved, and the rest are by one sample in three.

    Fine: each count of right samples once, as for a Beta(1, 1). Its coverage is k / (k + 1).
    """
    bent = votes(tmp_path / "bent.jsonl", {str(i): i % 2 * 21 for i in range(40)}, n=64)
    fine = votes(tmp_path / "fine.jsonl", {str(i): i for i in range(65)}, n=64)
    out, [report] = report_of(capsys, tmp_path, bent)
    assert report["fit"]["max_error"] > coverage.TRUSTED
    assert "it does not hold" in out and "do not trust it far" in out
    out, [report] = report_of(capsys, tmp_path, fine)
    assert "power law: log(coverage)" in out and "forecast by a Beta(" in out
    assert "do not trust it far" not in out and "it does not hold" not in out
    assert report["coverage"] == pytest.approx([k / (k + 1) for k in report["k"]])
    ahead = report["forecast"]
    assert (ahead["alpha"], ahead["beta"]) == pytest.approx((1, 1), abs=0.01)
    assert ahead["coverage"] == pytest.approx([k / (k + 1) for k in ahead["k"]], abs=1e-3)


def test_the_policy_reads_the_prompt_once_and_the_prm_each_time(tmp_path, capsys):
    """Of 200 tokens read, 10 are the policy's prompt: a twentieth of the cost comes once."""
    usage = {"policy_tokens": 60, "generated_tokens": 50, "prm_tokens": 140, "flops": 2000}
    rows = [row("x", [sample(GOLD, 0.5)] * 4, ("best",)) | {"usage": usage}]
    file = write(tmp_path / "a.jsonl", rows, "best_of_n.py")
    _, [report] = report_of(capsys, tmp_path, file)
    assert report["flops"] == pytest.approx([100 + 475, 100 + 950, 2000])


def test_cost_of_pooled_seeds(tmp_path, capsys):
    """One prompt for all of them, and the mean cost of a sample."""
    files = [votes(tmp_path / f"{seed}.jsonl", {"x": 1}, n=10, seed=seed) for seed in (0, 1)]
    _, [report] = report_of(capsys, tmp_path, *files, "--k", 10, 20)
    assert report["flops"] == pytest.approx([1100.0, 2100.0])


def test_cost_reads_the_prompt_once(tmp_path, capsys):
    """110 positions, 100 of them sampled: a tenth of the samples costs 10 + 10 of 110."""
    file = votes(tmp_path / "a.jsonl", {"x": 1, "y": 2}, n=10)
    _, [report] = report_of(capsys, tmp_path, file, "--k", 1, 5, 10)
    assert report["flops"] == pytest.approx([200.0, 600.0, 1100.0])


@pytest.mark.parametrize(
    "wrong, solved",
    [
        ([0.3, 0.2], {"majority": 0.0, "best": 1.0, "weighted": 1.0}),  # .6 against .5
        ([0.5, 0.4], {"majority": 0.0, "best": 1.0, "weighted": 0.0}),  # .6 against .9
        ([0.7, 0.6], {"majority": 0.0, "best": 0.0, "weighted": 0.0}),
    ],
)
def test_rules_of_a_prm_by_hand(wrong, solved, tmp_path, capsys):
    """Two votes against one; what has no score has no weight, but a vote."""
    samples = [*[sample("8", score) for score in wrong], sample(GOLD, 0.6), sample("9", None)]
    file = write(tmp_path / "a.jsonl", [row("x", samples, tuple(solved))], "best_of_n.py")
    _, [report] = report_of(capsys, tmp_path, file, "--k", 4)
    assert {rule: values[0] for rule, values in report["success"].items()} == solved


def test_a_cut_sample_is_a_sample_and_wrong(tmp_path, capsys):
    samples = [sample(GOLD, finished=False), sample("8"), sample(None), sample("14/2")]
    file = write(tmp_path / "a.jsonl", [row("x", samples)])
    _, [report] = report_of(capsys, tmp_path, file)
    assert report["coverage"] == pytest.approx([0.25, 0.5, 1.0])


def test_rules_that_are_not_known_are_left_out(tmp_path, capsys):
    rows = [row("x", [sample(GOLD, 0.5)] * 4, ("majority", "oracle"))]
    _, [report] = report_of(capsys, tmp_path, write(tmp_path / "a.jsonl", rows))
    assert list(report["success"]) == ["majority"]


def test_programs_are_right_if_they_passed(tmp_path, capsys):
    samples = [sample(None, passed=i == 0) for i in range(4)]
    rows = [row("x", samples, ("tests",), answer=None, tests="assert True")]
    out, [report] = report_of(capsys, tmp_path, write(tmp_path / "a.jsonl", rows))
    assert report["coverage"] == pytest.approx([0.25, 0.5, 1.0])
    assert report["success"] == {} and report["majority_limit"] is None


def test_the_best_program_is_the_one_that_scores_highest(tmp_path, capsys):
    """Programs state no answer and do not vote; what was cut off is none."""
    rows = []
    for key, best in [("x", 3), ("y", 0)]:
        samples = [sample(None, 0.9 if i == best else 0.5, passed=i == 3) for i in range(3)]
        samples += [sample(None, 0.9 if best == 3 else 0.5, passed=True)]
        rows.append(row(key, samples, ("tests", "best"), answer=None, tests="assert True"))
    cut = [sample(None, 0.99, False, passed=True), *[sample(None, 0.5, passed=True)] * 3]
    rows.append(row("z", cut, ("tests", "best"), answer=None, tests="assert True"))
    _, [report] = report_of(capsys, tmp_path, write(tmp_path / "a.jsonl", rows, "best_of_n.py"))
    assert list(report["success"]) == ["best"]
    assert report["coverage"] == pytest.approx([(0.25 + 0.25 + 0.75) / 3, 2.0 / 3, 1.0])
    assert report["success"]["best"][-1] == pytest.approx(2 / 3)


def test_what_is_pooled(tmp_path, capsys):
    """Where and when a run was made does not matter; what was asked of it does."""
    first = votes(tmp_path / "0.jsonl", {"x": 1})
    where = {"versions": {"torch": "9"}, "device": "cuda", "commit": "def"}
    where |= {"limit": 3, "output": "o", "problems": "p"}
    second = votes(tmp_path / "1.jsonl", {"x": 3}, seed=1, batch_problems=2, **where)
    _, [report] = report_of(capsys, tmp_path, first, second, first)  # the same file twice is one
    assert report["samples"] == 8 and report["coverage"][0] == 0.5
    for number, more in enumerate([{"n": 2}, {"policy": "Q"}, {"system": "S"}, {"prm": "R"}]):
        other = votes(tmp_path / f"other{number}.jsonl", {"x": 1}, **{"seed": 1, **more})
        assert len(report_of(capsys, tmp_path, first, other)[1]) == 2


def test_names_tell_runs_apart_on_one_line(tmp_path, capsys):
    head = "Solve it.\n\n" + 40 * "a"
    files = [votes(tmp_path / f"{end}.jsonl", {"x": 1}, system=head + end) for end in "bc"]
    out, reports = report_of(capsys, tmp_path, *files)
    names = [report["name"] for report in reports]
    assert len(set(names)) == 2 and all(name in out for name in names)
    assert all(name.startswith("majority, system=Solve it. aaa") for name in names)


def test_models_are_named_by_their_folders(tmp_path, capsys):
    """The fingerprint of weights is named only where it alone tells them apart."""

    def names(*models):
        files = []
        for i, (folder, weights) in enumerate(models):
            settings = {"policy": folder, "policy_weights": weights}
            files.append(votes(tmp_path / f"{i}.jsonl", {"x": 1}, **settings))
        _, reports = report_of(capsys, tmp_path, *files)
        return [report["name"] for report in reports]

    assert names(("/a/small", "1"), ("/b/large", "2")) == [
        "majority, policy=small",
        "majority, policy=large",
    ]
    assert names(("/a/one", "1"), ("/b/one", "2")) == [
        "majority, policy=one, policy_weights=1",
        "majority, policy=one, policy_weights=2",
    ]


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
    assert report["forecast"] is None  # two subtrees are too few


def test_subtrees_of_several_seeds(tmp_path, capsys):
    files = []
    for seed in range(4):
        samples = [sample(GOLD if seed == 3 else "8", 0.9, subtree=tree) for tree in (0, 1)]
        rows = [row("x", samples, ("weighted",))]
        settings = {"beam_width": 2, "seed": seed}
        files.append(write(tmp_path / f"{seed}.jsonl", rows, "dvts.py", **settings))
    _, [report] = report_of(capsys, tmp_path, *files, "--k", 2, 16)
    assert report["coverage"] == pytest.approx([0.25, 1.0]) and report["samples"] == 16
    assert report["forecast"]["k"] == [16, 32, 64, 128, 256]
    assert refused(capsys, *files, "--k", 3).endswith("2 to 16 samples in steps of 2\n")


def test_samples_drawn_until_the_answer_is_clear_are_known_at_their_own_n(tmp_path, capsys):
    file = write(tmp_path / "a.jsonl", [row("x", [sample(GOLD)] * 2)], n=8, stop_at=0.9)
    _, [report] = report_of(capsys, tmp_path, file)
    assert (report["k"], report["coverage"], report["majority_limit"]) == ([8], [1.0], None)


def test_a_beam_search_is_known_at_its_own_n_alone(tmp_path, capsys):
    files = []
    for seed in (0, 1):
        rows = [row("x", [sample(GOLD if seed else "8", 0.9)], ("weighted",))]
        files.append(write(tmp_path / f"{seed}.jsonl", rows, "beam.py", n=4, seed=seed))
    _, [report] = report_of(capsys, tmp_path, *files)
    assert (report["k"], report["coverage"]) == ([4], [0.5])
    assert report["fit"] is None and report["forecast"] is None
    assert report["flops"] == [1100.0]
    none = write(tmp_path / "none.jsonl", [row("x", [], ("weighted",))], "beam.py", n=4)
    _, [report] = report_of(capsys, tmp_path, none)
    assert (report["coverage"], report["success"]["weighted"]) == ([0.0], [0.0])


def test_levels(tmp_path, capsys):
    rows = [row("a", [sample(GOLD)] * 4, level=1), row("b", [sample("8")] * 4, level="Level 5")]
    out, [report] = report_of(capsys, tmp_path, write(tmp_path / "a.jsonl", rows))
    assert report["levels"]["1"]["coverage"] == [1.0] * 3
    assert report["levels"]["Level 5"]["coverage"] == [0.0] * 3
    assert report["levels"]["1"]["majority"] == [1.0] * 3 and "by level" in out
    assert "Level 5     1 problems    0.0   0.0   majority 0.0" in out
    assert "      1     1 problems  100.0 100.0   majority 100.0" in out
    _, [report] = report_of(capsys, tmp_path, votes(tmp_path / "b.jsonl", {"x": 1}))
    assert report["levels"] == {}


def test_at_equal_flops():
    def curve(name, flops, values):
        return {"name": name, "flops": flops, "coverage": values}

    def key(one):
        return one["coverage"]

    a = curve("A", [1e9, 1e11], [0.5, 0.5])
    b = curve("B", [1e9, 1e11], [0.3, 0.7])
    for found in (crossing(a, b, key), crossing(b, a, key)):
        assert found == "from 10.1GFLOP on B is ahead (up to 100GFLOP)"  # one of 400 steps
    lower = curve("C", [1e9, 1e11], [0.1, 0.2])
    a["coverage_interval"] = [[0.1, 0.3], [0.7, 0.9]]
    near = curve("N", [1e9, 1e10], [0.2, 0.4]) | {"coverage_interval": [[0, 0.1], [0.41, 0.5]]}
    ends = lambda one: one["coverage_interval"]
    assert overlap(a, near, ends) and overlap(near, a, ends)  # a is at [0.4, 0.6] at 10 GFLOP
    near["coverage_interval"][1] = [0.61, 0.7]
    assert not overlap(a, near, ends) and not overlap(near, a, ends)
    assert crossing(a, lower, key) == "A is ahead from 1GFLOP to 100GFLOP"
    assert crossing(a, curve("D", [1e10], [0.9]), key) == "D is ahead at 10GFLOP"
    assert crossing(a, curve("E", [1e12, 1e13], [0.9, 0.9]), key) is None
    assert crossing(a, {**a, "name": "F"}, key) == "equal at 100GFLOP"


def test_a_table_at_equal_flops(tmp_path, capsys):
    """B costs twice as much and is always right; A is right by one sample in four."""
    usage = {"policy_tokens": 100, "generated_tokens": 100, "prm_tokens": 0, "flops": 2**14}
    cheap = [row("x", [sample(GOLD if i < 16 else "8") for i in range(64)]) | {"usage": usage}]
    cheap = write(tmp_path / "a.jsonl", cheap, n=64)
    dear = [row("x", [sample(GOLD)] * 64) | {"usage": usage | {"flops": 2**15}}]
    dear = write(tmp_path / "b.jsonl", dear, n=64, policy="Q")
    out, [a, b] = report_of(capsys, tmp_path, cheap, dear)
    assert a["flops"] == [256.0 * k for k in a["k"]] and b["flops"] == [512.0 * k for k in b["k"]]
    lines = out[out.index("at equal FLOPs") :].splitlines()
    costs, first, second = (line.split("  majority, ")[0].split() for line in lines[1:4])
    assert (costs[0], costs[-1], len(costs)) == ("256", "32.8K", 9)
    assert first[:2] == ["coverage", "25.0"] and first[-3:] == ["100.0", "-", "-"]
    assert second == ["-", "-", *["100.0"] * 7]
    assert lines[3].endswith("majority, policy=Q") and lines[4].startswith("majority ")
    assert "coverage: equal at 16.4KFLOP" in out
    assert "majority: majority, policy=Q is ahead from 512FLOP to 16.4KFLOP" in out


def test_what_is_missing_is_said(tmp_path, capsys):
    """A failed problem is left out; one with fewer samples ends k; a torn line does not count."""
    first = votes(tmp_path / "0.jsonl", {"x": 1, "y": 1, "w": 1})
    failed = {"id": "w", "problem": "What is w?", "answer": GOLD, "level": None, "error": "no"}
    half = write(tmp_path / "1.jsonl", [row("x", [sample(GOLD)] * 4), failed], seed=1)
    with open(half, "a") as file:
        file.write('{"id": "z"')
    assert coverage.main([first, half]) == 0
    out, err = capsys.readouterr()
    assert "problems that failed are left out: 1, such as 'w'" in err
    assert "'y'" in err and "k ends at 4" in err
    assert "2 problems, 4 samples" in out


def test_a_later_success_beats_a_failure_and_never_the_other_way(tmp_path, capsys):
    failed = {"id": "x", "problem": "What is x?", "answer": GOLD, "error": "out of memory"}
    solved = row("x", [sample(GOLD)] * 4)
    for number, rows in enumerate([[failed, solved], [solved, failed]]):
        file = write(tmp_path / f"{number}.jsonl", rows)
        assert coverage.main([file]) == 0
        out, err = capsys.readouterr()
        assert "1 problems, 4 samples" in out and "failed" not in err


def test_a_packed_file_is_read_as_it_is(tmp_path, capsys):
    """As those in results/runs are; and one that was cut short is refused in one line."""
    plain = votes(tmp_path / "a.jsonl", {"x": 1, "y": 2})
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    reports = [report_of(capsys, tmp_path, file)[1] for file in (plain, str(packed))]
    for [report] in reports:
        del report["files"]
    assert reports[0] == reports[1]
    for content in (packed.read_bytes()[:-9], b"Dear diary"):
        packed.write_bytes(content)
        with pytest.raises(SystemExit) as stop:
            coverage.main([str(packed)])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1 and "cannot be read" in err


@pytest.mark.parametrize("path", sorted((ROOT / "results/runs").glob("*n4-seed0.jsonl.gz")))
def test_the_runs_that_are_kept_are_read(path):
    file = coverage.File(path)
    assert len(file.rows) == 200 and not file.failed
    assert file.header["policy"] == "tiny/policy"


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
    "n of a half": (lambda path: write(path / "f", [GOOD], n=4.5), ["is no result file"]),
    "no script": (lambda path: write(path / "f", [GOOD], script=None), ["is no result file"]),
    "no width": (
        lambda path: write(path / "f", [GOOD], "dvts.py", beam_width=0),
        ["is no result file"],
    ),
    "half a subtree": (
        lambda path: write(
            path / "f", [row("x", [sample(GOLD, subtree=0.5)])], "dvts.py", beam_width=2
        ),
        ["line 2", "subtree 0.5 of 2"],
    ),
    "a subtree too many": (
        lambda path: write(
            path / "f", [row("x", [sample(GOLD, subtree=2)])], "dvts.py", beam_width=2
        ),
        ["line 2", "subtree 2 of 2"],
    ),
    "no subtree": (
        lambda path: write(path / "f", [row("x", [sample(GOLD)])], "dvts.py", beam_width=2),
        ["line 2", "subtree"],
    ),
    "id of a number": (lambda path: write(path / "f", [GOOD | {"id": 1}]), ["line 2", "its id"]),
    "endless cost": (
        lambda path: write(path / "f", [GOOD | {"usage": GOOD["usage"] | {"flops": math.inf}}]),
        ["line 2", "no cost"],
    ),
    "no cost at all": (
        lambda path: write(path / "f", [GOOD | {"usage": GOOD["usage"] | {"flops": 0}}]),
        ["line 2", "no cost"],
    ),
    "nested": (lambda path: put(path, "[" * 100_000 + "\n"), ["is no result file"]),
    "no verdict": (
        lambda path: write(path / "f", [row("x", [sample(None)] * 4, answer=None, tests="a")]),
        ["line 2", "passed"],
    ),
    "all failed": (
        lambda path: write(path / "f", [{"id": "x", "problem": "?", "answer": "1", "error": "no"}]),
        ["has no solved problem"],
    ),
    "torn": (
        lambda path: put(path, json.dumps({"run": {"script": "majority.py", "n": 1}})),
        ["is no result file"],
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
    (tmp_path / "there.png").write_text("mine")
    renamed = [GOOD | {"answer": "8"}, row("y", [sample("8")] * 4)]
    renamed = write(tmp_path / "e.jsonl", renamed, temperature=1.0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words, said in [
        ([file, "--k", 5], ["--k 5", "1 to 4"]),
        ([file, "--k", 0], ["--k 0"]),
        ([file, twin], ["seed", "a.jsonl"]),
        ([file, other], ["other problems", "'y'"]),
        ([file, asked], ["a.jsonl", "d.jsonl", "differ in problem 'x'"]),
        ([file, renamed], ["a.jsonl", "e.jsonl", "differ in problem 'x'"]),
        ([file, "--k", "two"], ["--k", "--help"]),
        ([file, "--plot", tmp_path / "there.png"], ["there already", "--overwrite"]),
        ([file, "--plot", file, "--overwrite"], ["named twice"]),
        ([file, "--plot", "x.png", "--json", "x.png"], ["named twice"]),
        ([file, "--plot", tmp_path / "no" / "out.png"], ["no such folder"]),
        ([file, tmp_path / "none"], ["none", "cannot be read"]),
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
    size = struct.unpack(">II", picture.read_bytes()[16:24])
    assert size[0] > 1000 and size[1] > 400
    picture.write_bytes(b"old")
    assert coverage.main([file, "--plot", str(picture), "--overwrite"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.png"]


def test_a_picture_of_curves_and_of_points(tmp_path, monkeypatch, capsys):
    """What is drawn: coverage and each rule against k and FLOPs, and the forecast."""
    from matplotlib import pyplot as plt

    curve = votes(tmp_path / "a.jsonl", {"x": 3, "y": 9}, n=16)
    rows = [row(key, [sample(GOLD, 0.9)], ("best",)) for key in "xy"]
    point = write(tmp_path / "b.jsonl", rows, "beam.py", n=4)
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    _, [a, b] = report_of(capsys, tmp_path, curve, point, "--plot", tmp_path / "out.png")
    [figure] = kept
    by_k, by_flops = figure.axes
    for axis, key in ((by_k, "k"), (by_flops, "flops")):
        drawn = {}
        for line in axis.lines:
            drawn.setdefault(line.get_label(), line.get_xydata())
        for report, rule in ((a, "majority"), (b, "best")):
            covered = drawn[f"{report['name']}, coverage"]
            assert covered == pytest.approx(
                np.stack([report[key], 100 * np.array(report["coverage"])], axis=1)
            )
            solved = drawn[f"{report['name']}, {rule}"]
            assert solved[:, 1] == pytest.approx(100 * np.array(report["success"][rule]))
    assert len(by_k.lines) == len(by_flops.lines) + 1  # the forecast
    assert by_k.get_xscale() == by_flops.get_xscale() == "log"


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    file = votes(tmp_path / "a.jsonl", FINE)
    monkeypatch.setattr(coverage.os, "replace", full)
    with pytest.raises(SystemExit) as stop:
        coverage.main([file, "--json", str(tmp_path / "out.json")])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and "No space left" in err and "2 problems, 4 samples" in out
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_plot_without_matplotlib_is_said_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(coverage, "find_spec", lambda name: None)
    err = refused(capsys, tmp_path / "none", "--plot", tmp_path / "out.png")
    assert "pip install matplotlib==" in err
    pinned = re.search(r"matplotlib==\S+", (ROOT / "requirements.txt").read_text()).group()
    assert pinned in err


def test_an_interrupt_is_quiet(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(coverage, "report_on", stop)
    assert coverage.main([votes(tmp_path / "a.jsonl", FINE)]) == 130


# --- its page -------------------------------------------------------------------------------------


def test_the_page_quotes_the_results():
    """Lines of a table, and each figure of what is said about the bundled pair."""
    page = (ROOT / "docs/coverage.md").read_text()
    results = (ROOT / "results/coverage.md").read_text()
    shown = page[page.index("## How to read the table") :].split("```")[1].strip("\n").split("\n")
    assert len(shown) == 2 and all(line in results.split("\n") for line in shown)
    said = page[page.index("## What it says") : page.index("## Pitfalls")]
    figures = re.findall(r"\d+\.\d+", said)
    assert len(figures) > 10
    results += (ROOT / "results/monkeys.md").read_text()
    known = set(re.findall(r"\d+\.\d+", results))
    assert [figure for figure in figures if figure not in known] == []


def test_the_results_are_what_is_printed_today(tmp_path, capsys):
    """The results cannot be made here, but their lines can be held against those of today."""
    results = (ROOT / "results/coverage.md").read_text()
    rows = [
        row(key, [sample(GOLD, 0.9, subtree=0)] * 2, ("majority", "best", "weighted"), level=1)
        for key in "xy"
    ]
    sampled = write(tmp_path / "a.jsonl", [one | {} for one in rows], "best_of_n.py", n=2)
    searched = write(tmp_path / "b.jsonl", rows, "dvts.py", n=2, beam_width=1)
    out, _ = report_of(capsys, tmp_path, sampled, searched)
    for line in out.split("\n"):
        if re.match(r"% of|which is|     k|by level: covered", line):
            fixed = re.split(r"[\d,]", line)[0]
            assert fixed in results, line
