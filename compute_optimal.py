"""Compute-optimal: which search should I run, for which problem, at what price?

Easy problems may need a vote, hard ones a search, and a small budget other means than a large one.
So sort problems by difficulty, and at each level spend the budget on what does best there:

    files ── problems in levels ─┬─ level 1, easy ─┬─ n = 4   majority .91* beam .90
             by how often one    │                 └─ n = 16  majority .97  beam .98*
             sample is right     └─ level 2, hard ─┬─ n = 4   majority .31  beam .45*
                                                   └─ ...
    choose * on one half of the problems, score it on the other half, then the other way round

Choose and score on the same problems, and you get the luckiest strategy: of many that are equal one
looks good. Two-fold choice is free of that. Strategies are compared problem by problem (paired),
which is surer than the errors of their accuracies suggest.

A strategy is a script with its settings and a rule (majority, best, weighted). Seeds are pooled. At
a budget, a strategy is the largest of its runs that costs no more. Samples of majority.py and
best_of_n.py are independent: subsets of the largest run stand for all smaller ones. To know a
problem's difficulty costs samples too: the figures come without and with that price.

coverage.py reads the files. A problem that failed in one of them is left out of all.

Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
Parameters" (https://arxiv.org/abs/2408.03314), sections 3.2 and 5.3. Beeching, Tunstall, Rush 2024
(https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).

    python compute_optimal.py runs/*.jsonl --calibrate runs/best_of_n-n64-seed3.jsonl
    python compute_optimal.py runs/*.jsonl --budget flops --plot optimal.png --json optimal.json
    python compute_optimal.py runs/dvts.jsonl runs/beam.jsonl     # is one better than the other?
"""

import hashlib
import json
import math
import os
import sys
from collections import Counter

import numpy as np
from tqdm import tqdm

import coverage
from coverage import BadInput, amount

SAMPLED = "majority.py or best_of_n.py"  # their samples know nothing of each other
NOISE = 2.0  # a difference of fewer standard errors is within noise
LEVELS = 5  # of difficulty
FEW = 20  # problems of a level

# Shapes: P problems, S strategies.

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
    return hashlib.sha256(f"{purpose}:{key}".encode(errors="replace")).digest()


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
    alike = [s for s in range(len(accuracy)) if as_good(accuracy[s], accuracy[top], among)]
    return sorted(alike, key=lambda s: (flops[s, among].mean(), -accuracy[s, among].mean()))


def cheapest(tried, goal, among):
    """(strategy, n) of the cheapest run that is as good as `goal`, or within noise; None without.

    tried: {(strategy, n): (accuracy, flops)}; these and goal: [P]. among: [P], True where compared.
    Of equal ones the first.
    """
    good = []
    for key, (accuracy, flops) in tried.items():
        if as_good(accuracy, goal, among):
            other = np.abs(goal[among] - accuracy[among]).sum()  # 0: it is the goal itself
            good.append((flops[among].mean(), other, key))
    return min(good, key=lambda one: one[:2])[2] if good else None


def as_good(accuracy, goal, among):
    """Is it above the goal on some problems, or within noise of it? All: [P]."""
    difference, error = mean_and_error(goal[among] - accuracy[among])
    return difference < 0 or within_noise(difference, error)


def mean_and_error(values):
    """The mean over problems, and its standard error."""
    return values.mean(), values.std(ddof=1) / math.sqrt(len(values))


def within_noise(difference, error):
    return bool(abs(difference) <= NOISE * error + 1e-9)


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


# --- result files ---------------------------------------------------------------------------------


class Search:
    """A script with its settings: one run for each n, all over the same problems.

    Arrays are over the problems. Independent samples are known at each n up to the largest run's.
    """

    def __init__(self, runs):
        self.runs = {run.settings["n"]: run for run in runs}
        self.sizes = sorted(self.runs)
        largest = self.runs[self.sizes[-1]]
        self.script = largest.script
        self.files = largest.files
        self.settings = {key: value for key, value in largest.settings.items() if key != "n"}
        self.solved = {n: verdicts(run) for n, run in self.runs.items()}
        self.rules = list(self.solved[self.sizes[-1]])
        self.own_rule = "tests" if "tests" in self.rules else self.rules[-1]
        known = {"tests", *coverage.RULES}  # what a rule makes of fewer samples
        self.sampled = largest if largest.size == 1 and known.issuperset(self.rules) else None
        if self.sampled:
            self.sizes = list(range(1, self.sizes[-1] + 1))

    def strategy(self, rule):
        """Its name with that rule."""
        return self.name if rule == "majority" == self.own_rule else f"{self.name}, {rule}"

    def accuracy(self, n, rule):
        """[P]: what the runs at n solved, the mean over seeds; or random subsets of samples."""
        if not self.sampled or n == self.sizes[-1]:
            return self.solved[n][rule]
        samples = list(self.sampled.samples.values())
        if rule == "tests":  # any that passes will do
            right = np.array([one.right_units() for one in samples])
            return coverage.coverage_at(n, right, np.array([one.units for one in samples]))
        solved = np.zeros(len(samples))
        for p, one in enumerate(samples):
            rng = np.random.default_rng((p, n))  # equal subsets for all rules
            solved[p] = coverage.success_at(n, one, rule, rng)[0]
        return solved

    def flops(self, n):
        """[P], the mean over seeds. Of fewer samples the prompt is read once all the same."""
        return (self.sampled or self.runs[n]).flops_at(n)

    def affordable(self, budget, unit):
        """The largest n that costs at most budget in the mean over problems; None if none does."""
        for n in reversed(self.sizes):
            if (n if unit == "n" else self.flops(n).mean()) <= budget:
                return n
        return None


def verdicts(run):
    """{rule: [P]}: how often its rows say that the rule was right, the mean over seeds."""
    found = {}
    path = run.files[0]
    for p, (key, rows) in enumerate(run.rows.items()):
        for row in rows:
            correct = row.get("correct")
            if type(correct) is not dict or {*map(type, correct.values())} != {bool}:
                raise BadInput(f"{path}: {key!r} was not checked by an answer: leave it out")
            found = found or {rule: np.zeros(len(run.rows)) for rule in correct}
            if list(correct) != list(found):
                raise BadInput(f"{path} has other rules for {key!r}: solve it again")
            for rule, right in correct.items():
                found[rule][p] += right / len(rows)
    return found


def searches_of(runs):
    """(searches, notes). Runs are of one search if they differ in n alone."""
    groups = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key != "n"}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    searches = [Search(group) for group in groups.values()]
    for search, name in zip(searches, coverage.name_runs(searches)):
        search.name = name
    searches.sort(key=lambda one: (not one.sampled, one.script != "majority.py", one.name))
    notes = []
    for key in sorted({key for search in searches for key in search.settings} - {"script"}):
        found = {json.dumps(search.settings.get(key)) for search in searches} - {"null"}
        if len(found) > 1:
            notes.append(f"runs differ in {key}, and are strategies of their own")
    return searches, notes


# --- levels ---------------------------------------------------------------------------------------


def levels_by_samples(run, kind, count):
    """(levels {id: level}, {level: mean difficulty}).

    Difficulty is pass@1 over the run's independent samples; for "prm" their mean final score, and
    -1 without any. Raises BadInput if the run cannot tell.
    """
    path = run.files[0]
    if run.size != 1:
        what = f"the solutions in {path} ({run.script}) are no independent samples"
        raise BadInput(f"{what}: calibrate on a file of {SAMPLED}")
    difficulty = {}
    for key, samples in run.samples.items():
        values = samples.correct if kind == "oracle" else samples.score
        values = values[np.isfinite(values)]
        difficulty[key] = float(values.mean()) if len(values) else -1.0
    if max(difficulty.values()) < 0:
        raise BadInput(f"{path} has no PRM scores: calibrate on a file of best_of_n.py")
    levels = levels_by(difficulty, count)
    means = {}
    for one in in_order(levels.values()):
        means[one] = np.mean([difficulty[key] for key in levels if levels[key] == one])
    return levels, means


def levels_of_files(runs):
    """{id: the level that its rows have}."""
    found = {}
    for run in runs:
        for row in [row for rows in run.rows.values() for row in rows]:
            key, level = row["id"], row.get("level")
            path, known = found.setdefault(key, (run.files[0], level))
            if level is None:
                raise BadInput(f"{path} has no level for {key!r}: leave out --difficulty file")
            if level != known:
                raise BadInput(f"{path} and {run.files[0]} differ in the level of {key!r}")
    return {key: str(level) for key, (_, level) in found.items()}


def in_order(levels):
    """Levels as people count: 2 before 10."""
    found = sorted(set(levels))
    return sorted(found, key=float) if all(one.isdecimal() for one in found) else found


# --- the report -----------------------------------------------------------------------------------


def analyse(searches, levels, unit, price=0.0):
    """All figures, in the shape of the JSON file.

    levels: {id: level}. unit: of budgets, "n" or "flops". price: what it costs to know a level.
    """
    half = np.array(list(halves(levels).values()))
    level = np.array(list(levels.values()))
    groups = {one: level == one for one in in_order(levels.values())}
    everyone = np.arange(len(level))
    search_of = {one.strategy(rule): one.name for one in searches for rule in one.rules}
    report = {"levels": levels, "budgets": budgets_of(searches, unit), "unit": unit}
    report |= {"calibration": price, "strategies": list(search_of), "search_of": search_of}
    report["own_rules"] = [one.strategy(one.own_rule) for one in searches]
    accuracy_at = report["accuracy"] = {one: {} for one in groups}
    choice = report["choice"] = {one: {} for one in groups}
    within = report["within_noise"] = {one: {} for one in groups}  # the cheapest first
    advice = report["cheapest"] = {one: {} for one in groups}  # of all budgets up to each
    unbeaten = report["unbeaten"] = {}  # the cheapest that a choice by level does not beat
    tried = {}
    optimal = report["compute_optimal"] = {}
    single = report["single"] = {name: {} for name in search_of}

    for budget in tqdm(report["budgets"], "budgets", leave=False, disable=None):
        # 1. What each strategy can do for it.
        sizes = {}
        accuracy = []
        flops = []
        for search in searches:
            n = search.affordable(budget, unit)
            for rule in search.rules if n else []:
                sizes[search.strategy(rule)] = n
                accuracy.append(search.accuracy(n, rule))
                flops.append(search.flops(n))
        budget = str(budget)  # JSON has no other keys
        accuracy = np.array(accuracy)  # [S, P]
        flops = np.array(flops)
        spent = flops if unit == "flops" else np.array([*sizes.values()])[:, None] + 0 * flops
        runs = dict(zip(sizes.items(), zip(accuracy, flops)))
        tried |= dict(sorted(runs.items(), key=lambda one: one[0][0] not in report["own_rules"]))

        # 2. The best at each level, and those that may be as good.
        for one, here in groups.items():
            cells, top, alike, run = at_level(sizes, accuracy, flops, tried, here)
            accuracy_at[one][budget] = cells
            choice[one][budget] = top
            within[one][budget] = alike
            advice[one][budget] = run

        # 3. Chosen on one half, scored on the other.
        chosen = two_fold(accuracy, flops, level, half), everyone
        cost = spent[chosen].mean()
        optimal[budget] = figures(accuracy[chosen], spent=cost, flops=flops[chosen].mean())
        optimal[budget]["spent_with_calibration"] = cost + price
        run = cheapest(tried, accuracy[chosen], everyone)
        if run:
            cost = tried[run][1].mean()
            unbeaten[budget] = {"strategy": run[0], "n": run[1], "flops": cost}

        # 4. Against each single strategy, problem by problem.
        for s, (name, n) in enumerate(sizes.items()):
            row = figures(accuracy[s], n=n, spent=spent[s].mean(), flops=flops[s].mean())
            difference, error = mean_and_error(accuracy[chosen] - accuracy[s])
            row |= {"difference": difference, "difference_error": error}
            single[name][budget] = row | {"within_noise": within_noise(difference, error)}

    # 5. How many times the budget would a single strategy need to be as good?
    for rows in single.values():
        add_savings(rows, optimal)
    return report


def at_level(sizes, accuracy, flops, tried, here):
    """(figures of each strategy, the best, those within noise of it, what to run), at one level.

    sizes: {strategy: n}. accuracy, flops: [S, P]. tried: see cheapest(). here: [P], True for the
    problems of the level.
    """
    names = list(sizes)
    cells = {}
    for s, (name, n) in enumerate(sizes.items()):
        cells[name] = figures(accuracy[s, here], n=n, flops=flops[s, here].mean())
    top = best(accuracy, flops, here)
    alike = [names[s] for s in contenders(accuracy, flops, here)]
    name, n = cheapest(tried, accuracy[top], here)
    right, cost = tried[name, n]
    run = {"strategy": name, **figures(right[here], n=n, flops=cost[here].mean())}
    return cells, names[top], alike, run


def add_savings(rows, optimal):
    """To a strategy's row of each budget: what it must spend to be as good as the optimal one."""
    curve = sorted({row["n"]: (row["spent"], row["accuracy"]) for row in rows.values()}.values())
    for budget, row in rows.items():
        goal = optimal[budget]
        needed, bound = budget_for(goal["accuracy"], curve)
        row["saved"] = {"bound": bound, "factor": needed / goal["spent"]}
        row["saved"]["with_calibration"] = needed / goal["spent_with_calibration"]


def figures(values, **more):
    accuracy, error = mean_and_error(values)
    return {"accuracy": accuracy, "error": error, **more}


def budgets_of(searches, unit):
    """The n of all runs; or, for each of these n, what the dearest strategy costs there."""
    sizes = sorted({n for search in searches for n in search.runs})
    if unit == "n":
        return sizes
    budgets = set()
    for n in sizes:
        cost = max(search.flops(n).mean() for search in searches if n in search.sizes)
        digits = 10 ** max(0, math.floor(math.log10(cost)) - 2)
        budgets.add(math.ceil(cost / digits) * digits)  # rounded up to three digits
    return sorted(budgets)


def compare(a, b):
    """Two runs: by rule the difference a - b, and how many problems each alone solved."""
    rules = {run: verdicts(run) for run in (a, b)}
    own = tuple(Search([run]).own_rule for run in (a, b))
    pairs = [own, *((rule, rule) for rule in rules[a] if rule in rules[b] and own != (rule, rule))]
    found = []
    for rule_a, rule_b in pairs:
        right_a, right_b = rules[a][rule_a], rules[b][rule_b]
        difference, error = mean_and_error(right_a - right_b)
        entry = {"rule_a": rule_a, "accuracy_a": right_a.mean(), "won": int(sum(right_a > right_b))}
        entry |= {
            "rule_b": rule_b,
            "accuracy_b": right_b.mean(),
            "lost": int(sum(right_a < right_b)),
        }
        found.append(entry | {"difference": difference, "difference_error": error})
    flops = {"flops_a": a.flops.mean(), "flops_b": b.flops.mean()}
    return {"a": a.files[0], "b": b.files[0], **flops, "rules": found}


# --- the table ------------------------------------------------------------------------------------


def table(report):
    """The report for a terminal."""
    lines = comparison_lines(report["comparison"]) if "comparison" in report else []
    told = report["difficulty"]
    if told["file"]:
        what = "pass@1" if told["by"] == "oracle" else "the PRM's mean final score"
        means = ", ".join(f"{mean:.2f}" for mean in told["mean"].values())
        lines += [f"levels by {what} in {told['file']}: {means}", ""]
    for budget in map(str, report["budgets"]):
        lines += [*level_lines(report, budget), "", *single_lines(report, budget), ""]
    lines += advice_lines(report)
    if len(report["choice"]) > 1:
        lines += ["", *verdict_lines(report)]
    return "\n".join(lines)


def columns(rows):
    """Lines of cells below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(map(str.ljust, row, widths)) for row in rows]
    return [line.rstrip() for line in lines]


def level_lines(report, budget):
    """Accuracy at each level, for a budget."""
    counts = Counter(report["levels"].values())
    rows = [["level (problems)", *(f"{one} ({counts[one]})" for one in report["accuracy"])]]
    for name in at(report, budget):
        cells = []
        for one in report["accuracy"]:
            mark = "~" if name in report["within_noise"][one][budget] else ""
            mark = "*" if name == report["choice"][one][budget] else mark
            cells.append(percent(report["accuracy"][one][budget][name]) + mark)
        rows.append([name, *cells])
    title = f"{named(report, budget)}: accuracy, % ± one standard error"
    return [f"{title} (* best of a level, ~ within noise of it)", *columns(rows)]


def single_lines(report, budget):
    """The compute-optimal strategy against each single one, for a budget."""
    heads = ["accuracy", "optimal - it", "budget to be as good", ""]
    rows = [[f"{named(report, budget)}, all levels", *heads]]
    rows.append(["compute-optimal", percent(report["compute_optimal"][budget]), "", "", ""])
    for name, row in at(report, budget).items():
        notes = ["within noise"] if row["within_noise"] else []
        notes += [f"(n = {row['n']})"] if str(row["n"]) != budget else []
        rows.append([name, percent(row), signed(row), needs(row, report), "  ".join(notes)])
    return columns(rows)


def advice_lines(report):
    """What to run at each level and budget."""
    rows = []
    for one, cells in report["accuracy"].items():
        for budget in map(str, report["budgets"]):
            found = report["cheapest"][one][budget]
            run = f"{found['strategy']}, n = {found['n']}"
            top = report["choice"][one][budget]
            best_run = f"{top}, n = {cells[budget][top]['n']}"
            cost = f"{amount(found['flops'])}FLOP"
            other = "" if run == best_run else f"best: {best_run}: {percent(cells[budget][top])}"
            rows.append([f"level {one}", named(report, budget), run, percent(found), cost, other])
    title = "what to run: the cheapest run within the budget that is within noise of the best"
    return [title, *columns(rows)]


def verdict_lines(report):
    """Whether a choice by level is worth it."""
    lines = ["is a choice at each level better than one strategy for all?"]
    for budget in map(str, report["budgets"]):
        rows = at(report, budget)
        top = max(rows, key=lambda name: rows[name]["accuracy"])
        verdict = "better" if rows[top]["difference"] > 0 else "worse"
        verdict = "within noise" if rows[top]["within_noise"] else verdict
        against = f"{signed(rows[top])} against {top}, the best single one"
        lines.append(f"{named(report, budget)}: {against}: {verdict}")
        found = report["unbeaten"].get(budget)
        if found:
            run = f"{found['strategy']}, n = {found['n']}, {amount(found['flops'])}FLOP a problem"
            lines.append(f"  the cheapest that it does not beat: {run}")
    if report["calibration"]:
        price = amount(report["calibration"], report["unit"])
        unit = " samples" if report["unit"] == "n" else "FLOP"
        lines.append(f"to know the level of a problem costs {price}{unit} more (in brackets above)")
    return lines


def comparison_lines(found):
    """Of two files, A and B."""
    lines = []
    for one in "ab":
        lines.append(f"{one.upper()} {found[one]}, {amount(found[f'flops_{one}'])}FLOP a problem")
    rows = [["rule", "A, %", "B, %", "A - B", "A alone, B alone right"]]
    for row in found["rules"]:
        rules = " - ".join(dict.fromkeys([row["rule_a"], row["rule_b"]]))
        accuracies = [f"{100 * row[f'accuracy_{one}']:.1f}" for one in "ab"]
        verdict = f"{row['won']}, {row['lost']}"
        if within_noise(row["difference"], row["difference_error"]):
            cheaper = "A" if found["flops_a"] <= found["flops_b"] else "B"
            verdict += f": within noise, {cheaper} is cheaper"
        rows.append([rules, *accuracies, signed(row), verdict])
    return [*lines, *columns(rows), ""]


def at(report, budget):
    """{strategy: its row} of those that the budget buys."""
    return {name: rows[budget] for name, rows in report["single"].items() if budget in rows}


def named(report, budget):
    unit = "n" if report["unit"] == "n" else "FLOPs"
    return f"{unit} = {amount(float(budget), report['unit'])}"


def percent(row):
    return f"{100 * row['accuracy']:.1f} ± {100 * row['error']:.1f}"


def signed(row):
    return f"{100 * row['difference']:+.1f} ± {100 * row['difference_error']:.1f}"


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


# --- the picture ----------------------------------------------------------------------------------

# Colours that also differ for the colour-blind (Okabe and Ito 2008), and more.
COLOURS = {"majority": "#7f7f7f", "best_of_n": "#E69F00", "beam": "#56B4E9", "dvts": "#D55E00"}
COLOURS |= {"rebase": "#009E73", "particle": "#CC79A7", "mcts": "#0072B2"}
MORE = ["#8C564B", "#F0E442", "#9ACD32", "#4B0082"]


def draw(report, file):
    """Bars at each level, as the blog has them, and the curves. Each search by its own rule."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = {}
    for name in report["own_rules"]:
        colour = COLOURS.get(name.split(",")[0])
        more = MORE[len(colours) % len(MORE)]
        colours[name] = more if colour in (None, *colours.values()) else colour
    groups = list(report["accuracy"])
    figure = plt.figure(figsize=(max(10, 2.4 * len(groups)), 8), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.3])
    panels = upper.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, level in zip(panels, groups):
        draw_bars(panel, report, level, colours)
    axis = lower.subplots()
    draw_curves(axis, report, colours)
    for each in (axis, *panels):
        each.grid(alpha=0.25, axis="y")
        each.spines[["top", "right"]].set_visible(False)
    for each in (axis, panels[0]):
        each.set_ylabel("right answers, %")
    figure.savefig(file, dpi=150, format="png")
    plt.close(figure)


def draw_bars(panel, report, level, colours):
    """At each budget a bar for each search, a star on the strategy chosen."""
    width = 0.8 / len(colours)
    for at, (budget, cells) in enumerate(report["accuracy"][level].items()):
        chosen = report["choice"][level][budget]
        for place, (name, colour) in enumerate(colours.items()):
            x = at + width * (place - (len(colours) - 1) / 2)
            if name in cells:
                panel.bar(x, 100 * cells[name]["accuracy"], width, color=colour)
            if report["search_of"][chosen] == report["search_of"][name]:
                star = 100 * cells[chosen]["accuracy"]
                panel.plot(x, star, "*k", markersize=7, markeredgewidth=0, clip_on=False)
    labels = [amount(budget, report["unit"]) for budget in report["budgets"]]
    panel.set_xticks(range(len(labels)), labels)
    panel.set_title(f"level {level}", fontsize=10)
    panel.set_ylim(0, 100)


def draw_curves(axis, report, colours):
    """All levels: accuracy against what was spent."""
    from matplotlib.ticker import LogLocator, NullFormatter

    def curve(rows, x="spent", **style):
        rows = sorted(rows.values(), key=lambda row: row[x])
        accuracy = [100 * row["accuracy"] for row in rows]
        errors = [100 * row["error"] for row in rows]
        axis.errorbar([row[x] for row in rows], accuracy, errors, marker="o", capsize=2, **style)

    for name, colour in colours.items():
        curve(report["single"][name], color=colour, label=name)
    curve(report["compute_optimal"], color="black", linewidth=2.5, label="compute-optimal")
    if report["calibration"]:
        style = {"color": "black", "linestyle": ":", "label": "the same, with calibration"}
        curve(report["compute_optimal"], "spent_with_calibration", **style)
    axis.plot([], [], "*k", label="chosen, by this or another rule")
    axis.set_xscale("log", base=2 if report["unit"] == "n" else 10)
    if report["unit"] == "flops":  # labels that do not overlap, where costs are alike
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(lambda x, _: amount(x, report["unit"]))
    axis.set_xlabel(f"{'n' if report['unit'] == 'n' else 'FLOPs'} spent on a problem")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


# --- the command line -----------------------------------------------------------------------------


def parse_args(argv, fail):
    parser = coverage.parser_for(__doc__, fail)
    add = parser.add_argument
    help = "samples that tell difficulty, not scored; best of a seed of its own (default: the "
    add("--calibrate", metavar="FILE", help=help + "largest FILE of independent samples)")
    help = "by pass@1 (oracle), by the PRM's mean final score (prm), or the level in the file"
    add("--difficulty", choices=["oracle", "prm", "file"], help=help + " (default: oracle)")
    add("--levels", type=int, metavar="L", help="levels of difficulty (default: 5)")
    help = "what a budget counts: samples, or FLOPs of policy and PRM (default: n)"
    add("--budget", choices=["n", "flops"], default="n", help=help)
    args = parser.parse_args(argv)
    if args.levels is not None and args.levels < 1:
        fail(f"--levels must be at least 1, not {args.levels}")
    if args.difficulty == "file" and args.calibrate:
        fail("--difficulty file needs no samples: leave --calibrate out")
    return args


def report_on(args):
    """(report, notes): read the files, sort the problems into levels, analyse. Raises BadInput."""
    # 1. Read. What calibrates is not scored, and is a run of its own.
    files = coverage.read([*args.files, args.calibrate] if args.calibrate else args.files)
    for file in files:
        if args.calibrate and os.path.samefile(file.path, args.calibrate):
            file.header["calibrates"] = True
    runs, notes = coverage.pooled(files)
    files = [file for file in files if "calibrates" not in file.header]
    scored = [run for run in runs if "calibrates" not in run.settings]
    if not scored:
        raise BadInput(f"{args.calibrate} alone has nothing to be compared with: name more files")
    searches, differing = searches_of(scored)
    notes += differing + coverage.pooled_over(scored)

    # 2. Levels, and what it costs to know them.
    kind = args.difficulty or "oracle"
    told = {"by": kind, "file": None}
    price = 0.0
    able = [run for run in runs if run not in scored] or [run for run in scored if run.size == 1]
    if kind == "prm":
        able = [run for run in able if run not in scored or run.settings.get("prm")]
    if kind == "file":
        levels = levels_of_files(scored)
    elif able:
        run = max(able, key=lambda run: run.settings["n"])
        levels, means = levels_by_samples(run, kind, args.levels or LEVELS)
        told |= {"file": run.files[0], "mean": means}
        price = run.settings["n"] if args.budget == "n" else run.flops.mean()
        price = float(price * len(run.seeds))
        if {*run.seeds} & {seed for other in scored for seed in other.seeds}:
            what = f"levels are from {run.files[0]}, of a seed that is scored too"
            notes.append(f"{what}: the same luck is in both, so --calibrate on a seed of its own")
        if any(other.settings.get("policy") != run.settings.get("policy") for other in scored):
            notes.append(f"the levels are those of policy {run.settings.get('policy')}")
    elif args.difficulty is None and len(files) == 2:
        levels = dict.fromkeys(scored[0].rows, "all")
    else:
        raise BadInput(f"no file tells difficulty: --calibrate FILE of {SAMPLED}")
    fewest = min(Counter(levels.values()).values())
    if fewest < 2 <= len(levels) and (args.difficulty, args.levels, len(files)) == (None, None, 2):
        levels = dict.fromkeys(levels, "all")  # what is left is the comparison
        fewest = len(levels)
        told["file"] = None
        price = 0.0
        notes.append(f"{len(levels)} problems are too few for {LEVELS} levels: all are in one")
    elif fewest < 2:
        what = f"a level has only one of the {len(levels)} problems, and cannot be halved"
        raise BadInput(f"{what}: give fewer --levels or more problems")
    if fewest < FEW:
        what = f"a level has {fewest} problems: where so few are compared"
        notes.append(f"{what}, nearly all is within noise, and what is cheap looks good")

    # 3. Analyse.
    report = analyse(searches, levels, args.budget, price) | {"difficulty": told}
    if len(files) == 2:
        report["comparison"] = compare(*(coverage.pooled([file])[0][0] for file in files))
    keys = ("n", "seed", "commit")
    report["files"] = [{"file": f.path} | {key: f.header.get(key) for key in keys} for f in files]
    return report | {"notes": notes}, notes


def main(argv=None):
    from harness.terminal import fail

    return coverage.command(parse_args(argv, fail), report_on, table, draw)


if __name__ == "__main__":
    sys.exit(main())
