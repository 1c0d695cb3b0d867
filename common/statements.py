r"""What a completion states as its answer, read as a person would.

Tried in this order, on what stands behind a model's thought (</think>), else on the thought itself:

    boxes        the last \boxed{..}; with those that "and", "or" or a comma join to it
    marks        what follows the last "answer is", "Answer:", "####", "<answer>", 答案是
    conclusion   the last sentence, if it concludes: "Therefore, the value of $x$ is $5$."
    alone        the whole text, if it is one number, formula or word, as "only the number" asks for

What is no statement gives None: the last number in a text is none, nor is what is only supposed.
"""

import re

from common.latex import INSIDE, MAX_CHARS

# ------------------------------------------------------------------------------------------- boxes

BOX = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:\{(%s)\}|(?=\{([^\n$]{0,%d})|([^\s$]{0,%d})))"
    % (INSIDE, MAX_CHARS, MAX_CHARS),
    re.S,
)
AND = r"[\s$]*(?:,|;|,?\s*(?:\\text\{\s*)?(?:and|or)(?:\s*\})?)[\s$]*"
NAME = r"([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*"  # x = \boxed{2} and y = \boxed{3}
JOINED = re.compile(AND)
BOX_JOINED = re.compile(AND + f"(?:{NAME})?")
NAMED = re.compile(rf"(?<![\w\\^+*/)}}-]){NAME}$")

# ------------------------------------------------------------------------------------------- marks

SAYS = r"(?![a-z]|\s+not\b)"  # behind a mark: no word goes on, nothing is denied
MARKS = [
    r"\b(?:answers?|ans)(?:\s+to\s[^.\n]{0,60}?)?"  # the answer (to the question) (in cm) is
    r"(?:[*_\s]*\([^()\n]{0,40}\))?"
    rf"[*_\s]*(?:=|:|\b(?:is|are|(?:must|would|should|will)\s+be)){SAYS}",
    r"^[#* \t]*+(?:final[ \t]+)?answer[* \t]*(?:-|–|→|=>|(?=\$|\\[(\[]))(?=[ \t$\\])",  # Answer - 5
    rf"correct\s+(?:option|choice)[*_\s]*(?:is|:){SAYS}",
    r"\bI\s+(?:choose|select|pick)\s+(?=(?:option\s+)?\(?[A-E]\b)",
    r"^[#* \t]*+(?:solution|result)[* \t]*:",
    r"答案?\s*(?:是|为|：|:)",
    r"####|<answer>",
]
MARK = re.compile("|".join(MARKS), re.I | re.M)
HEADING = re.compile(
    r"^[#* \t]*+(?:final[ \t]+answer|answer|最终答案|答案)[* \t]*+\n(?:[-=_]+\n)?", re.I | re.M
)
# What makes "the answer is 5" no statement, if it stands right before
SUPPOSED = re.compile(
    r"\b(?:if|suppose|assume|whether|what|say|guess|unless|until)\s+(?:that\s+)?"
    r"(?:the\s+|our\s+)?(?:final\s+|correct\s+)?$",
    re.I,
)
# What stands between a mark and its answer
LEADS = re.compile(
    r"(?:(?i:therefore|thus|then|simply|just|exactly|approximately|about|equal to|given by)[\s,:]+"
    r"|(?:the )?(?:number|integer|value|point|interval|fraction)\s+(?=[-$\d(\[\\]))"
)
NO_ANSWER = re.compile(
    r"\(?(?:not|un\w+|an?|below|above|here|yet|still|shown|wrong|right|correct|in|the|that|this"
    r"|what|to|given|found|obtained|as|of|we|it)\b"
)

# -------------------------------------------------------------------------- formulas and quantities

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
NUMBER = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"
MONEY = re.compile(rf"\\?\$\s?(-?{NUMBER})(?![0-9A-Za-z$}}^_=+*/\\]|[.,][0-9])")
WORDS = r"(?:\s+[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,3})?"  # what is counted: 72 clips, 20 cups of feed
VALUE = re.compile(rf"[-+]?[0-9][0-9.,/:]*(?:%|°)?{WORDS}")
QUANTITY = re.compile(
    rf"(?<![\w.^=+*/-])-?\\?\$?\s?-?{NUMBER}(?:/[0-9]+)?(?:%|°)?(?![\w^=+*/$])"
    r"(?:\s+(?:dozen|hundred|thousand|million|billion))?",
    re.A,
)
SUMS = re.compile(r"[0-9][-0-9.,\s+*/×÷()$]*=\s*(?=\\?\$?[0-9])")  # of 15 + 7 = 22 the left side
EQUALS = r"(?<![<>!:])="
RELATED = re.compile(  # x = 5, x < 5
    rf"\s*[A-Za-z](?:_\{{?\w+\}}?)?\s*(?:{EQUALS}|[<>]=?|!=|\\(?:leq?|geq?|neq?|lt|gt)(?![a-z]))"
    r"(?!.*=)[^A-Za-z]*(?:\\[a-z]+[^A-Za-z]*)*"
)
BOLD = re.compile(r"\*\*([^*\n]*[0-9][^*\n]*)\*\*")
WHERE = re.compile(r"[\s,(]*(?:where|which|for|with|when|if|since|because|as|or equivalently)\b")
AGAIN = re.compile(  # the same once more
    r",?\s+or\s+(?:equivalently|about|approximately|roughly)\b.*|,\s+or\s+[0-9.]+%.*"
)

# -------------------------------------------------------------------------------------- conclusions

CONCLUDES = re.compile(
    r"(?:(?:therefore|thus|so(?!\s+far)|hence|finally|(?:in )?conclusion|in total|altogether"
    r"|overall|consequently|(?:this|that|which) means|it follows|as a result|the"
    r"|we (?:conclude|find|get|obtain))\b|所以|因此|综上|故|总共|一共)",
    re.I,
)
SUBJECT = re.compile(  # Thus, $12$ is the largest; Therefore $x > 5$ is the solution
    r"(?:therefore|thus|so|hence)?[\s,]*(\$[^$]+\$|[-0-9.,/]+)\s+is (?:the|our)\b", re.I
)
GIVES = re.compile(r"[\s,]*(?:gives|implies|yields|means|so|hence|then|thus)[\s,]*(?:that\s+)?")
IS = re.compile(
    r"\s(?:is|are|must be|must equal|equals?|has\s+(?:an?\s+)?[a-z]+(?:\s+of)?)\s+"
    r"(?:(?:equal to|exactly|therefore|thus)\s+)?"
)
UNDECIDED = re.compile(
    r"\b(?:need|check|whether|let|assume|suppose|consider|next|try|if|factor|multiple|divides?|can"
    r"|(?-i:may)|might|not|steps?|cases?|should|then|equation|formula|but|wrong)\b|\?",
    re.I,
)


def stated_answer(completion):
    """The answer as text, or None: of "So the answer is $5$." it is 5."""
    thought, ended, said = completion.rpartition("</think>")
    return _stated(said) or (_stated(thought) if ended else None)


def _stated(text):
    return _boxed(text) or _marked(text) or _concluded(text) or _alone(text)


def _boxed(text):
    """The last box, and those joined to it: the list of x = 1 and x = 4, the point x = 2, y = 5."""
    found = []  # (end, name, answer)
    for box in BOX.finditer(text):
        answer = (box[1] or box[2] or box[3] or "").strip()
        if not answer:
            continue
        joined = BOX_JOINED.fullmatch(text, found[-1][0], box.start()) if found else None
        if not joined:
            found = []
            joined = NAMED.search(text[max(0, box.start() - 30) : box.start()])
        found.append((box.end(), joined[1] if joined else None, answer))
    names = {name for _, name, _ in found}
    if len(names) == len(found) > 1 and None not in names:
        return ", ".join(f"{name} = {answer}" for _, name, answer in found)
    return ", ".join(dict.fromkeys(answer for _, _, answer in found)) or None


def _marked(text):
    """What the last mark with something behind it marks."""
    marks = [m.end() for m in HEADING.finditer(text)]
    for mark in MARK.finditer(text):
        if not SUPPOSED.search(text[max(0, mark.start() - 40) : mark.start()]):
            marks.append(mark.end())
    for start in sorted(marks)[-50:][::-1]:  # a text of nothing but marks says nothing
        answer = _statement(text[start : start + 2 * MAX_CHARS])
        if answer:
            return answer
    return None


def _concluded(text):
    """Of a last sentence such as "The total is 72 clips, altogether." what it says there is."""
    line = text.rstrip()[-MAX_CHARS:].rpartition("\n")[2].strip(" *")
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])|(?<=。)(?=.)", line)[-1]
    formulas = list(FORMULA.finditer(sentence))
    if subject := SUBJECT.match(sentence):
        return subject[1].strip("$ ,")
    if not CONCLUDES.match(sentence):
        return None
    bold = BOLD.findall(sentence)
    if len(bold) == 1:
        return _statement(bold[0])
    if formulas and (answer := _last_equation(sentence, formulas)):
        return answer
    _, found, rest = _after_is(sentence)
    if MONEY.match(rest) or FORMULA.match(rest) or found and VALUE.fullmatch(_first_part(rest)):
        return _statement(rest)
    return None if formulas else _counted(sentence)


def _alone(text):
    """Of a text that is an answer and nothing else: 12; 72 clips.; $x = 5$; Paris."""
    text = text.strip(" \t\n*").removesuffix(".")
    if len(text) > MAX_CHARS:
        return None
    if formula := FORMULA.fullmatch(text):
        answer = _inside(formula).strip()
        return answer if "=" not in answer or RELATED.fullmatch(answer) else None
    if money := MONEY.fullmatch(text):
        return money[1]
    word = re.fullmatch(r"[A-Za-z]{2,20}|\(?[A-E]\)?", text) and not NO_ANSWER.match(text.lower())
    return text if word or VALUE.fullmatch(text) else None


def _last_equation(sentence, formulas):
    """Hence $n = 7$; Therefore, $x = 2$ or $x = 3$; Thus, $f(3) = 6 + 1 = 7$."""
    last = _inside(formulas[-1])
    ends = not sentence[formulas[-1].end() :].strip(" .!*。")
    words = FORMULA.sub("", sentence)
    if len(formulas) > 1:
        equations = all("=" in formula[0] for formula in formulas)
        if not ends or not equations or UNDECIDED.search(words):
            return None
        between = sentence[formulas[-2].end() : formulas[-1].start()]
        return last if GIVES.fullmatch(between) else _of_formulas(sentence, formulas)
    if RELATED.fullmatch(last):
        decided = not UNDECIDED.search(words) and (ends or not re.search("[0-9]", words))
        return last if decided and sentence[-1] in ".!$)]*。" else None
    sides = re.split(EQUALS, last)
    return sides[-1].strip() or None if ends and len(sides) > 1 else None


def _counted(sentence):
    """The one number of a sentence, or its one sum of money: So Janet makes $18 every day."""
    sentence = SUMS.sub("", sentence)
    quantities = [quantity[0] for quantity in QUANTITY.finditer(sentence)]
    money = [quantity for quantity in quantities if "$" in quantity]
    if len(money) == 1:
        quantities = money
    if UNDECIDED.search(sentence) or len(quantities) != 1 or sentence[-1] not in ".!。":
        return None
    return quantities[0].replace("$", "").replace("\\", "").strip()


def _after_is(sentence):
    """(before, "is", behind) by the last "is" of a sentence that is not inside of a formula."""
    places = list(IS.finditer(_without_formulas(sentence)))
    if not places:
        return sentence, "", ""
    at = places[-1]
    return sentence[: at.start()], at[0], sentence[at.end() :]


def _statement(text):
    """The answer that a text begins with: money, formulas, or plain words up to the end of the
    sentence."""
    text = re.sub(r"^-\s+", "", text.lstrip(" \t\n:*_#="))
    text = LEADS.sub("", text, count=1) if LEADS.match(text) else text
    if spelled := re.match(r"[a-z-]+ \(([0-9]+)\)", text):  # five (5)
        return spelled[1]
    if money := MONEY.match(text):
        return money[1]
    if text.startswith(("$$", "\\[")):
        formula = FORMULA.match(text)
        return _inside(formula).strip() or None if formula else None
    line = text.partition("\n")[0].partition("</answer>")[0]
    if end := re.search(r"[.!?]\s+[A-Z]", _without_formulas(line)):  # of the sentence
        line = line[: end.start()]
    formulas = list(FORMULA.finditer(line))
    if formulas:
        return _of_formulas(line, formulas)
    return _of_words(line)


def _of_words(line):
    """72 clips; 13 of "The number is 13"; Monday; but not "unclear to me"."""
    bold = BOLD.findall(line)
    sentence = bold[0] if len(bold) == 1 else re.split(r"\.(?:\s|$)|。", line)[0]
    answer = AGAIN.sub("", _first_part(sentence)).strip(" *$")
    if re.search("[\u4e00-\u9fff]", answer) and len(numbers := re.findall(NUMBER, answer)) == 1:
        return numbers[0]
    _, found, rest = _after_is(answer)
    if found and VALUE.fullmatch(rest):
        return rest
    many = len(answer.split()) > 3
    if many and re.match(r"[A-Z][a-z]+ ", answer) and (counted := _counted(answer + ".")):
        return counted  # She needs 12 more tiles
    if not re.search(r"[0-9\\]", answer) and (len(answer.split()) > 4 or NO_ANSWER.match(answer)):
        return None
    return answer or None


def _of_formulas(line, formulas):
    """One formula; several, if they are joined; else what the sentence says there is."""
    joined = [formulas[0]]
    if WHERE.match(line, joined[0].end()):
        return _inside(joined[0]).strip() or None
    for formula in formulas[1:]:
        if not JOINED.fullmatch(line, joined[-1].end(), formula.start()):
            break
        joined.append(formula)
    answer = ", ".join(_inside(formula).strip() for formula in joined)
    _, found, rest = _after_is(line)
    if found and rest.strip(" .*"):
        return _statement(rest)
    return None if len(formulas) > len(joined) else answer or None


def _inside(formula):
    return next(part for part in formula.groups() if part is not None)


def _without_formulas(text):
    """The text, with formulas blanked."""
    return FORMULA.sub(lambda m: "\0" * len(m[0]), text)


def _first_part(sentence):
    """A sentence up to the comma behind which it goes on in words: 72 clips, altogether."""
    sentence = re.split(r",?\s+(?:because|since)\s", sentence)[0].strip(" .!*")
    words = re.search(r"(?<=[0-9A-Za-z%)}])\s*(?:,\s+(?=[a-z]{2,}\s|[a-z]{3,}$)|\s\()", sentence)
    if words and re.search(r"[0-9]", sentence[: words.start()]):
        if not re.match(r",\s+(?:and|or)\b", sentence[words.start() :]):
            return sentence[: words.start()]
    return sentence
