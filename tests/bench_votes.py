"""Votes without a reward model, and stopping early, on the bundled pair.

    python tests/bench_votes.py           # half an hour on one CPU core; give it again: it goes on

Runs majority.py with --weights certainty, with --weights confidence and with --stop-at 0.95, and
best_of_n.py for the reward model's votes: 64 samples of the first 200 problems, seed 0, which are
the same samples in all of them. Writes results/votes.md. Other thresholds of --stop-at are tried on
the stored samples, which are the same as a run with that flag draws. --report-only runs nothing.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import coverage
import majority
from common import grading

RUNS = Path("runs/votes")  # all commands are given in ROOT
PAGE = ROOT / "results/votes.md"
N = 64
STOPPED = 0.95
THRESHOLDS = (0.8, 0.9, STOPPED, 0.99)
ORDERS = 20
POWERS = (0.5, 0.3, 1.2, 4)  # of Borda votes
SHARES = (0.9, 0.1, 0.5, 1)  # of the solutions that are confident enough to vote
COMMANDS = {
    "certainty": ["majority.py", "--weights", "certainty"],
    "confidence": ["majority.py", "--weights", "confidence"],
    "stop": ["majority.py", "--stop-at", str(STOPPED)],
    "best_of_n": ["best_of_n.py"],
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=200, help="problems (default: 200)")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    os.chdir(ROOT)
    if not args.report_only:
        for name in COMMANDS:
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            words = [sys.executable, *command(name, args.limit)]
            subprocess.run(words, check=True, env=env)
    PAGE.write_text("\n".join(page(args.limit)) + "\n")
    print(PAGE.read_text())


def command(name, limit):
    more = [] if name == "stop" else ["--batch-problems", "1"]
    flags = ["--n", str(N), "--limit", str(limit), *more, "--output", str(RUNS / f"{name}.jsonl")]
    return [*COMMANDS[name], *flags]


def rows_of(name):
    """(header, rows)"""
    first, *rows = [json.loads(line) for line in (RUNS / f"{name}.jsonl").read_text().splitlines()]
    return first["run"], rows


def mean(values):
    """In percent, with its standard error."""
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values) / math.sqrt(len(values)):.1f}"


def page(limit):
    commits = sorted({rows_of(name)[0]["commit"][:12] for name in COMMANDS})
    yield "# Votes without a reward model, and stopping early"
    yield ""
    yield f"Written by `python tests/bench_votes.py`: the first {limit} bundled problems, seed 0,"
    yield f"CPU, float32. Runs of commit {', '.join(commits)}:"
    yield "\n```"
    yield from (" ".join(["python", *command(name, limit)]) for name in COMMANDS)
    yield "```\n"
    yield from weighed_votes()
    yield from other_settings()
    yield from early_stops()


def weighed_votes():
    """What each rule solves of the same samples."""
    rules = {}  # of each rule where it stands
    for name in ("certainty", "confidence", "best_of_n"):
        [run], _ = coverage.pooled([coverage.File(RUNS / f"{name}.jsonl")])
        for rule in run.rules:
            rules[rule] = run
    yield "## What the votes solve"
    yield ""
    yield "% of problems, ± one standard error over problems; at k < 64 the mean over 200 subsets of"
    yield "the samples. The last column is the difference from the plain vote, paired by problem."
    yield "`best` and `weighted` ask the reward model.\n"
    yield "| | k = 4 | k = 16 | k = 64 | against majority at 64 |"
    yield "|---|---:|---:|---:|---:|"
    solved = {}
    for rule, run in rules.items():
        for k in (4, 16, N):
            rng = np.random.default_rng(0)
            found = [coverage.success_at(k, one, rule, rng)[0] for one in run.samples.values()]
            solved[rule, k] = found
        plain = solved["majority", N]
        gain = [float(a - b) for a, b in zip(solved[rule, N], plain)]
        cells = [mean([float(one) for one in solved[rule, k]]) for k in (4, 16, N)]
        cells.append("" if rule == "majority" else mean(gain))
        yield f"| {rule} | {' | '.join(cells)} |"
    yield ""


def other_settings():
    """The same votes with other settings, and how well what they go by tells right from wrong."""
    yield "## Other settings, on the same 64 samples"
    yield ""
    yield "The first of each is what --weights takes. The last line: how often a right sample has a"
    yield "higher value than a wrong one of the same problem; one half would be chance.\n"
    yield "| certainty, Borda votes | | confidence | |"
    yield "|---|---:|---|---:|"
    certain, confident = rows_of("certainty")[1], rows_of("confidence")[1]
    settings = zip(
        [f"power {power} | {against(certain, grading.borda, power)}" for power in POWERS],
        [
            f"share {share} | {against(confident, grading.most_confident, share)}"
            for share in SHARES
        ],
    )
    yield from (f"| {left} | {right} |" for left, right in settings)
    yield f"| right above wrong | {above(certain)} % | right above wrong | {above(confident)} % |"
    yield ""


def against(rows, rule, setting):
    """How a weighted vote does against the plain one, paired by problem."""
    gain = []
    for row in rows:
        voters = [one for one in row["completions"] if one["finished"]]
        weights = rule([one["value"] for one in voters], setting)
        answer = grading.weighted([one["answer"] for one in voters], weights)
        right = answer is not None and grading.is_correct(answer, row["answer"])
        gain.append(right - row["correct"]["majority"])
    return mean(gain)


def above(rows):
    """In % of the (right, wrong) pairs of a problem: the right one has the higher value."""
    shares = []
    for row in rows:
        values = {True: [], False: []}
        for one in row["completions"]:
            right = bool(one["answer"]) and grading.is_correct(one["answer"], row["answer"])
            values[right].append(one["value"])
        pairs = [(a > b) + (a == b) / 2 for a in values[True] for b in values[False]]
        if pairs:
            shares.append(fmean(pairs))
    return mean(shares)


def early_stops():
    """What --stop-at saves, and what it costs in accuracy."""
    _, rows = rows_of("certainty")
    full = [row["correct"]["majority"] for row in rows]
    yield "## Stopping early"
    yield ""
    yield "How many of 64 samples were drawn, and the plain vote over them. The difference from the"
    yield "vote over all 64 is paired by problem. On the left the samples in the order in which"
    yield f"they were drawn, on the right {ORDERS} random orders: what another seed might bring.\n"
    yield "| --stop-at | samples | majority vote | against all 64 | samples | against all 64 |"
    yield "|---|---:|---:|---:|---:|---:|"
    yield f"| never | {N} | {mean(full)} | | {N} | |"
    random = np.random.default_rng(0)
    orders = [range(N)] + [random.permutation(N) for _ in range(ORDERS)]
    drawn = {threshold: [] for threshold in THRESHOLDS}  # a list an order, a number a problem
    right = {threshold: [] for threshold in THRESHOLDS}
    for order in orders:
        runs = [stopped(row, order) for row in rows]
        for threshold in THRESHOLDS:
            drawn[threshold].append([run[threshold][0] for run in runs])
            right[threshold].append([run[threshold][1] for run in runs])
    for threshold in THRESHOLDS:
        lost = [a - b for a, b in zip(right[threshold][0], full)]
        others = np.mean(right[threshold][1:], axis=0) - full
        cells = [
            f"{fmean(drawn[threshold][0]):.1f}",
            mean(right[threshold][0]),
            mean(lost),
            f"{np.mean(drawn[threshold][1:]):.1f}",
            mean(others.tolist()),
        ]
        yield f"| {threshold} | {' | '.join(cells)} |"
    _, real = rows_of("stop")
    count = fmean(row["drawn"] for row in real)
    solved = [row["correct"]["majority"] for row in real]
    yield ""
    yield f"The run with --stop-at {STOPPED} itself drew {count:.1f} samples a problem and solved"
    yield f"{mean(solved)} %. By its own counts it took"
    cost = [fmean(row["usage"]["flops"] for row in some) for some in (real, rows)]
    yield f"{cost[0] / 1e9:.2f} GFLOP a problem, and all 64 samples {cost[1] / 1e9:.2f}."


def stopped(row, order):
    """Threshold -> (samples drawn, is the vote right?), with the samples in that order."""
    samples = [SimpleNamespace(**row["completions"][i]) for i in order]
    found = {}
    for count in range(majority.AT_ONCE, N + 1, majority.AT_ONCE):
        some = samples[:count]
        sure = majority.stays(some)
        ended = [one for one in THRESHOLDS if one not in found and (sure >= one or count == N)]
        if ended:
            answer = grading.majority([one.answer for one in some if one.finished])
            right = answer is not None and grading.is_correct(answer, row["answer"])
            found.update(dict.fromkeys(ended, (count, right)))
    return found


if __name__ == "__main__":
    main()
