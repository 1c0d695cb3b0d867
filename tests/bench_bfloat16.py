"""bfloat16 against float32 on this CPU: CPU seconds a token, and how many answers stay the same.

    python tests/bench_bfloat16.py        # writes results/bfloat16.md; some minutes on one core

DVTS on the bundled pair with the same problems and seeds in both types, in turns: one problem in
float32 and then in bfloat16, the next the other way round. A ratio is of the two runs of a problem.
Rounding changes scores and probabilities, so that now and then another token is drawn, and from
there on another solution.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from bench_search import command_and_commit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.grading import extract_answer, is_correct, weighted
from common.prm import load_prm
from dvts import dvts, load_policy


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--out", type=Path, default=ROOT / "results/bfloat16.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = {}
    for dtype in (torch.float32, torch.bfloat16):
        policy, tokenizer = load_policy(ROOT / "tiny/policy", dtype=dtype)
        pairs[dtype] = policy, tokenizer, load_prm(ROOT / "tiny/prm", dtype=dtype)
    lines = (ROOT / "tiny/problems.jsonl").read_text().splitlines()
    problems = [json.loads(line) for line in lines[: args.problems]]

    for pair in pairs.values():
        solve(pair, problems[0], args.n)  # what is done once is not timed
    found = []
    for i, problem in enumerate(problems):
        order = list(pairs) if i % 2 else list(pairs)[::-1]
        runs = {dtype: solve(pairs[dtype], problem, args.n) for dtype in order}
        found.append((runs[torch.float32], runs[torch.bfloat16], problem["answer"]))
        print(f"{i + 1} of {len(problems)}", end="\r", flush=True)
    text = page(found, args)
    args.out.write_text(text)
    print(text)


def solve(pair, problem, n):
    """(CPU seconds a token, answer)"""
    start = time.process_time()
    [solutions] = dvts(*pair, [problem["problem"]], n=n)
    seconds = time.process_time() - start
    voters = [one for one in solutions if one.finished]
    answers = [extract_answer(one.text) for one in voters]
    answer = weighted(answers, [one.value for one in voters])
    return seconds / sum(len(one.tokens) for one in solutions), answer


def page(found, args):
    ratios = sorted(half / full for (full, _), (half, _), _ in found)
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    equal = sum(full == half for (_, full), (_, half), _ in found)
    right = []
    for side in (0, 1):
        answers = [(one[side][1], one[2]) for one in found]
        right.append(
            sum(answer is not None and is_correct(answer, gold) for answer, gold in answers)
        )
    cpu = Path("/proc/cpuinfo").read_text()
    name = next(line.split(":")[1].strip() for line in cpu.splitlines() if "model name" in line)
    has = [flag for flag in ("avx512_bf16", "amx_bf16") if f" {flag} " in cpu]
    told = f"has instructions for bfloat16 ({', '.join(has)})" if has else "has none for bfloat16"
    return (
        "# bfloat16 on a CPU\n\n"
        f"{command_and_commit()}. One thread; {name}, which {told}.\n"
        f"DVTS with N = {args.n} on the first {len(found)} bundled problems, each in both types, in turns.\n\n"
        "| | CPU seconds, float32 = 1: median (a tenth below, a tenth above) | answers that are the same | "
        "right in float32 | right in bfloat16 |\n|---|---:|---:|---:|---:|\n"
        f"| bundled pair | {statistics.median(ratios):.2f} ({low:.2f}, {high:.2f}) | {equal} of {len(found)} | "
        f"{right[0]} | {right[1]} |\n"
    )


if __name__ == "__main__":
    main()
