"""Coverage: what can repeated sampling alone do, and how much of it do we find?

Sample k solutions of a problem. If any of them is right, the problem is *covered*: one who could
tell right from wrong would have solved it. Coverage grows with k long after a vote has settled.
What lies between the two is what a better verifier would earn.

    coverage    share of problems that any of k samples solves (pass@k)
    success     share that a rule solves with k samples: the majority vote, the PRM's best, ...
    precision   success / coverage: of what could be found, how much is
    gap         coverage - success: what a perfect verifier would add

Coverage is unbiased from N samples of which c are right: 1 - C(N-c, k) / C(N, k), the chance that
k of the N drawn without replacement hold a right one. Success is the mean over random subsets.

Two models tell how it goes on. The power law: log(coverage) = a k^b, fitted on small k and held
against what was measured at N. And a distribution of single-sample success p over problems, a Beta,
fitted to the counts (c, N) by maximum likelihood: coverage at k is then 1 - E[(1-p)^k] for any k.

The majority vote has a limit: the share of problems whose most frequent answer is right (REBASE
paper, theorem 1). No number of samples gets it beyond.

Samples of majority.py and best_of_n.py are independent, and so are the subtrees of dvts.py: there k
counts in whole subtrees. Other searches are known at their own n alone. Files that differ by seed
alone are pooled. A sample that was cut off by a limit is a sample, and wrong.

Brown et al. 2024, "Large Language Monkeys" (https://arxiv.org/abs/2407.21787), sections 2 and 3.
Chen et al. 2021 (https://arxiv.org/abs/2107.03374), equation 1. Schaeffer et al. 2025, "How Do
Large Language Monkeys Get Their Power (Laws)?" (https://arxiv.org/abs/2502.17578).

    python best_of_n.py --n 64 --output runs/samples.jsonl
    python coverage.py runs/samples.jsonl --plot coverage.png --json coverage.json
    python coverage.py runs/majority-*.jsonl runs/dvts-*.jsonl     # which is ahead at equal FLOPs?
"""

import argparse
import gzip
import json
import math
import os
import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln
from tqdm import tqdm

from common import grading

SUBSETS = 200  # random subsets of a problem's samples; all there are, if these are no more
RESAMPLES = 1000  # of the problems, for an interval
FAR = 16  # forecasts go up to this many times the samples that there are
TRUSTED = 0.02  # a fit that misses coverage by more than this does not hold

# Shapes: P problems, U units of a problem (samples, or whole subtrees), K numbers of units.

# --- coverage -------------------------------------------------------------------------------------


def coverage_at(k, right, units):
    """[P]: the chance that k of a problem's units hold a right one (Chen et al., equation 1).

    right, units: [P], of how many units how many are right. Raises ValueError where k > units.
    """
    if np.any(k > units):
        raise ValueError(f"coverage at {k} needs as many samples")
    wrong = units - right
    steps = np.arange(k)
    # C(wrong, k) / C(units, k) = the product over i < k of (wrong - i) / (units - i).
    factors = np.maximum(wrong[:, None] - steps, 0) / (units[:, None] - steps)
    return 1 - factors.prod(axis=1)


def interval(values):
    """The middle 95 % of the mean over problems drawn anew: what other problems would change.

    values: [P, ...]. Returns (low, high), each of the shape of one problem's values. Where all are
    0, or all are 1, drawing anew changes nothing, and the end inside is that of Wilson's interval.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
    means = np.stack([values[problems].mean(axis=0) for problems in drawn])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    inside = 1.96**2 / (len(values) + 1.96**2)
    low = np.where((values == 1).all(axis=0), 1 - inside, low)
    high = np.where((values == 0).all(axis=0), inside, high)
    return low[()], high[()]  # numbers of one column


# --- what a rule finds ----------------------------------------------------------------------------


def success_at(k, samples, rule, rng):
    """(solved, covered): of random subsets of k units the share on which a rule's answer is right,
    and the share that hold a right one.

    Where there are few subsets, as of single units, each is taken once. Answers with equal votes
    share the win.
    """
    units = samples.units
    draws = min(SUBSETS, math.comb(units, k))
    if draws == math.comb(units, k):
        chosen = np.zeros((draws, units), dtype=bool)  # [draws, U]
        for draw, subset in enumerate(combinations(range(units), k)):
            chosen[draw, list(subset)] = True
    else:
        chosen = rng.random((draws, units)).argsort(axis=1) < k
    chosen = chosen[:, samples.unit]  # [draws, samples]
    covered = (chosen & samples.correct).any(axis=1).mean()
    taken = chosen & (samples.answer >= 0)
    if rule != "majority":
        taken &= np.isfinite(samples.score)
    weights = np.ones(taken.shape) if rule == "majority" else np.tile(samples.score, (draws, 1))
    if rule in grading.WEIGHTS:
        for subset, weight in zip(taken, weights):
            weight[subset] = grading.WEIGHTS[rule](weight[subset].tolist())
    draw, sample = np.nonzero(taken)
    place = draw, samples.answer[sample]
    votes = np.full((draws, len(samples.is_right)), -np.inf)
    if rule == "best":
        np.maximum.at(votes, place, weights[draw, sample])
    else:
        votes[place] = 0
        np.add.at(votes, place, weights[draw, sample])
    winners = np.isfinite(votes) & (votes >= votes.max(axis=1, keepdims=True) - 1e-9)
    solved = (winners & samples.is_right).sum(axis=1) / np.maximum(1, winners.sum(axis=1))
    return solved.mean(), covered


def majority_limit(problems):
    """What the majority vote tends to: a dict.

    limit: the share of problems whose most frequent answer is right. wrong: whose most frequent is
    wrong, or that have none. close: whose two most frequent are within two standard errors of each
    other, so that more samples may change it.
    """
    right = []
    close = 0
    for samples in problems:
        votes = np.bincount(samples.answer[samples.answer >= 0], minlength=len(samples.is_right))
        order = votes.argsort(kind="stable")[::-1]
        if not votes.sum():
            right.append(False)
            continue
        right.append(bool(samples.is_right[order[0]]))
        first, second = votes[order[0]], votes[order[1]] if len(order) > 1 else 0
        close += bool(first - second < 2 * math.sqrt(first + second))
    right = np.array(right, dtype=float)
    low, high = interval(right)
    return {
        "limit": right.mean(),
        "interval": [low, high],
        "wrong": 1 - right.mean(),
        "close": close / len(problems),
    }


# --- how it goes on -------------------------------------------------------------------------------


def power_law(ks, coverage, fit_up_to):
    """log(coverage) = a k^b, fitted by least squares of log(-log coverage) on log k: a dict.

    Uses the points with k <= fit_up_to and coverage strictly between 0 and 1. None where fewer than
    two are left. Errors are absolute differences of coverage; heldout_error is that at the largest
    k, which the fit has not seen.
    """
    ks = np.asarray(ks, dtype=float)
    coverage = np.asarray(coverage, dtype=float)
    seen = (ks <= fit_up_to) & (coverage > 0) & (coverage < 1)
    if seen.sum() < 2:
        return None
    b, log_a = np.polyfit(np.log(ks[seen]), np.log(-np.log(coverage[seen])), 1)
    a = -math.exp(log_a)
    errors = np.abs(np.exp(a * ks**b) - coverage)
    return {
        "a": a,
        "b": b,
        "fitted_up_to": float(ks[seen].max()),
        "mean_error": errors.mean(),
        "max_error": errors.max(),
        "heldout_error": errors[-1],
    }


def fit_beta(right, units):
    """(alpha, beta) of the Beta distribution of single-sample success, by maximum likelihood.

    right of units samples are right: a Beta-binomial. right, units: [P].
    """
    # Problems with equal counts are one term of the sum.
    counts, weight = np.unique(np.stack([right, units]), axis=1, return_counts=True)
    right, wrong = counts[0], counts[1] - counts[0]

    def loss(logs):
        alpha, beta = np.exp(np.clip(logs, -12, 12))
        terms = betaln(alpha + right, beta + wrong) - betaln(alpha, beta)
        return -(weight * terms).sum()

    found = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"maxiter": 2000})
    return np.exp(np.clip(found.x, -12, 12))


def beta_coverage(k, alpha, beta):
    """1 - E[(1 - p)^k] for p of a Beta distribution."""
    return 1 - np.exp(betaln(alpha, beta + np.asarray(k, dtype=float)) - betaln(alpha, beta))


def forecast(right, units, ks, measured):
    """Coverage at and beyond the largest k by the fitted Beta: a dict.

    The interval is that of fits to problems drawn anew. heldout_error: the same fit on an eighth of
    each problem's samples, held against what was measured at the largest k. error: the largest
    difference to what was measured.
    """
    alpha, beta = fit_beta(right, units)
    far = [ks[-1] * 2**i for i in range(int(math.log2(FAR)) + 1)]
    rng = np.random.default_rng(0)
    fits = []
    for _ in range(RESAMPLES // 10):
        drawn = rng.integers(len(right), size=len(right))
        fits.append(beta_coverage(far, *fit_beta(right[drawn], units[drawn])))
    low, high = np.percentile(fits, [2.5, 97.5], axis=0)
    few = np.maximum(1, units // 8)
    some = rng.hypergeometric(right, units - right, few)
    early = beta_coverage(ks[-1], *fit_beta(some, few))
    return {
        "k": far,
        "coverage": list(beta_coverage(far, alpha, beta)),
        "interval": [list(low), list(high)],
        "alpha": alpha,
        "beta": beta,
        "error": float(np.abs(beta_coverage(ks, alpha, beta) - measured).max()),
        "heldout_error": float(abs(early - measured[-1])),
    }


# --- result files ---------------------------------------------------------------------------------


class BadInput(Exception):
    """What is wrong, with which file, and what to do: one line for the user."""


# What Python raises for JSON that is not as expected.
ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError)
# What may differ between files that are pooled.
POOLED = ("seed", "problems", "problem", "commit", "versions", "device", "limit", "output")
POOLED += ("overwrite", "batch_problems", "allow_pickle", "trace", "keep_tree", "run_code")
MODELS = ("policy", "policy_4bit", "prm", "prm_4bit")  # are named wherever they differ
PRINTS = ("policy_weights", "prm_weights")  # of models that no name tells apart
RULES = ("majority", "best", "weighted", *grading.WEIGHTS)  # "tests" finds all that is covered


@dataclass
class Samples:
    """All samples of a problem, in units that know nothing of each other."""

    units: int
    unit: np.ndarray  # [samples], which unit each is of
    answer: np.ndarray  # [samples], equal numbers for equal answers; -1: it has no vote
    score: np.ndarray  # [samples], the PRM's, or how sure the policy was; NaN: it has none
    correct: np.ndarray  # [samples]
    is_right: np.ndarray  # [answers]

    def right_units(self):
        """How many units hold a right sample."""
        return len(set(self.unit[self.correct]))


class Run:
    """Result files that differ by seed alone."""

    def __init__(self, settings, files):
        self.settings = settings  # all of the header that must be equal to be pooled
        self.files = [file.path for file in files]
        self.headers = [file.header for file in files]
        self.seeds = [header.get("seed") for header in self.headers]
        self.script = settings["script"]
        self.units = files[0].units
        self.size = settings["n"] / self.units  # samples in a unit
        self.rules = [rule for rule in files[0].rows[0]["predictions"] if rule in RULES]
        self.rows = {}  # {id: rows}
        judged = {}
        for file in files:
            for row in file.rows:
                self.rows.setdefault(row["id"], []).append(row)
                judged.setdefault(row["id"], []).append(file.judged(row))
        self.rows = dict(sorted(self.rows.items()))
        self.samples = {key: pool(judged[key], self.units) for key in self.rows}
        self.level = {key: rows[0].get("level") for key, rows in self.rows.items()}
        flops = []
        prompt = []
        for rows in self.rows.values():
            usage = [row["usage"] for row in rows]
            flops.append(np.mean([one["flops"] for one in usage]))
            prompt.append(prompt_share(usage))
        self.flops = np.array(flops)  # [P], of n samples
        self.prompt = np.array(prompt)

    def largest(self):
        """The most units that every problem has; of a search one run at its own n."""
        return 1 if self.units == 1 else min(one.units for one in self.samples.values())

    def flops_at(self, k):
        """[P]: a problem's prompt once, then k samples, by the counts of the files."""
        return self.flops * (self.prompt + (1 - self.prompt) * k / self.settings["n"])


def prompt_share(usage):
    """The share of a problem's prompt, which the policy reads once, in all that was read.

    usage: that of one or more rows.
    """
    once = sum(one["policy_tokens"] - one["generated_tokens"] for one in usage)
    read = sum(one["policy_tokens"] + one["prm_tokens"] for one in usage)
    return max(0.0, once / read)


def asked(row):
    return row["problem"], row["answer"], row.get("tests")


class File:
    """A result file."""

    def __init__(self, path):
        self.path = str(path)
        try:
            # A line without its newline was cut off by a kill and does not count.
            opener = gzip.open if self.path.endswith(".gz") else open
            with opener(path, "rb") as file:
                first, *lines = file.read().split(b"\n")[:-1]
            self.header = dict(json.loads(first)["run"])
            self.units = units_of(self.header)
            self.has_subtrees = self.header["script"] == "dvts.py"
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadInput(f"{path} cannot be read ({reason}): name result files") from None
        except ODD:
            raise BadInput(f"{path} is no result file of a search: leave it out") from None
        rows = {}
        for number, line in enumerate(lines, 2):
            try:
                row = json.loads(line)
                if type(row["id"]) is not str:
                    raise ValueError("its id is no text")
                asked(row)
                if "error" not in row:
                    self.check(row)
                if "error" not in row or row["id"] not in rows:
                    rows[row["id"]] = row
            except ODD as error:
                reason = f"{type(error).__name__}: {error}"
                raise BadInput(
                    f"{path}, line {number} is no row of a result file ({reason}): "
                    "solve it again, or leave the file out"
                ) from None
        self.rows = [row for row in rows.values() if "error" not in row]
        self.failed = [row for row in rows.values() if "error" in row]
        if not self.rows:
            raise BadInput(f"{path} has no solved problem: let its run finish")
        for row in self.rows:
            if row["answer"] is None and "tests" not in row:
                raise BadInput(f"{path}: problem {row['id']!r} has no answer to be right about")

    def check(self, row):
        """Raises ValueError and the like for what no script writes."""
        usage = row["usage"]
        counts = [usage[key] for key in ("flops", "generated_tokens", "policy_tokens")]
        if not all(0 < count < 1e30 for count in (*counts, usage["prm_tokens"] + 1)):
            raise ValueError("it has no cost")
        completions = len(row["completions"])
        if self.units > 1 and not self.has_subtrees and completions != self.units:
            raise ValueError(f"{completions} completions, not n = {self.units}")
        row["predictions"].keys()
        self.judged(row)

    def judged(self, row):
        """[(unit, answer's form or None, score, right)] of a row's completions."""
        gold = None if row["answer"] is None else grading.canonical_form(row["answer"])
        found = []
        for place, one in enumerate(row["completions"]):
            form = None
            if one["finished"] and one["answer"]:
                form = grading.canonical_form(one["answer"])
            right = form is not None and form == gold
            if "tests" in row:  # hardly two programs are alike: each is an answer of its own
                form = object() if one["finished"] else None
                right = form is not None and one["passed"] is True
            scored = one["scores"] or self.header.get("weights")
            scored = scored and None not in (*one["scores"], one["value"])
            score = float(one["value"]) if scored else math.nan
            unit = one["subtree"] if self.has_subtrees else place
            if self.units == 1:
                unit = 0
            if type(unit) is not int or not 0 <= unit < self.units:
                raise ValueError(f"subtree {unit} of {self.units}")
            found.append((unit, form, score, right))
        return found


def units_of(header):
    """How many independent parts the n solutions of a problem come in."""
    script, n = header["script"], header["n"]
    if type(script) is not str or type(n) is not int or n < 1:
        raise ValueError
    if script in ("majority.py", "best_of_n.py") and not header.get("stop_at"):
        return n
    if script == "dvts.py":
        return max(1, n // int(header["beam_width"]))
    return 1


def pool(parts, units):
    """Samples of a problem from its judged completions in each file. units: of one file."""
    forms = {}
    entries = []
    for i, part in enumerate(parts):
        for unit, form, score, right in part:
            number = -1 if form is None else forms.setdefault(form, len(forms))
            entries.append((i * units + unit, number, score, right))
    columns = list(zip(*entries)) or [()] * 4
    unit, answer, score, correct = map(np.array, columns, (int, int, float, bool))
    is_right = np.zeros(max(1, len(forms)), dtype=bool)
    is_right[answer[correct]] = True  # what is right has an answer
    return Samples(len(parts) * units, unit, answer, score, correct, is_right)


def pooled(files):
    """(runs, notes). What is not equal in more than the seed is another run.

    A problem that failed in one file is left out of all.
    """
    groups = {}
    notes = []
    known = {}
    failed = {row["id"]: file.path for file in files for row in file.failed}
    if failed:
        key, path = max(failed.items())
        notes.append(f"problems that failed are left out: {len(failed)}, such as {key!r} of {path}")
    for file in files:
        file.rows = [row for row in file.rows if row["id"] not in failed]
        if not file.rows:
            raise BadInput(f"{file.path} has no problem that is solved in all files: run it again")
        for row in file.rows:
            path, same = known.setdefault(row["id"], (file.path, asked(row)))
            if asked(row) != same:
                raise BadInput(f"{path} and {file.path} differ in problem {row['id']!r}")
        settings = {key: value for key, value in file.header.items() if key not in POOLED}
        group = groups.setdefault(json.dumps(settings, sort_keys=True), (settings, []))[1]
        for other in group:
            if other.header.get("seed") == file.header.get("seed"):
                raise BadInput(f"{file.path} has the seed of {other.path}: leave one of them out")
        group.append(file)
    runs = [Run(settings, group) for settings, group in groups.values()]
    for run in runs:
        most = max(one.units for one in run.samples.values())
        few = min(run.samples, key=lambda key: run.samples[key].units)
        if run.samples[few].units < most:
            note = f"problem {few!r} of {run.files[0]} has fewer samples than others"
            ends = f": k ends at {run.size * run.largest():g}" if run.units > 1 else ""
            notes.append(note + ends)
    ids = set(runs[0].samples)
    for run in runs[1:]:
        differing = ids ^ set(run.samples)
        if differing:
            raise BadInput(
                f"{runs[0].files[0]} and {run.files[0]} have other problems, such as "
                f"{min(differing)!r}: compare runs of the same problems"
            )
    return runs, notes


def pooled_over(runs):
    """What else differs, within runs and between them, as notes."""
    seeds = {}
    for run in runs:
        seeds.setdefault(", ".join(map(str, run.seeds)), []).append(run.files[0])
    notes = []
    if len(seeds) > 1:
        told = [f"{some} of {paths[0]} and {len(paths) - 1} more" for some, paths in seeds.items()]
        told = "; ".join(told).replace(" and 0 more", "")
        notes.append(f"seeds differ: {told}. Each run is the mean of its own")
    for what in ("commit", "device", "versions"):
        count = len({json.dumps(header.get(what)) for run in runs for header in run.headers})
        if count > 1:
            notes.append(f"the files are of {count} different values of {what}, and pooled over it")
    return notes


# --- the report -----------------------------------------------------------------------------------


def report_on(run, ks, progress):
    """All figures of a run, in the shape of the JSON file. ks: numbers of units."""
    samples = list(run.samples.values())
    right = np.array([one.right_units() for one in samples])
    units = np.array([one.units for one in samples])
    covered = np.stack([coverage_at(k, right, units) for k in ks], axis=1)  # [P, K]
    success = {rule: np.zeros(covered.shape) for rule in run.rules}
    could = np.zeros(covered.shape)  # covered, on the same subsets
    for p, one in enumerate(progress(samples)):
        for i, k in enumerate(ks):
            for rule in run.rules:
                rng = np.random.default_rng((p, k))  # equal subsets for all rules
                success[rule][p, i], could[p, i] = success_at(k, one, rule, rng)
    coverage = covered.mean(axis=0)
    k = [run.size * count for count in ks]
    report = {
        "files": run.files,
        "problems": len(samples),
        "samples": run.size * run.largest(),
        "k": k,
        "coverage": list(coverage),
        "coverage_interval": pairs(interval(covered)),
        "success": {rule: list(values.mean(axis=0)) for rule, values in success.items()},
        "success_interval": {rule: pairs(interval(values)) for rule, values in success.items()},
        "flops": [run.flops_at(each).mean() for each in k],
    }
    report["precision"] = {}
    for rule, values in success.items():
        shares = zip(values.mean(axis=0), could.mean(axis=0))
        report["precision"][rule] = [found / of if of else None for found, of in shares]
    report["gap"] = {rule: list(coverage - v.mean(axis=0)) for rule, v in success.items()}
    report["levels"] = by_level(run, covered, success)
    report["majority_limit"] = None
    if run.size == 1 and "majority" in run.rules:  # the theorem is about independent samples
        report["majority_limit"] = majority_limit(samples)
    grid = np.array(powers(run.largest()))  # what the fits are does not depend on what is shown
    measured = np.array([coverage_at(count, right, units).mean() for count in grid])
    report["fit"] = power_law(run.size * grid, measured, run.size * grid[-1] / 8)
    report["forecast"] = None
    if len(grid) > 2:
        report["forecast"] = forecast(right, units, grid, measured)
        report["forecast"]["k"] = [run.size * count for count in report["forecast"]["k"]]
    return report


def pairs(ends):
    """[[low, high], ...] of the two arrays that interval() gives."""
    low, high = ends
    return [list(pair) for pair in zip(low, high)]


def by_level(run, covered, success):
    """{level: problems, coverage and success at each k}."""
    levels = np.array([str(level) for level in run.level.values()])
    found = {}
    for level in sorted(set(levels) - {"None"}):
        here = levels == level
        found[level] = {"problems": int(here.sum()), "coverage": list(covered[here].mean(axis=0))}
        for rule, values in success.items():
            found[level][rule] = list(values[here].mean(axis=0))
    return found


def at_flops(flops, report, curve):
    """A curve of a report at other FLOPs: linear in log(FLOPs), NaN beyond its ends."""
    known = np.log(report["flops"])
    return np.interp(np.log(flops), known, curve, left=math.nan, right=math.nan)


def crossing(a, b, key):
    """Which of two reports is ahead at equal FLOPs, in words; None if they do not overlap.

    key(report): a curve, one value for each of its FLOPs.
    """
    low = max(a["flops"][0], b["flops"][0])
    high = min(a["flops"][-1], b["flops"][-1])
    if low > high:
        return None
    grid = np.geomspace(low, high, 400)
    curves = [at_flops(grid, one, key(one)) for one in (a, b)]
    ahead = np.sign(np.round(curves[1] - curves[0], 9))
    last = ahead[-1]
    if last == 0:
        return f"equal at {amount(high)}FLOP"
    turn = np.flatnonzero(ahead != last)
    name = (b if last > 0 else a)["name"]
    if low == high:
        return f"{name} is ahead at {amount(high)}FLOP"
    if len(turn) == 0:
        return f"{name} is ahead from {amount(low)}FLOP to {amount(high)}FLOP"
    return f"from {amount(grid[turn[-1] + 1])}FLOP on {name} is ahead (up to {amount(high)}FLOP)"


def overlap(a, b, key):
    """Do the intervals of two reports' curves overlap at the largest FLOPs that both reach?

    key(report): a [low, high] for each of its FLOPs.
    """
    cost = min(a["flops"][-1], b["flops"][-1])
    ends = []
    for one in (a, b):
        curves = zip(*key(one))
        ends.append([at_flops(cost, one, curve) for curve in curves])
    (low, high), (other_low, other_high) = ends
    return bool(low <= other_high and other_low <= high)


def name_runs(runs):
    """Scripts, with the settings in which runs of one script differ, and models that differ.

    What only some of them have, as files of an older version lack it, and the fingerprints of
    models are named if nothing else tells them apart.
    """
    for everything in (False, True):
        names = [name_of(run, runs, everything) for run in runs]
        if len(set(names)) == len(names):
            return names
    return [f"{name}, {run.files[0]}" for name, run in zip(names, runs)]


def name_of(run, runs, everything):
    name = run.script.removesuffix(".py")
    for key, value in sorted(run.settings.items()):
        if key in PRINTS and not everything:
            continue
        rivals = [other for other in runs if other.script == run.script]
        if key in MODELS:
            rivals = [other for other in runs if other.settings.get(key) is not None]
        values = [
            other.settings.get(key) for other in rivals if everything or key in other.settings
        ]
        if value is not None and any(other != value for other in values):
            text = " ".join(str(value).split())
            if key in ("policy", "prm"):
                text = Path(text).name
            name += f", {key}={text if len(text) <= 40 else text[:37] + '...'}"
    return name


# --- output ---------------------------------------------------------------------------------------


def amount(cost, unit="flops"):
    """3.6e9 as 3.6G; n as it is."""
    if unit == "n":
        return f"{cost:.4g}"
    for letter in ["", "K", "M", "G", "T", "P"]:
        if cost < 999.5:
            return f"{cost:.3g}{letter}"
        cost /= 1000
    return f"{cost:.3g}E"


def table(reports):
    """The reports for a terminal."""
    lines = []
    for report in reports:
        lines += [*run_lines(report), ""]
    lines += equal_lines([one for one in reports if len(one["flops"]) > 1])
    for i, a in enumerate(reports):
        for b in reports[i + 1 :]:
            found = {}
            for rule in ["coverage", *(rule for rule in a["success"] if rule in b["success"])]:
                found[rule] = crossing(a, b, lambda one, rule=rule: curve_of(one, rule))
            if found["coverage"] is None:
                lines.append(f"{a['name']} and {b['name']} have no FLOPs in common")
                continue
            lines.append(f"which is ahead at equal FLOPs, {a['name']} or {b['name']}?")
            for rule, ahead in found.items():
                alike = overlap(a, b, lambda one, rule=rule: curve_of(one, rule, "_interval"))
                noise = "; their intervals overlap at the end" if alike else ""
                lines.append(f"  {rule}: {ahead}{noise}")
    return "\n".join(line.rstrip() for line in lines)


def curve_of(report, rule, what=""):
    """A curve of a report, or its intervals (what="_interval"): coverage, or what a rule solves."""
    if rule == "coverage":
        return report["coverage" + what]
    return report["success" + what].get(rule)


def equal_lines(reports):
    """Coverage and what each rule solves, of two or more curves at the same FLOPs."""
    if len(reports) < 2:
        return []
    ends = [report["flops"][end] for report in reports for end in (0, -1)]
    costs = np.geomspace(min(ends), max(ends), 9)
    lines = ["% of problems at equal FLOPs (- where a run does not reach)"]
    lines.append(" " * 9 + "".join(f"{amount(cost):>7}" for cost in costs))
    for rule in ("coverage", *RULES):
        title = rule
        for report in reports:
            curve = curve_of(report, rule)
            if curve is None:
                continue
            line = f"{title:<9}"
            for value in at_flops(costs, report, curve):
                line += f"{'-' if math.isnan(value) else f'{100 * value:.1f}':>7}"
            lines.append(f"{line}  {report['name']}")
            title = ""
    return [*lines, ""]


def run_lines(report):
    count = len(report["files"])
    lines = [
        f"{report['name']}: {report['problems']} problems, {report['samples']:g} samples of each, "
        f"from {count} file{'s' if count > 1 else ''}",
        "% of problems: covered [95 % interval]; solved by a rule (precision: of those covered)",
    ]
    rules = list(report["success"])
    head = f"{'k':>6}  {'coverage':<22}" + "".join(f"{rule:<16}" for rule in rules) + "FLOP"
    lines.append(head)
    for i, k in enumerate(report["k"]):
        low, high = report["coverage_interval"][i]
        covered = f"{100 * report['coverage'][i]:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        line = f"{k:>6g}  {covered:<22}"
        for rule in rules:
            share = 100 * report["success"][rule][i]
            precision = report["precision"][rule][i]
            text = "-" if precision is None else f"{100 * precision:.0f}"
            line += f"{f'{share:5.1f} ({text})':<16}"
        lines.append(line + amount(report["flops"][i]))

    if report["levels"]:
        last = f"{report['k'][-1]:g}"
        lines += ["", f"by level: covered at k = {report['k'][0]:g} and {last}, solved at {last}"]
        width = max(6, *map(len, report["levels"]))
        for level, row in report["levels"].items():
            line = f"{level:>{width}}  {row['problems']:>4} problems  "
            line += f"{100 * row['coverage'][0]:5.1f} {100 * row['coverage'][-1]:5.1f}   "
            shares = [f"{rule} {100 * row[rule][-1]:.1f}" for rule in rules]
            lines.append(line + ", ".join(shares))
    return [*lines, "", *fit_lines(report)]


def fit_lines(report):
    """What a perfect verifier would add, the limit of the vote, the fits and the forecast."""
    lines = []
    for rule, gaps in report["gap"].items():
        lines.append(
            f"a perfect verifier would add {100 * gaps[-1]:.1f} points to {rule} "
            f"at k = {report['k'][-1]:g}"
        )
    limit = report["majority_limit"]
    if limit:
        low, high = (100 * side for side in limit["interval"])
        lines.append(
            f"limit of the majority vote: {100 * limit['limit']:.1f} % [{low:.1f}, {high:.1f}]; "
            f"for {100 * limit['wrong']:.1f} % of problems the favourite answer is wrong"
        )
        if limit["close"]:
            lines.append(f"  ({100 * limit['close']:.1f} % are too close to call)")
    fit = report["fit"]
    if fit:
        error = 100 * fit["heldout_error"]
        lines.append(
            f"power law: log(coverage) = {fit['a']:.3g} k^{fit['b']:.3g}, fitted up to "
            f"k = {fit['fitted_up_to']:g}; off by {error:.1f} points at k = {report['k'][-1]:g}, "
            f"by {100 * fit['mean_error']:.1f} in the mean and {100 * fit['max_error']:.1f} at most"
        )
        if fit["max_error"] > TRUSTED:
            lines.append("  it does not hold: coverage is no power law here")
    ahead = report["forecast"]
    if ahead:
        lines.append(
            f"forecast by a Beta({ahead['alpha']:.2g}, {ahead['beta']:.2g}) of single-sample "
            f"success; off by {100 * ahead['error']:.1f} points at most, and by "
            f"{100 * ahead['heldout_error']:.1f} from an eighth of the samples"
        )
        if max(ahead["error"], ahead["heldout_error"]) > TRUSTED:
            lines.append("  it does not fit well: do not trust it far")
        entries = []
        for k, value, low, high in zip(ahead["k"], ahead["coverage"], *ahead["interval"]):
            entries.append(f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}] at {k:g}")
        lines.append("  " + ", ".join(entries[1:]))
    return lines


COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe and Ito 2008
STYLES = {"majority": ":", "best": "-.", "weighted": "--"}


def draw(reports, file):
    """Coverage (solid) and what each rule solves, against k and against FLOPs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
    for axis, key in zip(axes, ("k", "flops")):
        for report, colour in zip(reports, COLOURS * len(reports)):
            x = report[key]
            low, high = 100 * np.array(report["coverage_interval"]).T
            covered = 100 * np.array(report["coverage"])
            style = {"color": colour, "markersize": 4}
            axis.plot(x, covered, "-o", label=f"{report['name']}, coverage", **style)
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            for rule, values in report["success"].items():
                line = STYLES.get(rule, "--") + ("" if len(x) > 1 else "x")
                values = 100 * np.array(values)
                axis.plot(x, values, line, label=f"{report['name']}, {rule}", **style)
            ahead = report["forecast"]
            if key == "k" and ahead:
                values = 100 * np.array(ahead["coverage"])
                axis.plot(ahead["k"], values, color=colour, linewidth=1, alpha=0.5)
                low, high = 100 * np.array(ahead["interval"])
                axis.fill_between(ahead["k"], low, high, color=colour, alpha=0.07, linewidth=0)
        axis.set_xscale("log", base=2 if key == "k" else 10)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1].xaxis.set_minor_formatter(NullFormatter())
    axes[1].xaxis.set_major_formatter(lambda x, _: amount(x))
    axes[0].set_xlabel("k, samples of a problem (thin: forecast)")
    axes[1].set_xlabel("FLOPs a problem, policy and PRM")
    axes[0].set_ylabel("problems, %")
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(file, dpi=150, format="png")
    plt.close(figure)


# --- the command line -----------------------------------------------------------------------------


def parser_for(doc, fail):
    """An argparse parser with what scripts that read result files have in common.

    doc: such a script's docstring. fail: what to do with what is wrong, said in one line.
    """
    description, _, commands = doc.partition("\n")
    parser = argparse.ArgumentParser(
        usage="%(prog)s FILE... [flags]",
        description=description,
        epilog="Commands:\n\n" + commands[commands.index("    python") :],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: fail(f"{message} (--help lists all flags)")
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="result files; those of other seeds are pooled")
    add("--json", metavar="FILE", help="write all figures")
    add("--plot", metavar="FILE.png", help="draw them (needs matplotlib==3.11.2)")
    add("--overwrite", action="store_true", help="replace the --json and --plot files")
    return parser


def parse_args(argv, fail):
    parser = parser_for(__doc__, fail)
    help = "how many samples to look at (default: powers of two)"
    parser.add_argument("--k", type=int, nargs="+", metavar="K", help=help)
    return parser.parse_args(argv)


def main(argv=None):
    from harness.terminal import fail

    return command(parse_args(argv, fail), reports_on, table, draw)


def command(args, report_on, table, draw):
    """Read result files and tell of them. Returns the exit code.

    report_on(args): (report, notes). table(report): its text. draw(report, file): its picture.
    """
    from harness.terminal import fail, note, say

    try:
        check_outputs(args)
        report, notes = report_on(args)
        for line in notes:
            note(line)
        say(table(report))
        if args.json:
            text = json.dumps(report, indent=1, allow_nan=False) + "\n"
            write(args.json, lambda file: file.write(text.encode()))
        if args.plot:
            write(args.plot, lambda file: draw(report, file))
    except BadInput as error:
        fail(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def reports_on(args):
    """(a report of each run, notes). Raises BadInput."""
    runs, notes = pooled(read(args.files))
    notes += pooled_over(runs)
    reports = []
    for run, name in zip(runs, name_runs(runs)):
        bar = partial(tqdm, desc=name, leave=False, disable=None)
        reports.append({"name": name} | report_on(run, units_to_show(run, args.k), bar))
    return reports, notes


def read(paths):
    """A File for each path. One that is named twice is read once."""
    paths = {os.path.realpath(path): path for path in paths}
    return [File(path) for path in tqdm(paths.values(), "reading", leave=False, disable=None)]


def units_to_show(run, wanted):
    """Numbers of units: those of --k, or powers of two and all. Raises BadInput."""
    largest = run.largest()
    if wanted is None:
        return powers(largest)
    counts = []
    for k in sorted(set(wanted)):
        count = k / run.size
        if count != int(count) or not 1 <= count <= largest:
            step = f" in steps of {run.size:g}" if run.size > 1 else ""
            raise BadInput(
                f"--k {k}: {run.files[0]} ({run.script}) tells of {run.size:g} to "
                f"{run.size * largest:g} samples{step}"
            )
        counts.append(int(count))
    return counts


def powers(largest):
    """1, 2, 4, ... and largest."""
    return sorted({*(2**i for i in range(largest.bit_length())), largest})


def check_outputs(args):
    """Raise BadInput, before any work, for what could not be written in the end."""
    inputs = [*args.files, getattr(args, "calibrate", None) or ""]
    files = [os.path.realpath(path) for path in inputs]
    for flag in ("json", "plot"):
        name = getattr(args, flag)
        if name is None:
            continue
        if os.path.realpath(name) in files:
            raise BadInput(f"--{flag} {name} is named twice: give it a name of its own")
        files.append(os.path.realpath(name))
        if not os.path.isdir(os.path.dirname(name) or "."):
            raise BadInput(f"--{flag} {name}: there is no such folder: make it first")
        if os.path.lexists(name) and not os.path.isfile(name):
            raise BadInput(f"--{flag} {name} is no plain file: name another")
        if os.path.exists(name) and not args.overwrite:
            raise BadInput(f"--{flag} {name} is there already: name another, or add --overwrite")
    if args.plot and not args.plot.endswith(".png"):
        raise BadInput(f"--plot {args.plot} is a PNG picture: give it a name that ends in .png")
    if args.plot and find_spec("matplotlib") is None:
        raise BadInput("--plot needs matplotlib: pip install matplotlib==3.11.2")


def write(name, fill):
    """Write beside, then rename: who looks sees the old file or the whole new one."""
    part = f"{os.path.realpath(name)}.{os.getpid()}.part"
    try:
        with open(part, "xb") as file:
            fill(file)
        os.replace(part, name)
    except OSError as error:
        raise BadInput(f"{name} cannot be written ({error.strerror}): name another") from None
    finally:
        if os.path.exists(part):
            os.remove(part)


if __name__ == "__main__":
    sys.exit(main())
