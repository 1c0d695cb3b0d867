r"""Which answers are the same? Every number that this project prints is decided here.

    completion --extract--> answer --normalise--> plain LaTeX --structure--> scalars --algebra--> key

Two answers are equal when their keys are. A key is hashable, so a vote over N answers is one pass
over a dictionary, where asking "are these two equal?" of every pair would take N^2 questions.

  extract     the last \boxed{...}, else what follows "the answer is"
  normalise   one spelling for one thing: \dfrac, \frac12, \left(, $, %, 1{,}000, Unicode
  structure   lists, sets, tuples, intervals with their brackets, unions, matrices, \pm, equations,
              inequalities and units are taken apart by hand, down to scalar expressions
  algebra     a scalar is parsed (latex2sympy2_extended) and *evaluated* to 700 digits, at three fixed
              points if it has variables; expressions that agree there are the same expression
  key         those values; for what cannot be read as mathematics, the normalised text

Why evaluate? It is the Schwartz-Zippel test for identities. sympy's simplify() is slow, can hang, and
leaves equal expressions apart (nested radicals, trigonometry); a value costs one operation per node
of the tree, at fixed precision. So no answer takes long or needs much memory, and there is no timer
(SIGALRM, the usual one, works on the main thread of a Unix process only).

Model text never reaches eval, nor sympify(str) or parse_expr, which call it: the parser sees a
short list of allowed commands, with a numbered placeholder for each number and each letter.
"""

import hashlib
import math
import re
import threading
import unicodedata
from collections.abc import Hashable
from fractions import Fraction
from functools import lru_cache

import mpmath

MAX_CHARS = 400              # longer answers are compared as text; the longest of MATH-500 has 56
MAX_DEPTH = 30               # brackets within brackets: the parser is recursive, and Python's stack finite
MAX_BITS = 50_000            # of any number on the way
EXACT_BITS = 2200            # of a number in a key: 2^{2024} is one, 9^{9^9} and 10^{1000} are compared as text
MP = mpmath.MPContext()      # a private context: the precision of the shared one is anyone's to change
MP.dps, KEPT = 700, 60       # digits computed, and digits kept in a key of what is irrational
TINY = MP.mpf(10) ** -650    # more than rounding leaves of a sum that is zero
LOCK = threading.Lock()      # the parser's grammar keeps a cache that all threads share


class Unreadable(ValueError):
    """Not mathematics that we can evaluate within bounds; compared as text instead."""


# ------------------------------------------------------------------------------ the five functions

def is_correct(prediction: str | None, gold: str) -> bool:
    """Does `prediction` state the same answer as `gold`? A missing or blank one does not."""
    return bool(prediction and prediction.strip()) and canonical_form(prediction) == canonical_form(gold)


def majority(answers: list[str | None]) -> str | None:
    """The most frequent answer, in its first spelling; of equally frequent ones, the first seen."""
    return weighted(answers, [1.0] * len(answers))


def weighted(answers: list[str | None], scores: list[float]) -> str | None:
    """The answer whose scores sum highest over all its spellings, in its first spelling.

    A missing or blank answer never wins; a NaN or infinite score is left out of the sum.
    """
    totals, first = {}, {}
    for answer, score in zip(answers, scores, strict=True):
        if answer and answer.strip() and math.isfinite(score):
            key = canonical_form(answer)
            first.setdefault(key, answer)
            totals[key] = totals.get(key, 0.0) + score
    return first[max(totals, key=totals.get)] if totals else None


def extract_answer(completion: str) -> str | None:
    r"""The final answer that a completion states, or None.

    - The last box wins: \boxed{..}, \boxed {..} or \fbox{..}, with any braces inside. Of a box in a
      box, the outer one counts.
    - An empty box says nothing, so it does not displace an earlier one.
    - A box that is never closed (the completion was cut off) ends with its line, or at a "$".
    - \boxed 5, without braces, holds what stands before the next space or "$".
    - Without any box: the sentence or line after the last "answer is", "answer:" or "####"; of a
      line with mathematics in $..$ or \(..\), the first of that.
    - Else None: the last number in a text is not a statement of an answer.
    """
    opened, close = [], {}                                # where each brace is closed, in one pass
    for brace in re.finditer(r"\\.|[{}]", completion, re.S):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            close[opened.pop()] = brace.start()
    answer, end = None, 0
    for box in re.finditer(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(\{?)", completion):
        if (start := box.end()) > end:                    # else it is inside the box before it
            end = close.get(start - 1, 0) if box[1] else 0
            cut_off = re.compile(r"[^\n$]*" if box[1] else r"[^\s$]*").match(completion, start, start + MAX_CHARS)[0]
            answer = (completion[start:end] if end else cut_off).strip() or answer
    if answer is None:
        for said in reversed(re.split(r"answer\s*(?:is|:)|####", completion, flags=re.I)[1:]):
            line = said.lstrip(" \t\n:*")[:MAX_CHARS].partition("\n")[0]
            maths = re.search(r"\$+([^$]+)\$|\\\((.+?)\\\)", line)
            line = (maths[1] or maths[2]) if maths else re.split(r"\.(?:\s|$)", line)[0]
            if line := line.strip(" *$"):
                return line
    return answer


def canonical_form(answer: str) -> Hashable:
    """A hashable key: the same for equal answers, another for different ones. Never raises."""
    if len(answer) > MAX_CHARS:                           # neither parsed nor kept in the cache
        return ("long", hashlib.sha256("".join(answer.split()).encode("utf-8", "replace")).hexdigest())
    return _key(answer.strip())


@lru_cache(maxsize=2048)
def _key(answer: str) -> Hashable:
    try:
        return _number(answer) or _structure(_normalise(answer))
    except Exception:                                     # whatever it is, it has a key
        return _text(_normalise(answer))


def _number(s: str) -> Hashable | None:
    """The fast path. Most votes end here, without sympy."""
    if len(s) < KEPT and re.fullmatch(r"[+-]?(?:[0-9]+/[0-9]+|[0-9]+\.?[0-9]*|\.[0-9]+|\\frac\{[0-9]+\}\{[0-9]+\})", s):
        return ("value", Fraction(s.replace(r"\frac{", "").replace("}{", "/").replace("}", "")))


# --------------------------------------------------------------------------------------- normalise

UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "⁄": "/", "∞": r"\infty ",
    "°": r"^\circ ", "√": r"\sqrt ", "±": r"\pm ", "∓": r"\mp ", "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ",
    "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∅": r"\emptyset ", "ℝ": r"\R ", "€": "$", "£": "$", "¢": "$",
    "½": r"\frac12", "⅓": r"\frac13", "⅔": r"\frac23", "¼": r"\frac14", "¾": r"\frac34", "′": "'", '"': " ", "\0": " "}
GREEK = ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega pi "
         "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega varepsilon varphi ell infty").split()
UNICODE |= {letter: f"\\{name} " for letter, name in zip("αβγδεζηθικλμνξρστφχψωπΓΔΘΛΞΠΣΦΨΩ", GREEK)}
SYNONYMS = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom", "tbinom": r"\binom", "ast": "*",
    "le": r"\leq ", "leqslant": r"\leq ", "ge": r"\geq ", "geqslant": r"\geq ", "ne": r"\neq ", "lt": "<", "gt": ">",
    "langle": "(", "rangle": ")", "lbrace": r"\{", "rbrace": r"\}", "lvert": "|", "rvert": "|", "vert": "|",
    "colon": ":", "varnothing": r"\emptyset ", "R": r"(-\infty,\infty)", **dict.fromkeys(
        "boxed fbox mathbf mathit mathsf boldsymbol bf rm displaystyle textstyle limits quad qquad middle left right "
        "big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr".split(), " ")}
FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp".split()
TRIG = "(?:sin|cos|tan|cot|sec|csc)"
GROUP = r"\{(?:[^{}]++|\{(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+\})*+\}"            # braces four deep
REWRITES = [(re.compile(pattern), new) for pattern, new in [
    (r"(?<=[0-9])(?:,\s*\\!|\{,\}|\\,|\\ )\s*(?=[0-9]{3})", ""),                       # 10,\!080
    (r"\\(?:left|right)\s*\.|\\hspace\s*\{[^{}]*\}|(?<=\\\\)\s*\[[0-9.]+[a-z]+\]", " "),
    (r"\\mathbb\s*\{?\s*R\s*\}?|\b[Aa]ll real(?: number)?s\b", r"\\R "),
    (r"(?<![\\A-Za-z])(sqrt|frac|infty)(?![A-Za-z])", r"\\\1 "), (r"(?<![\\A-Za-z])(?:infinity|oo)\b", r"\\infty "),
    (r"\\([A-Za-z]+)", lambda m: SYNONYMS.get(m[1], m[0])),
    (r"(?<!\\)\\[,;:! ()\[\]]|~|\\?\$|\\?%|\\+$", " "),                                 # spaces, math mode, units
    (r"^([*`]+)(.+)\1$", r"\2"), (r"\*\*", "^"), (r"\+/-", r"\\pm "), (r"(?<=[\])])\s*U\s*(?=[(\[])", r"\\cup "),   # ASCII
    (r"\^\s*(?:\\prime|\{\s*(?:\\prime|')\s*\})", "'"),
    (r"<=", r"\\leq "), (r">=", r"\\geq "), (r"!=", r"\\neq "), (r"\\\{\s*\\\}", r"\\emptyset "),
    # \text{..} becomes "..": a word in quotes is not taken for a product of letters.
    (r"\\mathrm\s*\{\s*([ei])\s*\}", r"\1"),
    (r"\\(?:operatorname|mathrm|text)\s*\{\s*(%s)\s*\}" % "|".join(FUNCTIONS), r"\\\1 "),
    (r"\\(?:text[a-z]*|mbox|hbox|mathrm)\s*\{([^A-Za-z{}]*)\}", r"\1"),                 # \text{5}
    (r"\\(?:text[a-z]*|mbox|hbox|mathrm)\s*\{\s*([^{}]*?)\s*\}", r' "\1" '),
    (r'(?<=[0-9])\s*(?:\^\s*\{?\s*)?"?(?:st|nd|rd|th)\b"?\s*\}?', " "),                       # 5th
    (r'"?\bthousand\b"?', r"\\cdot10^3 "), (r'"?\bmillion\b"?', r"\\cdot10^6 "), (r'"?\bbillion\b"?', r"\\cdot10^9 "),
    (r',?\s*(?:"or"|\bor\b)(?=.*(?:[<>]|\\[lg]eq))', r"\\cup "),                          # x < 2 or x > 3
    (r',?\s*(?:"(?:and|or)"|\b(?:and|or)\b)', " , "),
    (r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}"), (r"\{([^{}]*)\\choose([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\\sqrt\s*([0-9]+|[A-Za-z]|\\[a-z]+)", r"\\sqrt{\1}"), (r"\^\s*(-\s*[0-9]+)", r"^{\1}"),  # not TeX, but meant
    (r"\\(frac|binom)\s*([0-9A-Za-z]|\\[a-z]+)", r"\\\1{\2}"),                          # \frac12
    (rf"\\(frac|binom)\s*({GROUP})\s*([0-9A-Za-z]|\\[a-z]+)", r"\\\1\2{\3}"),
    (r"(?<![0-9.}^_])([0-9]+)\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}", r"{(\1+\\frac{\2}{\3})}"),
    (r"(?<![0-9.}^_/])([0-9]+) ([0-9]+)\s*/\s*([0-9]+)(?![0-9.])", r"{(\1+\\frac{\2}{\3})}"),  # 1 4/5
    (r"(?<![0-9.^_/}])([0-9]+)\s*/\s*([0-9]+)(?![0-9.^])", r"\\frac{\1}{\2}"),          # 1/2x is x/2
    (r"([0-9])[eE]([+-]?[0-9]+)(?![0-9.])", r"\1\\cdot 10^{\2}"),                       # 1.5e3
    (rf"\\({TRIG})\s*\^\s*\{{?\s*-\s*1\s*\}}?", r"\\arc\1 "),
    (r"([0-9]*)\.([0-9]*)\\overline\s*\{?([0-9]+)\}?",                                 # 0.1\overline{6}
     lambda m: r"{(0%s.%s0+\frac{%s}{%s})}" % (m[1], m[2], m[3], "9" * len(m[3]) + "0" * len(m[2]))),
    # 58,500 is one number. But 1, 200 is a list, having a space, and (12,102) a pair.
    (r"^(?:[^,(\[0-9]|(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9](?![0-9]*,))*+$",
     lambda m: m[0].replace(",", "")),
    (r"^[+-]?[0-9]{1,3}(?: [0-9]{3})+(?![0-9])", lambda m: m[0].replace(" ", "")),
]]
DEGREE = re.compile(r"([0-9.]+|[A-Za-z]|\\[a-z]+|)\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degrees?(?![a-z]))")


def _normalise(text: str) -> str:
    """One spelling for one thing. The rules run in order; what one is for stands beside it, if unclear."""
    text = re.sub("[⁰¹²³⁴-⁹⁻]+", r"^{\g<0>}", re.sub("[₀-₉]+", r"_{\g<0>}", text)).replace("⁻", "-")
    text = unicodedata.normalize("NFKC", "".join(UNICODE.get(c, c) for c in text))[:2 * MAX_CHARS]
    # Degrees are a unit, which the question has named, save inside a trigonometric function.
    text = DEGREE.sub(r"{(\1\\cdot\\frac{\\pi}{180})}" if re.search(TRIG, text) else r"\1 ", text)
    for pattern, new in REWRITES:
        text = pattern.sub(new, " ".join(text.split()).strip(" ;:,").rstrip(" .;:,"))
    return " ".join(text.split())


def _text(plain: str) -> Hashable:
    """The key of last resort. Words ignore case (East, east); single letters keep it (C, c)."""
    bare = re.sub(r"(?<=[A-Za-z])\.|[\s{}\"`]|\\(?![A-Za-z])", "", plain).strip(".,;:?")
    return ("text", bare.casefold() if re.search(r"(?<![\\A-Za-z])[A-Za-z]{2}", bare) else bare)


# --------------------------------------------------------------------------------------- structure

MATRIX = re.compile(r"\\begin\s*\{([pb]?matrix|smallmatrix|array)\}(?:\s*\{[lcr| ]*\})?(.*)\\end\s*\{\1\}")
RELATION = r"\\leq|\\geq|\\neq|\\approx|\\in(?![A-Za-z])|[=<>]"
FLIPPED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq"}
# What may stand left of "=" as a mere name: \text{Area}, (x,y), x, AB, Area, \theta, \angle A, a_1, f(x), f^{-1}(x).
NAME = re.compile(
    r'"[^"]*"|\([a-z\\, ]+\)|\{?(?:[A-Za-z]|[A-Z]+|[A-Za-z]{3,}[A-Za-z ]*|\\(?:%s)|\\(?:angle|overline|vec|hat|bar)\s*\{?[A-Za-z]+\}?)'
    r"\s*\}?(?:_\{?\w+\}?)?'*(?:\^\{-1\})?\s*(?:\([\w, ]+\))?" % "|".join(GREEK), re.A)
# Words after mathematics: "cm"^2, cm, miles per hour, apples; but not p.m., directions, or letters such as abc.
POWER, NO_UNIT = r"(?:\s?\^(?:\{-?[0-9]\}|[0-9]))?", r'(?!(?i:[ap]\.?m)\b|[abcxyz]+$|[^"]*(?:north|south|east|west))'
UNIT = re.compile(
    rf'(?<!["\s])(?:\s*(?:/|\\cdot)?\s*"{NO_UNIT}[^"]*"{POWER}|\s+/?{NO_UNIT}(?:[a-z]{{3,}}|[cmk]?m|kg|mg|ml|lb|oz|ft|in|yd|mi|hr|sq|cu)'
    rf"\.?(?:/[a-z]+)?{POWER})+$")


def _structure(s: str) -> Hashable:
    """Take apart what is not a scalar, outermost first."""
    s = s.strip()
    if number := _number(s):
        return number
    if not s:
        raise Unreadable
    if s[0] == s[-1] == '"' and s.count('"') == 2:
        return _structure(s[1:-1])
    if base := re.fullmatch(r'\(?([0-9][0-9A-F]*)\)?\s*(?:_|"?(?:in )?base"?)[\s{(]*([0-9]+)[\s)}]*', s):
        return ("base", *base.groups())                   # 52_8
    if re.fullmatch(r"\(?\s*[A-Z]\s*\)?|(?i:no)", s):                                   # (C), a choice
        return _text(s.strip("() "))
    if matrix := MATRIX.fullmatch(s):
        rows = [row.split("&") for row in matrix[2].split(r"\\") if row.strip()]
        return ("matrix", tuple(tuple(map(_structure, row)) for row in rows))
    if len(parts := _split(s, r"\\cup(?![A-Za-z])")) > 1:
        return ("union", frozenset(map(_structure, parts)))
    if len(parts := _split(s, "[,;]")) > 1:
        return _list(parts)
    if signs := re.findall(RELATION, _outside(s)):
        return _relation(_split(s, RELATION), signs)
    around = re.fullmatch(r"(\\\{|[(\[{])(.*?)(\\\}|[)\]}])", s)
    if around and not _outside(s)[len(around[1]):-1].strip("\0"):
        opening, inner, closing = around.groups()
        if builder := re.fullmatch(r"[a-z](?:\s*\\in[^:|]*)?\s*(?:\\mid|[|:])(.*)", inner):   # {x | x > 3}
            return _structure(builder[1])
        parts = _split(inner, "[,;]")
        if opening == "{" and len(parts) == 1:            # a group of TeX
            return _structure(inner)
        if "{" in opening:                                # as sets, {1,1,2} and {1,2} are one
            return _set({key for part in parts for key in _values(part)})
        if len(parts) > 1:
            return ("tuple", opening + closing, tuple(map(_structure, parts)))
        if opening + closing in ("()", "[]"):
            return _structure(inner)
    if r"\pm" in s or r"\mp" in s:
        return _set(_values(s))
    if (unit := UNIT.search(s)) and re.search(r"[0-9]|\\(?:pi|sqrt|frac)", s[:unit.start()]):
        return _structure(s[:unit.start()])
    try:
        return _scalar(s)
    except (ValueError, ArithmeticError):                 # unreadable, log 0, 1/0
        return _text(s)


def _outside(s: str) -> str:
    """s with what is inside brackets blanked. "[" may close with ")", as in intervals."""
    out, depth = [], 0
    for c in s:
        depth -= c in ")]}"
        out.append(c if depth <= 0 else "\0")
        depth += c in "([{"
    return "".join(out)


def _split(s: str, separator: str) -> list[str]:
    cuts = [(0, 0), *(m.span() for m in re.finditer(separator, _outside(s))), (len(s), len(s))]
    return [s[a:b].strip() for (_, a), (b, _) in zip(cuts, cuts[1:])]


def _list(parts: list[str]) -> Hashable:
    """1,-2 and x=1, x=-2 have no order; x=1, y=2 is the point (1,2), its names in order."""
    names = [part.split("=")[0].strip() for part in parts if part.count("=") == 1]
    if len(parts) == len({name.split("_")[0] for name in names}) and all(map(NAME.fullmatch, names)):
        return ("tuple", "()", tuple(_structure(part) for _, part in sorted(zip(names, parts))))
    return _set([key for part in parts for key in _values(part)])


def _set(keys) -> Hashable:
    return next(iter(keys)) if len(keys) == 1 else ("set", tuple(sorted(keys, key=repr)))


def _values(s: str) -> list[Hashable]:
    r"""The key of s; of 3 \pm 2, two keys. Each \pm is free, and \mp takes the sign that the first leaves."""
    s = s if r"\pm" in s else s.replace(r"\mp", r"\pm")
    if r"\pm" not in s:
        return [_structure(s)]
    if s.count(r"\pm") > 3:
        raise Unreadable
    return [key for sign, other in ("+-", "-+") for key in _values(s.replace(r"\pm", sign, 1).replace(r"\mp", other))]


def _relation(sides: list[str], signs: list[str]) -> Hashable:
    """x=5 is 5, x>5 is (5,oo), 1<x<=2 is (1,2]; other equations are known up to a factor."""
    if set(signs) <= {"=", r"\approx"}:
        if NAME.fullmatch(sides[-1]) and not NAME.fullmatch(sides[0]):                  # 5 = x
            sides = sides[::-1]
        if not sides[0] or NAME.fullmatch(sides[0]):      # of x = 10/2 = 5 the last, of x = \pi \approx 3 the first
            return _structure(sides[1 if r"\approx" in signs[1:] else -1])
        if signs[0] == r"\approx" or _structure(sides[0]) == _structure(sides[-1]):
            return _structure(sides[0])
        if len(sides) > 2:
            raise Unreadable
        return _equation(*sides)
    if signs == [r"\in"] and NAME.fullmatch(sides[0]):
        return _structure(sides[1])
    if signs[0] in (">", r"\geq"):                        # read every chain from small to large
        sides, signs = sides[::-1], [FLIPPED.get(sign, sign) for sign in signs[::-1]]
    if not set(signs) <= {"<", r"\leq"}:
        raise Unreadable
    chain = sides                                         # x < 5 is -oo < x < 5
    if len(sides) == 2:
        chain = [r"-\infty", *sides] if NAME.fullmatch(sides[0]) else [*sides, r"\infty"]
    low, high = _structure(chain[0]), _structure(chain[-1])
    if len(chain) == 3 and NAME.fullmatch(chain[1]) and len(low) == len(high) == 2:     # the ends are constants
        left = "[" if signs[0] != "<" and chain[0] == sides[0] else "("
        right = "]" if signs[-1] != "<" and chain[-1] == sides[-1] else ")"
        return ("tuple", left + right, (low, high))
    return ("inequality", *signs, *(_proportions(*pair, abs) for pair in zip(sides, sides[1:])))


# ----------------------------------------------------------------------------------------- algebra

COMMANDS = {*FUNCTIONS, *"frac sqrt cdot times div lfloor rfloor lceil rceil binom".split()}
TOKEN = re.compile(
    r"(?P<command>\\[A-Za-z]+)|(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)|(?P<letters>[A-Za-z]+)|_\s*(?P<index>\{\s*\w+\s*\}|\w)"
    r"|(?P<sign>[-+*/^(){}\[\]|!])|(?P<space>\s+)|(?P<other>.)", re.A | re.S)


def _scalar(s: str) -> Hashable:
    parsed = _parse(s)
    return _value_key([_evaluate(*parsed, k) for k in range(3)])


def _equation(left: str, right: str) -> Hashable:
    """2x - y + 3 = 0 is y = 2x + 3, which is 2x + 3. If not of degree one in y: known up to a factor."""
    difference = _parse(f"({left})-({right})")
    at = [[_evaluate(*difference, k, y=MP.mpf(y)) for y in range(3)] for k in range(3)]
    if all(a != b and _zeroed(a - 2 * b + c, abs(b)) == 0 for a, b, c in at):
        return _value_key([a / (a - b) for a, b, _ in at])
    return ("equation", *_proportions(left, right))


def _proportions(left: str, right: str, size=lambda first: first) -> tuple:
    """left - right at four points, up to a factor; with size=abs, up to a positive one."""
    values = [_evaluate(*_parse(f"({left})-({right})"), k) for k in range(4)]
    digits = tuple(_digits(value / size(values[0])) for value in values)
    if len(set(digits)) == 1:                             # no variables: 1 = 2
        raise Unreadable
    return digits


@lru_cache(maxsize=64)
def _parse(s: str) -> tuple:
    r"""Parse one scalar. Returns a sympy tree, used as syntax only, and what its placeholders mean.

    Symbol("7") in the tree stands for atoms[7]. So the parser never calculates with what a model
    wrote (it would take 2(3) for a mixed number, and compute 10^{10^{10}}), cannot change the case
    of letters, find a meaning in E, I, d or \gamma, or carry a name over to the next answer.
    """
    import antlr4                                         # 0.4 s with sympy: not for a vote over integers
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    atoms, out, depth, previous = [], [], 0, ""
    for m in TOKEN.finditer(s):
        kind, token, names = m.lastgroup, m[m.lastgroup].strip("\\{ }") or m[0], []
        if kind == "command" and token in COMMANDS or token in FUNCTIONS:
            out.append(f"\\{token} ")
            kind = "function"
        elif kind == "number" and previous != "number" or token in GREEK:
            names = [token]
        elif kind == "letters" and (len(token) < 3 or s[:m.start()][-1:].isdigit() or set(token) <= set("abcxyz")):
            names = token                                 # a product of letters; other letters are a word
        elif kind == "index" and previous in ("letters", "command"):
            atoms[-1] += "_" + token
        elif kind == "index" and previous == "function":  # \log_2
            names = [token]
            out.append("_")
        elif kind == "sign":
            depth += (token in "([{") - (token in ")]}")
            out.append(r"\cdot " if token == "*" else token)
        elif kind != "space":
            raise Unreadable
        for name in names:
            out.append(r"{\variable{%d}}" % len(atoms) if kind == "index" else r"\variable{%d}" % len(atoms))
            atoms.append(name)
        if depth > MAX_DEPTH:
            raise Unreadable
        previous = previous if kind == "space" else kind
    try:
        with LOCK:
            converter = _Latex2Sympy()                    # a new one each time: it remembers variables
            parser = converter.create_parser("".join(out))
            # SLL looks ahead without context. With opaque names that is enough, and 5 times as fast.
            # The grammar's top rule takes time exponential in nested brackets; its rule `expr` does not.
            parser._interp.predictionMode = antlr4.PredictionMode.SLL
            tree = parser.expr()
            if parser.getCurrentToken().type == antlr4.Token.EOF:
                return converter.convert_expr(tree), atoms
    except Exception as error:                            # the parser itself raises bare Exceptions
        raise Unreadable from error
    raise Unreadable


def _evaluate(tree, atoms: list[str], k: int, **given):
    """The value of a tree at point k, every result on the way of bounded size."""
    def value(node):
        name = node.func.__name__
        if name == "Symbol":
            atom = atoms[int(node.name)]
            return given[atom] if atom in given else _atom(atom, k)
        if node.is_number:                                # the parser's own: -1, 1/2, bases of \log and \ln
            return +MP.e if name == "Exp1" else MP.mpf(int(node.p)) / int(node.q)
        args = [value(argument) for argument in node.args]
        if name not in OPERATIONS or name in ELEMENTARY and max(map(abs, args)) > MAX_BITS:
            raise Unreadable                              # \sin 10^{10000} would need 10,000 digits of pi
        result = OPERATIONS[name](*args)
        if not MP.isfinite(result) or result != 0 and abs(MP.mag(result)) > MAX_BITS:
            raise Unreadable
        if isinstance(result, MP.mpc) and not _zeroed(result.imag, abs(result)):
            result = result.real                          # i^2
        return _zeroed(result) if name in ELEMENTARY else result
    return value(tree)


@lru_cache(maxsize=1024)
def _atom(name: str, k: int):
    """What a placeholder is worth at point k. Variables are positive at 0, negative at 1: |x| is not x."""
    if name[0] in ".0123456789":
        return MP.mpf(name)
    if name in ("pi", "e", "i"):
        return MP.j if name == "i" else +getattr(MP, name)
    k = 0 if name == "infty" else k                       # no variable, only unlike any other number
    digest = hashlib.sha512(f"{name} {k}".encode()).digest()
    size = MP.mpf(int.from_bytes(digest * 4, "big")) / 2 ** 2047 + 0.2
    return -size if k == 1 or k > 1 and digest[0] % 2 else size


def _zeroed(value, scale=1):
    """A sum of terms of size 1 that comes to 1e-699 is zero."""
    return value if abs(value) > scale * TINY else MP.zero


def _power(base, exponent):
    if base != 0 and abs(exponent) * (abs(MP.mag(base)) + 1) > MAX_BITS:
        raise Unreadable
    ratio = _rational(exponent) if MP.im(base) == 0 > MP.re(base) else None
    if ratio and ratio.denominator % 2:                   # the real cube root of -8, -2, not 1 + i sqrt 3
        return (-1) ** ratio.numerator * MP.power(-base, exponent)
    return MP.power(base, exponent)


def _factorial(z):
    """z!, or at a sample point any function with f(z) = z f(z - 1): enough for (n+1)! = (n+1) n!."""
    if MP.isint(z) and 0 <= z < 1000:
        return MP.mpf(math.factorial(int(z)))
    if not isinstance(z, MP.mpf) or abs(z) > 50:
        raise Unreadable
    return z * _factorial(z - 1) if z > 1 else _factorial(z + 1) / (z + 1) if z < 0 else MP.exp(z)


def _binomial(n, k):
    if not MP.isint(k) or not 0 <= k < 100:
        raise Unreadable
    return math.prod(((n - i) / (i + 1) for i in range(int(k))), start=MP.one)


ELEMENTARY = {
    "sin": MP.sin, "cos": MP.cos, "tan": MP.tan, "cot": lambda z: 1 / MP.tan(z), "sec": lambda z: 1 / MP.cos(z),
    "csc": lambda z: 1 / MP.sin(z), "asin": MP.asin, "acos": MP.acos, "atan": MP.atan,
    "sinh": MP.sinh, "cosh": MP.cosh, "tanh": MP.tanh, "exp": MP.exp, "log": MP.log}
OPERATIONS = {
    **ELEMENTARY, "Add": lambda *z: _zeroed(sum(z), max(map(abs, z))), "Mul": lambda *z: math.prod(z), "Pow": _power,
    "Abs": abs, "factorial": _factorial, "binomial": _binomial,
    "floor": lambda z: MP.floor(z + TINY), "ceiling": lambda z: MP.ceil(z - TINY)}


def _value_key(values: list) -> Hashable:
    digits = [_digits(value) for value in values]
    return ("value", digits[0]) if len(set(digits)) == 1 else ("value", *digits)


def _digits(z) -> Hashable:
    """A number as part of a key: exact if rational, else in digits; if complex, in two parts."""
    if isinstance(z, MP.mpc):
        return (_digits(_zeroed(z.real, abs(z))), _digits(z.imag))
    if z != 0 and abs(MP.mag(z)) > EXACT_BITS:            # its last digits are lost
        raise Unreadable
    return ratio if (ratio := _rational(z)) is not None else MP.nstr(z, KEPT)


def _rational(z) -> Fraction | None:
    """The rational number that z is but for rounding, if it is one."""
    if not isinstance(z, MP.mpf) or z != 0 and abs(MP.mag(z)) > EXACT_BITS:
        return None
    exact = Fraction(*map(int, mpmath.libmp.to_rational(z._mpf_)))
    guess = exact.limit_denominator(10 ** KEPT)
    return guess if abs(exact - guess) <= min(abs(exact) / 10 ** 650, Fraction(1, 10 ** 200)) else None
