"""All five strategies on the bundled pair: accuracy against n and against FLOPs, and how good the pair is.

    pip install matplotlib==3.11.2        # for the picture only
    python tests/bench_curves.py          # about an hour on 2 CPU cores; give the command again and it goes on

Runs the scripts themselves (n = 4, 16, 64; seeds 0, 1, 2; the first 200 problems), each into a file of its own in
runs/curves, and writes results/curves.md, results/curves.png and for each script results/curves-SCRIPT.png. For majority voting and
best-of-N the accuracy at a smaller n is the mean over random subsets of the samples at the largest; they run at every n, for one
seed, to measure what it costs. Both draw the same samples from the same seed (which is checked on the first).

Error bars and +- are one standard error over problems (of a problem's mean over seeds), which is what another set of
200 problems would change; differences between strategies on these same problems are surer than the bars suggest.
"""

import argparse
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import grading
from tiny import task

TREES = ["beam", "dvts", "rebase"]
SUBSETS = 20  # random subsets of the samples of one problem and seed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=200, help="problems (default: 200)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="scripts at a time, one thread each (default: cores)",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing, report on what is there"
    )
    args = parser.parse_args()

    top = max(args.n)
    jobs = [("best_of_n", top, seed) for seed in args.seeds]
    jobs += [
        (script, n, seed)
        for n in sorted(args.n)
        for script in ("dvts", "beam", "rebase")
        for seed in args.seeds
    ]
    jobs += [
        (script, n, args.seeds[0])
        for n in sorted(args.n)
        for script in ("majority", "best_of_n")
        if (script, n) != ("best_of_n", top)
    ]
    jobs += [("greedy", 1, 0)]
    if not args.report_only:
        # The comparison that matters most first, then seed by seed, so that a run that is broken off can be reported on.
        jobs.sort(
            key=lambda job: (
                job[0] not in ("best_of_n", "dvts") or min(args.n) < job[1] < top,
                job[2],
                job[0] in TREES,
            )
        )
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda job: run(*job, args.limit), jobs))
    results = {job: read(*job, args.limit) for job in jobs if path(*job).exists()}
    results = {
        job: rows for job, rows in results.items() if len(rows) == args.limit
    }  # whole runs only
    report(results, args)


def path(script, n, seed) -> Path:
    return ROOT / f"runs/curves/{script}-n{n}-seed{seed}.jsonl"


def run(script, n, seed, limit):
    flags = (
        ["--temperature", "0"] if script == "greedy" else ["--batch-problems", "1"]
    )  # the padding of others is no cost of a method
    command = [
        sys.executable,
        "majority.py" if script == "greedy" else f"{script}.py",
        "--n",
        str(n),
        "--seed",
        str(seed),
        "--limit",
        str(limit),
        "--output",
        str(path(script, n, seed).relative_to(ROOT)),
        *flags,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    print(f"{' '.join(command[1:])}: {'done' if done.returncode == 0 else done.stderr}", flush=True)


def read(script, n, seed, limit) -> list[dict]:
    lines = path(script, n, seed).read_text().splitlines()
    return [json.loads(line) for line in lines[1 : limit + 1]]


# --- figures ----------------------------------------------------------------------------------------------------------


def problem_means(rows_of_seeds, value) -> dict[str, float]:
    """Problem id -> mean of value(row) over seeds."""
    values = defaultdict(list)
    for rows in rows_of_seeds:
        for row in rows:
            values[row["id"]].append(value(row))
    return {key: mean(of_seeds) for key, of_seeds in values.items()}


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def by_problem(rows_of_seeds, value) -> tuple[float, float]:
    """Mean of value(row) and its standard error over problems, seeds averaged first."""
    return mean_and_error(list(problem_means(rows_of_seeds, value).values()))


def difference(rows_a, value_a, rows_b, value_b) -> tuple[float, float]:
    """Mean of value_a - value_b, paired by problem, and its standard error."""
    a, b = problem_means(rows_a, value_a), problem_means(rows_b, value_b)
    return mean_and_error([a[key] - b[key] for key in a])


def subset_accuracy(row, n, rule) -> float:
    """Share of random subsets of n of the row's completions whose choice under `rule` is right."""
    if "judged" not in row:  # canonical forms once, not once a subset
        gold = grading.canonical_form(row["answer"])
        row["judged"] = [
            (
                key := grading.canonical_form(c["answer"])
                if c["finished"] and c["answer"]
                else None,
                key == gold,
                c["scores"][-1] if c["scores"] else 1.0,
            )
            for c in row["completions"]
        ]
    rng, right = random.Random(f"{row['id']} {n}"), 0
    for _ in range(SUBSETS):
        votes, truth = defaultdict(float), {}
        for key, correct, score in rng.sample(row["judged"], n):
            if key is not None:
                votes[key] = (
                    max(votes[key], score)
                    if rule == "best"
                    else votes[key] + (1.0 if rule == "majority" else score)
                )
                truth[key] = correct
        right += bool(votes) and truth[max(votes, key=votes.get)]
    return right / SUBSETS


def coverage(row, k) -> float:
    """Unbiased pass@k from the row's n completions (Chen et al. 2021, equation 1)."""
    n = len(row["completions"])
    gold = grading.canonical_form(row["answer"])
    right = sum(
        c["finished"] and bool(c["answer"]) and grading.canonical_form(c["answer"]) == gold
        for c in row["completions"]
    )
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def step_scores(rows_of_seeds) -> tuple[list[float], list[float]]:
    """PRM scores of right and of wrong steps in solutions that the policy sampled."""
    from tiny.train import test_problems

    problems, right, wrong = {problem.text: problem for problem in test_problems(0)}, [], []
    for rows in rows_of_seeds:
        for row in rows:
            for completion in row["completions"]:
                steps = [step.strip() for step in completion["text"].split("\n\n") if step.strip()]
                for label, score in zip(
                    task.label_steps(problems[row["problem"]], steps),
                    completion["scores"],
                    strict=True,
                ):
                    (right if label else wrong).append(score)
    return right, wrong


def auc(right, wrong) -> float:
    """Probability that a right step scores above a wrong one (Mann-Whitney), ties counting half."""
    ranked, rank_sum, i = sorted([(s, 1) for s in right] + [(s, 0) for s in wrong]), 0.0, 0
    while i < len(ranked):
        j = i
        while j < len(ranked) and ranked[j][0] == ranked[i][0]:
            j += 1
        rank_sum += (i + j + 1) / 2 * sum(label for _, label in ranked[i:j])
        i = j
    return (rank_sum - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong))


def cost(rows_of_seeds) -> dict[str, float]:
    rows = [row for rows in rows_of_seeds for row in rows]
    spent = {key: mean(row["usage"][key] for row in rows) for key in rows[0]["usage"]}
    return spent | {key: mean(row[key] for row in rows) for key in ("finished", "distinct")}


# --- the report -------------------------------------------------------------------------------------------------------


def report(results, args):
    top = max(args.n)
    seeds_of = lambda script, n: [
        results[script, n, seed] for seed in args.seeds if (script, n, seed) in results
    ]
    curves = defaultdict(list)  # name -> [(n, FLOPs, accuracy, standard error, cost, seeds)]
    levels = defaultdict(dict)  # name -> {n: [accuracy at level 1, ...]}
    at_level = lambda rows_of_seeds, level: [
        [row for row in rows if row["level"] == level] for rows in rows_of_seeds
    ]
    sampled = seeds_of("best_of_n", top)
    powers = [2**i for i in range(int(math.log2(top)) + 1)]
    votes = seeds_of("majority", top)
    for row, twin in zip(votes[0], sampled[0]):
        assert [c["text"] for c in row["completions"]] == [
            c["text"] for c in twin["completions"]
        ], "not the same samples"
    for name, rule, script in [
        ("majority", "majority", "majority"),
        ("best-of-N, best", "best", "best_of_n"),
        ("best-of-N, weighted", "weighted", "best_of_n"),
    ]:
        for n in powers:
            paid = seeds_of(script, n)[
                :1
            ]  # measured, for one seed; at an n that did not run there is no cost
            spent = cost(paid) if paid else None
            accuracy = by_problem(sampled, lambda row: subset_accuracy(row, n, rule))
            curves[name].append((n, spent["flops"] if paid else math.nan, *accuracy, spent, 1))
            levels[name][n] = [
                by_problem(at_level(sampled, level), lambda row: subset_accuracy(row, n, rule))[0]
                for level in LEVELS
            ]
    for script in TREES:
        for n in sorted(args.n):
            if rows := seeds_of(script, n):
                spent = cost(rows)
                for rule in ("best", "weighted"):
                    curves[f"{script}, {rule}"].append(
                        (
                            n,
                            spent["flops"],
                            *by_problem(rows, lambda row: row["correct"][rule]),
                            spent,
                            len(rows),
                        )
                    )
                    levels[f"{script}, {rule}"][n] = [
                        by_problem(at_level(rows, level), lambda row: row["correct"][rule])[0]
                        for level in LEVELS
                    ]

    commits = defaultdict(set)  # of the scripts' runs
    for script, n, seed in results:
        commits[json.loads(path(script, n, seed).open().readline())["run"]["commit"][:12]].add(
            script.replace("greedy", "majority") + ".py"
        )
    commit = "; ".join(
        f"{commit} ({', '.join(sorted(scripts))})" for commit, scripts in commits.items()
    )
    count = len({row["id"] for row in sampled[0]})
    lines = [
        "# Accuracy against n and FLOPs on the bundled pair",
        "",
        f"`python {' '.join([os.path.relpath(sys.argv[0], ROOT), *[a for a in sys.argv[1:] if a != '--report-only']])}` at commit {commit}",
        f"({count} problems, seeds {', '.join(map(str, args.seeds))}, temperature 0.8, M = 4; CPU, float32). "
        "+- is one standard error over problems.",
        f"The problems are tiny/problems.jsonl, sha256 {hashlib.sha256((ROOT / 'tiny/problems.jsonl').read_bytes()).hexdigest()[:12]}.",
        "",
        "![accuracy against n and against FLOPs](curves.png)",
        "",
        "In short, accuracy in percent:",
        "",
        "| | "
        + " | ".join(f"N = {n}" for n in sorted(args.n))
        + f" | GFLOP a problem at N = {', '.join(map(str, sorted(args.n)))} |",
        "|---|" + "---:|" * (len(args.n) + 1),
    ]
    for name, (title, *_) in STYLE.items():
        points = {
            n: (f"{100 * a:.1f} ± {100 * e:.1f}", f"{flops / 1e9:.1f}")
            for n, flops, a, e, *_ in curves[name]
            if n in args.n
        }
        lines.append(
            f"| {title} | "
            + " | ".join(accuracy for accuracy, _ in points.values())
            + f" | {', '.join(flops for _, flops in points.values())} |"
        )
    lines += [
        "",
        f"By level of difficulty (1 to 5; {count // len(LEVELS)} problems each, so one standard error is up to 7 points), in percent:",
        "",
        "| | " + " | ".join(f"N = {n}, levels 1 to 5" for n in sorted(args.n)) + " |",
        "|---|" + "---|" * len(args.n),
    ]
    for name, (title, *_) in STYLE.items():
        lines.append(
            f"| {title} | "
            + " | ".join(
                " / ".join(f"{100 * a:.0f}" for a in levels[name][n])
                for n in sorted(args.n)
                if n in levels[name]
            )
            + " |"
        )
    lines += [
        "",
        "All rules, accuracy in percent:",
        "",
        "| | " + " | ".join(f"n = {n}" for n in powers) + " |",
        "|---|" + "---:|" * len(powers),
    ]
    for name, points in curves.items():
        at = {n: f"{100 * a:.1f} ± {100 * e:.1f}" for n, _, a, e, *_ in points}
        lines.append(f"| {name} | " + " | ".join(at.get(n, "") for n in powers) + " |")
    lines.append(
        "| coverage (pass@n) | "
        + " | ".join(
            f"{100 * by_problem(sampled, lambda row: coverage(row, n))[0]:.1f}" for n in powers
        )
        + " |"
    )
    lines += [
        "",
        "A problem's cost, solved by itself (--batch-problems 1), and what comes back: solutions finished, and how many of all that came back differ.",
        "",
        "| | n | seeds | GFLOP | tokens sampled | through the policy | through the PRM | finished | distinct |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, points in curves.items():
        if not name.endswith(", best"):
            for n, flops, _, _, c, seeds in points:
                if n in args.n:
                    lines.append(
                        f"| {name.split(',')[0]} | {n} | {seeds} | {flops / 1e9:.1f} | {c['generated_tokens']:,.0f} | {c['policy_tokens']:,.0f} | {c['prm_tokens']:,.0f} | {c['finished']:.1f} | {c['distinct']:.1f} |"
                    )

    middle = sorted(args.n)[len(args.n) // 2]
    vote = lambda rule, n: (sampled, lambda row: subset_accuracy(row, n, rule))
    tree = lambda script, n: (seeds_of(script, n), lambda row: row["correct"]["weighted"])
    pairs = [
        (f"majority@{top} - majority@{middle}", vote("majority", top), vote("majority", middle)),
        (
            f"weighted best-of-N@{top} - majority@{top}",
            vote("weighted", top),
            vote("majority", top),
        ),
    ]
    for script in TREES:
        for n in sorted(args.n):
            pairs.append(
                (f"{script}@{n} - weighted best-of-N@{n}", tree(script, n), vote("weighted", n))
            )
            if seeds_of(script, n):  # and against as many samples as cost the same
                same = max(
                    1, round(top * cost(seeds_of(script, n))["flops"] / cost(sampled)["flops"])
                )
                pairs.append(
                    (
                        f"{script}@{n} - weighted best-of-N@{same}, of equal cost",
                        tree(script, n),
                        vote("weighted", same),
                    )
                )
    lines += [
        "",
        "Differences on the same problems, in points:",
        "",
        "| | difference |",
        "|---|---:|",
    ]
    lines += [
        f"| {name} | {100 * d:+.1f} ± {100 * e:.1f} |"
        for name, a, b in pairs
        if a[0]
        for d, e in [difference(*a, *b)]
    ]

    right, wrong = step_scores(sampled)
    lines += ["", "The pair:", ""]
    lines.append(
        f"- PRM on {len(right) + len(wrong):,} sampled steps: AUC {auc(right, wrong):.4f}; at a threshold of 0.5 it passes "
        f"{100 * mean(s > 0.5 for s in right):.1f} % of right steps and stops {100 * mean(s <= 0.5 for s in wrong):.1f} % of wrong ones."
    )
    if greedy := results.get(("greedy", 1, 0)):
        lines.append(
            f"- Greedy decoding: {100 * mean(row['correct']['majority'] for row in greedy):.1f} %."
        )
    once = [
        f"level {level} {100 * by_problem(at_level(sampled, level), lambda row: coverage(row, 1))[0]:.0f}"
        for level in LEVELS
    ]
    lines.append(f"- pass@1 by level, percent: {', '.join(once)}.")
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results/curves.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(curves, results.get(("greedy", 1, 0)), ROOT / "results/curves.png")
    for name, script in zip(STYLE, ["majority", "best_of_n", *TREES]):
        draw_one(name, curves, levels, sorted(args.n), ROOT / f"results/curves-{script}.png")


LEVELS = range(1, 6)
STYLE = {  # colours that also differ for the colour-blind (Okabe and Ito 2008)
    "majority": ("majority vote", "#7f7f7f", "s", "--"),
    "best-of-N, weighted": ("best-of-N, weighted vote", "#E69F00", "D", "--"),
    "beam, weighted": ("beam search, weighted vote", "#56B4E9", "^", "-"),
    "dvts, weighted": ("DVTS, weighted vote", "#D55E00", "o", "-"),
    "rebase, weighted": ("REBASE, weighted vote", "#009E73", "v", "-"),
}


def pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw(curves, greedy, file):
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for axis, column, label in [
        (axes[0], 0, "n, samples or beams"),
        (axes[1], 1, "FLOPs a problem, policy and PRM"),
    ]:
        for i, (name, (title, color, marker, line)) in enumerate(STYLE.items()):
            if points := curves.get(name):
                x = [
                    point[column] * (0.97 + 0.015 * i if column == 0 else 1) for point in points
                ]  # bars side by side
                axis.errorbar(
                    x,
                    [100 * p[2] for p in points],
                    [100 * p[3] for p in points],
                    label=title,
                    color=color,
                    marker=marker,
                    linestyle=line,
                    markersize=6,
                    linewidth=1.8,
                    elinewidth=1,
                    capsize=2,
                )
        if greedy:
            axis.axhline(
                100 * mean(row["correct"]["majority"] for row in greedy),
                color="black",
                linewidth=1,
                linestyle=":",
                label="greedy decoding",
            )
        axis.set_xscale("log", base=2 if column == 0 else 10)
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes[0].set_ylabel("right answers, %")
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=150)


def draw_one(name, curves, levels, wanted, file):
    """One strategy: its curve among the others' in grey, and what more samples bring at each level of difficulty."""
    plt = pyplot()
    title, color, marker, _ = STYLE[name]
    figure, (axis, bars) = plt.subplots(
        1, 2, figsize=(9, 2.8), width_ratios=[1.1, 1], layout="constrained"
    )
    for other, points in curves.items():
        if other in STYLE and other != name:
            axis.plot(
                [p[0] for p in points], [100 * p[2] for p in points], color="#cccccc", linewidth=1.5
            )
    points = curves[name]
    axis.errorbar(
        [p[0] for p in points],
        [100 * p[2] for p in points],
        [100 * p[3] for p in points],
        color=color,
        marker=marker,
        linewidth=2,
        capsize=2,
    )
    axis.set_xscale("log", base=2)
    axis.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axis.set_xlabel("N")
    axis.set_ylabel("right answers, %")
    axis.set_title(f"{title}, the others in grey", fontsize=10, loc="left")
    shown = [n for n in wanted if n in levels[name]]
    for i, n in enumerate(shown):
        bars.bar(
            [level + 0.27 * (i - (len(shown) - 1) / 2) for level in LEVELS],
            [100 * a for a in levels[name][n]],
            0.25,
            color=color,
            alpha=(i + 1) / len(shown),
            label=f"N = {n}",
        )
    bars.set_xticks(LEVELS)
    bars.set_xlabel("level of difficulty")
    bars.set_ylim(0, 100)
    bars.legend(
        frameon=False,
        fontsize=8,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )
    for each in (axis, bars):
        each.grid(alpha=0.25, axis="y")
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
