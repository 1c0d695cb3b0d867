"""Who waits for whom: how often the decoding loop goes round, and what waiting less would save.

    python tests/bench_waiting.py         # writes results/waiting.md; ten minutes on a CPU core

All rows of a batch wait for the longest, at every step of a search. On a GPU a small model takes
about as long for 8 rows as for 64, so what counts is how often the loop goes round. Three ways to
wait less are compared, by the lengths of what was really sampled: a row writes the same whatever
else is in its batch, so lengths do not change with the way.

- more problems side by side: what the scripts do, --batch-problems;
- each goes on alone: a problem (in the searches), or a subtree (DVTS), begins its next step while
  others still write theirs;
- refilled: majority voting has no steps, but a row that has left is replaced by the next sample, of
  this problem or of the next, so that there are always as many rows as one problem has.
"""

import argparse
import heapq
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench_search import command_and_commit, pair_of, question_of

from dvts import dvts
from majority import sample_solutions

M = 4
SIDE_BY_SIDE = (1, 2, 4, 8)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--problems", type=int, default=8, help="seeds of a question (default: 8)")
    parser.add_argument(
        "--samples", type=Path, help="a result file of majority.py, to be counted too"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results/waiting.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for pair in ("bundled", "random"):
        policy, tokenizer, prm = pair_of(pair)
        given = policy, tokenizer, question_of(pair)
        for n in args.n:
            runs = [majority_lengths(*given, seed, n) for seed in tqdm(range(args.problems))]
            lines += table(f"{pair}, majority", n, runs, refilled)
            runs = [dvts_lengths(*given, prm, seed, n) for seed in tqdm(range(args.problems))]
            lines += table(f"{pair}, DVTS", n, runs, subtrees_alone)
    if args.samples:
        first, *rows = [json.loads(line) for line in args.samples.read_text().splitlines()]
        runs = [[[[one["tokens"]]] for one in row["completions"]] for row in rows]
        lines += table(args.samples.stem, first["run"]["n"], runs, refilled)
    args.out.write_text("\n".join([*head(args), *lines]) + "\n")
    print(args.out.read_text())


def head(args):
    yield "# Who waits for whom"
    yield ""
    yield f"{command_and_commit()}."
    yield f"Lengths in tokens are those of {args.problems} runs of one question with other seeds, at"
    yield "most 400 a solution. Iterations of the decoding loop with one problem at a time were counted"
    yield f"in the runs, the others follow from the lengths. DVTS has M = {M}. 'Writing' is the share of"
    yield "rows that write a token of their own, if all stayed until the longest has ended."
    yield ""
    titles = ["", "n", "problems side by side", "iterations a problem: all wait"]
    titles += ["a problem goes on alone", "a subtree does, or samples are refilled", "writing"]
    yield "| " + " | ".join(titles) + " |"
    yield "|---|---:|---:|---:|---:|---:|---:|"


# --- what was sampled -----------------------------------------------------------------------------


class Rounds:
    """Counts the forwards of a model at one token a row."""

    def __init__(self, model):
        self.count = 0
        self.hook = model.register_forward_pre_hook(self.see)

    def see(self, *_):
        self.count += 1


def majority_lengths(policy, tokenizer, question, seed, n):
    """One step for each of n subtrees of one row."""
    rounds = Rounds(policy)
    generators = [torch.Generator().manual_seed(seed)]
    settings = {"n": n, "temperature": 1.0, "max_new_tokens": 400}
    [solutions] = sample_solutions(policy, tokenizer, [question], generators, **settings)
    rounds.hook.remove()
    run = [[[len(one.tokens)]] for one in solutions]
    assert rounds.count == together([run]), "the loop went round more often than it should"
    return run


def dvts_lengths(policy, tokenizer, question, prm, seed, n):
    """[subtree][depth] -> the lengths of its M steps."""
    rounds = Rounds(policy)
    count = max(1, n // M)
    run = [[] for _ in range(count)]
    subtree_of = {}

    def see(depth, children):
        for place, child in enumerate(children):
            subtree = subtree_of.get(child.parent, place // M)
            subtree_of[child] = subtree
            if len(run[subtree]) < depth:
                run[subtree].append([])
            run[subtree][-1].append(len(child.tokens))

    generators = [torch.Generator().manual_seed(seed)]
    settings = {"n": n, "beam_width": M, "temperature": 1.0, "max_new_tokens": 400}
    dvts(policy, tokenizer, prm, [question], generators, on_step=see, **settings)
    rounds.hook.remove()
    assert rounds.count == together([run]), "the loop went round more often than it should"
    return run


# --- iterations of the loop, for runs side by side ------------------------------------------------


def together(runs):
    """All rows of all runs wait for each other at each depth."""
    return sum(max(map(max, steps)) for steps in at_depths(runs))


def at_depths(runs):
    """For each depth the steps of all subtrees that get so far."""
    subtrees = [subtree for run in runs for subtree in run]
    deepest = max(map(len, subtrees))
    return [[one[depth] for one in subtrees if depth < len(one)] for depth in range(deepest)]


def writing(runs):
    """The share of rows that write, if all stay until the longest of their depth has ended."""
    tokens = 0
    places = 0
    for steps in at_depths(runs):
        rows = [length for lengths in steps for length in lengths]
        tokens += sum(rows)
        places += len(rows) * max(rows)
    return tokens / places


def problems_alone(runs):
    return max(together([run]) for run in runs)


def subtrees_alone(runs):
    return max(sum(map(max, subtree)) for run in runs for subtree in run)


def refilled(runs):
    """As many rows as one run has; each takes the next sample when it has ended one."""
    rows = [0] * len(runs[0])
    for run in runs:
        for [[length]] in run:
            heapq.heapreplace(rows, rows[0] + length)
    return max(rows)


def table(name, n, runs, alone):
    for count in SIDE_BY_SIDE:
        if len(runs) % count:
            continue
        groups = [runs[i : i + count] for i in range(0, len(runs), count)]
        cells = [name, n, count]
        for way in (together, problems_alone, alone):
            cells.append(f"{sum(map(way, groups)) / len(runs):.0f}")
        cells.append(f"{sum(map(writing, groups)) / len(groups):.0%}")
        yield "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
