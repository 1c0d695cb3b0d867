"""How right and how fast is common/grading.py? Run by hand: python tests/bench_grading.py

Prints what results/grading.md holds: the pairs of grading_pairs.tsv by category, the CPU time of one
canonical_form with cold caches, of a vote over 256 answers against comparing every pair, and of the worst of a fixed
set of hostile answers and completions. Where math-verify is installed, it is asked the same.
"""

import json
import logging
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from sympy.core.cache import clear_cache

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import grading, latex

PAIRS = Path(__file__).with_name("grading_pairs.tsv")
COMPLETIONS = Path(__file__).with_name("grading_completions.jsonl")


def read_pairs(path=PAIRS) -> list[list[str]]:
    """Rows of category, verdict ("=" or "!="), left, right, why."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def read_completions(path=COMPLETIONS) -> list[tuple[str, str | None]]:
    """Completions, each with the answer that it states or None."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(row["completion"], row["answer"]) for row in map(json.loads, lines)]


def forget() -> None:
    """Empty every cache of ours. The parser's own cache, of its grammar, is filled once per process."""
    for function in (grading._key, latex._parse, latex._atom):
        function.cache_clear()


def ballot() -> list[str]:
    """256 answers, 53 distinct ones, as 256 samples for one hard problem give: most agree, many differ once."""
    rng = random.Random(0)
    distinct = (
        [str(n) for n in (12, 14, 16, 18, 24, 36, 48, 72, 96, 144, -12, 0, 1, 2, 7)]
        + [
            r"\frac{%d}{%d}" % p
            for p in ((1, 2), (2, 3), (12, 5), (24, 7), (36, 5), (48, 11), (144, 5), (6, 1))
        ]
        + [
            "12.5",
            "0.75",
            r"12\pi",
            r"\frac{12\pi}{5}",
            r"2\sqrt{3}",
            r"12\sqrt{2}",
            r"\frac{\sqrt{3}}{2}",
            r"\dfrac{24}{7}",
            r"4+2\sqrt{3}",
            r"12^\circ",
            r"12\text{ cm}",
            r"(1,2)",
            r"(2,1)",
            r"[0,12)",
            r"x=12",
            r"x^2+2x+1",
            r"(x+1)^2",
            r"\sqrt{144}",
            r"1,200",
            r"12 \text{ or } 14",
            r"\{12,14\}",
            r"\pm 12",
            r"-\frac{3}{4}",
            r"\text{none}",
            r"3-2i",
            r"y=2x+3",
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
            r"\log_2 12",
            r"e^{2}",
            r"2^{12}",
        ]
    )
    assert len(distinct) == 53
    answers = distinct + rng.choices(distinct[:12], k=203)
    rng.shuffle(answers)
    return answers


def naive_vote(answers: list[str]) -> str:
    """What a grader without keys must do: ask of every pair whether it is equal, parsing both."""
    equal_to = [0] * len(answers)
    for i, a in enumerate(answers):
        for b in answers[:i]:
            forget()
            equal_to[i] += grading.is_correct(a, b)
    return answers[max(range(len(answers)), key=equal_to.__getitem__)]


ATOMS = (
    r"1 7 3.5 0.333 \frac12 ½ a b c n x xyz x_1 \alpha |x| \frac{x}{y} \sqrt{x} \sqrt[3]{x} x^{999} 2^{1000} "
    r"(x+y)^{99} (-x)^{y} (-x)^{1/3} 9^{9^{9}} x^x x^{x^{x}} e^{e^{x}} e^{ix} i^{x} x^{i} \pi^{x} x! 2999! (x+900)! "
    r"\binom{x}{y} \binom{x}{99} \binom{2999}{1500} \lfloor{}x\rfloor \sin{}x \tan(x+i) \arccos{}x \arctan(ix) "
    r"\ln{}x \log_{3}x \cosh{}x x^\circ \text{cm} \Gamma"
).split()
BETWEEN = (
    r"+ - * / ^ , ; \cdot{} \times{} \pm{} \cup{} \setminus{} = < > \leq{} \neq{} \in{} & \\ ! ( ) { } | [ ] \frac "
    r"\sqrt \sin{} \ln \text{and} ^2"
).split() + ["", " "]
AROUND = (
    r"@ @ @ z<@ 0<z<@ |z|<@ z^2<@ x>@ z=@ @=y x\in{}@ x\neq{}@ |@| (@,1) \{@\} \pm{}@ \pm\pm\pm{}@ \lfloor{}@\rfloor "
    r"n+\lfloor{}n\rfloor<@ \sin(@) \frac{@}{x} \frac{1}{@} \begin{pmatrix}@\end{pmatrix} 9\begin{pmatrix}@\end{pmatrix} "
    r"\R\setminus\{@\} \text{@} \boxed{@} 1{}@"
).split()
NESTED = (
    r"(@) {@} |@| [@] -(@) \frac{@}{2} \sqrt{@} \sin(@) \ln(@) \lfloor{}@\rfloor e^{@} x^{@} (x+@)! \binom{@}{3}"
).split()


def hostile_answers(count: int, seed: int) -> list[str]:
    """Answers of up to 400 characters that cost as much as they can: one costly piece or several, over and over
    or at random, in sums, lists, towers, relations, brackets within brackets."""
    rng, answers = random.Random(seed), []
    while len(answers) < count:
        around = rng.choice(AROUND)
        room = 400 - len(around)
        kind = rng.randrange(10)
        if kind < 4:
            unit = rng.choice(ATOMS) + rng.choice(BETWEEN)
            body = unit * (room // len(unit))
        elif kind < 7:
            unit = "".join(
                rng.choice(rng.choice([ATOMS, BETWEEN])) for _ in range(rng.randint(1, 6))
            )
            body = unit * (room // max(1, len(unit)))
        elif kind < 9:
            between = rng.choices(BETWEEN, k=3)
            body = "".join(rng.choice(ATOMS) + rng.choice(between) for _ in range(100))
        else:
            before, after = rng.choice(NESTED).split("@")
            deep = rng.randint(2, 60)
            body = before * deep + rng.choice(ATOMS) + after * deep
        if rng.random() < 0.7:  # a sum that ends with a plus is no more than text
            body = body[:room].rstrip("+-*/^,;=<\\ ")
        answers.append(around.replace("@", body[:room]).replace("{}", " "))
    return answers


PIECES = [*r"\boxed{@\boxed{}@\boxed{1}@\fbox{@{@}@\@answer is @the answer is:|@Final Answer|@answer|@final @$@$$@#### @|@|#@**@# @".replace("|", "\n").split("@")]  # fmt: skip
PIECES += [*r"</think>@<answer>@</answer>@ and @, @\text{@ is @The @Therefore @a@5@1,000@. A@$5$@\(@\)@\[@\]@(5)@five (5)@ @1 @= @-".split("@")]  # fmt: skip
PIECES += [
    "x = 1, ",
    "x = 2 or ",
    "1 < x < ",
    ", so ",
    "(1, 2) and ",
    "**1** ",
    "Check: 1\n",
    "$1 ",
    "<end_of_turn>",
    "boxed(",
    "\n\n5",
    "<div>\n",
]


def hostile_completions(count: int, seed: int, length: int = 200_000) -> list[str]:
    """Each piece over and over, then short runs of pieces over and over."""
    rng, completions = random.Random(seed), []
    units = PIECES + ["".join(rng.choices(PIECES, k=rng.randint(2, 5))) for _ in range(count)]
    for unit in units[:count]:
        before = rng.choice(
            ["", "answer is ", r"\boxed{", "#### ", "The answer is $", "Therefore, "]
        )
        after = rng.choice(["", "x", "$", "}", r"\boxed{}", " is 5.", "\nSo the answer is 5."])
        middle = unit * (length // max(1, len(unit)))
        completions.append(before + middle[: length - len(before) - len(after)] + after)
    return completions


def worst(function, texts: list[str]) -> tuple[float, str]:
    """The most CPU seconds that one text costs, and the text. All caches are empty each time."""
    times = []
    for text in texts:
        forget()
        clear_cache()
        start = time.process_time()
        function(text)
        times.append((time.process_time() - start, text))
    return max(times)


def states(completion: str, answer: str | None) -> tuple[bool, bool]:
    """Is what we take from a completion right? Is something taken where nothing is stated?"""
    found = grading.extract_answer(completion)
    if answer is None:
        return found is None, found is not None
    return grading.is_correct(found, answer), False


def compare(rows: list[list[str]], completions: list[tuple[str, str | None]]) -> None:
    """Print how many pairs and completions are right, by grading.py and, if it is installed, by math-verify."""
    print(
        "| grader | pairs right | false positives | completions right | answers where none is stated |"
    )
    print("|---|---|---|---|---|")
    graders = {"grading.py": (grading.is_correct, states)}
    try:
        from math_verify import parse, verify
    except ImportError:
        print("math-verify is not installed: pip install math-verify==0.9.0", file=sys.stderr)
    else:
        logging.disable(logging.CRITICAL)  # it says so whenever it cannot parse

        def same(left: str, right: str) -> bool:
            return verify(parse(f"${right}$"), parse(f"${left}$"))

        def found(completion: str, answer: str | None) -> tuple[bool, bool]:
            taken = parse(completion)
            if answer is None:
                return not taken, bool(taken)
            return verify(parse(f"${answer}$"), taken), False

        graders["math-verify"] = (same, found)
    for name, (same, taken) in graders.items():
        verdicts = [(same(left, right), verdict == "=") for _, verdict, left, right, _ in rows]
        right = sum(found == wanted for found, wanted in verdicts)
        false_positives = sum(found and not wanted for found, wanted in verdicts)
        results = [taken(completion, answer) for completion, answer in completions]
        stated = sum(right for right, _ in results)
        print(
            f"| {name} | {right} of {len(rows)} ({100 * right / len(rows):.1f} %) | {false_positives} "
            f"| {stated} of {len(completions)} ({100 * stated / len(completions):.1f} %) "
            f"| {sum(guess for _, guess in results)} of {sum(answer is None for _, answer in completions)} |"
        )
    print()


def main() -> None:
    start = time.process_time()
    grading.majority(ballot())
    first_vote = time.process_time() - start  # imports sympy and the parser, fills its cache
    rows, total, right, false_positives, false_negatives = (
        read_pairs(),
        Counter(),
        Counter(),
        Counter(),
        Counter(),
    )
    for category, verdict, left, right_side, _ in rows:
        same = grading.is_correct(left, right_side)
        total[category] += 1
        right[category] += same == (verdict == "=")
        false_positives[category] += same and verdict == "!="
        false_negatives[category] += not same and verdict == "="
    print("| category | pairs | right | false positives | false negatives |\n|---|---|---|---|---|")
    for category in sorted(total):
        print(
            f"| {category} | {total[category]} | {right[category]} | {false_positives[category]} | {false_negatives[category]} |"
        )
    print(
        f"| **all** | {total.total()} | {right.total()} ({100 * right.total() / total.total():.1f} %) "
        f"| {false_positives.total()} | {false_negatives.total()} |\n"
    )

    times = []
    for text in sorted({text for row in rows for text in row[2:4]}):
        forget()
        start = time.process_time()
        grading.canonical_form(text)
        times.append(1000 * (time.process_time() - start))
    times.sort()
    print(
        f"canonical_form, {len(times)} distinct answers, caches empty each time: median {statistics.median(times):.2f} ms, "
        f"p99 {times[int(0.99 * len(times))]:.1f} ms, longest {times[-1]:.1f} ms"
    )

    answers, votes = ballot(), []
    for _ in range(7):
        forget()
        start = time.process_time()
        grading.majority(answers)
        votes.append(time.process_time() - start)
    start = time.process_time()
    naive_vote(answers[:32])  # 496 of the 32,640 pairs; the rest by proportion
    naive = (time.process_time() - start) * (256 * 255) / (32 * 31)
    print(
        f"vote over 256 answers (53 distinct), caches empty: {1000 * statistics.median(votes):.0f} ms "
        f"(best of 7: {1000 * min(votes):.0f} ms); first vote of a process, with imports: {first_vote:.1f} s; "
        f"comparing every pair: {naive:.0f} s (by proportion from 496 of 32,640 pairs)"
    )
    compare(rows, read_completions())
    seconds, text = worst(grading.canonical_form, hostile_answers(2000, seed=1))
    print(f"the worst of 2000 hostile answers: {seconds:.2f} CPU seconds: {text[:60]}")
    seconds, text = worst(grading.extract_answer, hostile_completions(300, seed=1))
    print(f"the worst of 300 hostile completions: {seconds:.2f} CPU seconds: {text[:40]!r}")


if __name__ == "__main__":
    main()
