r"""Which answers are the same? Every number that this project prints is decided here.

  completion --extract--> answer --normalise--> plain LaTeX --structure--> scalars --algebra--> key

extract     the last \boxed{...}, else what is stated in words (statements.stated_answer)
normalise   one spelling for one thing: \dfrac, \frac12, \left(, $, %, 1{,}000, Unicode
            (normalise.normalise)
structure   lists, sets, intervals, matrices, \pm, equations, inequalities, units: taken apart
            down to scalars
algebra     a scalar is parsed (latex2sympy2_extended) and *evaluated* to 800 digits, at four fixed
            points if it has variables; expressions that agree there are the same expression
            (latex.scalar)
key         those values; for what cannot be read as mathematics, the normalised text. Equal
            answers have equal keys, so a vote is one pass over a dictionary, where comparing all
            pairs would take N^2 questions
"""

import hashlib
import math
from collections.abc import Hashable
from functools import lru_cache

from common import latex
from common.normalise import normalise
from common.statements import stated_answer
from common.structure import structure, text_key

# ------------------------------------------------------------------------------ the five functions


def is_correct(prediction: str | None, gold: str) -> bool:
    """Does `prediction` state the same answer as `gold`? A missing or blank one does not."""
    return bool(prediction and prediction.strip()) and canonical_form(prediction) == canonical_form(
        gold
    )


def majority(answers: list[str | None], key=None) -> str | None:
    """The most frequent answer, in its first spelling; of equally frequent ones, the first seen.

    key(answer): answers with equal keys are the same. By default canonical_form.
    """
    return weighted(answers, [1.0] * len(answers), key)


def weighted(answers: list[str | None], scores: list[float], key=None) -> str | None:
    """The answer whose scores sum highest over all its spellings, in its first spelling.

    key(answer): answers with equal keys (hashable ones) are the same. By default canonical_form. A
    missing or blank answer never wins. A NaN or infinite score is left out of the sum. Raises
    ValueError if there are not as many scores as answers.
    """
    key = key or canonical_form
    if len(answers) != len(scores):
        raise ValueError(f"{len(scores)} scores of {len(answers)} answers")
    totals = {}
    first = {}
    for answer, score in zip(answers, scores):
        if answer and answer.strip() and math.isfinite(score):
            same = key(answer)
            first.setdefault(same, answer)
            totals[same] = totals.get(same, 0.0) + score
    return first[max(totals, key=totals.get)] if totals else None


def borda(certainties: list[float], power: float = 0.5) -> list[float]:
    """Weights for weighted() by rank alone: the r-th most certain of N has (N - r + 1)^power.

    Kang et al. 2025 (https://arxiv.org/abs/2502.18581), section 4.3; they try powers of 0.3 to 1.2.
    """
    order = sorted(range(len(certainties)), key=lambda i: certainties[i])
    weights = [0.0] * len(certainties)
    for place, i in enumerate(order, 1):
        weights[i] = place**power
    return weights


def most_confident(confidences: list[float], share: float = 0.9) -> list[float]:
    """Weights for weighted(): its own confidence for each of the best share, 0 for the others.

    Of equally confident ones the first are kept. Fu et al. 2025, "Deep Think with Confidence"
    (https://arxiv.org/abs/2508.15260); their shares are 0.1 and 0.9.
    """
    order = sorted(range(len(confidences)), key=lambda i: confidences[i], reverse=True)
    kept = set(order[: math.ceil(share * len(confidences))])
    return [one if i in kept else 0.0 for i, one in enumerate(confidences)]


# How a vote by the policy's own certainty weighs solutions: majority.py --weights.
WEIGHTS = {"certainty": borda, "confidence": most_confident}


def extract_answer(completion: str) -> str | None:
    r"""The final answer that a completion states, or None.

    The last \boxed{..} or \fbox{..} with something in it, and those joined to it; else what follows
    "answer is", "Answer:", "####"; else the one thing that the last sentence says. A thought
    (</think>) counts only if nothing is stated after it. The last number in a text is no statement
    of an answer. See common/statements.py.
    """
    return stated_answer(completion)


def canonical_form(answer: str) -> Hashable:
    """A hashable key: the same for equal answers, another for different ones. Never raises."""
    if len(answer) > latex.MAX_CHARS:  # neither parsed nor kept in the cache
        return (
            "long",
            hashlib.sha256("".join(answer.split()).encode("utf-8", "replace")).hexdigest(),
        )
    return _key(answer.strip())


@lru_cache(maxsize=2048)
def _key(answer: str) -> Hashable:
    plain = normalise(answer)
    latex.WORK.start()
    try:
        return structure(plain)
    except Exception:  # whatever it is, it has a key
        return text_key(plain)
