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
import re
from collections.abc import Hashable
from functools import lru_cache, reduce
from itertools import accumulate, product

from common import latex
from common.latex import MP, Unreadable
from common.normalise import normalise
from common.statements import stated_answer

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

    key(answer): answers with equal keys are the same. By default canonical_form. A missing or blank
    answer never wins. A NaN or infinite score is left out of the sum. Raises ValueError if there
    are not as many scores as answers.
    """
    key = key or canonical_form
    totals = {}
    first = {}
    for answer, score in zip(answers, scores, strict=True):
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
    "answer is", "Answer:", "####"; else what the last sentence concludes. A thought (</think>)
    counts only if nothing is stated after it. The last number in a text is no statement of an
    answer. See common/statements.py.
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
        return _structure(plain)
    except Exception:  # whatever it is, it has a key
        return _text(plain)


def _text(plain: str) -> Hashable:
    """The key of last resort. Words ignore case (East, east); single letters keep it (C, c)."""
    bare = re.sub(r"(?<=[A-Za-z])\.|[\s{}\"`]|\\(?![A-Za-z])", "", plain).strip(".,;:?")
    return (
        "text",
        bare.casefold().rstrip("!") if re.search(r"(?<![\\A-Za-z])[A-Za-z]{2}", bare) else bare,
    )


# --------------------------------------------------------------------------------------- structure
#
# A key says what it is of, and holds the keys of its parts:
#   ("value", digits, ...)   a number or formula, by its values
#   ("tuple", "(]", keys)    a tuple or interval, its brackets count
#   ("set", keys)            a list, set or union, sorted
#   ("matrix", rows of keys)
#   ("=", digits, ...)       what is no more than an equation
#   ("text", ...)            words, what cannot be read

MATRIX = re.compile(
    r"([^=,;()\[\]]*?)\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr| ]*\})?"
    r"(.*)\\end\s*\{\2\}"
)
RELATION = r"\\leq|\\geq|\\neq|\\in(?![A-Za-z])|[=<>]"
ENDS = {r"\infty": ("value", "inf"), r"+\infty": ("value", "inf"), r"-\infty": ("value", "-inf")}
REALS = ("tuple", "()", (ENDS[r"-\infty"], ENDS[r"\infty"]))
NUMBER = re.compile(r"(?=.*[0-9])(?:\\frac\{([0-9]+)\}\{([0-9]+)\}|([+-]?[0-9]*\.?[0-9]*))")
# What may stand left of "=" as a mere name: \text{Area}, (x,y), \frac{dy}{dx}, \frac{AB}{BC},
# [ABC], |AB|, AB:BC, m\angle A, x, Area, \theta, \bar x; each with an index, primes or an argument:
# a_1, f(x), f^{-1}(x), P(A|B).
NAME = re.compile(
    r'(?:"[^"]*"|\([a-z\\, ]+\)|\\frac\{(?:[A-Z]+|d\w*)\}\{(?:[A-Z]+|d\w)\}|(?:m )?[][|:A-Z ]+'
    r"|\{?(?:[A-Za-z]|[A-Za-z]{3,}[A-Za-z ]*|\\(?:%s|max|min|Pr)|\\bar\s*\{?[A-Za-z]+\}?)\s*\}?)"
    r"(?:_\{?[\w ]+\}?)?'*(?:\^\{-1\})?\s*(?:\([\w\", ]+\)|(?<=[A-Zr])\s*\([^()]*\))?"
    % "|".join(latex.GREEK),
    re.A,
)
# Words after mathematics: "cm"^2, cm, miles per hour, apples; but not p.m., directions, or letters
# such as abc.
POWER, NO_UNIT = (
    r"(?:\s?\^(?:\{-?[0-9]\}|[0-9]))?",
    r'(?!(?i:[ap]\.?m)\b|[abcxyz]+$|[^"]*(?:north|south|east|west|squared|cubed|factorial))',
)
UNIT = re.compile(
    rf'(?<!["\s])(?:\s*(?:/|\\cdot)?\s*"{NO_UNIT}[^"]*"{POWER}|\s+/?{NO_UNIT}'
    r"(?:[a-z]{3,}|[cmk]?m|\\Omega|kg|mg|ml|lb|oz|ft|in|of|[kMGm]?(?:J|N|L|W|Hz|Pa|Wh|eV)"
    rf"|yd|mi|hr|sq|cu)\.?(?:/[a-z]+)?{POWER})+$"
)


def _structure(s: str) -> Hashable:
    """Take apart what is not a scalar, outermost first."""
    latex.WORK.spend(100 + len(s))
    s = s.strip()
    if not s:
        raise Unreadable
    if s.replace(" ", "") in ENDS:
        return ENDS[s.replace(" ", "")]
    if number := NUMBER.fullmatch(s):  # most votes end here, without the parser
        return ("value", *latex.digits([MP.mpf(number[1] or number[3]) / MP.mpf(number[2] or 1)]))
    if s[0] == s[-1] == '"' and s.count('"') == 2:
        return _structure(s[1:-1])
    if matrix := MATRIX.fullmatch(s):  # a factor in front is one of each entry
        times, _, inside = matrix.groups()
        rows = [row.split("&") for row in inside.split(r"\\") if row.strip()]
        return (
            "matrix",
            tuple(
                tuple(_structure(f"{times}({entry})" if times else entry) for entry in row)
                for row in rows
            ),
        )
    parts, separators = _split(s, r"[,;]|\\cup(?![A-Za-z])")
    if separators:
        return _list(parts, separators)
    if r"\pm" in s or r"\mp" in s:  # each \pm is free; \mp takes the sign that the first leaves
        if s.count(r"\pm") > 3:
            raise Unreadable
        return _set(
            _structure(s.replace(r"\pm", sign, 1).replace(r"\mp", other))
            for sign, other in ("+-", "-+")
        )
    sides, signs = _split(s, RELATION)
    if signs:
        return _relation(sides, signs)
    parts, minus = _split(s, r"\\setminus|-(?=\s*\\\{)")
    if minus:
        return reduce(_meet, [_structure(parts[0]), *map(_but, _members(_structure(parts[1])))])
    around = re.fullmatch(r"(\\\{|[(\[{])(.*?)(\\\}|[)\]}])", s)
    if around and not _outside(s)[len(around[1]) : -1].strip("\0"):
        opening, inner, closing = around.groups()
        parts, commas = _split(inner, "[,;]")
        if opening == r"\{" or opening == "{" and commas:
            if any(part.startswith(r"\{") for part in parts):
                return (
                    "set of sets",
                    tuple(
                        sorted(
                            {(part.startswith(r"\{"), _structure(part)) for part in parts}, key=repr
                        )
                    ),
                )
            return _set([_list(parts, commas)])  # {1,1,2} and {1,2} are one
        if commas:
            return ("tuple", opening + closing, tuple(map(_structure, parts)))
        if opening + closing in ("()", "[]", "{}"):
            return _structure(inner)
    number, unit = _unit(s)
    if unit is not None:
        return _structure(number)
    try:
        return latex.scalar(s)
    except latex.TooMuchWork:
        raise
    except (ValueError, ArithmeticError):  # unreadable, log 0, 1/0
        return _large_power(s) or _text(s)


def _large_power(s: str) -> Hashable | None:
    """9^{1012} is 3^{2024}: a whole number too large to be written out."""
    power = re.fullmatch(r"([0-9]{1,6})\^\{([0-9]{1,6})\}", s)
    if not power or int(power[1]) < 2:
        return None
    base, exponent = int(power[1]), int(power[2])
    for root in range(19, 1, -1):  # 2^19 has six digits
        smaller = round(base ** (1 / root))
        if smaller**root == base:
            return ("power", smaller, exponent * root)
    return ("power", base, exponent)


def _unit(s: str) -> tuple[str, str | None]:
    """A quantity without its unit, and the unit; None if it has none, or is words alone."""
    unit = UNIT.search(s)
    if not unit or not re.search(r"[0-9]|\\(?:pi|sqrt|frac)", s[: unit.start()]):
        return s, None
    return s[: unit.start()], re.sub(r'[\s"]', "", unit[0])


def _outside(s: str) -> str:
    """s with what is inside brackets blanked. "[" may close with ")", as in intervals."""
    depths = list(accumulate((c in "([{") - (c in ")]}") for c in s))
    if max(depths, default=0) > latex.MAX_DEPTH:
        raise Unreadable
    return "".join(c if depth <= (c in "([{") else "\0" for c, depth in zip(s, depths))


def _split(s: str, separator: str) -> tuple[list[str], list[str]]:
    """The parts of s between separators that are outside of brackets, and those separators."""
    found = list(re.finditer(separator, _outside(s)))
    cuts = [0, *(cut for m in found for cut in m.span()), len(s)]
    return [s[a:b].strip() for a, b in zip(cuts[::2], cuts[1::2])], [m[0] for m in found]


def _members(key: Hashable):
    """What a union is of."""
    return key[1] if key[0] == "set" else [key]


def _set(keys, repeats: bool = False) -> Hashable:
    """The union of keys: a set among them gives its members, and a set of one is that one."""
    members = [member for key in keys for member in _members(key)]
    members = sorted(members if repeats else set(members), key=repr)
    return members[0] if len(members) == 1 else ("set", tuple(members))


def _but(point: Hashable) -> Hashable:
    """All real numbers but one."""
    return _set(
        [("tuple", "()", (ENDS[r"-\infty"], point)), ("tuple", "()", (point, ENDS[r"\infty"]))]
    )


def _meet(left: Hashable, right: Hashable) -> Hashable:
    """What two unions of intervals have in common."""
    both = []
    latex.WORK.spend(300 * len(_members(left)) * len(_members(right)))
    for pair in product(_members(left), _members(right)):
        low, _, left_end, opening = max(
            (MP.mpf(low[1]), ends[0] == "(", low, ends[0]) for _, ends, (low, _) in pair
        )
        high, _, right_end, closing = min(
            (MP.mpf(high[1]), ends[1] == "]", high, ends[1]) for _, ends, (_, high) in pair
        )
        if low < high:
            both.append(("tuple", opening + closing, (left_end, right_end)))
    return _set(both)


def _list(parts: list[str], separators: list[str]) -> Hashable:
    """1,-2 and x=1, x=-2 have no order; x=1, y=2 is the point (1,2), its names in order; x>2, x<5
    is 2<x<5."""
    names = [part.split("=")[0].strip() for part in parts if part.count("=") == 1]
    if len(parts) == len({name.split("_")[0] for name in names}) > 1 and all(
        map(NAME.fullmatch, names)
    ):
        values = tuple(_structure(part) for _, part in sorted(zip(names, parts)))
        return ("tuple", "()", values) if "," in separators else ("either", *sorted(names), values)
    name, unequal, _ = parts[0].partition(r"\neq")  # x != 1, 2 is x != 1, x != 2
    parts = [
        name + unequal + part if unequal and not re.search(RELATION, part) else part
        for part in parts
    ]
    keys = list(map(_structure, parts))
    if set(separators) == {","} and all(re.search(r"[<>]|\\[lgn]eq", part) for part in parts):
        letters = [
            "".join(sorted(set(re.findall(r"(?<![\\A-Za-z])[A-Za-z]", part)))) for part in parts
        ]
        if len(set(letters)) > 1:
            return ("conditions", tuple(sorted(zip(letters, keys), key=repr)))
        if (
            len(letters[0]) == 1
            and "inequality" not in {key[0] for key in keys}
            and (both := reduce(_meet, keys))[1]
        ):
            return both
    units = [_unit(part)[1] for part in parts]
    if len(set(units) - {None}) > 1:  # 2 apples, 3 pears
        return ("units", tuple(sorted(zip(units, keys), key=repr)))
    if set(separators) == {r"\cup"}:
        return _set(_merged([member for key in keys for member in _members(key)]))
    return _set(keys, repeats=True)


def _merged(keys: list[Hashable]) -> list[Hashable]:
    """A union's members. Intervals that overlap or touch are one: [0,1] and (1,2] are [0,2]."""
    rest = []
    intervals = []
    for key in keys:
        ends = key[2] if key[0] == "tuple" and key[1] in ("()", "[]", "(]", "[)") else ()
        if len(ends) == 2 and all(end[0] == "value" and len(end) == 2 for end in ends):
            low, high = (MP.mpf(end[1]) if "j" not in end[1] else None for end in ends)
            if low is not None and high is not None and low < high:
                intervals.append([low, high, key[1][0], key[1][1], *ends])
                continue
        rest.append(key)
    intervals.sort(key=lambda one: (one[0], one[2] == "("))
    joined = []
    for one in intervals:
        last = joined[-1] if joined else None
        touching = last and one[0] == last[1] and (one[2] == "[" or last[3] == "]")
        if last and (one[0] < last[1] or touching):
            if (one[1], one[3] == "]") > (last[1], last[3] == "]"):
                last[1], last[3], last[5] = one[1], one[3], one[5]
        else:
            joined.append(one)
    return rest + [("tuple", one[2] + one[3], (one[4], one[5])) for one in joined]


def _relation(sides: list[str], signs: list[str]) -> Hashable:
    """x=5 is 5, x>5 is (5,oo), 1<x<=2 is (1,2]; other equations are known up to a factor."""
    if set(signs) == {"="}:
        if NAME.fullmatch(sides[-1]) and not NAME.fullmatch(sides[0]):  # 5 = x
            sides = sides[::-1]
        left, right = sides[0], sides[-1]  # of x = 10/2 = 5 the last
        curve = left == "x" and re.search(r"(?<![A-Za-z\\])y", right)
        named = not left or NAME.fullmatch(left) and not curve
        return (
            _structure(right)
            if named or _structure(left) == _structure(right)
            else _compare(left, "=", right)
        )
    if NAME.fullmatch(sides[0]) and signs in ([r"\in"], [r"\neq"]):
        return _structure(sides[1]) if signs == [r"\in"] else _but(_structure(sides[1]))
    if signs[0] in (">", r"\geq"):  # read every chain from small to large
        sides, signs = sides[::-1], [{">": "<", r"\geq": r"\leq"}.get(sign) for sign in signs[::-1]]
    if not set(signs) <= {"<", r"\leq"}:
        raise Unreadable
    names = [side for side in sides if NAME.fullmatch(side)]
    sides = [
        "n_{0}" if [side] == names and len(side) > 1 else side for side in sides
    ]  # f(x) > 2, AB > 2
    steps = [
        _compare(a, sign, b)
        for a, sign, b in zip(sides, signs, sides[1:])
        if a not in ENDS and b not in ENDS
    ]
    return (
        reduce(_meet, steps, REALS)
        if all(step[0] == "tuple" for step in steps)
        else ("inequality", *steps)
    )


STEP = 1001.25  # of the points at which a line is told from a curve: |x + 2| > 3 is not x + 2 > 3


def _compare(left: str, sign: str, right: str) -> Hashable:
    """An equation in y or one letter, or an inequality in one, is solved if it is of degree one:
    2x < 6 is (-oo,3), y - 2x = 3 is
    2x + 3. Of others, left - right is known up to a factor, in inequalities a positive one."""
    difference = f"({left})-({right})"
    formula = latex.Formula(difference)
    letters = formula.letters
    letter = "y" if sign == "=" and "y" in letters else min(letters) if len(letters) == 1 else None
    at = letter and list(
        zip(*(formula.values(**{letter: MP.mpf(1 + n * STEP)}) for n in (-1, 0, 1)))
    )
    if letter and all(
        a != b and not latex.clean(a - 2 * b + c, abs(b)) for a, b, c in at
    ):  # of degree one
        root = ("value", *latex.digits([1 - STEP * b / (b - a) for a, b, _ in at]))
        if sign == "=":
            return root
        if MP.re(at[0][1] - at[0][0]) > 0:
            return ("tuple", "(]" if sign == r"\leq" else "()", (ENDS[r"-\infty"], root))
        return ("tuple", "[)" if sign == r"\leq" else "()", (root, ENDS[r"\infty"]))
    values = formula.values()
    scale = values[0] if sign == "=" else abs(values[0])
    if len(digits := latex.digits([value / scale for value in values])) == 1:  # no variables: 1 = 2
        raise Unreadable
    return (sign, *digits)
