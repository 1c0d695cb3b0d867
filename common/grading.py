r"""Which answers are the same? Every number that this project prints is decided here.

    completion --extract--> answer --normalise--> plain LaTeX --structure--> scalars --algebra--> key

  extract     the last \boxed{...}, else what follows "the answer is"
  normalise   one spelling for one thing: \dfrac, \frac12, \left(, $, %, 1{,}000, Unicode
  structure   lists, sets, intervals, matrices, \pm, equations, inequalities, units: taken apart down to scalars
  algebra     a scalar is parsed (latex2sympy2_extended) and *evaluated* to 800 digits, at four fixed
              points if it has variables; expressions that agree there are the same expression
  key         those values; for what cannot be read as mathematics, the normalised text. Equal answers have equal
              keys, so a vote is one pass over a dictionary, where comparing all pairs would take N^2 questions

Why evaluate? It is the Schwartz-Zippel test for identities. sympy's simplify() is slow, can hang, and leaves equal
expressions apart; a value costs one operation per node of the tree, at fixed precision: no timer is needed.

Model text never reaches eval, nor sympify(str) or parse_expr, which call it: the parser sees a
short list of allowed commands, with a numbered placeholder for each number and each letter.
"""

import hashlib
import math
import re
import threading
import unicodedata
from collections.abc import Hashable
from functools import lru_cache, reduce
from itertools import accumulate, count, product

import mpmath

MAX_CHARS = 400              # longer answers are compared as text; the longest of MATH-500 has 56
MAX_DEPTH = 30               # brackets within brackets: the parser is recursive, and Python's stack finite
MAX_BITS = 50_000            # of any number on the way; of a number in a key, what KEPT digits hold
MP = mpmath.MPContext()      # a private context: the precision of the shared one is anyone's to change
MP.dps, KEPT = 800, 640      # digits computed, and digits kept in a key: 2^{2024} has 610
TINY = MP.mpf(10) ** -700    # more than rounding leaves of a sum that is zero
LARGEST = MP.mpf(10) ** 640  # argument of a function: \sin 10^{10000} would need 10,000 digits of pi
STEP = 1001.25               # of the points at which a line is told from a curve: |x + 2| > 3 is not x + 2 > 3
LOCK = threading.Lock()      # the parser's grammar keeps a cache that all threads share
INSIDE = r"(?:[^{}\\]++|\\.)*+"                           # of braces; each round allows one more level of them
for _ in range(12):
    INSIDE = rf"(?:[^{{}}\\]++|\\.|\{{{INSIDE}\}})*+"


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

    A missing or blank answer never wins; a NaN or infinite score is left out of the sum. Raises
    ValueError if there are not as many scores as answers.
    """
    totals, first = {}, {}
    for answer, score in zip(answers, scores, strict=True):
        if answer and answer.strip() and math.isfinite(score):
            key = canonical_form(answer)
            first.setdefault(key, answer)
            totals[key] = totals.get(key, 0.0) + score
    return first[max(totals, key=totals.get)] if totals else None


BOX = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:\{(%s)\}|(?=\{([^\n$]{0,%d})|([^\s$]{0,%d})))" % (INSIDE, MAX_CHARS, MAX_CHARS), re.S)


def extract_answer(completion: str) -> str | None:
    r"""The final answer that a completion states, or None: the last number in a text is no statement of an answer.

    The last \boxed{..} or \fbox{..} with something in it; of one in another, the outer; with braces up to 12 deep. One that is
    never closed (the completion was cut off) ends with its line or at a "$"; one without braces, at a space or a "$". Without
    a box, the sentence or line after the last "answer is", "answer:" or "####"; if it has $..$ or \(..\), the first of those.
    """
    answer = None
    for box in BOX.finditer(completion):
        answer = (box[1] or box[2] or box[3] or "").strip() or answer
    said = [] if answer else re.split(r"answer\s*(?:is|:)|####", completion, flags=re.I)[1:]
    while said and not answer:
        line = said.pop().lstrip(" \t\n:*")[:MAX_CHARS].partition("\n")[0]
        maths = re.search(r"\$+([^$]+)\$|\\\((.+?)\\\)", line)
        line = (maths[1] or maths[2]) if maths else re.split(r"\.(?:\s|$)", line)[0]
        answer = line.strip(" *$")
    return answer or None


def canonical_form(answer: str) -> Hashable:
    """A hashable key: the same for equal answers, another for different ones. Never raises."""
    if len(answer) > MAX_CHARS:                           # neither parsed nor kept in the cache
        return ("long", hashlib.sha256("".join(answer.split()).encode("utf-8", "replace")).hexdigest())
    return _key(answer.strip())


@lru_cache(maxsize=2048)
def _key(answer: str) -> Hashable:
    try:
        return _structure(_normalise(answer))
    except Exception:                                     # whatever it is, it has a key
        return _text(_normalise(answer))


# --------------------------------------------------------------------------------------- normalise

GREEK = ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega pi "
         "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell").split()
FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh log ln exp".split()

# What is written in many ways: the spelling that is kept, and the others. Of fonts, sizes, spaces and currencies nothing is kept.
SAME = {
    " ": r"\left. \right. \left \right \middle \mathbf \mathit \mathsf \mathop \boldsymbol \pmb \bm \bf \rm \it "
         r"\displaystyle \textstyle \limits \vec \hat \widehat \overrightarrow \angle ∠ \triangle △ \underline \boxed \fbox "
         r"\ensuremath \therefore \quad \qquad \enspace \thinspace \newline \hfill \, \; \: \! \( \) \[ \] ~ $ \$ % \% € £ ¥ "
         r"₹ ¢ \pounds \euro \textcent " '" \0',
    r"\frac": r"\dfrac \tfrac \cfrac \nicefrac \sfrac", r"\binom": r"\dbinom \tbinom", r"\sqrt": r"√ \surd", r"\sqrt[3]": "∛",
    r"\leq": r"\le \leqslant \leqq ≤ <=", r"\geq": r"\ge \geqslant \geqq ≥ >=", r"\neq": r"\ne ≠ != \not=", "<": r"\lt",
    ">": r"\gt", "=": r":= \coloneqq", r"\approx": "≈", r"\in": "∈", r"\cup": r"∪ \bigcup", r"\emptyset": r"∅ \varnothing",
    r"(-\infty,\infty)": r"\R ℝ", r"\infty": r"∞ \infinity \oo", r"\pm": "± +/-", r"\mp": "∓", r"\times": "×",
    r"\cdot": r"* \ast · ⋅ • ∙", "/": "÷ ⁄", "-": "− – —", "^": "**", r"\tan": r"\tg", r"\cot": r"\ctg", r"\log": r"\lg",
    r"\bar": r"\overline \dot", r"\dots": r"\ldots \cdots …", "(": r"\langle ⟨", ")": r"\rangle ⟩", r"\{": r"\lbrace",
    r"\}": r"\rbrace", "|": r"\lvert \rvert \vert \mid", r"\|": r"\lVert \rVert", r"\lfloor": "⌊", r"\rfloor": "⌋",
    r"\lceil": "⌈", r"\rceil": "⌉", r"\setminus": r"\backslash ∖", r"^\circ": r"° \degree \degrees", "'": r"\prime ′",
    ":": r"\colon", ",": r"\&", r"\epsilon": r"\varepsilon", r"\phi": r"\varphi", r"\\": r"\\"}
SPELLINGS = {old: new for new, spellings in SAME.items() for old in spellings.split(" ") if old} | {"\\ ": " "} | {
    sign: "\\" + name for sign, name in zip("αβγδεζηθικλμνξρστφχψωπΓΔΘΛΞΠΣΦΨΩ", GREEK)}
WORDS = {"thousand": r"\cdot10^3 ", "million": r"\cdot10^6 ", "billion": r"\cdot10^9 ", "and": " , ", "or": r"\cup "}
TRIG, TEXT = "(?:sin|cos|tan|cot|sec|csc)", r"\\(?:text[a-z]*|mbox|hbox|mathrm|operatorname)\s*"
REWRITES = [(re.compile(pattern), new) for pattern, new in [
    # Signs and commands
    ("[₀-₉]+", r"_{\g<0>}"), ("[⁰¹²³⁴-⁹⁻]+", lambda m: "^{%s}" % m[0].replace("⁻", "-")),
    ("[¼-¾⅐-⅞]", lambda m: r"\frac{%s}{%s}" % tuple(unicodedata.normalize("NFKC", m[0]).split("⁄"))),
    (r"(?<=[0-9])(?:,\s*\\!|\{,\}|\\,|\\ )\s*(?=[0-9]{3})", ""),                       # 10,\!080
    (r"\\begin\s*\{((?!\w*matrix|array)\w+\*?)\}(.*)\\end\s*\{\1\}", lambda m: m[2].replace("&", " ").replace(r"\\", ",")),
    (r"\\(?:(?:text)?color|tag|[hvm]space)\s*\{[^{}]*\}|(?<=\\\\)\s*\[[0-9.]+[a-z]+\]|\\+$", " "),
    (r"\\(?:[bB]igg?[lrm]?|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![A-Za-z])", " "),
    (r"\\math(?:bb|bf)\s*\{?\s*R\s*\}?|\b[Aa]ll real(?: number)?s\b", r"\\R "),
    (r"(?<![\\A-Za-z])(sqrt|frac|infty|infinity|oo|%s)(?![A-Za-z])" % "|".join(FUNCTIONS + GREEK), r"\\\1 "),
    ("|".join(re.escape(old) + "(?![A-Za-z])" * bool(re.match(r"\\[A-Za-z]+$", old)) for old in sorted(SPELLINGS, key=len)[::-1]),
     lambda m: SPELLINGS[m[0]] + " " * (SPELLINGS[m[0]] + m.string[m.end():m.end() + 1])[-2:].isalpha()),
    (r"[^\0-\x7f]", lambda m: unicodedata.normalize("NFKC", m[0])[:3]),
    # Degrees are a unit, which the question has named, save inside a trigonometric function.
    (r"([0-9.]+|[A-Za-z]|\\[a-z]+|)\s*\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})",
     lambda m: r"{(%s\cdot\frac{\pi}{180})}" % m[1] if re.search(TRIG, m.string) else m[1] + " "),
    # Sets and intervals, environments, bounds
    (r"([][])([^][(),]+,[^][(),]+)([][])", lambda m: "(["[m[1] == "["] + m[2] + ")]"[m[3] == "]"]),    # [0,1[
    (r"(?<=[\])])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"\\\{\s*\\\}", r"\\emptyset "), (r"\\\{\s*[a-z]\s*(?:\\in[^:|]*)?[|:](.*?)\\\}", r"{\1}"),  # {x | x > 3}
    (r"^(?=.*\\approx)(.*?[=0-9].*?)\\approx.*", r"\1"), (r"\\approx", "="),                           # of x = \pi \approx 3.14 the exact
    (r"\^\s*\{?\s*'\s*\}?", "'"),
    # Words. \text{..} becomes "..": what stands in quotes is not taken for a product of letters.
    (rf"{TEXT}\{{\s*(\\[a-z]+|[eixyz]|[^A-Za-z{{}}]*)\s*\}}", r"\1 "),                   # \mathrm{e}, \text{5}
    (rf"{TEXT}\{{\s*([^{{}}]*?)\s*\}}", r' "\1" '), (r"(?<!\\)\{\s*\}", ""),
    (r"(?<=[0-9])(cm|mm|km|kg|mg|ml|mph|ft|lb)(?![A-Za-z])", r" \1"),
    (r'\\frac\s*\{\s*("[^{}]*)\}\s*\{\s*("(?:[^{}]|\{[^{}]*\})*)\}', r"\1/\2"),          # a unit, km over h
    (r'(?<=[0-9])\s*(?:\^\s*\{?\s*)?"?(?:st|nd|rd|th)\b"?\s*\}?', " "),                  # 5th
    (r',?\s*"?\b(%s)\b"?' % "|".join(WORDS), lambda m: WORDS[m[1]]),
    (r'(?:["(]([0-9A-F]+)[")]|(?<=[0-9]))\s*(?:_|"?(?:in )?base"?)[\s{(]*([0-9]+)[\s)}]*$', r"\1_{\2}"),   # (52)_{8}, 52 base 8
    (r'^"?\s*\(?([A-Z])[.)]\s*"?$', r"\1"),                                               # a choice: (C) or C)
    # Braces that TeX can do without, or that are meant
    (r"\{?([^{}]*)\\(over|choose)(?![a-z])([^{}]*)\}?",
     lambda m: r"{\%s{%s}{%s}}" % ("frac" if m[2] == "over" else "binom", m[1], m[3])),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"), (r"(\\sqrt(?:\[[0-9]+\])?|\^)\s*(-?\s*[0-9]+|[A-Za-z]|\\[a-z]+)", r"\1{\2}"),
    *[(rf"(\\(?:frac|binom)\s*(?:\{{{INSIDE}\}})?|_)\s*([0-9A-Za-z]|\\[a-z]+)", r"\1{\2}")] * 2,    # \frac12: one brace at a time
    (r"\|([^|]*)\|(?=\s*\^)", r"(|\1|)"),                                              # the parser cannot read |x|^{2}
    (rf"\\({TRIG})\s*\^\s*\{{\s*-\s*1\s*\}}", r"\\arc\1 "),
    (rf"(\\(?:{'|'.join(FUNCTIONS)})(?:\s*[_^]\{{[^{{}}]*\}})?)"                         # \ln 2 \cdot \ln 3: where \ln ends
     rf"((?:[^-+(){{}}|\\]|\\frac|\\sqrt|\\pi|\{{{INSIDE}\}})+)(?=\\cdot|\\times)", r"\1(\2)"),
    (r"(?<=[0-9])\s*x\s*(?=10\s*\^)", r"\\cdot "),                                     # 2 x 10^3
    # Numbers
    (r"(?<![0-9.^_/}])([0-9]+)\s*/\s*([0-9]+)(?![0-9.^])", r"\\frac{\1}{\2}"),          # 1/2x is x/2
    (r"(?<![0-9.}^_])([0-9]+)\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}", r"{(\1+\\frac{\2}{\3})}"),
    (r"([0-9])[eE]([+-]?[0-9]+)(?![0-9.])", r"\1\\cdot 10^{\2}"),                       # 1.5e3
    (r"([0-9]*)\.([0-9]*)\\bar\s*\{?([0-9]+)\}?",                                      # 0.1\overline{6}
     lambda m: r"{(0%s.%s0+\frac{%s}{%s})}" % (m[1], m[2], m[3], "9" * len(m[3]) + "0" * len(m[2]))),
    # 58,500 is one number. But 1, 200 is a list, having a space, and (12,102) a pair.
    (r"^(?:[^,(\[{0-9]|(?<!\\)\{|(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9](?![0-9]*,))*+$",
     lambda m: m[0].replace(",", "")),
    (r"^[+-]?[0-9]{1,3}(?: [0-9]{3})+(?![0-9])", lambda m: m[0].replace(" ", "")),
]]


def _normalise(text: str) -> str:
    """One spelling for one thing. The rules run in order; what one is for stands beside it, if unclear."""
    text = text.replace("...", r"\dots ")
    for pattern, new in REWRITES:
        text = pattern.sub(new, " ".join(text.split()).strip(" ;:,*`").rstrip(" .;:,"))[:2 * MAX_CHARS]    # ½½½... grows
    return " ".join(text.split())


def _text(plain: str) -> Hashable:
    """The key of last resort. Words ignore case (East, east); single letters keep it (C, c)."""
    bare = re.sub(r"(?<=[A-Za-z])\.|[\s{}\"`]|\\(?![A-Za-z])", "", plain).strip(".,;:?")
    return ("text", bare.casefold().rstrip("!") if re.search(r"(?<![\\A-Za-z])[A-Za-z]{2}", bare) else bare)


# --------------------------------------------------------------------------------------- structure

MATRIX = re.compile(r"([^=,;()\[\]]*?)\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr| ]*\})?(.*)\\end\s*\{\2\}")
RELATION = r"\\leq|\\geq|\\neq|\\in(?![A-Za-z])|[=<>]"
ENDS = {r"\infty": ("value", "inf"), r"+\infty": ("value", "inf"), r"-\infty": ("value", "-inf")}
REALS = ("tuple", "()", (ENDS[r"-\infty"], ENDS[r"\infty"]))
NUMBER = re.compile(r"(?=.*[0-9])(?:\\frac\{([0-9]+)\}\{([0-9]+)\}|([+-]?[0-9]*\.?[0-9]*))")
# What may stand left of "=" as a mere name: \text{Area}, (x,y), \frac{dy}{dx}, \frac{AB}{BC}, [ABC], |AB|, AB:BC, m\angle A,
# x, Area, \theta, \bar x; each with an index, primes or an argument: a_1, f(x), f^{-1}(x), P(A|B).
NAME = re.compile(
    r'(?:"[^"]*"|\([a-z\\, ]+\)|\\frac\{(?:[A-Z]+|d\w*)\}\{(?:[A-Z]+|d\w)\}|(?:m )?[][|:A-Z ]+'
    r"|\{?(?:[A-Za-z]|[A-Za-z]{3,}[A-Za-z ]*|\\(?:%s|max|min|Pr)|\\bar\s*\{?[A-Za-z]+\}?)\s*\}?)"
    r"(?:_\{?[\w ]+\}?)?'*(?:\^\{-1\})?\s*(?:\([\w\", ]+\)|(?<=[A-Zr])\s*\([^()]*\))?" % "|".join(GREEK), re.A)
# Words after mathematics: "cm"^2, cm, miles per hour, apples; but not p.m., directions, or letters such as abc.
POWER, NO_UNIT = r"(?:\s?\^(?:\{-?[0-9]\}|[0-9]))?", r'(?!(?i:[ap]\.?m)\b|[abcxyz]+$|[^"]*(?:north|south|east|west))'
UNIT = re.compile(
    rf'(?<!["\s])(?:\s*(?:/|\\cdot)?\s*"{NO_UNIT}[^"]*"{POWER}|\s+/?{NO_UNIT}(?:[a-z]{{3,}}|[cmk]?m|\\Omega|kg|mg|ml|lb|oz|ft|in'
    rf"|yd|mi|hr|sq|cu)\.?(?:/[a-z]+)?{POWER})+$")


def _structure(s: str) -> Hashable:
    """Take apart what is not a scalar, outermost first."""
    s = s.strip()
    if not s:
        raise Unreadable
    if s.replace(" ", "") in ENDS:
        return ENDS[s.replace(" ", "")]
    if number := NUMBER.fullmatch(s):                     # most votes end here, without the parser
        return ("value", *_digits([MP.mpf(number[1] or number[3]) / MP.mpf(number[2] or 1)]))
    if s[0] == s[-1] == '"' and s.count('"') == 2:
        return _structure(s[1:-1])
    if matrix := MATRIX.fullmatch(s):                     # a factor in front is one of each entry
        times, _, inside = matrix.groups()
        rows = [row.split("&") for row in inside.split(r"\\") if row.strip()]
        return ("matrix", tuple(tuple(_structure(f"{times}({entry})" if times else entry) for entry in row) for row in rows))
    parts, separators = _split(s, r"[,;]|\\cup(?![A-Za-z])")
    if separators:
        return _list(parts, separators)
    if r"\pm" in s or r"\mp" in s:                        # each \pm is free; \mp takes the sign that the first leaves
        if s.count(r"\pm") > 3:
            raise Unreadable
        return _set(_structure(s.replace(r"\pm", sign, 1).replace(r"\mp", other)) for sign, other in ("+-", "-+"))
    sides, signs = _split(s, RELATION)
    if signs:
        return _relation(sides, signs)
    parts, minus = _split(s, r"\\setminus|-(?=\s*\\\{)")
    if minus:
        return reduce(_meet, [_structure(parts[0]), *map(_but, _members(_structure(parts[1])))])
    around = re.fullmatch(r"(\\\{|[(\[{])(.*?)(\\\}|[)\]}])", s)
    if around and not _outside(s)[len(around[1]):-1].strip("\0"):
        opening, inner, closing = around.groups()
        parts, commas = _split(inner, "[,;]")
        if opening == r"\{" or opening == "{" and commas:
            if any(part.startswith(r"\{") for part in parts):
                return ("set of sets", tuple(sorted({(part.startswith(r"\{"), _structure(part)) for part in parts}, key=repr)))
            return _set([_list(parts, commas)])           # {1,1,2} and {1,2} are one
        if commas:
            return ("tuple", opening + closing, tuple(map(_structure, parts)))
        if opening + closing in ("()", "[]", "{}"):
            return _structure(inner)
    if (unit := UNIT.search(s)) and re.search(r"[0-9]|\\(?:pi|sqrt|frac)", s[:unit.start()]):
        return _structure(s[:unit.start()])
    try:
        values = _values(s)
        if "i" not in _parse(s)[1] and any(map(MP.im, values[1:3])):
            # \ln xy is \ln x + \ln y: where letters are negative, only real parts count. But \ln |x| is not \ln x.
            return ("value", *_digits([values[0], *map(MP.re, values[1:3]), values[3]]), "complex")
        return ("value", *_digits(values))
    except (ValueError, ArithmeticError):                 # unreadable, log 0, 1/0
        return _text(s)


def _outside(s: str) -> str:
    """s with what is inside brackets blanked. "[" may close with ")", as in intervals."""
    depths = list(accumulate((c in "([{") - (c in ")]}") for c in s))
    if max(depths, default=0) > MAX_DEPTH:
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
    return _set([("tuple", "()", (ENDS[r"-\infty"], point)), ("tuple", "()", (point, ENDS[r"\infty"]))])


def _meet(left: Hashable, right: Hashable) -> Hashable:
    """What two unions of intervals have in common."""
    both = []
    for pair in product(_members(left), _members(right)):
        low, _, left_end, opening = max((MP.mpf(low[1]), ends[0] == "(", low, ends[0]) for _, ends, (low, _) in pair)
        high, _, right_end, closing = min((MP.mpf(high[1]), ends[1] == "]", high, ends[1]) for _, ends, (_, high) in pair)
        if low < high:
            both.append(("tuple", opening + closing, (left_end, right_end)))
    return _set(both)


def _list(parts: list[str], separators: list[str]) -> Hashable:
    """1,-2 and x=1, x=-2 have no order; x=1, y=2 is the point (1,2), its names in order; x>2, x<5 is 2<x<5."""
    names = [part.split("=")[0].strip() for part in parts if part.count("=") == 1]
    if len(parts) == len({name.split("_")[0] for name in names}) > 1 and all(map(NAME.fullmatch, names)):
        values = tuple(_structure(part) for _, part in sorted(zip(names, parts)))
        return ("tuple", "()", values) if "," in separators else ("either", *sorted(names), values)
    name, unequal, _ = parts[0].partition(r"\neq")        # x != 1, 2 is x != 1, x != 2
    parts = [name + unequal + part if unequal and not re.search(RELATION, part) else part for part in parts]
    keys = list(map(_structure, parts))
    if set(separators) == {","} and all(re.search(r"[<>]|\\[lgn]eq", part) for part in parts):
        letters = ["".join(sorted(set(re.findall(r"(?<![\\A-Za-z])[A-Za-z]", part)))) for part in parts]
        if len(set(letters)) > 1:
            return ("conditions", tuple(sorted(zip(letters, keys), key=repr)))
        if len(letters[0]) == 1 and "inequality" not in {key[0] for key in keys} and (both := reduce(_meet, keys))[1]:
            return both
    return _set(keys, repeats=True)


def _relation(sides: list[str], signs: list[str]) -> Hashable:
    """x=5 is 5, x>5 is (5,oo), 1<x<=2 is (1,2]; other equations are known up to a factor."""
    if set(signs) == {"="}:
        if NAME.fullmatch(sides[-1]) and not NAME.fullmatch(sides[0]):                  # 5 = x
            sides = sides[::-1]
        left, right = sides[0], sides[-1]                 # of x = 10/2 = 5 the last
        curve = left == "x" and re.search(r"(?<![A-Za-z\\])y", right)
        named = not left or NAME.fullmatch(left) and not curve
        return _structure(right) if named or _structure(left) == _structure(right) else _compare(left, "=", right)
    if NAME.fullmatch(sides[0]) and signs in ([r"\in"], [r"\neq"]):
        return _structure(sides[1]) if signs == [r"\in"] else _but(_structure(sides[1]))
    if signs[0] in (">", r"\geq"):                        # read every chain from small to large
        sides, signs = sides[::-1], [{">": "<", r"\geq": r"\leq"}.get(sign) for sign in signs[::-1]]
    if not set(signs) <= {"<", r"\leq"}:
        raise Unreadable
    names = [side for side in sides if NAME.fullmatch(side)]
    sides = ["n_{0}" if [side] == names and len(side) > 1 else side for side in sides]  # f(x) > 2, AB > 2
    steps = [_compare(a, sign, b) for a, sign, b in zip(sides, signs, sides[1:]) if a not in ENDS and b not in ENDS]
    return reduce(_meet, steps, REALS) if all(step[0] == "tuple" for step in steps) else ("inequality", *steps)


# ----------------------------------------------------------------------------------------- algebra

TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?![abcxyz]+(?![A-Za-z]))[A-Za-z]{3,}|[Nn]o(?![A-Za-z]))"      # a word; but xyz is a product
    r"|(?P<atom>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?!\s*[0-9.])|(?:[A-Za-z]|\\(?:%s)(?![A-Za-z]))(?:\s*_\s*\{\s*\w+\s*\})?)"
    r"|(?P<syntax>\\(?:log\s*_|(?:%s|frac|sqrt|cdot|times|div|lfloor|rfloor|lceil|rceil|binom)(?![A-Za-z]))|[-+/^(){}\[\]|!\s])"
    r"|." % ("|".join(GREEK), "|".join(FUNCTIONS)), re.A | re.S)


@lru_cache(maxsize=64)
def _parse(s: str) -> tuple:
    r"""Parse one scalar. Returns a sympy tree, used as syntax only, and what its placeholders mean.

    Symbol("7") in the tree stands for atoms[7]. So the parser never calculates with what a model
    wrote (it would take 2(3) for a mixed number, and compute 10^{10^{10}}), cannot change the case
    of letters, find a meaning in E, I, d or \gamma, or carry a name over to the next answer.
    """
    import antlr4                                         # 0.4 s with sympy: not for a vote over integers
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    tokens = list(TOKEN.finditer(s))
    if s.count("|") > MAX_DEPTH or not all(token["atom"] or token["syntax"] for token in tokens):       # any bar may open
        raise Unreadable
    atoms = [re.sub(r"[\\{}\s]", "", token["atom"]) for token in tokens if token["atom"]]
    number = count()
    latex = "".join(token["syntax"] or rf"\variable{{{next(number)}}}" for token in tokens)
    try:
        with LOCK:
            converter = _Latex2Sympy()                    # a new one each time: it remembers variables
            parser = converter.create_parser(latex)
            # SLL looks ahead without context. With opaque names that is enough, and 5 times as fast.
            # The grammar's top rule takes time exponential in nested brackets; its rule `expr` does not.
            parser._interp.predictionMode = antlr4.PredictionMode.SLL
            tree = parser.expr()
            if parser.getCurrentToken().type != antlr4.Token.EOF:
                raise Unreadable
            return converter.convert_expr(tree), atoms
    except Exception as error:                            # the parser itself raises bare Exceptions
        raise Unreadable from error


def _values(s: str, **given) -> list:
    """The values of a scalar at all points, at one if it has no variables; `given` are those of some variables."""
    tree, atoms = _parse(s)
    points = range(4 if any(_atom(atom, 0) != _atom(atom, 1) for atom in atoms) else 1)
    return [_evaluate(tree, [given[atom] if atom in given else _atom(atom, k) for atom in atoms]) for k in points]


def _evaluate(node, atoms: list):
    """The value of a tree whose placeholders have these values, every result on the way of bounded size."""
    name = node.func.__name__
    if name == "Symbol":
        return atoms[int(node.name)]
    if node.is_number:                                    # the parser's own: -1, 1/2, bases of \log and \ln
        return +MP.e if name == "Exp1" else MP.mpf(int(node.p)) / int(node.q)
    args = [_evaluate(argument, atoms) for argument in node.args]
    largest = max(map(abs, args))
    if name not in OPERATIONS or name in ELEMENTARY and largest > LARGEST:
        raise Unreadable
    result = OPERATIONS[name](*args)
    if not MP.isfinite(result) or result != 0 and abs(MP.mag(result)) > MAX_BITS:
        raise Unreadable
    return _clean(result, largest if name == "Add" else name in ELEMENTARY)


@lru_cache(maxsize=1024)
def _atom(name: str, k: int):
    """What a placeholder is worth at point k. Variables are positive at 0 and 3, negative at 1, at 2 x is positive, y negative."""
    if name[0] in ".0123456789":
        return MP.mpf(name)
    if name in ("pi", "e", "i"):
        return MP.j if name == "i" else +getattr(MP, name)
    digest = hashlib.sha512(f"{name} {k}".encode()).digest()
    size = MP.mpf(int.from_bytes(digest, "big")) / 2 ** 512 + 0.2 + 7 * k               # nor is |x + 2| x + 2
    return -size if k == 1 or k == 2 and ord(name[-1]) % 2 else size


def _clean(z, scale):
    r"""z without what is only rounding: i^2 is real, and \sin\pi or a sum of terms of size 1 that comes to 1e-799 is 0."""
    noise = TINY * max(scale, abs(z))
    real, imag = (part if abs(part) > noise else MP.zero for part in (MP.re(z), MP.im(z)))
    return MP.mpc(real, imag) if imag else real


def _digits(values: list) -> tuple[str, ...]:
    """The values at all points as part of a key; one value if they are the same, as those of a number are."""
    if any(z != 0 and abs(MP.mag(z)) > 3.3 * KEPT for z in values):                     # its last digits are lost
        raise Unreadable
    digits = tuple(MP.nstr(z, KEPT) for z in values)
    return digits[:1] if len(set(digits)) == 1 else digits


def _compare(left: str, sign: str, right: str) -> Hashable:
    """An equation in y or one letter, or an inequality in one, is solved if it is of degree one: 2x < 6 is (-oo,3), y - 2x = 3 is
    2x + 3. Of others, left - right is known up to a factor, in inequalities a positive one."""
    difference = f"({left})-({right})"
    letters = {atom for atom in _parse(difference)[1] if _atom(atom, 0) != _atom(atom, 1)}
    letter = "y" if sign == "=" and "y" in letters else min(letters) if len(letters) == 1 else None
    at = letter and list(zip(*(_values(difference, **{letter: MP.mpf(1 + n * STEP)}) for n in (0, -1, 1))))
    if letter and all(a != b and not _clean(a - 2 * b + c, abs(b)) for b, a, c in at):  # of degree one
        root = ("value", *_digits([1 - STEP * b / (b - a) for b, a, _ in at]))
        if sign == "=":
            return root
        if MP.re(at[0][0] - at[0][1]) > 0:
            return ("tuple", "(]" if sign == r"\leq" else "()", (ENDS[r"-\infty"], root))
        return ("tuple", "[)" if sign == r"\leq" else "()", (root, ENDS[r"\infty"]))
    values = _values(difference)
    scale = values[0] if sign == "=" else abs(values[0])
    if len(digits := _digits([value / scale for value in values])) == 1:                # no variables: 1 = 2
        raise Unreadable
    return (sign, *digits)


def _power(base, exponent):
    if base != 0 and abs(exponent) * (abs(MP.mag(base)) + 1) > MAX_BITS:
        raise Unreadable
    if MP.im(base) == 0 > MP.re(base):                    # the real cube root of -8, -2, not 1 + i sqrt 3
        for root in range(1, 100, 2):
            times = exponent * root
            if abs(times - MP.nint(times)) < TINY:
                return (-1) ** int(MP.nint(times)) * MP.power(-base, exponent)
    return MP.power(base, exponent)


def _binomial(n, k):
    if MP.isint(k) and 0 <= k < 100:
        return math.prod((n - i) / (k - i) for i in range(int(k)))
    return _factorial(n) / _factorial(k) / _factorial(n - k)


def _factorial(z):
    """z!, or between integers any function with f(z) = z f(z - 1): enough for (n+1)! = (n+1) n!, and fast, unlike gamma."""
    if not isinstance(z, MP.mpf) or abs(z) > (3000 if MP.isint(z) else 1000):
        raise Unreadable
    n = int(MP.floor(z + TINY))
    return MP.exp(z - n) * math.prod(z - i for i in range(n)) / math.prod(z + i for i in range(1, 1 - n))


ELEMENTARY = {name: getattr(MP, name) for name in (function.replace("arc", "a") for function in FUNCTIONS)}
OPERATIONS = ELEMENTARY | {
    "Add": lambda *z: sum(z), "Mul": lambda *z: math.prod(z), "Pow": _power, "Abs": abs, "factorial": _factorial,
    "binomial": _binomial, "floor": lambda z: MP.floor(z + TINY), "ceiling": lambda z: MP.ceil(z - TINY)}
