"""A script whose search is a seeded die: what the harness does around it is all there is to see.

Words in a problem decide what happens: NAN, ESCAPE, BIG, CUT, INTERRUPT, RAISE, NOISE, CODE.
"""

import contextlib
import math
import os
import pathlib
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch


@dataclass
class Step:
    parent: "Step | None"
    problem: int
    number: int = 0
    text: str = ""
    tokens: list = field(default_factory=lambda: [1, 2, 3, 4, 5])
    scores: list = field(default_factory=list)
    value: float = 0.0


@dataclass
class Found:
    text: str
    tokens: list
    scores: list
    value: float
    finished: bool
    path: list
    subtree: int | None = None


def last(scores):
    return scores[-1]


def roll(
    policy,
    tokenizer,
    prm,
    problems,
    generators=None,
    *,
    n=4,
    temperature=0.8,
    top_p=1.0,
    reduce=last,
    system="",
    thinking=False,
    on_step=None,
):
    return [answer(i, *given, n, on_step) for i, given in enumerate(zip(problems, generators))]


def answer(index, problem, generator, n, on_step):
    dice = random.Random(generator.initial_seed())
    root = Step(None, index)
    found = []
    for i in range(n):
        time.sleep(float(os.environ.get("PAUSE", 0)))
        scores = [dice.random(), dice.random()]
        if "NAN" in problem:
            scores[1] = [math.nan, math.inf, 0.5, -math.inf][i % 4]
        said = str(dice.randrange(3)) + ("\x1b[31m" if "ESCAPE" in problem else "")
        text = "x" * 20000 * ("BIG" in problem) + f"So $\\boxed{{{said}}}$."
        if "CODE" in problem:  # the last of four has no block
            text = "ls" if i % 4 == 3 else f"So:\n```python\nrolled = {said}\n```\n"
        finished = i % 4 != 3 and "CUT" not in problem
        step = Step(root, index, i + 1, text, scores=scores, value=scores[-1])
        on_step(i + 1, [step])
        tokens = [*step.tokens[:-1], int(said[0])]
        found.append(Found(text, tokens, scores, scores[-1], finished, [i + 1], i // 2))
    if "INTERRUPT" in problem and not pathlib.Path("interrupted").exists():
        pathlib.Path("interrupted").touch()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    if "RAISE" in problem and not pathlib.Path("repaired").exists():
        raise MemoryError("no room for 9 rows\nat all")
    if "NOISE" in problem:
        for stream in (1, 2):  # as a library in C prints
            with contextlib.suppress(OSError):
                os.write(stream, b"noise\n")
    with open("solved.log", "a") as log:
        log.write(problem + "\n")
    return found


class Dice:
    """In the place of a Meter."""

    def __init__(self, model):
        pass

    def take(self):
        return 7, 1000


def load_policy(folder, *, four_bit, device, dtype):
    return SimpleNamespace(device=torch.device("cpu"), num_parameters=lambda: 1), None


def main(argv=None):
    from harness import cli, models, solve

    model = SimpleNamespace(num_parameters=lambda: 1)
    cli.load_prm = lambda folder, **_: SimpleNamespace(model=model)
    models.check_writer = lambda *_: None
    solve.Meter = Dice
    solve.check_memory = lambda *_: None
    parser = cli.Parser(roll, "Rolls dice.")
    parser.add("--n", cli.positive_int, "completions")
    parser.add("--temperature", cli.non_negative_float, "of sampling")
    parser.add("--top-p", cli.probability, "of sampling")
    args = parser.parse_args(argv)
    args.batch_problems = args.batch_problems or 1
    return cli.run(args, roll, load_policy)


if __name__ == "__main__":
    sys.exit(main())
