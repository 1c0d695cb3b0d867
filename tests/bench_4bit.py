"""What 4-bit weights (NF4) cost: how a PRM ranks steps and solutions, accuracy, memory and time.

    python tests/bench_4bit.py                                        # the bundled pair; give the command again and it goes on
    python tests/bench_4bit.py --policy ID --prm ID --problems ID     # any other, its own results file: --report results/mine.md

Runs best_of_n.py and dvts.py with each model in full precision (float32 on a CPU, bfloat16 on a
GPU) and in 4-bit, the other one too, into runs/4bit, and writes results/4bit.md. The full-precision
policy draws the same samples from the same seed whichever PRM reads them, so that both PRMs' scores
of the same steps are compared. AUC: the probability that a right one scores above a wrong one, of
steps as tiny/task.py's checker labels them (bundled problems only), and of whole solutions by their
last score. +- is one standard error over problems, of differences on the same problems.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from bench_curves import ROOT, auc, step_scores  # which also makes common/ and tiny/ importable
from bench_search import command_and_commit

from common import grading
from compute_optimal import mean_and_error

PRECISIONS = {"full": False, "4-bit": True}
SCRIPTS = ["best_of_n", "dvts"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", default="tiny/policy")
    parser.add_argument("--prm", default="tiny/prm")
    parser.add_argument("--problems", default="tiny/problems.jsonl")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=200, help="problems (default: 200)")
    parser.add_argument("--report", type=Path, default=ROOT / "results/4bit.md")
    args = parser.parse_args()
    jobs = list(
        itertools.product(SCRIPTS, PRECISIONS, PRECISIONS, args.seeds)
    )  # (script, of the policy, of the PRM, seed)
    for job in jobs:
        run(job, args)
    results = {job: read(path(job, args), args.limit) for job in jobs}
    report = write_report(results, args)
    args.report.write_text(report)
    print(report)


def path(job, args) -> Path:
    pair = "-".join(re.sub(r"\W+", "_", name) for name in (args.policy, args.prm, args.problems))
    return ROOT / "runs/4bit" / pair / f"{'-'.join(map(str, job))}-n{args.n}.jsonl"


def run(job, args):
    """Run the script, or go on with it, and keep what it prints beside its results: the peak memory
    is in it.
    """
    (script, policy, prm, seed), output = job, path(job, args)
    if output.exists() and len(read(output, args.limit)) == args.limit:
        return
    command = [
        sys.executable,
        f"{script}.py",
        "--policy",
        args.policy,
        "--prm",
        args.prm,
        "--problems",
        args.problems,
        "--n",
        str(args.n),
        "--seed",
        str(seed),
        "--limit",
        str(args.limit),
        "--output",
        str(output),
        *["--policy-4bit"] * PRECISIONS[policy],
        "--prm-4bit" if PRECISIONS[prm] else "--no-prm-4bit",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )
    if done.returncode:
        sys.exit(done.stderr)
    output.with_suffix(".txt").write_text(done.stdout)
    print(*command[1:], flush=True)


def read(file, limit) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()[1 : limit + 1]]


# --- figures --------------------------------------------------------------------------------------


def solved(rows_of_seeds, rule):
    """[P], by id: how often the rule was right, the mean over seeds."""
    in_order = [sorted(rows, key=lambda row: row["id"]) for rows in rows_of_seeds]
    return np.mean([[row["correct"][rule] for row in rows] for rows in in_order], axis=0)


def spearman(a, b) -> float:
    """Correlation of the ranks of two lists, ties sharing their mean rank."""
    ranks = []
    for values in (a, b):
        values = torch.tensor(values, dtype=torch.float64)
        _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum(0) - (counts - 1) / 2)[inverse])
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def agreement(row_a, row_b) -> float:
    """Share of pairs of a problem's solutions that both PRMs put into the same order by their last
    score.
    """
    a, b = ([c["scores"][-1] for c in row["completions"] if c["scores"]] for row in (row_a, row_b))
    pairs = [
        (a[i] - a[j]) * (b[i] - b[j]) > 0 or a[i] == a[j] and b[i] == b[j]
        for i, j in itertools.combinations(range(len(a)), 2)
    ]
    return mean(pairs) if pairs else 1.0


def solution_scores(rows_of_seeds) -> tuple[list[float], list[float]]:
    """Last scores of the solutions with a right answer, and of those with a wrong one."""
    right, wrong = [], []
    for row in itertools.chain(*rows_of_seeds):
        for completion in row["completions"]:
            if completion["answer"] and completion["scores"]:
                (
                    right if grading.is_correct(completion["answer"], row["answer"]) else wrong
                ).append(completion["scores"][-1])
    return right, wrong


def megabytes(load) -> str:
    size = load().get_memory_footprint() / 1e6
    return f"{size:,.0f}" if size >= 100 else f"{size:.1f}"


def write_report(results, args) -> str:
    """The whole page, as Markdown."""
    import beam
    from common.prm import load_prm
    from harness import models

    folders, device = (
        (models.model_folder(args.policy, "--policy"), models.model_folder(args.prm, "--prm")),
        torch.device("cuda:0" if torch.cuda.is_available() else "cpu"),
    )
    of = lambda script, policy, prm: [results[script, policy, prm, seed] for seed in args.seeds]
    full, quantized = of("best_of_n", "full", "full"), of("best_of_n", "full", "4-bit")
    together = list(zip(itertools.chain(*full), itertools.chain(*quantized), strict=True))
    both = [
        (x, y)
        for a, b in together
        for c, d in zip(a["completions"], b["completions"], strict=True)
        for x, y in zip(c["scores"], d["scores"], strict=True)
    ]
    assert all(
        c["text"] == d["text"]
        for a, b in together
        for c, d in zip(a["completions"], b["completions"])
    ), "not the same samples"
    where = (
        torch.cuda.get_device_name() + ", bfloat16"
        if device.type == "cuda"
        else "CPU, one thread, float32"
    )
    lines = [
        "# What 4-bit weights cost",
        "",
        f"{command_and_commit()} ({args.policy}, {args.prm}; {args.limit} problems, "
        f"seeds {', '.join(map(str, args.seeds))}, n = {args.n}; {where}). 4-bit is NF4 with double quantization; embeddings and what "
        "makes the scores stay as they are. +- is one standard error over problems.",
        "",
        "## The PRM's scores of the same solutions",
        "",
        "| | full precision | 4-bit |",
        "|---|---:|---:|",
    ]
    if args.problems == "tiny/problems.jsonl":
        lines.append(
            f"| AUC, right steps against wrong ones | {auc(*step_scores(itertools.chain(*full))):.4f} | {auc(*step_scores(itertools.chain(*quantized))):.4f} |"
        )
    lines += [
        f"| AUC, right solutions against wrong ones | {auc(*solution_scores(full)):.4f} | {auc(*solution_scores(quantized)):.4f} |",
        "",
        f"Between the two, on {len(both):,} steps: rank correlation (Spearman) {spearman(*zip(*both)):.4f}, mean difference of a score "
        f"{mean(abs(x - y) for x, y in both):.4f}. Of two solutions of one problem both prefer the same in {100 * mean(agreement(a, b) for a, b in together):.1f} % of cases.",
        "",
        "## Accuracy, memory and time",
        "",
        "| | policy | PRM | best, % | weighted, % | against both in full | seconds a problem | peak memory, GiB |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for script, policy, prm in itertools.product(SCRIPTS, PRECISIONS, PRECISIONS):
        rows = of(script, policy, prm)
        cells = [
            f"{100 * a:.1f} ± {100 * e:.1f}"
            for a, e in (mean_and_error(solved(rows, rule)) for rule in ("best", "weighted"))
        ]
        change, error = mean_and_error(
            solved(rows, "weighted") - solved(of(script, "full", "full"), "weighted")
        )
        texts = [
            path((script, policy, prm, seed), args).with_suffix(".txt").read_text()
            for seed in args.seeds
        ]
        memory = max(float(re.search(r"peak memory ([\d.]+)", text)[1]) for text in texts)
        seconds = mean(row["usage"]["seconds"] for row in itertools.chain(*rows))
        cells += [
            "" if policy == prm == "full" else f"{100 * change:+.1f} ± {100 * error:.1f}",
            f"{seconds:.2f}",
            f"{memory:.2f}",
        ]
        lines.append(f"| {script}.py | {policy} | {prm} | " + " | ".join(cells) + " |")
    lines += ["", "Weights alone, in MB:", "", "| | full precision | 4-bit |", "|---|---:|---:|"]
    for name, load in [
        (
            "policy",
            lambda four_bit: beam.load_policy(folders[0], four_bit=four_bit, device=device)[0],
        ),
        ("PRM", lambda four_bit: load_prm(folders[1], four_bit=four_bit, device=device).model),
    ]:
        lines.append(
            f"| {name} | "
            + " | ".join(megabytes(lambda: load(four_bit)) for four_bit in PRECISIONS.values())
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
