r"""An answer taken apart: what it is of, and the keys of its parts, down to formulas.

    ("value", digits, ...)   a number or formula, by its values (latex.scalar)
    ("tuple", "(]", keys)    a tuple or interval; its brackets count
    ("set", keys)            a list, set or union, sorted
    ("matrix", rows of keys)
    ("=", digits, ...)       what is no more than an equation
    ("text", ...)            words, and what cannot be read

structure(plain) asks each of READERS in turn, outermost first. A reader gives the key of what it
knows, or None. To read a new kind of answer, write a reader with one example, and add it there.
"""

import math
import re
from collections.abc import Hashable
from functools import reduce
from itertools import accumulate, product

from common import latex
from common.latex import MP, Unreadable

RELATION = r"\\leq|\\geq|\\neq|\\in(?![A-Za-z])|[=<>]"
ENDS = {r"\infty": ("value", "inf"), r"+\infty": ("value", "inf"), r"-\infty": ("value", "-inf")}
REALS = ("tuple", "()", (ENDS[r"-\infty"], ENDS[r"\infty"]))
NUMBER = re.compile(r"(?=.*[0-9])(?:\\frac\{([0-9]+)\}\{([0-9]+)\}|([+-]?[0-9]*\.?[0-9]*))")
MATRIX = re.compile(
    r"([^=,;()\[\]]*?)\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr| ]*\})?"
    r"(.*)\\end\s*\{\2\}"
)

GREEK = "|".join(latex.GREEK)
# What may stand left of "=" as a mere name ...
NAMES = [
    r'"[^"]*"',  # \text{Area}
    r"\([a-z][a-z0-9_{}\\, ]*\)",  # (x,y), (x_1,x_2)
    r"\\frac\{(?:[A-Z]+|d\w*)\}\{(?:[A-Z]+|d\w)\}",  # \frac{dy}{dx}, \frac{AB}{BC}
    r"(?:m )?[][|:A-Z ]+",  # [ABC], |AB|, AB:BC, m\angle A
    rf"\{{?(?:[A-Za-z]|[A-Za-z]{{3,}}[A-Za-z ]*|\\(?:{GREEK}|max|min|Pr)"  # x, Area, \theta
    r"|\\bar\s*\{?[A-Za-z]+\}?)\s*\}?",  # \bar x
]
# ... each with an index, primes or an argument: a_1, f(x), f^{-1}(x), P(A|B).
NAME = re.compile(
    rf"(?:{'|'.join(NAMES)})(?:_\{{?[\w ]+\}}?)?'*(?:\^\{{-1\}})?\s*"
    r"(?:\([\w\", ]+\)|(?<=[A-Zr])\s*\([^()]*\))?",
    re.A,
)
# A sum that a question asks for: m+n = 113, 100a+b = 206, n+4 = 19. But x+y=5 is a line.
TERM = r"[0-9]*[a-dfghj-w](?:\^(?:\{[0-9]\}|[0-9]))?"
SUM = re.compile(rf"{TERM}(?:\s*[+-]\s*(?:{TERM}|[0-9]+))+")

# Words after mathematics: "cm"^2, cm, miles per hour, apples, days a week; but not p.m.,
# directions, or letters such as abc.
POWER = r"(?:\s?\^(?:\{-?[0-9]\}|[0-9]))?"
NO_UNIT = (
    r"(?!(?i:[ap]\.?m)\b|[abcxyz]+$"
    r'|[^"]*(?:north|south|east|west|factorial|[a-z]ths\b|halves|thirds|quarters))'
)
UNIT_WORDS = (
    r"(?:[a-z]{3,}|[cmk]?m|\\Omega|kg|mg|ml|lb|oz|ft|in|of|as|(?<=[0-9] )[sgh]|a(?=\s[a-z]{3})"
    r"|[kMGm]?(?:J|N|L|W|V|A|B|Hz|Pa|Wh|eV)|yd|mi|Å|hr(?!\s?\^)|sq|cu)"
)
UNIT = re.compile(
    rf'(?<!["\s])(?:\s*(?:(?:/|\\cdot)\s*)?"{NO_UNIT}[^"]*"{POWER}'
    rf"|\s+/?{NO_UNIT}{UNIT_WORDS}\.?(?:/[a-z]+)?{POWER})+$"
)


def structure(s: str) -> Hashable:
    """The key of plain LaTeX as normalise() leaves it."""
    latex.WORK.spend(100 + len(s))
    s = s.strip()
    if not s:
        raise Unreadable
    for read in READERS:
        key = read(s)
        if key is not None:
            return key
    return _formula(s)


def text_key(plain: str) -> Hashable:
    """The key of last resort. Words ignore case (East, east); single letters keep it (C, c)."""
    bare = re.sub(r"(?<=[A-Za-z])\.|[\s{}\"`]|\\(?![A-Za-z])", "", plain).strip(".,;:?")
    words = re.search(r"(?<![\\A-Za-z])[A-Za-z]{2}", bare)
    return ("text", bare.casefold().rstrip("!") if words else bare)


# ------------------------------------------------------------------------------------------ readers


def _end(s: str) -> Hashable | None:
    r"""-\infty"""
    return ENDS.get(s.replace(" ", ""))


def _number(s: str) -> Hashable | None:
    r"""12, \frac{1}{2}, .5: most votes end here, without the parser."""
    number = NUMBER.fullmatch(s)
    if not number:
        return None
    over, under, plain = number.groups()
    return ("value", *latex.digits([MP.mpf(over or plain) / MP.mpf(under or 1)]))


def _quoted(s: str) -> Hashable | None:
    """ "East" """
    if s[0] == s[-1] == '"' and s.count('"') == 2:
        return structure(s[1:-1])
    return None


def _based(s: str) -> Hashable | None:
    """52_{8}, 2bf_{16}: neither 52 nor 42, and no product of letters."""
    number = re.fullmatch(r"([0-9][0-9A-Fa-f]*)_\{([0-9]+)\}", s)
    return text_key(s.upper()) if number else None


def _matrix(s: str) -> Hashable | None:
    r"""2\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}: a factor in front is one of each entry."""
    matrix = MATRIX.fullmatch(s)
    if not matrix:
        return None
    times, _, inside = matrix.groups()
    rows = [row.split("&") for row in inside.split(r"\\") if row.strip()]
    if times:
        rows = [[f"{times}({entry})" for entry in row] for row in rows]
    return ("matrix", tuple(tuple(map(structure, row)) for row in rows))


def _listed(s: str) -> Hashable | None:
    r"""1,2 and 1;2 and [0,1]\cup[2,3]"""
    parts, separators = _split(s, r"[,;]|\\cup(?![A-Za-z])")
    return _list(parts, separators) if separators else None


def _plus_minus(s: str) -> Hashable | None:
    r"""1\pm\sqrt{2} is two numbers. Each \pm is free; \mp takes the sign that the first leaves."""
    if r"\pm" not in s and r"\mp" not in s:
        return None
    if s.count(r"\pm") > 3:
        raise Unreadable
    first = s.replace(r"\pm", "+", 1).replace(r"\mp", "-")
    second = s.replace(r"\pm", "-", 1).replace(r"\mp", "+")
    return _set([structure(first), structure(second)])


def _related(s: str) -> Hashable | None:
    """x=5, x>5, 1<x<=2"""
    sides, signs = _split(s, RELATION)
    return _relation(sides, signs) if signs else None


def _without(s: str) -> Hashable | None:
    r"""(-\infty,\infty)\setminus\{0\}"""
    parts, minus = _split(s, r"\\setminus|-(?=\s*\\\{)")
    if not minus:
        return None
    left_out = [_but(point) for point in _members(structure(parts[1]))]
    return reduce(_meet, [structure(parts[0]), *left_out])


def _common(s: str) -> Hashable | None:
    r"""(0,2)\cap(1,3)"""
    parts, caps = _split(s, r"\\cap(?![A-Za-z])")
    return reduce(_meet, map(structure, parts)) if caps else None


def _bracketed(s: str) -> Hashable | None:
    r"""(1,2) in its order, \{1,2\} without, and what stands in brackets alone."""
    around = re.fullmatch(r"(\\\{|[(\[{])(.*?)(\\\}|[)\]}])", s)
    if not around or _outside(s)[len(around[1]) : -1].strip("\0"):
        return None
    opening, inner, closing = around.groups()
    parts, commas = _split(inner, "[,;]")
    if opening == r"\{" or opening == "{" and commas:
        if any(part.startswith(r"\{") for part in parts):
            members = {(part.startswith(r"\{"), structure(part)) for part in parts}
            return ("set of sets", tuple(sorted(members, key=repr)))
        return _set([_list(parts, commas)])  # {1,1,2} and {1,2} are one
    if commas:
        return ("tuple", opening + closing, tuple(map(structure, parts)))
    return structure(inner) if opening + closing in ("()", "[]", "{}") else None


def _of_several(s: str) -> Hashable | None:
    r"""\max(2,7) is 7; \max(a,b) is \max(b,a)."""
    called = re.fullmatch(r"\\(max|min|gcd|lcm)\s*\((.*)\)", s)
    if not called or ")" in _outside(called[2]):
        return None
    name, inner = called.groups()
    keys = [structure(part) for part in _split(inner, ",")[0]]
    numbers = [_real(key) for key in keys]
    if None in numbers:
        return (name, tuple(sorted(keys, key=repr)))
    if name in ("max", "min"):
        return ("value", *latex.digits([max(numbers) if name == "max" else min(numbers)]))
    if not all(MP.isint(number) for number in numbers):
        raise Unreadable
    return ("value", *latex.digits([MP.mpf(getattr(math, name)(*map(int, numbers)))]))


def _quantity(s: str) -> Hashable | None:
    """5 "cm": the number alone."""
    number, unit = _unit(s)
    return structure(number) if unit is not None else None


def _formula(s: str) -> Hashable:
    r"""\frac{x+1}{2}; as text, if it is none."""
    try:
        return latex.scalar(s)
    except latex.TooMuchWork:
        raise
    except (ValueError, ArithmeticError):  # unreadable, log 0, 1/0
        return _large_power(s) or text_key(s)


READERS = [
    _end,
    _number,
    _quoted,
    _based,
    _matrix,
    _listed,
    _plus_minus,
    _related,
    _without,
    _common,
    _bracketed,
    _of_several,
    _quantity,
]


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
    letters = re.search(r"(?<![\\A-Za-z])[A-Za-z]", s[: unit.start()])
    if letters and len(unit[0].strip()) == 1:  # 5 N is a force, A + 2 B has two letters
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


# ------------------------------------------------------------------------- sets, lists, intervals


def _members(key: Hashable):
    """What a union is of."""
    return key[1] if key[0] == "set" else [key]


def _set(keys, repeats: bool = False) -> Hashable:
    """The union of keys: a set among them gives its members, and a set of one is that one."""
    members = [member for key in keys for member in _members(key)]
    members = sorted(members if repeats else set(members), key=repr)
    return members[0] if len(members) == 1 else ("set", tuple(members))


def _real(key: Hashable):
    """The number that a key is of, or None."""
    if key[0] == "value" and len(key) == 2 and "j" not in key[1]:
        return MP.mpf(key[1])
    return None


def _interval(key: Hashable) -> list | None:
    """[low, high, opening, closing, key of low, key of high]; a number is [5,5]."""
    if (number := _real(key)) is not None:
        return [number, number, "[", "]", key, key]
    if key[0] != "tuple" or key[1] not in ("()", "[]", "(]", "[)") or len(key[2]) != 2:
        return None
    low, high = map(_real, key[2])
    if low is None or high is None or not low < high:
        return None
    return [low, high, *key[1], *key[2]]


def _but(point: Hashable) -> Hashable:
    """All real numbers but one."""
    below = ("tuple", "()", (ENDS[r"-\infty"], point))
    above = ("tuple", "()", (point, ENDS[r"\infty"]))
    return _set([below, above])


def _meet(left: Hashable, right: Hashable) -> Hashable:
    r"""What two sets have in common: (0,2)\cap(1,3) is (1,2), \{1,2\}\cap\{2,3\} is 2."""
    lefts, rights = _members(left), _members(right)
    latex.WORK.spend(300 * len(lefts) * len(rights))
    if all(_real(key) is not None for key in [*lefts, *rights]):
        return _set([key for key in lefts if key in rights])
    both = []
    for pair in product(lefts, rights):
        low, _, left_end, opening = max(
            (MP.mpf(low[1]), ends[0] == "(", low, ends[0]) for _, ends, (low, _) in pair
        )
        high, _, right_end, closing = min(
            (MP.mpf(high[1]), ends[1] == "]", high, ends[1]) for _, ends, (_, high) in pair
        )
        if low < high:
            both.append(("tuple", opening + closing, (left_end, right_end)))
    return _set(both)


def _union(keys: list[Hashable]) -> Hashable:
    r"""Intervals that overlap or touch are one: [0,1]\cup(1,2] is [0,2]."""
    members = [member for key in keys for member in _members(key)]
    latex.WORK.spend(300 * len(members))
    intervals = [one for member in members if (one := _interval(member))]
    rest = [member for member in members if not _interval(member)]
    intervals.sort(key=lambda one: (one[0], one[2] == "("))
    joined = []
    for one in intervals:
        low, high, opening, closing, _, right_end = one
        last = joined[-1] if joined else None
        touching = last and low == last[1] and (opening == "[" or last[3] == "]")
        if not last or low > last[1] or low == last[1] and not touching:
            joined.append(one)
        elif (high, closing == "]") > (last[1], last[3] == "]"):
            last[1], last[3], last[5] = high, closing, right_end
    for low, high, opening, closing, left_end, right_end in joined:
        rest.append(
            left_end if low == high else ("tuple", opening + closing, (left_end, right_end))
        )
    return _set(rest)


def _list(parts: list[str], separators: list[str]) -> Hashable:
    """1,-2 and x=1, x=-2 have no order; x=1, y=2 is the point (1,2), its names in order."""
    if (point := _assigned(parts, separators)) is not None:
        return point
    name, unequal, _ = parts[0].partition(r"\neq")
    if unequal:  # x != 1, 2 is x != 1, x != 2
        related = re.compile(RELATION)
        parts = [part if related.search(part) else name + unequal + part for part in parts]
    keys = list(map(structure, parts))
    if set(separators) == {","} and all(re.search(r"[<>]|\\[lgn]eq", part) for part in parts):
        if (both := _conditions(parts, keys)) is not None:
            return both
    units = [_unit(part)[1] for part in parts]
    if len(set(units) - {None}) > 1:  # 2 apples, 3 pears
        return ("units", tuple(sorted(zip(units, keys), key=repr)))
    return _union(keys) if set(separators) == {r"\cup"} else _set(keys, repeats=True)


def _assigned(parts: list[str], separators: list[str]) -> Hashable | None:
    """y=2, x=1 is (1,2)."""
    names = [part.split("=")[0].strip() for part in parts if part.count("=") == 1]
    different = {name.split("_")[0] for name in names}  # x_1, x_2 are two values of x
    if len(parts) != len(different) or len(parts) < 2 or not all(map(NAME.fullmatch, names)):
        return None
    values = tuple(structure(part) for _, part in sorted(zip(names, parts)))
    return (
        ("tuple", "()", values) if r"\cup" not in separators else ("either", *sorted(names), values)
    )


def _conditions(parts: list[str], keys: list[Hashable]) -> Hashable | None:
    """x>2, x<5 is 2<x<5; of x>2, y<5 each is of its letter."""
    letters = []
    for part in parts:
        letters.append("".join(sorted(set(re.findall(r"(?<![\\A-Za-z])[A-Za-z]", part)))))
    if len(set(letters)) > 1:
        return ("conditions", tuple(sorted(zip(letters, keys), key=repr)))
    if len(letters[0]) == 1 and "inequality" not in {key[0] for key in keys}:
        both = reduce(_meet, keys)
        return both if both[1] else None  # of x<2, x>5 either may hold
    return None


# ------------------------------------------------------------------------------------- relations

ABSOLUTE = re.compile(r"\|([^|]*)\|")
STEP = 1001.25  # of the points at which a line is told from a curve: |x + 2| > 3 is not x + 2 > 3


def _relation(sides: list[str], signs: list[str]) -> Hashable:
    """x=5 is 5, x>5 is (5,oo), 1<x<=2 is (1,2]; other equations are known up to a factor."""
    if set(signs) == {"="}:
        return _equation(sides)
    if NAME.fullmatch(sides[0]) and signs in ([r"\in"], [r"\neq"]):
        return structure(sides[1]) if signs == [r"\in"] else _but(structure(sides[1]))
    if signs[0] in (">", r"\geq"):  # read every chain from small to large
        sides, signs = sides[::-1], [{">": "<", r"\geq": r"\leq"}.get(sign) for sign in signs[::-1]]
    if not set(signs) <= {"<", r"\leq"}:
        raise Unreadable
    if len(sides) == 2 and (key := _of_absolute(*sides, signs[0])) is not None:
        return key
    names = [side for side in sides if NAME.fullmatch(side)]
    if len(names) == 1:  # f(x) > 2, AB > 2
        sides = ["n_{0}" if side in names and len(side) > 1 else side for side in sides]
    steps = []
    for low, sign, high in zip(sides, signs, sides[1:]):
        if low not in ENDS and high not in ENDS:
            steps.append(_compare(low, sign, high))
    if all(step[0] == "tuple" for step in steps):
        return reduce(_meet, steps, REALS)
    return ("inequality", *steps)


def _equation(sides: list[str]) -> Hashable:
    """x = 10/2 = 5 is 5, m+n = 7 is 7, x+y = 7 is a line."""
    if NAME.fullmatch(sides[-1]) and not NAME.fullmatch(sides[0]):  # 5 = x
        sides = sides[::-1]
    left, right = sides[0], sides[-1]
    curve = left == "x" and re.search(r"(?<![A-Za-z\\])y", right)
    if not left or NAME.fullmatch(left) and not curve:
        return structure(right)
    if SUM.fullmatch(left) and right.isdigit() and right != "0":
        return structure(right)
    if structure(left) == structure(right):
        return structure(right)
    return _compare(left, "=", right)


def _of_absolute(low: str, high: str, sign: str) -> Hashable | None:
    """|x| < 2 is -2 < x < 2, and |x| > 2 is x < -2 or x > 2."""
    inside, bound = (ABSOLUTE.fullmatch(low), high), (ABSOLUTE.fullmatch(high), low)
    for absolute, number in (inside, bound):
        if not absolute or NAME.fullmatch(absolute[0]) or number in ENDS:
            continue
        size = _real(structure(number))
        if size is None or size <= 0:
            return None
        if absolute[0] == low:
            return _relation([f"-({number})", absolute[1], number], [sign, sign])
        below = _relation([absolute[1], f"-({number})"], [sign])
        return _set([below, _relation([number, absolute[1]], [sign])])
    return None


def _compare(left: str, sign: str, right: str) -> Hashable:
    """An equation in y or one letter, or an inequality in one, is solved if it is of degree one:
    2x < 6 is (-oo,3), y - 2x = 3 is 2x + 3.

    Of others, left - right is known up to a factor, in inequalities a positive one.
    """
    formula = latex.Formula(f"({left})-({right})")
    letter = "y" if sign == "=" and "y" in formula.letters else None
    if len(formula.letters) == 1:
        letter = min(formula.letters)
    if letter and (key := _solved(formula, letter, sign)) is not None:
        return key
    values = formula.values()
    scale = values[0] if sign == "=" else abs(values[0])
    digits = latex.digits([value / scale for value in values])
    if len(digits) == 1:  # no variables: 1 = 2
        raise Unreadable
    return (sign, *digits)


def _solved(formula: latex.Formula, letter: str, sign: str) -> Hashable | None:
    """Where a formula of degree one in a letter is 0, or below 0; None if it is of another."""
    below, middle, above = (formula.values(**{letter: MP.mpf(1 + n * STEP)}) for n in (-1, 0, 1))
    slopes = [b - a for a, b in zip(below, middle)]
    for a, b, c in zip(below, middle, above):
        if a == b or latex.clean(a - 2 * b + c, abs(b)):
            return None
    roots = [1 - STEP * b / slope for b, slope in zip(middle, slopes)]
    root = ("value", *latex.digits(roots))
    if sign == "=":
        return root
    closed = sign == r"\leq"
    if MP.re(slopes[0]) > 0:
        return ("tuple", "(]" if closed else "()", (ENDS[r"-\infty"], root))
    return ("tuple", "[)" if closed else "()", (root, ENDS[r"\infty"]))
