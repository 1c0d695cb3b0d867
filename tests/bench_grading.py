"""How right and how fast is common/grading.py? Run by hand: python tests/bench_grading.py

Prints what results/grading.md holds: the pairs of grading_pairs.tsv by category, the CPU time of one
canonical_form with cold caches, and of a vote over 256 answers against comparing every pair.
"""

import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import grading, latex

PAIRS = Path(__file__).with_name("grading_pairs.tsv")


def read_pairs() -> list[list[str]]:
    """Rows of category, verdict ("=" or "!="), left, right, why."""
    return [line.split("\t") for line in PAIRS.read_text(encoding="utf-8").splitlines()[1:]]


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


if __name__ == "__main__":
    main()
