"""Compute-optimal: which search should I run, for which problem, at what price?

Easy problems may need a vote, hard ones a search, and a small budget other means than a large one.
So sort problems by difficulty, and at each level spend the budget on what does best there:

    files ── problems in levels ─┬─ level 1, easy ─┬─ n = 4    majority .91*   beam .90
             by how often one    │                 └─ n = 16   majority .97    beam .98*
             sample is right     └─ level 2, hard ─┬─ n = 4    majority .31    beam .45*
                                                   └─ ...
    choose * on one half of the problems, score it on the other half, then the other way round

Choose and score on the same problems, and you get the luckiest strategy: of many that are equal one
looks good. Two-fold choice is free of that. Strategies are compared problem by problem (paired),
which is surer than the errors of their accuracies suggest.

A strategy is a script with its settings and a rule (majority, best, weighted). Seeds are pooled. At
a budget, a strategy is the largest of its runs that costs no more. Samples of majority.py and
best_of_n.py are independent: subsets of a large run stand for smaller ones. To know a problem's
difficulty costs samples too: the figures come without and with that price.

Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
Parameters" (https://arxiv.org/abs/2408.03314), sections 3.2 and 5.3. Beeching, Tunstall, Rush 2024
(https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).

    python compute_optimal.py runs/*.jsonl --calibrate runs/best_of_n-n64-seed3.jsonl
    python compute_optimal.py runs/*.jsonl --budget flops --plot optimal.png --json optimal.json
    python compute_optimal.py runs/dvts.jsonl runs/beam.jsonl     # is one better than the other?
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import grading

INDEPENDENT = ("majority.py", "best_of_n.py")  # their samples know nothing of each other
SUBSETS = 200  # random subsets of a problem's samples
NOISE = 2.0  # a difference of fewer standard errors is within noise

# Shapes: P problems, S strategies, N samples.

# --- difficulty, choice, difference ---------------------------------------------------------------


def levels_by(difficulty, count):
    """{id: level}, from "1", the easiest, to str(count), with equally many problems in each.

    difficulty: {id: pass@1 or score}, high is easy. A hash of the id orders equal ones.
    """
    order = sorted(difficulty, key=lambda key: (-difficulty[key], lot("level", key)))
    level = {key: str(1 + rank * count // len(order)) for rank, key in enumerate(order)}
    return {key: level[key] for key in difficulty}


def halves(levels):
    """{id: 0 or 1}: each level is cut into halves. A hash of the id decides."""
    half = dict.fromkeys(levels)
    seen = Counter()
    for key in sorted(levels, key=lambda key: lot("half", key)):
        half[key] = seen[levels[key]] % 2
        seen[levels[key]] += 1
    return half


def lot(purpose, key):
    return int.from_bytes(
        hashlib.sha256(f"{purpose}:{key}".encode(errors="replace")).digest()[:8], "big"
    )


def best(accuracy, flops, among):
    """The most accurate strategy on some problems; of equal ones the cheapest.

    accuracy, flops: [S, P]. among: [P], True for these problems. Returns its index.
    """
    right = accuracy[:, among].mean(1).round(12)
    cost = flops[:, among].mean(1)
    return min(range(len(right)), key=lambda s: (-right[s], cost[s]))


def two_fold(accuracy, flops, level, half):
    """[P]: for each problem the strategy that is best at its level in the other half."""
    chosen = np.zeros(len(level), dtype=int)
    for one in set(level):
        for side in (0, 1):
            here = (level == one) & (half == side)
            chosen[here] = best(accuracy, flops, (level == one) & (half != side))
    return chosen


def contenders(accuracy, flops, among):
    """The strategies whose paired difference to the best is within noise, the cheapest first."""
    top = best(accuracy, flops, among)
    alike = []
    for s in range(len(accuracy)):
        difference, error = mean_and_error(accuracy[top, among] - accuracy[s, among])
        if within_noise(difference, error):
            alike.append(s)
    return sorted(alike, key=lambda s: (flops[s, among].mean(), -accuracy[s, among].mean()))


def mean_and_error(values):
    """The mean over problems, and its standard error."""
    return values.mean(), values.std(ddof=1) / math.sqrt(len(values))


def within_noise(difference, error):
    return abs(difference) <= NOISE * error + 1e-9


def budget_for(accuracy, curve):
    """What a strategy must spend for this accuracy: (budget, "=").

    curve: [(budget, accuracy)], budgets rising. Between points accuracy is linear in log budget.
    (its largest budget, ">") if it gets there with none; (its smallest, "<") if it is above
    already there.
    """
    goal = accuracy - 1e-9
    if curve[0][1] >= goal:
        return curve[0][0], "=" if curve[0][1] <= accuracy + 1e-9 else "<"
    for (low, below), (high, above) in zip(curve, curve[1:]):
        if above >= goal:
            share = min(1.0, (accuracy - below) / (above - below))
            return low * (high / low) ** share, "="
    return curve[-1][0], ">"


# --- fewer samples than were drawn ----------------------------------------------------------------


@dataclass
class Samples:
    """The N independent samples of a problem."""

    answers: np.ndarray  # [N], equal numbers for equal answers; -1: it has no vote
    right: np.ndarray  # [N]
    scores: np.ndarray  # [N], the PRM's; NaN: it has none


def subset_accuracy(key, samples, n, rule):
    """How often a rule is right on n of the N samples, n < N: the mean over subsets.

    Exact for "best", for "tests" and for n = 1, else over SUBSETS random ones. key: the problem's
    id, which seeds them. A problem that failed has no samples: it is wrong.
    """
    N = len(samples.right)
    if N == 0:
        return 0.0
    if rule == "tests":  # any that passes will do
        return 1 - math.comb(N - int(samples.right.sum()), n) / math.comb(N, n)
    voters = samples.answers >= 0
    if rule != "majority":
        voters &= np.isfinite(samples.scores)
    if n == 1 or not voters.any():
        return float((samples.right & voters).mean())
    if rule == "best":
        # The r-th best of all is the best of a subset if it is in it and the r above are not.
        ranked = np.flatnonzero(voters)
        ranked = ranked[np.argsort(-samples.scores[ranked], kind="stable")]
        ways = [math.comb(N - 1 - r, n - 1) for r, i in enumerate(ranked) if samples.right[i]]
        return sum(ways) / math.comb(N, n)

    rng = np.random.default_rng(lot("subset", key))
    draw = rng.permuted(np.tile(np.arange(N), (SUBSETS, 1)), axis=1)[:, :n]  # [SUBSETS, n]
    votes_here = voters[draw]
    A = samples.answers.max() + 1
    ballots = np.arange(SUBSETS)[:, None] * A + samples.answers[draw]
    weights = np.ones(N) if rule == "majority" else samples.scores
    votes = np.bincount(ballots[votes_here], weights[draw][votes_here], SUBSETS * A)
    votes = votes.reshape(SUBSETS, A)
    winner = (votes + 1e-9 * rng.random(votes.shape)).argmax(1)  # equal votes: any of them
    right = np.zeros(A, dtype=bool)
    right[samples.answers[samples.right & voters]] = True
    return float((right[winner] & (votes.max(1) > 0)).mean())


# --- result files ---------------------------------------------------------------------------------


class BadInput(Exception):
    """What is wrong, with which file, and what to do: one line for the user."""


# What Python raises for JSON that is not as expected.
ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
# What may differ between runs of one strategy; and the models, which are named wherever they do.
POOLED = ("n", "seed", "problems", "problem", "commit", "versions", "device", "limit", "output")
POOLED += ("overwrite", "batch_problems", "allow_pickle", "trace", "keep_tree", "run_code")
MODELS = ("policy", "policy_4bit", "prm", "prm_4bit")


class Run:
    """A result file: its rows by the id of the problem."""

    def __init__(self, path):
        self.path = str(path)
        try:
            # A line without its newline was cut off by a kill and does not count.
            header, *lines = Path(path).read_bytes().split(b"\n")[:-1]
            self.header = dict(json.loads(header)["run"])
            self.script = str(self.header["script"])
            self.n = int(self.header["n"])
            self.seed = int(self.header["seed"])
            if self.n < 1:
                raise ValueError
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}): name result files") from None
        except ODD:
            raise BadInput(f"{path} is no result file of a search: leave it out") from None
        self.settings = {key: value for key, value in self.header.items() if key not in POOLED}
        # Samples that are drawn until the answer is clear depend on each other.
        self.independent = self.script in INDEPENDENT and not self.header.get("stop_at")
        self.rows = {}
        for number, line in enumerate(lines, 2):
            try:
                key, row = read_row(json.loads(line), self)
            except ODD as error:
                reason = f"{type(error).__name__}: {error}"
                raise BadInput(
                    f"{path}, line {number} is no row of a result file ({reason}): "
                    "solve it again, or leave the file out"
                ) from None
            known = self.rows.get(key)
            if known is None or known.correct is None:  # a solved row beats a failed one
                self.rows[key] = row

        solved = [row for row in self.rows.values() if row.correct is not None]
        if not solved:
            raise BadInput(f"{path} has no solved problem: let its run finish")
        self.rules = list(solved[0].correct)
        self.own_rule = next(r for r in ("tests", "weighted", *self.rules) if r in self.rules)
        self.failed = len(self.rows) - len(solved)
        for row in self.rows.values():  # a failed one is wrong under each rule, at the mean cost
            if row.correct is None:
                row.correct = dict.fromkeys(self.rules, False)
                row.flops = np.mean([one.flops for one in solved])
            elif list(row.correct) != self.rules:
                raise BadInput(f"{path} has other rules for {row.problem[0]!r}: solve it again")


@dataclass
class Row:
    problem: tuple  # its text, answer and tests
    level: object
    correct: dict | None = None  # {rule: right or wrong}; None: it failed
    flops: float = 0.0
    prompt: float = 0.0  # the share of the prompt in what the policy read
    samples: Samples | None = None  # of a script whose samples are independent


def read_row(row, run):
    """(id, Row). Raises ValueError and the like for what no script writes."""
    if type(row["id"]) is not str:
        raise ValueError("its id is no text")
    read = Row((row["problem"], row["answer"], row.get("tests")), row.get("level"))
    if run.independent:
        completions = row.get("completions", [])
        if "error" not in row and len(completions) != run.n:
            raise ValueError(f"{len(completions)} completions, not n = {run.n}")
        read.samples = judged(completions, row["answer"])
    if "error" in row:
        return row["id"], read
    read.correct = dict(row["correct"])
    if not read.correct or not all(type(right) is bool for right in read.correct.values()):
        raise ValueError("it was not checked by an answer")
    tokens = row["usage"]["policy_tokens"]
    read.flops = float(row["usage"]["flops"])
    if not (math.isfinite(read.flops) and read.flops > 0 and tokens > 0):
        raise ValueError("it has no cost")
    read.prompt = max(0.0, 1 - row["usage"]["generated_tokens"] / tokens)
    return row["id"], read


def judged(completions, gold):
    """Samples. Only what is finished and states an answer has a vote."""
    gold = None if gold is None else grading.canonical_form(gold)
    numbers = {}
    answers = []
    right = []
    scores = []
    for one in completions:
        form = None
        if one["finished"] and one["answer"]:
            form = grading.canonical_form(one["answer"])
        answers.append(-1 if form is None else numbers.setdefault(form, len(numbers)))
        right.append(one.get("passed", form is not None and form == gold))
        scored = one["scores"] and None not in one["scores"]
        scores.append(one["value"] if scored else math.nan)
    return Samples(np.array(answers, int), np.array(right, bool), np.array(scores, float))


def check_same_problems(runs):
    """Raise BadInput unless all runs have the same problems with the same answers."""
    most = max(runs, key=lambda run: len(run.rows))
    for run in runs:
        lacking = sorted(most.rows.keys() - run.rows.keys())
        if lacking:
            raise BadInput(
                f"{run.path} lacks {len(lacking)} of the {len(most.rows)} problems of "
                f"{most.path}, such as {lacking[0]!r}: let its run finish, or give all --limit"
            )
        for key, row in run.rows.items():
            if key not in most.rows or row.problem != most.rows[key].problem:
                raise BadInput(
                    f"{run.path} and {most.path} differ in problem {key!r} or its answer: "
                    "compare runs of the same problems"
                )


class Search:
    """A script with its settings: the runs of all n and seeds over the same problems."""

    def __init__(self, script, settings, runs, ids):
        self.ids = ids
        self.name = ", ".join([script, *settings])
        self.script = script
        self.settings = settings  # what is unusual, as text
        self.runs = {(run.n, run.seed): run for run in runs}
        self.seeds = sorted({run.seed for run in runs})
        self.rules = [r for r in runs[0].rules if all(r in run.rules for run in runs)]
        self.own = runs[0].own_rule
        self.sizes = sorted({run.n for run in runs})  # each n that it is known at
        # Rules that can be told from the answers and the PRM's scores alone.
        known = {"majority", "tests", *(("best", "weighted") if runs[0].header.get("prm") else ())}
        self.independent = runs[0].independent and known.issuperset(self.rules)
        if self.independent:
            self.sizes = list(range(1, self.sizes[-1] + 1))

    def strategy(self, rule):
        """Its name with that rule."""
        named = [self.script] if rule == self.script else [self.script, rule]
        return ", ".join(named + self.settings)

    def sources(self, n):
        """For each seed the run at n; or, of independent samples, the largest above n."""
        found = []
        for seed in self.seeds:
            largest = max(size for size, s in self.runs if s == seed)
            if (n, seed) in self.runs:
                found.append(self.runs[n, seed])
            elif self.independent and largest > n:
                found.append(self.runs[largest, seed])
        return found

    def accuracy(self, n, rule):
        """[P], the mean over seeds."""
        values = []
        for run in self.sources(n):
            if run.n == n:
                values.append([run.rows[key].correct[rule] for key in self.ids])
            else:
                samples = [run.rows[key].samples for key in self.ids]
                part = [subset_accuracy(*one, n, rule) for one in zip(self.ids, samples)]
                values.append(part)
        return np.mean(values, axis=0, dtype=float)

    def flops(self, n):
        """[P], the mean over seeds. Of fewer samples the prompt is read once all the same."""
        values = []
        for run in self.sources(n):
            flops = np.array([run.rows[key].flops for key in self.ids])
            prompt = np.array([run.rows[key].prompt for key in self.ids])
            values.append(flops * (prompt + (1 - prompt) * n / run.n))
        return np.mean(values, axis=0)

    def affordable(self, budget, unit):
        """The largest n that costs at most budget in the mean over problems; None if none does."""
        for n in reversed(self.sizes):
            if (n if unit == "n" else self.flops(n).mean()) <= budget:
                return n
        return None


def searches_of(runs):
    """(searches, notes). Runs are of one search if they have the same script and settings. Its name
    says which of its settings are unusual among these runs."""
    groups = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if value is not None}
        group = groups.setdefault(json.dumps(settings, sort_keys=True), {})
        twin = group.setdefault((run.n, run.seed), run)
        if twin is not run:
            raise BadInput(f"{run.path} is the same run as {twin.path} (n, seed): leave one out")
    groups = [list(group.values()) for group in groups.values()]

    notes = []
    unusual = [[] for _ in groups]
    for key in sorted({key for run in runs for key in run.settings} - {"script"}):
        values = [group[0].settings.get(key) for group in groups]
        counts = Counter(said(value) for value in values if value is not None)
        scripts = [group[0].script for group in groups]
        known = {script for script, value in zip(scripts, values) if value is not None}
        lacking = known & {script for script, value in zip(scripts, values) if value is None}
        if len(counts) < 2 and not lacking:
            continue
        usual = counts.most_common(1)[0][0]
        for script, value, settings in zip(scripts, values, unusual):
            odd = said(value) != usual or key in MODELS or script in lacking
            if odd and value is not None:
                settings.append(f"{key}={said(value)}")
        notes.append(f"runs differ in {key} ({', '.join(counts)}) and are strategies of their own")

    searches = []
    for group, settings in zip(groups, unusual):
        script = group[0].script.removesuffix(".py")
        searches.append(Search(script, settings, group, list(runs[0].rows)))
    searches.sort(key=lambda one: (not one.independent, one.script != "majority", one.settings))
    seeds = {tuple(search.seeds) for search in searches}
    if len(seeds) > 1:
        told = [f"{one.name} {', '.join(map(str, one.seeds))}" for one in searches]
        notes.append(f"seeds differ: {'; '.join(told)}. Each strategy is the mean of its own")
    for what in ("commit", "device", "versions"):
        count = len({said(run.header.get(what)) for run in runs})
        if count > 1:
            notes.append(f"the runs are of {count} different values of {what}, and pooled over it")
    return searches, notes


def said(value):
    """A setting in a few characters."""
    text = value if type(value) is str else json.dumps(value, sort_keys=True)
    if len(text) > 40 or not text.isprintable():
        text = "#" + hashlib.sha256(text.encode()).hexdigest()[:6]
    return text


# --- the report -----------------------------------------------------------------------------------


def difficulty_of(run, kind):
    """{id: pass@1} over a run's independent samples; for "prm" their mean final score instead.

    Without any a problem has -1. Raises BadInput if the run cannot tell.
    """
    if not run.independent:
        raise BadInput(
            f"the solutions in {run.path} ({run.script}) are no independent samples: "
            f"calibrate on a file of {' or '.join(INDEPENDENT)}"
        )
    found = {}
    for key, row in run.rows.items():
        values = row.samples.right if kind == "oracle" else row.samples.scores
        values = values[np.isfinite(values)]
        found[key] = float(values.mean()) if len(values) else -1.0
    if max(found.values()) < 0:
        raise BadInput(f"{run.path} has no PRM scores: calibrate on a file of best_of_n.py")
    return found


def analyse(searches, levels, unit, price=0.0):
    """All figures, in the shape of the JSON file.

    levels: {id: level}. unit: of budgets, "n" or "flops". price: what it costs to know a level.
    """
    ids = searches[0].ids
    half = np.array(list(halves({key: levels[key] for key in ids}).values()))
    level = np.array([levels[key] for key in ids])
    groups = {one: level == one for one in in_order(levels.values())}
    report = {"levels": {key: levels[key] for key in ids}, "budgets": budgets_of(searches, unit)}
    report["strategies"] = [one.strategy(rule) for one in searches for rule in one.rules]
    report["own_rules"] = [one.strategy(one.own) for one in searches]
    report["search_of"] = {one.strategy(rule): one.name for one in searches for rule in one.rules}
    report |= {"unit": unit, "calibration": price}
    accuracy_at = report["accuracy"] = {one: {} for one in groups}
    choice = report["choice"] = {one: {} for one in groups}
    alike = report["within_noise"] = {one: {} for one in groups}  # the cheapest first
    optimal = report["compute_optimal"] = {}
    single = report["single"] = {}

    for budget in tqdm(report["budgets"], "budgets", leave=False, disable=None):
        # 1. What each strategy can do for it.
        names = []
        accuracy = []
        flops = []
        sizes = []
        for search in searches:
            n = search.affordable(budget, unit)
            for rule in search.rules if n else []:
                names.append(search.strategy(rule))
                sizes.append(n)
                accuracy.append(search.accuracy(n, rule))
                flops.append(search.flops(n))
        budget = str(budget)  # JSON has no other keys
        accuracy = np.array(accuracy)  # [S, P]
        flops = np.array(flops)
        spent = flops if unit == "flops" else np.array(sizes)[:, None] * np.ones_like(flops)

        # 2. The best at each level, and those that may be as good.
        for one, here in groups.items():
            cells = accuracy_at[one][budget] = {}
            for s, name in enumerate(names):
                cost = flops[s, here].mean()
                cells[name] = figures(accuracy[s, here]) | {"n": sizes[s], "flops": cost}
            choice[one][budget] = names[best(accuracy, flops, here)]
            alike[one][budget] = [names[s] for s in contenders(accuracy, flops, here)]

        # 3. Chosen on one half, scored on the other.
        chosen = two_fold(accuracy, flops, level, half)
        everywhere = np.arange(len(ids))
        scored = accuracy[chosen, everywhere]
        optimal[budget] = figures(scored) | {
            "spent": spent[chosen, everywhere].mean(),
            "spent_with_calibration": spent[chosen, everywhere].mean() + price,
            "flops": flops[chosen, everywhere].mean(),
        }

        # 4. Against each single strategy, problem by problem.
        for s, name in enumerate(names):
            difference, error = mean_and_error(scored - accuracy[s])
            single.setdefault(name, {})[budget] = figures(accuracy[s]) | {
                "n": sizes[s],
                "spent": spent[s].mean(),
                "flops": flops[s].mean(),
                "difference": difference,  # of the compute-optimal strategy to this one
                "difference_error": error,
                "within_noise": bool(within_noise(difference, error)),
            }

    # 5. How many times the budget would a single strategy need to be as good?
    for rows in single.values():
        curve = {row["n"]: (row["spent"], row["accuracy"]) for row in rows.values()}
        for budget, row in rows.items():
            goal = optimal[budget]
            needed, bound = budget_for(goal["accuracy"], sorted(curve.values()))
            row["saved"] = {"bound": bound, "factor": needed / goal["spent"]}
            row["saved"]["with_calibration"] = needed / goal["spent_with_calibration"]
    return report


def figures(values):
    accuracy, error = mean_and_error(values)
    return {"accuracy": accuracy, "error": error}


def in_order(levels):
    """Levels as people count: 2 before 10."""
    found = sorted(set(levels))
    return sorted(found, key=float) if all(one.isdecimal() for one in found) else found


def budgets_of(searches, unit):
    """The n of all runs; or, for each of these n, what the dearest strategy costs there."""
    sizes = sorted({n for search in searches for n, _ in search.runs})
    if unit == "n":
        return sizes
    budgets = set()
    for n in sizes:
        cost = max(search.flops(n).mean() for search in searches if n in search.sizes)
        digits = 10 ** max(0, math.floor(math.log10(cost)) - 2)
        budgets.add(math.ceil(cost / digits) * digits)  # rounded up to three digits
    return sorted(budgets)


def compare(a, b):
    """Two runs: by rule the paired difference a - b, and how many problems each alone solved."""
    rules = [(a.own_rule, b.own_rule)]
    rules += [(rule, rule) for rule in a.rules if rule in b.rules and (rule, rule) not in rules]
    found = {"a": a.path, "b": b.path, "rules": []}
    for name, run in (("flops_a", a), ("flops_b", b)):
        found[name] = np.mean([row.flops for row in run.rows.values()])
    for rule_a, rule_b in rules:
        right_a = np.array([a.rows[key].correct[rule_a] for key in a.rows], dtype=float)
        right_b = np.array([b.rows[key].correct[rule_b] for key in a.rows], dtype=float)
        difference, error = mean_and_error(right_a - right_b)
        entry = {"rule_a": rule_a, "rule_b": rule_b}
        entry |= {"accuracy_a": right_a.mean(), "accuracy_b": right_b.mean()}
        entry |= {"difference": difference, "difference_error": error}
        entry |= {"won": int((right_a > right_b).sum()), "lost": int((right_a < right_b).sum())}
        found["rules"].append(entry)
    return found


def amount(cost, unit="flops"):
    """3.6e9 as 3.6G; n as it is."""
    if unit == "n":
        return f"{cost:.4g}"
    for letter in ["", "K", "M", "G", "T", "P"]:
        if cost < 999.5:
            return f"{cost:.3g}{letter}"
        cost /= 1000
    return f"{cost:.3g}E"


def percent(figures):
    return f"{100 * figures['accuracy']:.1f} ± {100 * figures['error']:.1f}"


def table(report):
    """The report for a terminal."""
    groups = in_order(report["levels"].values())
    counts = Counter(report["levels"].values())
    width = 2 + max(map(len, ["FLOPs = 1.23G, all levels", *report["strategies"]]))
    lines = comparison_lines(report["comparison"]) if "comparison" in report else []
    if report["difficulty"]["file"]:
        what = "pass@1" if report["difficulty"]["by"] == "oracle" else "the PRM's mean final score"
        means = ", ".join(f"{mean:.2f}" for mean in report["difficulty"]["mean"].values())
        lines += [f"levels by {what} in {report['difficulty']['file']}: {means}", ""]
    for budget, title in titles(report):
        names = [name for name in report["strategies"] if budget in report["single"][name]]
        heads = [f"{one} ({counts[one]})" for one in groups]
        lines += [
            f"{title}: accuracy, % ± one standard error (* best of a level, ~ within noise of it)",
            f"{'level (problems)':{width}}" + "".join(f"{head:<12}" for head in heads),
        ]
        for name in names:
            line = f"{name:{width}}"
            for one in groups:
                mark = "~" if name in report["within_noise"][one][budget] else ""
                mark = "*" if name == report["choice"][one][budget] else mark
                line += f"{percent(report['accuracy'][one][budget][name]) + mark:<12}"
            lines.append(line)

        heads = f"{'accuracy':<13}{'optimal - it':<14}{'budget to be as good':<22}"
        optimal = percent(report["compute_optimal"][budget])
        lines += ["", f"{f'{title}, all levels':{width}}{heads}"]
        lines += [f"{'compute-optimal':{width}}{optimal}"]
        for name in names:
            row = report["single"][name][budget]
            note = "  within noise" if row["within_noise"] else ""
            note += f"  (n = {row['n']})" if str(row["n"]) != budget else ""
            line = f"{name:{width}}{percent(row):<13}{signed(row):<14}{needs(row, report):<22}"
            lines.append(line + note)
        lines.append("")
    lines += advice(report, width)
    return "\n".join(line.rstrip() for line in lines)


def needs(row, report):
    """How many times the budget of the compute-optimal strategy; and of that with calibration."""
    saved = row["saved"]
    bound = saved["bound"].replace("=", "")
    if bound == ">" and saved["factor"] < 1:
        return "more than was run"
    text = f"{bound}{saved['factor']:.2g} x"
    if report["calibration"]:
        text += f" ({bound}{saved['with_calibration']:.2g} x)"
    return text


def titles(report):
    """[(budget, its name)]."""
    unit = "n = " if report["unit"] == "n" else "FLOPs = "
    budgets = report["budgets"]
    return [(str(budget), unit + amount(budget, report["unit"])) for budget in budgets]


def advice(report, width):
    """What to run at each level and budget, and whether a choice by level is worth it."""
    lines = ["what to run: the cheapest of all that are within noise of the best"]
    for one in in_order(report["levels"].values()):
        for budget, title in titles(report):
            cells = report["accuracy"][one][budget]
            top = report["choice"][one][budget]
            name = report["within_noise"][one][budget][0]
            cost = f"{amount(cells[name]['flops'])}FLOP"
            line = f"level {one:<4}{title:<15}{name:{width}}{percent(cells[name]):<13}{cost:<11}"
            if name != top:
                line += f"best: {top} {percent(cells[top])}"
            lines.append(line)

    if len(report["choice"]) == 1:
        return lines
    lines += ["", "is a choice at each level better than one strategy for all?"]
    for budget, title in titles(report):
        rows = {name: row[budget] for name, row in report["single"].items() if budget in row}
        top = max(rows, key=lambda name: rows[name]["accuracy"])
        verdict = "better" if rows[top]["difference"] > 0 else "worse"
        verdict = "within noise" if rows[top]["within_noise"] else verdict
        lines.append(f"{title}: {signed(rows[top])} against {top}, the best single one: {verdict}")
        alike = [one for one, row in rows.items() if row["within_noise"] or row["difference"] < 0]
        if alike:
            name = min(alike, key=lambda name: (rows[name]["flops"], -rows[name]["accuracy"]))
            cost = amount(rows[name]["flops"])
            lines.append(f"  the cheapest that it does not beat: {name}, {cost}FLOP a problem")
    if report["calibration"]:
        price = amount(report["calibration"], report["unit"])
        unit = " samples" if report["unit"] == "n" else "FLOP"
        lines.append(f"to know the level of a problem costs {price}{unit} more (in brackets above)")
    return lines


def signed(row):
    return f"{100 * row['difference']:+.1f} ± {100 * row['difference_error']:.1f}"


def comparison_lines(found):
    """Of two files, A and B."""
    lines = []
    for one in "ab":
        lines.append(f"{one.upper()} {found[one]}, {amount(found[f'flops_{one}'])}FLOP a problem")
    lines.append(f"{'rule':<22}{'A, %':<8}{'B, %':<8}{'A - B':<14}A alone, B alone right")
    for row in found["rules"]:
        rules = " - ".join(dict.fromkeys([row["rule_a"], row["rule_b"]]))
        accuracies = f"{100 * row['accuracy_a']:<8.1f}{100 * row['accuracy_b']:<8.1f}"
        line = f"{rules:<22}{accuracies}{signed(row):<14}{row['won']}, {row['lost']}"
        if within_noise(row["difference"], row["difference_error"]):
            cheaper = "A" if found["flops_a"] <= found["flops_b"] else "B"
            line += f": within noise, {cheaper} is cheaper"
        lines.append(line)
    return [*lines, ""]


# Colours that also differ for the colour-blind (Okabe and Ito 2008).
COLOURS = {
    "majority": "#7f7f7f",
    "best_of_n": "#E69F00",
    "beam": "#56B4E9",
    "dvts": "#D55E00",
    "rebase": "#009E73",
}
MORE_COLOURS = ["#CC79A7", "#0072B2", "#F0E442", "#8C564B", "#9ACD32", "#4B0082"]


def draw(report, file):
    """Bars at each level, as the blog has them, and the curves. Each search by its own rule."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # 1. A colour for each search.
    shown = report["own_rules"]
    colours = {}
    more = itertools.cycle(MORE_COLOURS)
    for name in sorted(shown, key=len):  # what has settings in its name comes later
        colour = COLOURS.get(name.split(",")[0])
        colours[name] = next(more) if colour is None or colour in colours.values() else colour
    groups = in_order(report["levels"].values())
    figure = plt.figure(figsize=(max(10, 2.4 * len(groups)), 8), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.3])

    # 2. At each level the bars of each budget, a star on the strategy chosen.
    panels = upper.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    width = 0.8 / len(shown)
    for panel, one in zip(panels, groups):
        for at, budget in enumerate(map(str, report["budgets"])):
            cells = report["accuracy"][one][budget]
            for place, name in enumerate(shown):
                x = at + width * (place - (len(shown) - 1) / 2)
                if name in cells:
                    panel.bar(x, 100 * cells[name]["accuracy"], width, color=colours[name])
                chosen = report["choice"][one][budget]
                if report["search_of"][chosen] == report["search_of"][name]:
                    star = 100 * cells[chosen]["accuracy"]
                    panel.plot(x, star, "*k", markersize=7, markeredgewidth=0, clip_on=False)
        labels = [amount(budget, report["unit"]) for budget in report["budgets"]]
        panel.set_xticks(range(len(labels)), labels)
        panel.set_title(f"level {one}", fontsize=10)
        panel.set_ylim(0, 100)
    panels[0].set_ylabel("right answers, %")

    # 3. All levels: accuracy against what was spent.
    axis = lower.subplots()
    for name in shown:
        rows = {row["n"]: row for row in report["single"][name].values()}
        plot_curve(axis, rows.values(), "spent", color=colours[name], label=name)
    rows = report["compute_optimal"].values()
    plot_curve(axis, rows, "spent", color="black", linewidth=2.5, label="compute-optimal")
    if report["calibration"]:
        style = {"color": "black", "linestyle": ":", "label": "the same, with calibration"}
        plot_curve(axis, rows, "spent_with_calibration", **style)
    unit = "n" if report["unit"] == "n" else "FLOPs"
    axis.set_xscale("log", base=2 if unit == "n" else 10)
    if unit == "n":
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_xlabel(f"{unit} spent on a problem")
    axis.set_ylabel("right answers, %")
    axis.plot([], [], "*k", label="chosen, by this or another rule")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    for each in (axis, *panels):
        each.grid(alpha=0.25, axis="y")
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, format="png")


def plot_curve(axis, rows, x, **style):
    rows = sorted(rows, key=lambda row: row[x])
    accuracy = [100 * row["accuracy"] for row in rows]
    errors = [100 * row["error"] for row in rows]
    style = {"marker": "o", "markersize": 5, "capsize": 2, "elinewidth": 1} | style
    axis.errorbar([row[x] for row in rows], accuracy, errors, **style)


# --- the command line -----------------------------------------------------------------------------


def parse_args(argv, fail):
    description, _, commands = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        usage="%(prog)s FILE... [flags]",
        description=description,
        epilog="Commands:\n\n" + commands[commands.index("    python") :],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: fail(f"{message} (--help lists all flags)")
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="result files over the same problems")
    help = "samples that tell difficulty, not scored; best of a seed of its own (default: the "
    add("--calibrate", metavar="FILE", help=help + "largest FILE of independent samples)")
    help = "by pass@1 (oracle), by the PRM's mean final score (prm), or the level in the file"
    add("--difficulty", choices=["oracle", "prm", "file"], help=help + " (default: oracle)")
    add("--levels", type=int, default=5, metavar="L", help="levels of difficulty (default: 5)")
    help = "what a budget counts: samples, or FLOPs of policy and PRM (default: n)"
    add("--budget", choices=["n", "flops"], default="n", help=help)
    add("--json", metavar="FILE", help="write all figures")
    add("--plot", metavar="FILE.png", help="draw levels and curves (needs matplotlib==3.11.2)")
    add("--overwrite", action="store_true", help="replace the --json and --plot files")
    args = parser.parse_args(argv)
    if args.levels < 1:
        fail(f"--levels must be at least 1, not {args.levels}")
    if args.difficulty == "file" and args.calibrate:
        fail("--difficulty file needs no samples: leave --calibrate out")
    return args


def main(argv=None):
    from harness.terminal import fail, note, say

    args = parse_args(argv, fail)
    try:
        check_outputs(args)
        report = report_on(args)
        for line in report["notes"]:
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


def report_on(args):
    """Read the files, sort the problems into levels, analyse. Raises BadInput."""
    # 1. Read. What calibrates is not scored.
    paths = {os.path.realpath(path): path for path in args.files}
    given = [*args.files, args.calibrate] if args.calibrate else args.files
    every = {os.path.realpath(path): path for path in given}
    bar = tqdm(every.items(), "reading", leave=False, disable=None)
    runs = {real: Run(path) for real, path in bar}
    check_same_problems(list(runs.values()))
    calibration = runs[os.path.realpath(args.calibrate)] if args.calibrate else None
    scored = [runs[real] for real in paths if runs[real] is not calibration]
    if not scored:
        raise BadInput(f"{args.calibrate} alone has nothing to be compared with: name more files")
    searches, notes = searches_of(scored)
    for run in runs.values():
        if run.failed:
            notes.append(f"{run.path}: {run.failed} problems failed, and count as wrong")

    # 2. Levels, and what it costs to know them.
    kind = args.difficulty or "oracle"
    calibration = calibration or default_calibration(scored, kind)
    told = {"by": kind, "file": None}
    price = 0.0
    if kind == "file":
        levels = own_levels(scored)
    elif calibration:
        difficulty = difficulty_of(calibration, kind)
        levels = levels_by(difficulty, args.levels)
        told = {"by": kind, "file": calibration.path, "mean": means_of(difficulty, levels)}
        notes += doubts(calibration, scored)
        flops = np.mean([row.flops for row in calibration.rows.values()])
        price = float(calibration.n if args.budget == "n" else flops)
    elif args.difficulty is None and len(scored) == 2:
        levels = dict.fromkeys(searches[0].ids, "all")
    else:
        raise BadInput(f"no file tells difficulty: --calibrate FILE of {' or '.join(INDEPENDENT)}")
    if min(Counter(levels.values()).values()) < 2:
        raise BadInput(
            f"a level has only one of the {len(levels)} problems, and cannot be halved: "
            "give fewer --levels or more problems"
        )

    # 3. Analyse.
    report = analyse(searches, levels, args.budget, price)
    if len(scored) == 2:
        report["comparison"] = compare(*scored)
    files = []
    for run in scored:
        commit = run.header.get("commit")
        files.append({"file": run.path, "n": run.n, "seed": run.seed, "commit": commit})
    return report | {"difficulty": told, "files": files, "notes": notes}


def default_calibration(runs, kind):
    """The run with the most independent samples, for "prm" scored ones; None without any."""
    able = [run for run in runs if run.independent and kind != "file"]
    if kind == "prm":
        able = [run for run in able if run.settings.get("prm")]
    return max(able, key=lambda run: run.n, default=None)


def means_of(difficulty, levels):
    means = {}
    for one in in_order(levels.values()):
        values = [value for key, value in difficulty.items() if levels[key] == one]
        means[one] = sum(values) / len(values)
    return means


def doubts(calibration, scored):
    """What is to be said of levels that come from this run."""
    notes = []
    if calibration.seed in {run.seed for run in scored}:
        notes.append(
            f"levels are from {calibration.path}, whose seed {calibration.seed} is scored too: "
            "the same luck is in both, so --calibrate on a seed of its own"
        )
    policy = calibration.settings.get("policy")
    if any(run.settings.get("policy") != policy for run in scored):
        notes.append(f"the levels are those of policy {policy}")
    return notes


def own_levels(runs):
    """{id: the level that its row has}."""
    levels = {key: row.level for key, row in runs[0].rows.items()}
    for run in runs:
        for key, row in run.rows.items():
            if row.level is None:
                raise BadInput(f"{run.path} has no level for {key!r}: leave out --difficulty file")
            if row.level != levels[key]:
                raise BadInput(f"{run.path} and {runs[0].path} differ in the level of {key!r}")
    return {key: str(level) for key, level in levels.items()}


def check_outputs(args):
    """Raise BadInput, before any work, for what could not be written in the end."""
    files = [os.path.realpath(path) for path in [*args.files, args.calibrate or ""]]
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
