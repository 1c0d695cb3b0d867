r"""What a formula is worth: scalar(plain) is its key, for plain LaTeX as normalise() leaves it.

A key holds the formula's value, or its values at four fixed points if it has variables.

Why values? It is the Schwartz-Zippel test for identities: expressions that agree to 640 digits at
four points are the same. sympy's simplify() is slow, can hang, and leaves equal expressions apart;
a value costs one operation per node of the tree, at fixed precision. No timer is needed: work is
counted, and an answer that costs more than BUDGET is compared as text.

Model text never reaches eval, nor sympify(str) or parse_expr, which call it: the parser sees a
short list of allowed commands, with a numbered placeholder for each number and each letter.
"""

import hashlib
import math
import re
import threading
from collections.abc import Hashable
from functools import lru_cache
from itertools import count

import mpmath

MAX_CHARS = 400  # longer answers are compared as text; the longest of MATH-500 has 56
MAX_FORMULA = 200  # of them in one formula; the longest of 5,000 known answers has 77
MAX_DEPTH = 15  # brackets within brackets: the parser recurses, and slows; known answers have 3
MAX_BITS = 50_000  # of any number on the way; of a number in a key, what KEPT digits hold
BUDGET = 150_000  # steps for one answer, of about a microsecond each; of MATH-500 none needs 20,000
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


GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi "
    "chi psi omega pi "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell"
).split()
FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh log ln exp"
).split()


# ----------------------------------------------------------------------------------------- algebra


class Formula:
    r"""A formula, parsed once: Formula(r"x^{2}+y") has the letters x and y."""

    def __init__(self, s: str):
        if len(s) > MAX_FORMULA:
            raise Unreadable
        WORK.spend(PER_CHAR * len(s))  # the same whether it is remembered or not
        self.tree, self.atoms = _parse(s)
        self.letters = {name for name in self.atoms if _atom(name, 0) != _atom(name, 1)}
        self.has_floor = bool(re.search(r"\\[lr](?:floor|ceil)", s))

    def values(self, **given) -> list:
        """Its values at all points, one if it has no letters. `given` are those of some letters."""
        points = range(4 if self.letters else 1)
        if self.letters and self.has_floor:  # they differ at whole numbers
            points = range(4, 8) if self.letters <= WHOLE else [*range(6), 8]
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
    2 x is positive, y negative. From 4 on they are whole numbers, at 8 a half more."""
    if name[0] in ".0123456789":
        return MP.mpf(name)
    if name in ("pi", "e", "i"):
        return MP.j if name == "i" else +getattr(MP, name)
    digest = hashlib.sha512(f"{name} {k}".encode()).digest()
    if k > 3:  # a whole number, even or odd
        return MP.mpf(2 * digest[0] + k % 2) + (MP.mpf(1) / 2 if k == 8 else 0)
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
