r"""One spelling for one thing: LaTeX, Unicode and plain text become a small plain LaTeX.

\dfrac12, \frac{1}{2}, ½ and 1/2 are all \frac{1}{2}. normalise() runs the GROUPS in order, and in
each its rules in order. A rule says why it is there and shows what it does, before: after; each
example is a test. To add a rule, add one to the group that it belongs to, with its example:

    Rule(
        "a letter U between two intervals is a union",
        r"(?<=[\])])\s*U\s*(?=[(\[])",
        r"\\cup ",
        {"[0,1] U [2,3]": r"[0,1]\cup [2,3]"},
    )

A new spelling of a command or sign is one more word in SAME.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from common.latex import FUNCTIONS, GREEK, INSIDE, MAX_CHARS


class Rule(NamedTuple):
    why: str
    pattern: str
    new: str | Callable
    examples: dict[str, str]  # what this rule alone makes of a text

    def __call__(self, text: str) -> str:
        """The text, rewritten and tidy. It is cut, since ½½½... grows by each rule."""
        return _tidy(re.sub(self.pattern, self.new, text)[: 2 * MAX_CHARS])


def normalise(text: str) -> str:
    r"""One spelling for one thing: normalise(r"\dfrac12") is r"\frac{1}{2}"."""
    text = _tidy(text.replace("...", r"\dots "))
    for rules in GROUPS.values():
        for rule in rules:
            text = rule(text)
    return text


def _tidy(text: str) -> str:
    """Without spaces that are too many, and without what a sentence has around an answer."""
    return " ".join(text.split()).strip(" ;:,*`").rstrip(" .;:,")


# Pieces of patterns
END = r"(?![A-Za-z])"  # of a command's name
TEXT = r"\\(?:text[a-z]*|mbox|hbox|mathrm|operatorname)\s*"
BRACED = rf"\{{{INSIDE}\}}"
COUNTS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
COUNTS = f"{COUNTS} fifteen sixteen seventeen eighteen nineteen twenty".split()
BASES = COUNTS[2:11]
TRIG = "(?:sin|cos|tan|cot|sec|csc)"
DEGREE = r"(?:\^\s*\{?\s*\\circ\s*\}?|°)"
POWER = r"(?:\s*\^\s*(?:\{-?[0-9]\}|[0-9]))?"
CURRENCY = r"(?:US|A|C|HK|NZ)(?=\s*\\?\$)|USD|EUR|GBP|RMB|CNY|JPY|INR|CAD|AUD|HKD|CHF|Rs\.?"
SPACE = r"(?:\\[ ,;:]\s*)"  # \, and its like

# ------------------------------------------------------------------- what a command still tells
# These come first, since afterwards spaces, fonts and degrees are gone.

CONTEXT = [
    Rule(
        "a wide space or a new line between two assignments is a comma",
        r"(=[^=]*?)[\s,]*(?:\\\\|\\qquad|\\quad)\s*(?=[A-Za-z]\w*\s*=)",
        r"\1, ",
        {r"x=2 \quad y=3": "x=2, y=3", r"x=2 \\ y=3": "x=2, y=3"},
    ),
    Rule(
        "degrees Celsius and Fahrenheit are a unit",
        rf"{DEGREE}\s*(?:\\(?:text|mathrm|rm)\s*\{{?\s*)?[CF]{END}\}}?",
        " ",
        {r"5^\circ C": "5", r"5^\circ\text{F}": "5"},
    ),
    Rule(
        "the braces of max and min are brackets, no set",
        r"\\(max|min)\s*\\?\{([^{}]*?)\\?\}",
        r"\\\1(\2)",
        {r"\max\{a,b\}": r"\max(a,b)"},
    ),
    Rule(
        "not in a set of one is not equal to that one",
        r"\\notin\s*\\\{([^{},\\]+)\\\}",
        r"\\neq \1",
        {r"x \notin \{0\}": r"x \neq 0"},
    ),
    Rule(
        "a base in words",
        r"_\s*\{?\s*(?:\\text\s*\{)?\s*(%s)\s*\}?\s*\}?$" % "|".join(BASES),
        lambda m: "_{%d}" % COUNTS.index(m[1]),
        {r"110_{\text{two}}": "110_{2}"},
    ),
    Rule(
        "a unit of several parts",
        rf"(?<=[0-9}}])\s*{SPACE}*\\(?:mathrm|text)\s*\{{{SPACE}*(?=[^}}]*(?:\\,|\\cdot|\^))"
        rf"(?:[A-Za-z]{{1,4}}+{POWER}+(?:{SPACE}|\\cdot|/|\s)*+)++\}}\s*$",
        "",
        {r"3 \mathrm{m\,s^{-1}}": "3", r"3 \mathrm{\ m\ s^{-1}}": "3"},
    ),
]

CHINESE = [
    Rule(
        "the answer is",
        r"^\s*(?:(?:最终|最后)?(?:的)?(?:答案|答)\s*(?:是|为|：|:)|大?约)\s*",
        "",
        {"答案是42": "42", "约3.14": "3.14"},
    ),
    Rule(
        "or",
        r"(?:\\text\s*\{)?\s*或者?\s*\}?",
        " or ",
        {r"x=2\text{或}x=3": "x=2 or x=3"},
    ),
    Rule(
        "and",
        r"(?:\\text\s*\{)?\s*[和与、]\s*\}?",
        ", ",
        {"2和3": "2, 3"},
    ),
    Rule(
        "what is counted; but 5万 is 50,000",
        r"(?<=[0-9}])\s*(?:\\text\s*\{)?\s*(?![十百千万亿](?!米|克))[\u4e00-\u9fff]+"
        r"(?:\s*/\s*[\u4e00-\u9fff]+)?\s*\}?$",
        "",
        {r"5\text{个}": "5", "60千米/时": "60", "5万": "5万"},
    ),
]

# ------------------------------------------------------------------------------ signs and commands
# What is written in many ways: the spelling that is kept, and the others. Of fonts, sizes, spaces
# and currencies nothing is kept.

SAME = {
    " ": r"\left. \right. \left \right \middle \mathbf \mathit \mathsf \mathop \boldsymbol \pmb "
    r"\bm \bf \rm \it \displaystyle \textstyle \limits \vec \hat \widehat \overrightarrow \angle "
    r"∠ \triangle △ \underline \boxed \fbox \ensuremath \therefore \quad \qquad \enspace "
    r"\thinspace \newline \hfill \, \; \: \! \( \) \[ \] ~ $ \$ % \% "
    r"€ £ ¥ ₹ ¢ \pounds \euro "
    '\\textcent " \0',
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
SPELLINGS = {other: kept for kept, others in SAME.items() for other in others.split(" ") if other}
SPELLINGS["\\ "] = " "
LETTERS = "αβγδεζηθικλμνξρστφχψωπ" + "ΓΔΘΛΞΠΣΦΨΩ"
SPELLINGS |= dict(zip(LETTERS, ("\\" + name for name in GREEK)))


def _spelled() -> str:
    """A pattern of all spellings, longest first. A command ends where its letters end."""
    longest = sorted(SPELLINGS, key=len, reverse=True)
    command = re.compile(r"\\[A-Za-z]+")
    return "|".join(re.escape(old) + (END if command.fullmatch(old) else "") for old in longest)


def _kept(m: re.Match) -> str:
    r"""The spelling that is kept. \pi and x stay apart: πx is \pi x."""
    kept = SPELLINGS[m[0]]
    after = m.string[m.end() : m.end() + 1]
    return kept + " " if kept[-1].isalpha() and after.isalpha() else kept


def _vulgar(m: re.Match) -> str:
    return r"\frac{%s}{%s}" % tuple(unicodedata.normalize("NFKC", m[0]).split("⁄"))


SIGNS = [
    Rule(
        "codes of currencies, before or behind a number",
        rf"(?:\\text\s*\{{\s*)?(?:{CURRENCY})\s*\}}?\s*(?=[-\\$\s]*[0-9])"
        rf"|(?<=[0-9])\s*(?:\\text\s*\{{\s*)?(?:{CURRENCY})\s*\}}?$",
        "",
        {"USD 45": "45", r"45\text{ EUR}": "45", r"US\$30": r"\$30"},
    ),
    Rule("small digits below", "[₀-₉]+", r"_{\g<0>}", {"x₁₂": "x_{₁₂}"}),
    Rule(
        "small digits above",
        "[⁰¹²³⁴-⁹⁻]+",
        lambda m: "^{%s}" % m[0].replace("⁻", "-"),
        {"x²": "x^{²}", "x⁻¹": "x^{-¹}"},
    ),
    Rule("fractions of one sign", "[¼-¾⅐-⅞]", _vulgar, {"½": r"\frac{1}{2}"}),
    Rule(
        "thousands with a space that TeX knows",
        r"(?<=[0-9])(?:,\s*\\!|\{,\}|\\,|\\ )\s*(?=[0-9]{3})",
        "",
        {r"10,\!080": "10080", "1{,}000": "1000"},
    ),
    Rule(
        "an environment of lines is a list",
        r"\\begin\s*\{((?!\w*matrix|array)\w+\*?)\}(.*)\\end\s*\{\1\}",
        lambda m: m[2].replace("&", " ").replace(r"\\", ","),
        {r"\begin{cases}x=1\\y=2\end{cases}": "x=1,y=2"},
    ),
    Rule(
        "colours, tags, distances, and what ends in the middle of a command",
        r"\\(?:(?:text)?color|tag|[hvm]space)\s*\{[^{}]*\}|(?<=\\\\)\s*\[[0-9.]+[a-z]+\]|\\+$",
        " ",
        {r"\color{red}5\hspace{1cm}": "5", "5\\": "5"},
    ),
    Rule(
        "sizes",
        rf"\\(?:[bB]igg?[lrm]?|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge){END}",
        " ",
        {r"\big(1,2\big)": "(1,2 )"},
    ),
    Rule(
        "the real numbers",
        r"\\math(?:bb|bf)\s*\{?\s*R\s*\}?|\b[Aa]ll real(?: number)?s\b",
        r"\\R ",
        {r"\mathbb{R}": r"\R", "all real numbers": r"\R"},
    ),
    Rule(
        "functions and letters without their backslash",
        rf"(?<![\\A-Za-z])(sqrt|frac|infty|infinity|oo|{'|'.join(FUNCTIONS + GREEK)}){END}"
        r"|(?<![\\A-Za-z])(max|min|gcd|lcm)(?=\s*\}?\s*\()",
        lambda m: "\\" + (m[1] or m[2]) + " ",
        {"sqrt(2)": r"\sqrt (2)", "sin x": r"\sin x", "max(a,b)": r"\max (a,b)"},
    ),
    Rule(
        "one spelling of each: SAME",
        _spelled(),
        _kept,
        {r"\dfrac{π}{2}×x": r"\frac{\pi}{2}\times x"},
    ),
    Rule(
        "full-width digits and the like",
        r"[^\0-\x7f]",
        lambda m: unicodedata.normalize("NFKC", m[0])[:3],
        {"（１，２）": "(1,2)"},
    ),
    Rule(
        "degrees are a unit, which the question has named, save inside a trigonometric function",
        r"([0-9.]+|[A-Za-z]|\\[a-z]+|)\s*\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})",
        lambda m: r"{(%s\cdot\frac{\pi}{180})}" % m[1] if re.search(TRIG, m.string) else m[1] + " ",
        {r"30^\circ": "30", r"\sin 30^\circ": r"\sin {(30\cdot\frac{\pi}{180})}"},
    ),
]

# ------------------------------------------------------------------------- sets, intervals, bounds

SETS = [
    Rule(
        "an open end may be a bracket that turns its back",
        r"([][])([^][(),]+,[^][(),]+)([][])",
        lambda m: "(["[m[1] == "["] + m[2] + ")]"[m[3] == "]"],
        {"[0,1[": "[0,1)", "]0,1]": "(0,1]"},
    ),
    Rule(
        "a letter U between two intervals is a union",
        r"(?<=[\])])\s*U\s*(?=[(\[])",
        r"\\cup ",
        {"[0,1] U [2,3]": r"[0,1]\cup [2,3]"},
    ),
    Rule("braces around nothing", r"\\\{\s*\\\}", r"\\emptyset ", {r"\{ \}": r"\emptyset"}),
    Rule(
        "a set given by its condition is that condition",
        r"\\\{\s*[a-z]\s*(?:\\in[^:|]*)?[|:](.*?)\\\}",
        r"{\1}",
        {r"\{x | x>3\}": "{ x>3}", r"\{x\in Z : x>3\}": "{ x>3}"},
    ),
    Rule(
        r"of 2/3 \approx 0.667 the exact side",
        r"^(?=.*\\approx)(.*?[=0-9].*?)\\approx.*",
        r"\1",
        {r"x = \pi \approx 3.14": r"x = \pi"},
    ),
    Rule(r"x \approx 3.14 is all there is", r"\\approx", "=", {r"x\approx 3.14": "x= 3.14"}),
    Rule("a prime that is raised", r"\^\s*\{?\s*'\s*\}?", "'", {"f^{'}(x)": "f'(x)"}),
]

# -------------------------------------------------------------------------------- words and units
# \text{..} becomes "..": what stands in quotes is no product of letters.

NUMBER_WORDS = {
    "thousand": r"\cdot10^3 ",
    "dozen": r"\cdot12 ",
    "hundred": r"\cdot100 ",
    "million": r"\cdot10^6 ",
    "billion": r"\cdot10^9 ",
    "and": " , ",
    "or": r"\cup ",
}
NO_COUNT = (
    r"half|halves|thirds?|quarters?|[a-z]+ths?\b|hundred|thousand|million|billion|dozen|solution"
)
WORDS = [
    Rule(
        "a number, a command or one letter is mathematics, in text too",
        rf"{TEXT}\{{\s*(\\[a-z]+|[eixyz]|[^A-Za-z{{}}]*)\s*\}}",
        r"\1 ",
        {r"\mathrm{e}": "e", r"\text{5}": "5"},
    ),
    Rule("other text", rf"{TEXT}\{{\s*([^{{}}]*?)\s*\}}", r' "\1" ', {r"5\text{ cm}": '5 "cm"'}),
    Rule("empty braces", r"(?<!\\)\{\s*\}", "", {r"{}\frac{3}{4}": r"\frac{3}{4}"}),
    Rule(
        "a unit right behind its number",
        rf"(?<=[0-9])(cm|mm|km|kg|mg|ml|mph|ft|lb){END}",
        r" \1",
        {"100kg": "100 kg"},
    ),
    Rule(
        "a unit that is a fraction",
        r'\\frac\s*\{\s*("[^{}]*)\}\s*\{\s*("(?:[^{}]|\{[^{}]*\})*)\}',
        r"\1/\2",
        {r'60 \frac{"km"}{"h"}': '60 "km"/"h"'},
    ),
    Rule(
        "the fifth is 5",
        r'(?<=[0-9])\s*(?:\^\s*\{?\s*)?"?(?:st|nd|rd|th)\b"?\s*\}?',
        " ",
        {"5th": "5", '5^{"th"}': "5"},
    ),
    Rule(
        "words that are mathematics",
        r',?\s*"?\b(%s)\b"?' % "|".join(NUMBER_WORDS),
        lambda m: NUMBER_WORDS[m[1]],
        {"2 million": r"2\cdot10^6", '1, 2, "and" 3': "1, 2 , 3", "2 or 3": r"2\cup 3"},
    ),
    Rule(
        "numbers of another base",
        r'(?:["(]([0-9A-F]+)[")]|(?<=[0-9]))\s*(?:_|"?(?:in )?base"?)[\s{(]*([0-9]+)[\s)}]*$',
        r"\1_{\2}",
        {"(52)_{8}": "52_{8}", "52 base 8": "52_{8}"},
    ),
    Rule(
        "squared and cubed are powers of a number, but cm squared is a unit",
        r'(?<=[0-9)}])\s*"?\s*(squared|cubed)\b\s*"?',
        lambda m: "^{2}" if m[1] == "squared" else "^{3}",
        {"2 squared": "2^{2}", '5 "cubed"': "5^{3}"},
    ),
    Rule(
        "what says no more than that a number comes",
        r'^"?\s*(?:(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer(?:\s+is\b|\s*[:=])'
        r'|(?:exactly|about|approximately|roughly)\b)\s*"?(?=.)',
        "",
        {"The answer is 73": "73", "about 5": "5"},
    ),
    Rule(
        "a number is no other for being said again in words",
        r'(?<=[0-9])\s*"?\s*\([a-z -]{3,}\)\s*"?$',
        "",
        {"12 (twelve)": "12"},
    ),
    Rule(
        "a number in words",
        rf'^\s*"?\s*(?i:({"|".join(COUNTS)}))(\s+(?!{NO_COUNT})[a-z]{{3,}}|)\s*"?\s*$',
        lambda m: str(COUNTS.index(m[1].lower())) + m[2],
        {"twelve": "12", "Two pairs": "2 pairs", "one half": "one half"},
    ),
    Rule(
        "no solutions are no solution",
        r"\b([Nn]o (?:[a-z]+ )?solution)s\b",
        r"\1",
        {"No real solutions": "No real solution"},
    ),
    Rule(
        "infinitely many are solutions",
        r"\b([Ii]nfinitely many) solutions\b",
        r"\1",
        {"infinitely many solutions": "infinitely many"},
    ),
    Rule(
        "a choice and what it says",
        r'^"?\s*(?:\(([A-E])\)|([A-E])[.)]|(?:[Oo]ption|[Cc]hoice) ([A-E]):)\s*[" ]\s*"?'
        r'(?=[0-9A-Za-z\\"({-]).*$',
        r"\1\2\3",
        {"(B) 12": "B", "A. 12": "A", "(E) (0,5)": "E", "Option A: -3m": "A"},
    ),
    Rule(
        "a choice with its name",
        r'^"?\s*(?:[Oo]ption|[Cc]hoice)\s+\(?([A-Z])\)?\s*"?$',
        r"\1",
        {"Option C": "C"},
    ),
    Rule(
        "a choice is its letter",
        r'^"?\s*\(?([A-Z])[.)]\s*"?$',
        r"\1",
        {"(C)": "C", "C)": "C", '"C."': "C"},
    ),
]

# ------------------------------------------------------------------------------------------ braces
# Those that TeX can do without are written out.

ARGUMENT = Rule(
    "one brace of a fraction or an index; twice, for a fraction has two",
    rf"(\\(?:frac|binom)\s*(?:{BRACED})?|_)\s*([0-9A-Za-z]|\\[a-z]+)",
    r"\1{\2}",
    {r"\frac12": r"\frac{1}2", r"\frac{1}2": r"\frac{1}{2}", "x_1": "x_{1}"},
)
BRACES = [
    Rule(
        r"\over and \choose stand between what they take",
        r"\{?([^{}]*)\\(over|choose)(?![a-z])([^{}]*)\}?",
        lambda m: r"{\%s{%s}{%s}}" % ("frac" if m[2] == "over" else "binom", m[1], m[3]),
        {r"{1\over2}": r"{\frac{1}{2}}", r"5\choose2": r"{\binom{5}{2}}"},
    ),
    Rule(
        "a root of what is in brackets",
        r"\\sqrt\s*\(([^()]*)\)",
        r"\\sqrt{\1}",
        {r"\sqrt(x+1)": r"\sqrt{x+1}"},
    ),
    Rule(
        "a root or power of one sign",
        r"(\\sqrt(?:\[[0-9]+\])?|\^)\s*(-?\s*[0-9]+|[A-Za-z]|\\[a-z]+)",
        r"\1{\2}",
        {r"\sqrt2": r"\sqrt{2}", "x^10": "x^{10}"},
    ),
    ARGUMENT,
    ARGUMENT,
    Rule(
        "the parser cannot read |x|^{2}",
        r"\|([^|]*)\|(?=\s*\^)",
        r"(|\1|)",
        {"|x|^{2}": "(|x|)^{2}"},
    ),
    Rule(
        "an inverse function is no power",
        rf"\\({TRIG})\s*\^\s*\{{\s*-\s*1\s*\}}",
        r"\\arc\1 ",
        {r"\tan^{-1}x": r"\arctan x"},
    ),
    Rule(
        r"where \ln ends, in \ln 2 \cdot \ln 3",
        rf"(\\(?:{'|'.join(FUNCTIONS)})(?:\s*[_^]\{{[^{{}}]*\}})?)"
        rf"((?:[^-+(){{}}|\\]|\\frac|\\sqrt|\\pi|{BRACED})+)(?=\\cdot|\\times)",
        r"\1(\2)",
        {r"\ln 2 \cdot \ln 3": r"\ln( 2 )\cdot \ln 3"},
    ),
]

# ----------------------------------------------------------------------------------------- numbers

NUMBERS = [
    Rule(
        "the letter x as a sign of multiplication",
        r"(?<=[0-9])\s*x\s*(?=10\s*\^)",
        r"\\cdot ",
        {"2 x 10^{3}": r"2\cdot 10^{3}"},
    ),
    Rule(
        "1/2 is a fraction; 1/2x is x/2, as in a calculator",
        r"(?<![0-9.^_/}])([0-9]+)\s*/\s*([0-9]+)(?![0-9.^])",
        r"\\frac{\1}{\2}",
        {"1/2": r"\frac{1}{2}", "1/2x": r"\frac{1}{2}x"},
    ),
    Rule(
        "mixed numbers",
        r"(?<![0-9.}^_])([0-9]+)\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}",
        r"{(\1+\\frac{\2}{\3})}",
        {r"2\frac{1}{2}": r"{(2+\frac{1}{2})}"},
    ),
    Rule(
        "an exponent as computers write it",
        r"([0-9])[eE]([+-]?[0-9]+)(?![0-9.])",
        r"\1\\cdot 10^{\2}",
        {"1.5e3": r"1.5\cdot 10^{3}"},
    ),
    Rule(
        "repeating decimals",
        r"([0-9]*)\.([0-9]*)\\bar\s*\{?([0-9]+)\}?",
        lambda m: (
            r"{(0%s.%s0+\frac{%s}{%s})}" % (m[1], m[2], m[3], "9" * len(m[3]) + "0" * len(m[2]))
        ),
        {r"0.1\bar{6}": r"{(00.10+\frac{6}{90})}"},
    ),
    Rule(
        "58,500 is one number; 1, 200 is a list, having a space, and (12,102) a pair",
        r"^(?:[^,(\[{0-9]|(?<!\\)\{|(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])"
        r"|[0-9](?![0-9]*,))*+$",
        lambda m: m[0].replace(",", ""),
        {"58,500": "58500", "1, 200": "1, 200", "(12,102)": "(12,102)"},
    ),
    Rule(
        "thousands with a space",
        r"^[+-]?[0-9]{1,3}(?: [0-9]{3})+(?![0-9])",
        lambda m: m[0].replace(" ", ""),
        {"12 345 678": "12345678"},
    ),
]

GROUPS = {
    "what a command still tells": CONTEXT,
    "Chinese": CHINESE,
    "signs and commands": SIGNS,
    "sets, intervals, bounds": SETS,
    "words and units": WORDS,
    "braces": BRACES,
    "numbers": NUMBERS,
}
