"""All searches and votes on the bundled pair: accuracy against n, against FLOPs, at equal FLOPs.

    pip install matplotlib==3.11.2             # for the pictures
    python tests/bench_curves.py               # hours on one CPU core; give it again and it goes on
    python tests/bench_curves.py --again 5     # do runs of older commits still come out the same?
    python tests/bench_curves.py --report-only

Runs the scripts themselves (n = 4, 16, 64; seeds 0, 1, 2; the first 200 problems), each into a file
of its own in runs/curves. What is whole is kept in results/runs, packed and without the texts, and is
not run again. From there come results/curves.md and its pictures. --again solves the first problems
of each run anew and holds the new solutions against the old.

Files are read by coverage.py and compute_optimal.py, and so are their statistics: accuracy is the
mean over seeds of a problem, then over problems. Of majority voting and best-of-N subsets of the
largest runs stand for a smaller n. Both draw the same samples (which is checked), so that the vote
is over those of best-of-N, of all seeds. Costs are measured at each n, in a run of that n.

"At equal FLOPs" a search at n is compared with another at the FLOPs that it took: between two of
its n the other is taken to be linear in log FLOPs, problem by problem.
"""

import argparse
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import coverage
from compute_optimal import COLOURS, MORE, Search, mean_and_error, within_noise

RUNS = ROOT / "runs/curves"
RESULTS = ROOT / "results"
KEPT = RESULTS / "runs"
CALIBRATION = 3  # the seed of samples that tell how hard a problem is: no search has it
NAMES = {
    "majority": "majority vote",
    "certainty": "vote by certainty",
    "confidence": "vote by confidence",
    "best_of_n": "best-of-N",
    "beam": "beam search",
    "dvts": "DVTS",
    "rebase": "REBASE",
    "particle": "particle filtering",
    "mcts": "MCTS",
}
VOTES = ["certainty", "confidence"]  # majority.py --weights
TREES = list(NAMES)[4:]
# And runs that are no curve: greedy decoding, and samples that tell how hard a problem is.
SCRIPTS = {name: name for name in NAMES} | dict.fromkeys([*VOTES, "greedy"], "majority")
SCRIPTS["calibrate"] = "best_of_n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--n", type=int, nargs="+", default=[4, 16, 64])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--limit", type=int, default=200, help="problems (default: 200)")
    add("--jobs", type=int, default=1, help="scripts at a time, one thread each (default: 1)")
    add("--again", type=int, metavar="K", help="solve the first K problems of each run anew")
    add("--report-only", action="store_true", help="run nothing, report on what is there")
    args = parser.parse_args()
    jobs = jobs_of(args)
    if not args.report_only:
        limit = args.again or args.limit
        with ThreadPoolExecutor(args.jobs) as workers:
            list(workers.map(lambda job: run(*job, limit, bool(args.again)), jobs))
    files = {job: whole(*job, args.limit) for job in jobs}
    page(Results({job: file for job, file in files.items() if file}, args))


def jobs_of(args):
    """[(name, n, seed)]. Samples are drawn at the largest n; at others they tell the cost."""
    top, first = max(args.n), args.seeds[0]
    jobs = [("greedy", 1, first), ("calibrate", top, CALIBRATION)]
    jobs += [(name, top, first) for name in VOTES]
    for n in sorted(args.n):
        jobs.append(("majority", n, first))
        jobs += [("best_of_n", n, seed) for seed in (args.seeds if n == top else [first])]
        jobs += [(name, n, seed) for name in TREES for seed in args.seeds]
    return jobs


def file_of(name, n, seed, again=False):
    return RUNS / ("again" if again else "") / f"{name}-n{n}-seed{seed}.jsonl"


def kept(name, n, seed):
    return KEPT / f"{name}-n{n}-seed{seed}.jsonl.gz"


def run(name, n, seed, limit, again):
    if not again and whole(name, n, seed, limit):
        return
    file = file_of(name, n, seed, again)
    file.parent.mkdir(parents=True, exist_ok=True)
    flags = {"--policy": "tiny/policy", "--prm": "tiny/prm", "--problems": "tiny/problems.jsonl"}
    flags |= {"--n": n, "--seed": seed, "--limit": limit, "--output": file}
    flags["--batch-problems"] = 1  # the padding of others is no cost of a method
    if SCRIPTS[name] == "majority":
        del flags["--prm"]
    if name == "greedy":
        flags["--temperature"] = 0
    if name in VOTES:
        flags["--weights"] = name
    words = [str(word) for flag in flags.items() for word in flag]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, f"{SCRIPTS[name]}.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    print(f"{file.name}: {done.stderr if done.returncode else 'done'}", flush=True)
    if not (done.returncode or again):
        keep(name, n, seed)


def keep(name, n, seed):
    """Pack a whole run without what needs room and decides nothing. Texts are kept of the first run
    of samples: they say which steps were right (step_scores)."""
    first, *rows = map(json.loads, file_of(name, n, seed).read_text().splitlines())
    for flag in ("policy", "prm", "problems"):
        if first["run"].get(flag):
            first["run"][flag] = f"tiny/{Path(first['run'][flag]).name}"
    lines = [first]
    for row in rows:
        del row["usage"]["seconds"]  # other runs were beside it
        for one in row["completions"]:
            one["scores"] = [score and round(score, 5) for score in one["scores"]]
            one["value"] = one["value"] and round(one["value"], 6)
            del one["path"]
            if (name, seed) != ("best_of_n", 0):
                del one["text"]
        lines.append(row)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    KEPT.mkdir(exist_ok=True)
    kept(name, n, seed).write_bytes(gzip.compress(text.encode(), mtime=0))


def whole(name, n, seed, limit):
    """A run's File with its first problems; None if it has fewer."""
    path = kept(name, n, seed)
    file = coverage.File(path) if path.exists() else None
    if file is None or len(file.rows) < limit:
        return None
    file.rows = file.rows[:limit]
    return file


# --- figures --------------------------------------------------------------------------------------


class Results:
    """What the runs say. Arrays are over the problems."""

    def __init__(self, files, args):
        self.args = args
        self.files = files
        self.sizes = sorted(args.n)
        self.searches = {}
        for name in (*NAMES, "greedy"):
            runs = []
            for n in (1, *self.sizes):
                same = [file for (other, m, _), file in files.items() if (other, m) == (name, n)]
                if same:
                    runs.append(coverage.Run(same[0].header, same))
            if runs:
                self.searches[name] = Search(runs)
        self.curves = [name for name in NAMES if name in self.searches]
        sampled = self.searches["best_of_n"].sampled
        self.problems = len(sampled.rows)
        self.levels = np.array([str(one) for one in sampled.level.values()])
        for key, rows in self.searches["majority"].sampled.rows.items():
            found = [drawn(row) for row in sampled.rows[key]]
            assert drawn(rows[0]) in found, "not the same samples"

    def own(self, name):
        return self.searches[name].own_rule

    def known(self, name):
        """Each n at which its accuracy is known."""
        return [n for n in self.sizes if name in self.searches and n in self.searches[name].sizes]

    def measured(self, name):
        """Each n at which it was run, and its cost is known."""
        return [n for n in self.known(name) if n in self.searches[name].runs]

    def cost(self, name, n):
        """FLOPs a problem, as measured at n."""
        return self.searches[name].runs[n].flops.mean()

    def usage(self, name, n, key):
        rows = [row for rows in self.searches[name].runs[n].rows.values() for row in rows]
        return np.mean([row.get(key, row["usage"].get(key)) for row in rows])

    def solved(self, name, n, rule=None):
        rule = rule or self.own(name)
        if (name, rule) == ("majority", "majority"):
            name = "best_of_n"
        return self.searches[name].accuracy(n, rule)

    def at_flops(self, name, flops, rule=None):
        """([P], is it between the costs measured?): what a search solves for so many FLOPs."""
        sizes = self.measured(name)
        costs = [self.cost(name, n) for n in sizes]
        place = np.interp(math.log(flops), np.log(costs), range(len(costs)))
        left = min(int(place), len(costs) - 2)
        low, high = (self.solved(name, n, rule) for n in sizes[left : left + 2])
        inside = costs[0] <= flops <= costs[-1]
        return low + (place - left) * (high - low), inside


def drawn(row):
    """What tells samples apart without their texts."""
    return [(one["answer"], one["tokens"], one["finished"]) for one in row["completions"]]


def step_scores(rows):
    """PRM scores of right and of wrong steps in solutions that the policy sampled. rows: those
    whose texts were kept."""
    from tiny import task
    from tiny.train import test_problems

    problems = {problem.text: problem for problem in test_problems(0)}
    right, wrong = [], []
    for row in rows:
        for one in row["completions"]:
            steps = [step.strip() for step in one["text"].split("\n\n") if step.strip()]
            labels = task.label_steps(problems[row["problem"]], steps)
            for label, score in zip(labels, one["scores"], strict=True):
                (right if label else wrong).append(score)
    return right, wrong


def auc(right, wrong):
    """Probability that a right one scores above a wrong one (Mann-Whitney), ties counting half."""
    from scipy.stats import mannwhitneyu

    return mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))


def came_out_again(files):
    """(runs held against new ones, problems of each, names of those that differ, commits)."""
    held, differing, commits, problems = 0, [], set(), 0
    for job, file in files.items():
        path = file_of(*job, again=True)
        if not path.exists():
            continue
        old = {row["id"]: row for row in file.rows}
        new = coverage.File(path)
        held += 1
        problems = len(new.rows)
        commits.add(new.header["commit"][:12])
        for row in new.rows:
            twin = old[row["id"]]
            same = drawn(row) == drawn(twin) and row["correct"] == twin["correct"]
            if not same or row["usage"]["flops"] != twin["usage"]["flops"]:
                differing.append(path.stem)
                break
    return held, problems, differing, sorted(commits)


# --- the page -------------------------------------------------------------------------------------


def page(results):
    lines = ["# Accuracy against n and FLOPs on the bundled pair", "", *what_was_run(results), ""]
    lines += ["![accuracy against n and against FLOPs](curves.png)", "", *short(results), ""]
    lines += [
        "## By level",
        "",
        *by_level(results),
        "",
        "## All rules",
        "",
        *all_rules(results),
        "",
    ]
    lines += ["## Costs", "", *costs(results), "", "## Differences", "", *differences(results), ""]
    lines += ["## Against REBASE, at equal FLOPs", "", *against_rebase(results), ""]
    lines += ["## The pair", "", *the_pair(results)]
    text = "\n".join(lines) + "\n"
    (RESULTS / "curves.md").write_text(text)
    print(text)
    draw(results, RESULTS / "curves.png")
    draw_each(results, RESULTS / "curves-each.png")


def table(head, rows, right=True):
    """Markdown. The first column is to the left."""
    line = "|---|" + ("---:|" if right else "---|") * (len(head) - 1)
    return [f"| {' | '.join(map(str, head))} |".replace("|  |", "| |"), line] + [
        f"| {' | '.join(map(str, row))} |" for row in rows
    ]


def percent(values, sign=""):
    mean, error = mean_and_error(values)
    return f"{100 * mean:{sign}.1f} ± {100 * error:.1f}"


def verdict(values):
    difference, error = mean_and_error(values)
    if within_noise(difference, error):
        return "within noise"
    return "ahead" if difference > 0 else "behind"


def title(results, name, rule=None):
    rule = rule or results.own(name)
    return NAMES[name] if name in ("majority", *VOTES) else f"{NAMES[name]}, {rule} vote"


def what_was_run(results):
    commits = {}
    for (name, *_), file in results.files.items():
        commits.setdefault(file.header["commit"][:12], set()).add(f"{SCRIPTS[name]}.py")
    made = "; ".join(f"{one} ({', '.join(sorted(some))})" for one, some in commits.items())
    held, problems, differing, newer = came_out_again(results.files)
    digest = hashlib.sha256((ROOT / "tiny/problems.jsonl").read_bytes()).hexdigest()
    seeds = "seed" + "s" * (len(results.args.seeds) > 1)
    seeds += f" {', '.join(map(str, results.args.seeds))}"
    words = [word for word in sys.argv[1:] if word != "--report-only"]
    missing = [file_of(*job).stem for job in jobs_of(results.args) if job not in results.files]
    lines = [
        f"`{' '.join(['python tests/bench_curves.py', *words])}` ({results.problems} problems, "
        f"{seeds}, temperature 0.8,",
        "M = 4; CPU, float32, one thread, one problem at a time). ± is one standard error over",
        "problems; differences are paired by problem, and within noise where they are under two",
        f"standard errors. The problems are tiny/problems.jsonl, sha256 {digest[:12]}.",
        "",
        f"Commits of the runs: {made}.",
    ]
    if held:
        came = f"all but those of {', '.join(differing)}" if differing else "all"
        lines.append(
            f"At commit {', '.join(newer)} the first {problems} problems of {held} of the runs "
            f"were solved again: {came} came out the same, solutions, verdicts and FLOPs."
        )
    if missing:
        lines.append(f"Not run to the end, and not in here: {', '.join(missing)}.")
    return lines


def short(results):
    sizes = results.sizes
    head = ["", *(f"N = {n}" for n in sizes)]
    head.append(f"GFLOP a problem at N = {', '.join(map(str, sizes))}")
    rows = []
    for name in NAMES:
        known, measured = results.known(name), results.measured(name)
        if known:
            cells = [percent(results.solved(name, n)) if n in known else "-" for n in sizes]
            spent = [f"{results.cost(name, n) / 1e9:.1f}" if n in measured else "-" for n in sizes]
            rows.append([title(results, name), *cells, ", ".join(spent)])
    return ["In short, accuracy in percent:", "", *table(head, rows)]


def by_level(results):
    levels = sorted(set(results.levels))
    rows = []
    for name in NAMES:
        cells = []
        for n in results.known(name):
            solved = results.solved(name, n)
            means = [solved[results.levels == one].mean() for one in levels]
            cells.append(" / ".join(f"{100 * mean:.0f}" for mean in means))
        if cells:
            cells += ["-"] * (len(results.sizes) - len(cells))
            rows.append([title(results, name), *cells])
    heads = [f"N = {n}, levels {levels[0]} to {levels[-1]}" for n in results.sizes]
    note = f"Accuracy in percent; {results.problems // len(levels)} problems a level, "
    note += "so that one standard error is up to 7 points."
    return [note, "", *table(["", *heads], rows, right=False)]


def all_rules(results):
    powers = [2**i for i in range(int(math.log2(results.sizes[-1])) + 1)]
    rows = []
    for name in NAMES:
        search = results.searches.get(name)
        for rule in search.rules if search else []:
            if rule == "majority" and name in ("best_of_n", *VOTES):
                continue  # that is the majority vote
            known = [n in search.sizes for n in powers]
            cells = [
                percent(results.solved(name, n, rule)) if k else "" for n, k in zip(powers, known)
            ]
            label = NAMES[name] if name in ("majority", *VOTES) else f"{NAMES[name]}, {rule}"
            rows.append([label, *cells])
    samples = results.searches["best_of_n"].sampled.samples.values()
    right, units = (np.array(x) for x in zip(*((one.right_units(), one.units) for one in samples)))
    rows.append(["coverage (pass@n)"])
    rows[-1] += [f"{100 * coverage.coverage_at(n, right, units).mean():.1f}" for n in powers]
    return ["Accuracy in percent:", "", *table(["", *(f"n = {n}" for n in powers)], rows)]


def costs(results):
    rows = []
    for name in NAMES:
        for n in results.measured(name):
            seeds = ", ".join(map(str, results.searches[name].runs[n].seeds))
            row = [NAMES[name], n, seeds, f"{results.cost(name, n) / 1e9:.1f}"]
            for key in ("generated_tokens", "policy_tokens", "prm_tokens"):
                row.append(f"{results.usage(name, n, key):,.0f}")
            row += [f"{results.usage(name, n, key):.1f}" for key in ("finished", "distinct")]
            rows.append(row)
    head = ["", "n", "seeds", "GFLOP", "tokens sampled", "through the policy", "through the PRM"]
    return [
        "A problem's cost, measured at each n, and what comes back: solutions finished, and how many",
        "of all that came back differ.",
        "",
        *table([*head, "finished", "distinct"], rows),
    ]


def differences(results):
    top, middle = results.sizes[-1], results.sizes[len(results.sizes) // 2]
    rows = []

    def add(name, values):
        rows.append([name, percent(values, "+"), verdict(values)])

    vote, weighted = results.solved("majority", top), results.solved("best_of_n", top)
    add(f"majority@{top} - majority@{middle}", vote - results.solved("majority", middle))
    if "greedy" in results.searches:
        add(f"majority@{top} - greedy decoding", vote - results.solved("greedy", 1))
    for name in VOTES:
        if results.known(name):
            # The first seed alone has these votes, so that it is compared with its own majority.
            one = results.searches[name]
            add(
                f"{NAMES[name]} - majority@{top}",
                one.solved[top][name] - one.solved[top]["majority"],
            )
    add(f"weighted best-of-N@{top} - majority@{top}", weighted - vote)
    for name in TREES:
        for n in results.measured(name):
            solved = results.solved(name, n)
            label = f"{NAMES[name]}@{n} - weighted best-of-N"
            add(f"{label}@{n}", solved - results.solved("best_of_n", n))
            equal, _ = results.at_flops("best_of_n", results.cost(name, n))
            add(f"{label}, of equal cost", solved - equal)
    return ["In points, each search by its own rule:", "", *table(["", "difference", ""], rows)]


def against_rebase(results):
    rows = []
    found = {}
    outside = False
    for name in ("particle", "mcts"):
        for n in results.measured(name):
            search = results.searches[name]
            for rule in search.rules:
                solved = search.accuracy(n, rule)
                equal, inside = results.at_flops("rebase", results.cost(name, n), rule)
                outside |= not inside
                found[name, n, rule] = solved - equal
                of_n = percent(solved - results.solved("rebase", n, rule), "+")
                at = percent(solved - equal, "+") + ("" if inside else "\\*")
                rows.append([f"{NAMES[name]}@{n}", rule, of_n, at, verdict(solved - equal)])
    head = ["minus REBASE, in points", "rule", "at equal n", "at equal FLOPs", ""]
    lines = table(head, rows)
    if outside:
        lines += ["", "\\* cheaper or dearer than all runs of REBASE: against the nearest of them."]
    said = {}
    for n in results.measured("mcts"):
        said.setdefault(verdict(found["mcts", n, results.own("mcts")]), []).append(f"n = {n}")
    told = ", ".join(f"{what} at {' and '.join(sizes)}" for what, sizes in said.items())
    word = "It does not show here" if "behind" not in said else "Here it shows in part"
    word = "It shows here, too" if set(said) == {"behind"} else word
    lines += [
        "",
        "The REBASE paper ([Wu et al. 2024](https://arxiv.org/abs/2408.00724)) finds that MCTS gets",
        f"less out of the same compute than REBASE. {word}: at equal FLOPs MCTS, by its",
        f"{results.own('mcts')} vote, is {told}.",
    ]
    return lines


def the_pair(results):
    rows = results.searches["best_of_n"].sampled.rows.values()
    texts = [row for some in rows for row in some if "text" in row["completions"][0]]
    right, wrong = map(np.array, step_scores(texts))
    passed, stopped = 100 * (right > 0.5).mean(), 100 * (wrong <= 0.5).mean()
    lines = [
        f"- PRM on {len(right) + len(wrong):,} sampled steps: AUC {auc(right, wrong):.4f}; at a "
        f"threshold of 0.5 it passes {passed:.1f} %",
        f"  of right steps and stops {stopped:.1f} % of wrong ones.",
    ]
    if "greedy" in results.searches:
        cost = results.searches["greedy"].runs[1].flops.mean() / 1e9
        accuracy = percent(results.solved("greedy", 1))
        lines.append(f"- Greedy decoding: {accuracy} %, {cost:.2f} GFLOP a problem.")
    samples = results.searches["best_of_n"].sampled.samples.values()
    once = np.array([one.correct.mean() for one in samples])
    means = [f"level {one} {100 * once[results.levels == one].mean():.0f}" for one in "12345"]
    return [*lines, f"- pass@1 by level, percent: {', '.join(means)}."]


# --- the pictures ---------------------------------------------------------------------------------


def pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def colour_of(name):
    return COLOURS[name] if name in COLOURS else MORE[VOTES.index(name)]


def curve(axis, results, name, against_flops=False, **style):
    sizes = results.measured(name) if against_flops else results.known(name)
    x = [results.cost(name, n) if against_flops else n for n in sizes]
    found = [mean_and_error(results.solved(name, n)) for n in sizes]
    means, errors = 100 * np.array(found).T
    axis.errorbar(x, means, errors, marker="o", capsize=2, **style)


def tidy(axis, against_flops=False):
    axis.set_xscale("log", base=10 if against_flops else 2)
    if not against_flops:
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_xlabel("FLOPs a problem, policy and PRM" if against_flops else "N, samples or beams")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def draw(results, file):
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
    for against_flops, axis in enumerate(axes):
        for name in results.curves:
            style = {"color": colour_of(name), "label": title(results, name)}
            curve(axis, results, name, against_flops, **style)
        if "greedy" in results.searches:
            accuracy = 100 * results.solved("greedy", 1).mean()
            axis.axhline(accuracy, color="black", lw=1, ls=":", label="greedy decoding")
        tidy(axis, against_flops)
    axes[0].set_ylabel("right answers, %")
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=150)
    plt.close(figure)


def draw_each(results, file):
    """Each search by itself, the others in grey."""
    plt = pyplot()
    figure, axes = plt.subplots(3, 3, figsize=(10, 7), sharey=True, layout="constrained")
    axes = list(axes.flat)
    for axis, name in zip(axes, results.curves):
        for other in results.curves:
            if other != name:
                curve(axis, results, other, color="#d0d0d0", linewidth=1, markersize=2)
        curve(axis, results, name, color=colour_of(name), linewidth=2)
        tidy(axis)
        axis.set_title(title(results, name), fontsize=10, loc="left")
    for axis in axes[len(results.curves) :]:
        axis.set_visible(False)
    figure.supylabel("right answers, %")
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
