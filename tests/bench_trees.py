"""Particle filtering and MCTS against REBASE on the bundled pair: accuracy at equal FLOPs.

    python tests/bench_trees.py           # an hour on one CPU core; give it again and it goes on

Runs the scripts themselves (n = 4, 16, 64; seeds 0, 1, 2; the first 100 problems), each into a file
of its own in runs/trees, and writes results/trees.md. --report-only writes the page anew from the
runs that are there.

Accuracy is the mean over seeds of a problem, then over problems; +- is one standard error over
problems. Differences are paired by problem. "At equal FLOPs" a search at n is compared with REBASE
at the FLOPs that it took: between two of its n REBASE is taken to be linear in log FLOPs, problem
by problem.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs/trees"
PAGE = ROOT / "results/trees.md"
SCRIPTS = ["rebase", "particle", "mcts"]
NAMES = {"rebase": "REBASE", "particle": "particle filtering", "mcts": "MCTS"}
RULES = ["majority", "best", "weighted"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=100, help="problems (default: 100)")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    jobs = [(script, n, seed) for seed in args.seeds for n in args.n for script in SCRIPTS]
    if not args.report_only:
        for job in jobs:
            run(*job, args.limit)
    runs = {job: read(*job) for job in jobs}
    for script, n, seed in jobs:
        if len(runs[script, n, seed][1]) != args.limit:
            sys.exit(f"{file_of(script, n, seed)} is not whole: run it, or leave out its seed")
    PAGE.write_text(report(runs, args))
    print(PAGE.read_text())


def file_of(script, n, seed):
    return RUNS / f"{script}-n{n}-seed{seed}.jsonl"


def run(script, n, seed, limit):
    RUNS.mkdir(parents=True, exist_ok=True)
    flags = {"--n": n, "--seed": seed, "--limit": limit, "--output": file_of(script, n, seed)}
    flags |= {"--policy": "tiny/policy", "--prm": "tiny/prm", "--problems": "tiny/problems.jsonl"}
    flags["--batch-problems"] = 1  # the padding of others is no cost of a method
    words = [str(word) for flag in flags.items() for word in flag]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, f"{script}.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    print(f"{script} n = {n} seed {seed}: {done.stderr if done.returncode else 'done'}", flush=True)


def read(script, n, seed):
    """(header, rows) of a run."""
    first, *lines = file_of(script, n, seed).read_text().splitlines()
    return json.loads(first)["run"], [json.loads(line) for line in lines]


def per_problem(runs, script, n, seeds, value):
    """[problems]: the mean of value(row) over seeds."""
    rows = zip(*(runs[script, n, seed][1] for seed in seeds), strict=True)
    return [fmean(map(value, of_problem)) for of_problem in rows]


def with_error(values):
    """Of shares, in percent."""
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values) / math.sqrt(len(values)):.1f}"


def at_flops(flops, costs, curves):
    """[problems]: REBASE at so many FLOPs. costs: FLOPs at each n; curves: [problems] at each n."""
    flops = min(max(flops, costs[0]), costs[-1])
    right = next(i for i in range(1, len(costs)) if flops <= costs[i])
    low, high = math.log(costs[right - 1]), math.log(costs[right])
    part = (math.log(flops) - low) / (high - low)
    return [(1 - part) * a + part * b for a, b in zip(curves[right - 1], curves[right])]


def verdict(values):
    mean, error = fmean(values), stdev(values) / math.sqrt(len(values))
    if abs(mean) <= 2 * error:
        return "within noise"
    return "ahead" if mean > 0 else "behind"


def report(runs, args):
    def values(script, n, value):
        return per_problem(runs, script, n, args.seeds, value)

    def correct(script, n, rule):
        return values(script, n, lambda row: row["correct"][rule])

    cost = {
        (script, n): fmean(values(script, n, lambda row: row["usage"]["flops"]))
        for script in SCRIPTS
        for n in args.n
    }

    # 1. What was run.
    commits = sorted({header["commit"][:12] for header, _ in runs.values()})
    digest = hashlib.sha256((ROOT / "tiny/problems.jsonl").read_bytes()).hexdigest()[:12]
    seeds = ", ".join(map(str, args.seeds))
    words = [word for word in sys.argv[1:] if word != "--report-only"]
    lines = [
        "# Particle filtering and MCTS against REBASE, at equal FLOPs",
        "",
        f"`{' '.join(['python tests/bench_trees.py', *words])}` at commit {', '.join(commits)}",
        f"({args.limit} problems, seeds {seeds}, defaults for all else; CPU, float32, one problem at",
        f"a time). The problems are tiny/problems.jsonl, sha256 {digest}. ± is one standard error",
        "over problems; differences are paired by problem.",
        "",
        "Accuracy in percent, by rule:",
        "",
        "| | N | GFLOP a problem | majority | best | weighted | distinct | first steps left |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]

    # 2. Accuracy and cost.
    for script in SCRIPTS:
        for n in args.n:
            cells = [NAMES[script], n, f"{cost[script, n] / 1e9:.1f}"]
            cells += [with_error(correct(script, n, rule)) for rule in RULES]
            cells += [f"{fmean(values(script, n, lambda row: row['distinct'])):.1f}"]
            cells += [f"{fmean(values(script, n, lambda row: row['ancestors'][0])):.1f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "`distinct`: how many of the N solutions differ. `first steps left`: how many of the first",
        "steps sampled they descend from.",
        "",
    ]

    # 3. Differences from REBASE.
    costs = [cost["rebase", n] for n in args.n]
    outside = False
    lines += [
        "Minus REBASE, in percentage points:",
        "",
        "| | rule | of equal N | at equal FLOPs | |",
        "|---|---|---:|---:|---|",
    ]
    for script in SCRIPTS[1:]:
        for n in args.n:
            for rule in RULES:
                mine = correct(script, n, rule)
                curves = [correct("rebase", m, rule) for m in args.n]
                rebase = at_flops(cost[script, n], costs, curves)
                equal_n = [a - b for a, b in zip(mine, correct("rebase", n, rule))]
                equal_flops = [a - b for a, b in zip(mine, rebase)]
                inside = costs[0] <= cost[script, n] <= costs[-1]
                outside |= not inside
                cells = [f"{NAMES[script]}@{n}", rule, with_error(equal_n)]
                cells += [with_error(equal_flops) + "*" * (not inside), verdict(equal_flops)]
                lines.append(f"| {' | '.join(cells)} |")
    if outside:
        lines += [
            "",
            "\\* cheaper or dearer than all of REBASE's runs: against the nearest of them.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
