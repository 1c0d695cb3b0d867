r"""LaTeX as models write it: one spelling for one thing, and what a formula is worth.

normalise(text)   rewrites LaTeX, Unicode and plain text into a small plain LaTeX: \dfrac, \frac12,
                  \left(, $, %, 1{,}000
scalar(plain)     the key of a formula: its values, at four fixed points if it has variables

Why values? It is the Schwartz-Zippel test for identities: expressions that agree to 640 digits at
four points are the same. sympy's simplify() is slow, can hang, and leaves equal expressions apart;
a value costs one operation per node of the tree, at fixed precision: no timer is needed.

Model text never reaches eval, nor sympify(str) or parse_expr, which call it: the parser sees a
short list of allowed commands, with a numbered placeholder for each number and each letter.
"""

import hashlib
import math
import re
import threading
import unicodedata
from collections.abc import Hashable
from functools import lru_cache
from itertools import count

import mpmath

MAX_CHARS = 400  # longer answers are compared as text; the longest of MATH-500 has 56
MAX_DEPTH = 30  # brackets within brackets: the parser is recursive, and Python's stack finite
MAX_BITS = 50_000  # of any number on the way; of a number in a key, what KEPT digits hold
BUDGET = 300_000  # steps for one answer, of about a microsecond each; of MATH-500 none needs 20,000
MP = mpmath.MPContext()  # a private context: the precision of the shared one is anyone's to change
MP.dps, KEPT = 800, 640  # digits computed, and digits kept in a key: 2^{2024} has 610
PER_CHAR = 50  # steps of the parser
TINY = MP.mpf(10) ** -700  # more than rounding leaves of a sum that is zero
LARGEST = (
    MP.mpf(10) ** 640
)  # argument of a function: \sin 10^{10000} would need 10,000 digits of pi
WHOLE = set("ijkmn")  # letters that are whole numbers, where there are floors
LOCK = threading.Lock()  # the parser's grammar keeps a cache that all threads share
INSIDE = r"(?:[^{}\\]++|\\.)*+"  # of braces; each round allows one more level of them
for _ in range(12):
    INSIDE = rf"(?:[^{{}}\\]++|\\.|\{{{INSIDE}\}})*+"


class Unreadable(ValueError):
    """Not mathematics that we can evaluate within bounds; compared as text instead."""


class TooMuchWork(Unreadable):
    """The whole answer costs more than its budget, and is compared as text."""


class Work(threading.local):
    """What it may still cost to read an answer: all its parts, at all points.

    Steps are counted, never timed, so that an answer has the same key on every machine.
    """

    left = BUDGET

    def start(self):
        self.left = BUDGET

    def spend(self, steps):
        self.left -= steps
        if self.left < 0:
            raise TooMuchWork


WORK = Work()


# --------------------------------------------------------------------------------------- normalise

GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi "
    "chi psi omega pi "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell"
).split()
FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh log ln exp"
).split()

# What is written in many ways: the spelling that is kept, and the others. Of fonts, sizes, spaces
# and currencies nothing is kept.
SAME = {
    " ": r"\left. \right. \left \right \middle \mathbf \mathit \mathsf \mathop \boldsymbol \pmb "
    r"\bm \bf \rm \it "
    r"\displaystyle \textstyle \limits \vec \hat \widehat \overrightarrow \angle ∠ \triangle △ "
    r"\underline \boxed \fbox "
    r"\ensuremath \therefore \quad \qquad \enspace \thinspace \newline \hfill \, \; \: \! \( \) "
    r"\[ \] ~ $ \$ % \% € £ ¥ "
    r"₹ ¢ \pounds \euro \textcent "
    '" \0',
    r"\frac": r"\dfrac \tfrac \cfrac \nicefrac \sfrac",
    r"\binom": r"\dbinom \tbinom",
    r"\sqrt": r"√ \surd",
    r"\sqrt[3]": "∛",
    r"\leq": r"\le \leqslant \leqq ≤ <=",
    r"\geq": r"\ge \geqslant \geqq ≥ >=",
    r"\neq": r"\ne ≠ != \not=",
    "<": r"\lt",
    ">": r"\gt",
    "=": r":= \coloneqq",
    r"\approx": "≈",
    r"\in": "∈",
    r"\cup": r"∪ \bigcup",
    r"\emptyset": r"∅ \varnothing",
    r"(-\infty,\infty)": r"\R ℝ",
    r"\infty": r"∞ \infinity \oo",
    r"\pm": "± +/-",
    r"\mp": "∓",
    r"\times": "×",
    r"\cdot": r"* \ast · ⋅ • ∙",
    "/": "÷ ⁄",
    "-": "− – —",
    "^": "**",
    r"\tan": r"\tg",
    r"\cot": r"\ctg",
    r"\log": r"\lg",
    r"\bar": r"\overline \dot",
    r"\dots": r"\ldots \cdots …",
    "(": r"\langle ⟨",
    ")": r"\rangle ⟩",
    r"\{": r"\lbrace",
    r"\}": r"\rbrace",
    "|": r"\lvert \rvert \vert \mid",
    r"\|": r"\lVert \rVert",
    r"\lfloor": "⌊",
    r"\rfloor": "⌋",
    r"\lceil": "⌈",
    r"\rceil": "⌉",
    r"\setminus": r"\backslash ∖",
    r"\bmod": r"\pmod \mod",
    r"^\circ": r"° \degree \degrees",
    "'": r"\prime ′",
    ":": r"\colon",
    ",": r"\&",
    r"\epsilon": r"\varepsilon",
    r"\phi": r"\varphi",
    r"\\": r"\\",
}
SPELLINGS = (
    {old: new for new, spellings in SAME.items() for old in spellings.split(" ") if old}
    | {"\\ ": " "}
    | {sign: "\\" + name for sign, name in zip("αβγδεζηθικλμνξρστφχψωπΓΔΘΛΞΠΣΦΨΩ", GREEK)}
)
WORDS = {
    "thousand": r"\cdot10^3 ",
    "million": r"\cdot10^6 ",
    "billion": r"\cdot10^9 ",
    "and": " , ",
    "or": r"\cup ",
}
BASES = "two three four five six seven eight nine ten".split()
TRIG, TEXT = "(?:sin|cos|tan|cot|sec|csc)", r"\\(?:text[a-z]*|mbox|hbox|mathrm|operatorname)\s*"
REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in [
        # Before commands are dropped: what stands between assignments, and units of degrees
        (r"(=[^=]*?)[\s,]*(?:\\\\|\\qquad|\\quad)\s*(?=[A-Za-z]\w*\s*=)", r"\1, "),  # x=2 \quad y=3
        (
            r"(?:\^\s*\{?\s*\\circ\s*\}?|°)\s*"
            r"(?:\\(?:text|mathrm|rm)\s*\{?\s*)?[CF](?![A-Za-z])\}?",
            " ",
        ),  # 5^\circ C
        (r"\\(max|min)\s*\\?\{([^{}]*?)\\?\}", r"\\\1(\2)"),  # \max\{a,b\}
        (r"\\notin\s*\\\{([^{},\\]+)\\\}", r"\\neq \1"),  # x \notin \{0\}
        (
            r"_\s*\{?\s*(?:\\text\s*\{)?\s*(%s)\s*\}?\s*\}?$" % "|".join(BASES),
            lambda m: "_{%d}" % (2 + BASES.index(m[1])),
        ),  # 110_{\text{two}}
        (
            r"(?<=[0-9}])\s*(?:\\[ ,;:]\s*)*\\(?:mathrm|text)\s*\{(?=[^}]*(?:\\,|\\cdot|\^))"
            r"(?:[A-Za-z]{1,4}+(?:\s*\^\s*(?:\{-?[0-9]\}|[0-9]))?+"
            r"(?:\\[,;: ]|\\cdot|/|\s)*+)++\}\s*$",
            "",
        ),  # a compound unit: \mathrm{m\,s^{-1}}
        # Chinese: or, and, and what is counted; but 5万 is 50,000
        (r"(?:\\text\s*\{)?\s*或者?\s*\}?", " or "),
        (r"(?:\\text\s*\{)?\s*[和与、]\s*\}?", ", "),
        (
            r"(?<=[0-9}])\s*(?:\\text\s*\{)?\s*(?![十百千万亿])[\u4e00-\u9fff]+\s*\}?$",
            "",
        ),
        # Signs and commands
        ("[₀-₉]+", r"_{\g<0>}"),
        ("[⁰¹²³⁴-⁹⁻]+", lambda m: "^{%s}" % m[0].replace("⁻", "-")),
        (
            "[¼-¾⅐-⅞]",
            lambda m: r"\frac{%s}{%s}" % tuple(unicodedata.normalize("NFKC", m[0]).split("⁄")),
        ),
        (r"(?<=[0-9])(?:,\s*\\!|\{,\}|\\,|\\ )\s*(?=[0-9]{3})", ""),  # 10,\!080
        (
            r"\\begin\s*\{((?!\w*matrix|array)\w+\*?)\}(.*)\\end\s*\{\1\}",
            lambda m: m[2].replace("&", " ").replace(r"\\", ","),
        ),
        (
            r"\\(?:(?:text)?color|tag|[hvm]space)\s*\{[^{}]*\}|(?<=\\\\)\s*\[[0-9.]+[a-z]+\]|\\+$",
            " ",
        ),
        (r"\\(?:[bB]igg?[lrm]?|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![A-Za-z])", " "),
        (r"\\math(?:bb|bf)\s*\{?\s*R\s*\}?|\b[Aa]ll real(?: number)?s\b", r"\\R "),
        (
            r"(?<![\\A-Za-z])(sqrt|frac|infty|infinity|oo|%s)(?![A-Za-z])"
            % "|".join(FUNCTIONS + GREEK),
            r"\\\1 ",
        ),
        (
            "|".join(
                re.escape(old) + "(?![A-Za-z])" * bool(re.match(r"\\[A-Za-z]+$", old))
                for old in sorted(SPELLINGS, key=len)[::-1]
            ),
            lambda m: (
                SPELLINGS[m[0]]
                + " " * (SPELLINGS[m[0]] + m.string[m.end() : m.end() + 1])[-2:].isalpha()
            ),
        ),
        (r"[^\0-\x7f]", lambda m: unicodedata.normalize("NFKC", m[0])[:3]),
        # Degrees are a unit, which the question has named, save inside a trigonometric function.
        (
            r"([0-9.]+|[A-Za-z]|\\[a-z]+|)\s*\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})",
            lambda m: (
                r"{(%s\cdot\frac{\pi}{180})}" % m[1] if re.search(TRIG, m.string) else m[1] + " "
            ),
        ),
        # Sets and intervals, environments, bounds
        (
            r"([][])([^][(),]+,[^][(),]+)([][])",
            lambda m: "(["[m[1] == "["] + m[2] + ")]"[m[3] == "]"],
        ),  # [0,1[
        (r"(?<=[\])])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (r"\\\{\s*[a-z]\s*(?:\\in[^:|]*)?[|:](.*?)\\\}", r"{\1}"),  # {x | x > 3}
        (r"^(?=.*\\approx)(.*?[=0-9].*?)\\approx.*", r"\1"),
        (r"\\approx", "="),  # of x = \pi \approx 3.14 the exact
        (r"\^\s*\{?\s*'\s*\}?", "'"),
        # Words. \text{..} becomes "..": what stands in quotes is no product of letters.
        (rf"{TEXT}\{{\s*(\\[a-z]+|[eixyz]|[^A-Za-z{{}}]*)\s*\}}", r"\1 "),  # \mathrm{e}, \text{5}
        (rf"{TEXT}\{{\s*([^{{}}]*?)\s*\}}", r' "\1" '),
        (r"(?<!\\)\{\s*\}", ""),
        (r"(?<=[0-9])(cm|mm|km|kg|mg|ml|mph|ft|lb)(?![A-Za-z])", r" \1"),
        (
            r'\\frac\s*\{\s*("[^{}]*)\}\s*\{\s*("(?:[^{}]|\{[^{}]*\})*)\}',
            r"\1/\2",
        ),  # a unit, km over h
        (r'(?<=[0-9])\s*(?:\^\s*\{?\s*)?"?(?:st|nd|rd|th)\b"?\s*\}?', " "),  # 5th
        (r',?\s*"?\b(%s)\b"?' % "|".join(WORDS), lambda m: WORDS[m[1]]),
        (
            r'(?:["(]([0-9A-F]+)[")]|(?<=[0-9]))\s*(?:_|"?(?:in )?base"?)[\s{(]*([0-9]+)[\s)}]*$',
            r"\1_{\2}",
        ),  # (52)_{8}, 52 base 8
        (r'^"?\s*\(?([A-Z])[.)]\s*"?$', r"\1"),  # a choice: (C) or C)
        # Braces that TeX can do without, or that are meant
        (
            r"\{?([^{}]*)\\(over|choose)(?![a-z])([^{}]*)\}?",
            lambda m: r"{\%s{%s}{%s}}" % ("frac" if m[2] == "over" else "binom", m[1], m[3]),
        ),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(\\sqrt(?:\[[0-9]+\])?|\^)\s*(-?\s*[0-9]+|[A-Za-z]|\\[a-z]+)", r"\1{\2}"),
        *[(rf"(\\(?:frac|binom)\s*(?:\{{{INSIDE}\}})?|_)\s*([0-9A-Za-z]|\\[a-z]+)", r"\1{\2}")]
        * 2,  # \frac12: one brace at a time
        (r"\|([^|]*)\|(?=\s*\^)", r"(|\1|)"),  # the parser cannot read |x|^{2}
        (rf"\\({TRIG})\s*\^\s*\{{\s*-\s*1\s*\}}", r"\\arc\1 "),
        (
            # \ln 2 \cdot \ln 3: where \ln ends
            rf"(\\(?:{'|'.join(FUNCTIONS)})(?:\s*[_^]\{{[^{{}}]*\}})?)"
            rf"((?:[^-+(){{}}|\\]|\\frac|\\sqrt|\\pi|\{{{INSIDE}\}})+)(?=\\cdot|\\times)",
            r"\1(\2)",
        ),
        (r"(?<=[0-9])\s*x\s*(?=10\s*\^)", r"\\cdot "),  # 2 x 10^3
        # Numbers
        (r"(?<![0-9.^_/}])([0-9]+)\s*/\s*([0-9]+)(?![0-9.^])", r"\\frac{\1}{\2}"),  # 1/2x is x/2
        (
            r"(?<![0-9.}^_])([0-9]+)\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}",
            r"{(\1+\\frac{\2}{\3})}",
        ),
        (r"([0-9])[eE]([+-]?[0-9]+)(?![0-9.])", r"\1\\cdot 10^{\2}"),  # 1.5e3
        (
            r"([0-9]*)\.([0-9]*)\\bar\s*\{?([0-9]+)\}?",  # 0.1\overline{6}
            lambda m: (
                r"{(0%s.%s0+\frac{%s}{%s})}" % (m[1], m[2], m[3], "9" * len(m[3]) + "0" * len(m[2]))
            ),
        ),
        # 58,500 is one number. But 1, 200 is a list, having a space, and (12,102) a pair.
        (
            r"^(?:[^,(\[{0-9]|(?<!\\)\{|(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])"
            r"|[0-9](?![0-9]*,))*+$",
            lambda m: m[0].replace(",", ""),
        ),
        (r"^[+-]?[0-9]{1,3}(?: [0-9]{3})+(?![0-9])", lambda m: m[0].replace(" ", "")),
    ]
]


def normalise(text: str) -> str:
    """One spelling for one thing. The rules run in order. What one is for stands beside it."""
    text = text.replace("...", r"\dots ")
    for pattern, new in REWRITES:
        text = pattern.sub(new, " ".join(text.split()).strip(" ;:,*`").rstrip(" .;:,"))[
            : 2 * MAX_CHARS
        ]  # ½½½... grows
    return " ".join(text.split())


# ----------------------------------------------------------------------------------------- algebra


class Formula:
    r"""A formula, parsed once: Formula(r"x^{2}+y") has the letters x and y."""

    def __init__(self, s: str):
        WORK.spend(PER_CHAR * len(s))  # the same whether it is remembered or not
        self.tree, self.atoms = _parse(s)
        self.letters = {name for name in self.atoms if _atom(name, 0) != _atom(name, 1)}
        self.has_floor = bool(re.search(r"\\[lr](?:floor|ceil)", s))

    def values(self, **given) -> list:
        """Its values at all points, one if it has no letters. `given` are those of some letters."""
        points = range(4 if self.letters else 1)
        if self.letters and self.has_floor:  # they differ at whole numbers
            points = range(4, 8) if self.letters <= WHOLE else range(6)
        return [self._value(k, given) for k in points]

    def _value(self, k: int, given: dict):
        worth = [given[name] if name in given else _atom(name, k) for name in self.atoms]
        return _evaluate(self.tree, worth)


def scalar(s: str) -> Hashable:
    """The key of a formula that is worth a number at each point. Raises ValueError or
    ArithmeticError if it is none: log 0, 1/0."""
    formula = Formula(s)
    at = formula.values()
    if "i" not in formula.atoms and any(map(MP.im, at[1:3])):
        # \ln xy is \ln x + \ln y: where letters are negative, only real parts count. But \ln |x| is
        # not \ln x.
        return ("value", *digits([at[0], *map(MP.re, at[1:3]), *at[3:]]), "complex")
    return ("value", *digits(at))


def digits(values: list) -> tuple[str, ...]:
    """The values at all points as part of a key. One value if they are the same, as those of a
    number are."""
    if any(z != 0 and abs(MP.mag(z)) > 3.3 * KEPT for z in values):  # its last digits are lost
        raise Unreadable
    WORK.spend(50 * len(values))
    found = tuple(MP.nstr(z, KEPT) for z in values)
    return found[:1] if len(set(found)) == 1 else found


def clean(z, scale):
    r"""z without what is only rounding: i^2 is real, and \sin\pi or a sum of terms of size 1 that
    comes to 1e-799 is 0."""
    noise = TINY * max(scale, abs(z))
    real, imag = (part if abs(part) > noise else MP.zero for part in (MP.re(z), MP.im(z)))
    return MP.mpc(real, imag) if imag else real


TOKEN = re.compile(
    # a word; but xyz is a product
    r"(?<![A-Za-z0-9])(?:(?![abcxyz]+(?![A-Za-z]))[A-Za-z]{3,}|[Nn]o(?![A-Za-z]))"
    r"|(?P<atom>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?!\s*[0-9.])|(?:[A-Za-z]|\\(?:%s)(?![A-Za-z]))"
    r"(?:\s*_\s*\{\s*\w+\s*\})?)"
    r"|(?P<syntax>\\(?:log\s*_|(?:%s|frac|sqrt|cdot|times|div|lfloor|rfloor|lceil|rceil|binom)"
    r"(?![A-Za-z]))|[-+/^(){}\[\]|!\s])"
    r"|." % ("|".join(GREEK), "|".join(FUNCTIONS)),
    re.A | re.S,
)


@lru_cache(maxsize=64)
def _parse(s: str) -> tuple:
    r"""Parse one scalar. Returns a sympy tree, used as syntax only, and what its placeholders mean.

    Symbol("7") in the tree stands for atoms[7]. So the parser never calculates with what a model
    wrote (it would take 2(3) for a mixed number, and compute 10^{10^{10}}), cannot change the case
    of letters, find a meaning in E, I, d or \gamma, or carry a name over to the next answer.
    """
    import antlr4  # 0.4 s with sympy: not for a vote over integers
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    tokens = list(TOKEN.finditer(s))
    known = all(token["atom"] or token["syntax"] for token in tokens)
    closed = all(s.count(opening) == s.count(closing) for opening, closing in ("()", "[]", "{}"))
    if not known or not closed or s.count("|") > MAX_DEPTH:  # any bar may open
        raise Unreadable
    atoms = [re.sub(r"[\\{}\s]", "", token["atom"]) for token in tokens if token["atom"]]
    number = count()
    plain = "".join(token["syntax"] or rf"\variable{{{next(number)}}}" for token in tokens)
    try:
        with LOCK:
            converter = _Latex2Sympy()  # a new one each time: it remembers variables
            parser = converter.create_parser(plain)
            # SLL looks ahead without context. With opaque names that will do, 5 times as fast.
            # The grammar's top rule takes time exponential in nested brackets; its rule `expr` does
            # not.
            parser._interp.predictionMode = antlr4.PredictionMode.SLL
            tree = parser.expr()
            if parser.getCurrentToken().type != antlr4.Token.EOF:
                raise Unreadable
            return converter.convert_expr(tree), atoms
    except Exception as error:  # the parser itself raises bare Exceptions
        raise Unreadable from error


def _evaluate(node, atoms: list):
    """The value of a tree whose placeholders have these values, every result on the way of bounded
    size."""
    name = node.func.__name__
    if name == "Symbol":
        return atoms[int(node.name)]
    if node.is_number:  # the parser's own: -1, 1/2, bases of \log and \ln
        return +MP.e if name == "Exp1" else MP.mpf(int(node.p)) / int(node.q)
    args = [_evaluate(argument, atoms) for argument in node.args]
    largest = max(map(abs, args))
    if name not in OPERATIONS or name in ELEMENTARY and largest > LARGEST:
        raise Unreadable
    WORK.spend(_price(name, args))
    result = OPERATIONS[name](*args)
    if not MP.isfinite(result) or result != 0 and abs(MP.mag(result)) > MAX_BITS:
        raise Unreadable
    return clean(result, largest if name == "Add" else name in ELEMENTARY)


@lru_cache(maxsize=1024)
def _atom(name: str, k: int):
    """What a placeholder is worth at point k. Variables are positive at 0 and 3, negative at 1; at
    2 x is positive, y negative. From 4 on they are whole numbers."""
    if name[0] in ".0123456789":
        return MP.mpf(name)
    if name in ("pi", "e", "i"):
        return MP.j if name == "i" else +getattr(MP, name)
    digest = hashlib.sha512(f"{name} {k}".encode()).digest()
    if k > 3:  # a whole number, even or odd
        return MP.mpf(2 * digest[0] + k % 2)
    size = MP.mpf(int.from_bytes(digest, "big")) / 2**512 + 0.2 + 7 * k  # nor is |x + 2| x + 2
    return -size if k == 1 or k == 2 and ord(name[-1]) % 2 else size


def _price(name: str, args: list) -> int:
    r"""Steps of an operation on numbers of 800 digits: 40 for x + y, 9,000 for 2999!, 1,000 for
    \sin x, twice that where x is complex."""
    parts = 2 if any(isinstance(z, MP.mpc) for z in args) else 1
    if name == "Pow":
        return 300 if parts == 1 and MP.isint(args[1]) else 1500
    if name == "factorial":
        return 500 + 3 * min(int(abs(args[0])), 3000)
    if name == "binomial":
        return 1500 + 9 * min(int(abs(args[0])), 3000)
    return 20 * parts * len(args) + (1000 * parts if name in ELEMENTARY else 0)


def _power(base, exponent):
    if base != 0 and abs(exponent) * (abs(MP.mag(base)) + 1) > MAX_BITS:
        raise Unreadable
    if MP.im(base) == 0 > MP.re(base):  # the real cube root of -8, -2, not 1 + i sqrt 3
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
    """z!, or between integers any function with f(z) = z f(z - 1): enough for (n+1)! = (n+1) n!,
    and fast, unlike gamma."""
    if not isinstance(z, MP.mpf) or abs(z) > (3000 if MP.isint(z) else 1000):
        raise Unreadable
    n = int(MP.floor(z + TINY))
    return (
        MP.exp(z - n)
        * math.prod(z - i for i in range(n))
        / math.prod(z + i for i in range(1, 1 - n))
    )


ELEMENTARY = {
    name: getattr(MP, name) for name in (function.replace("arc", "a") for function in FUNCTIONS)
}
OPERATIONS = ELEMENTARY | {
    "Add": lambda *z: sum(z),
    "Mul": lambda *z: math.prod(z),
    "Pow": _power,
    "Abs": abs,
    "factorial": _factorial,
    "binomial": _binomial,
    "floor": lambda z: MP.floor(z + TINY),
    "ceiling": lambda z: MP.ceil(z - TINY),
}
