r"""What a completion states as its answer, read as a person would.

Tried in this order, on what stands behind a model's thought (</think>), else on the thought itself:

boxes        the last \boxed{..}; with those that "and", "or" or a comma join to it
marks        what follows the last "answer is", "Answer:", "####", "<answer>"
conclusion   the last sentence, if it concludes: "Therefore, the value of $x$ is $5$."

What is no statement gives None: the last number in a text is none.
"""

import re

from common.latex import INSIDE, MAX_CHARS

BOX = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:\{(%s)\}|(?=\{([^\n$]{0,%d})|([^\s$]{0,%d})))"
    % (INSIDE, MAX_CHARS, MAX_CHARS),
    re.S,
)
NAMED = r"(?:([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*)?"  # x = \boxed{2} and y = \boxed{3}
AND = r"[\s$]*(?:,|;|,?\s*(?:\\text\{\s*)?(?:and|or)(?:\s*\})?)[\s$]*"
JOINED = re.compile(AND)
BOX_JOINED = re.compile(AND + NAMED)

MARK = re.compile(
    r"\b(?:answers?|ans)(?:\s+to\s[^.\n]{0,60}?)?"  # to the question
    r"(?:[*_\s]*\([^()\n]{0,40}\))?"  # (in cm)
    r"[*_\s]*(?:=|:|\b(?:is|are|(?:must|would|should|will)\s+be))(?![a-z]|\s+not\b)"
    r"|^[#* \t]*+(?:final[ \t]+)?answer[* \t]*(?:-|–|→|=>)(?=[ \t])"
    r"|\bI\s+(?:choose|select|pick)\s+(?=(?:option\s+)?\(?[A-E]\b)"
    r"|correct\s+(?:option|choice)[*_\s]*(?:is|:)(?![a-z]|\s+not\b)"
    r"|^[#* \t]*+(?:solution|result)[* \t]*:"
    r"|答案?\s*(?:是|为|：|:)"
    r"|####|<answer>",
    re.I | re.M,
)
HEADING = re.compile(
    r"^[#* \t]*+(?:final[ \t]+answer|answer|最终答案|答案)[* \t]*+\n(?:[-=_]+\n)?", re.I | re.M
)
# What makes "the answer is 5" no statement, if it stands right before
SUPPOSED = re.compile(
    r"\b(?:if|suppose|assume|whether|what|say|guess|unless|until)\s+(?:that\s+)?(?:the\s+|our\s+)?"
    r"(?:final\s+|correct\s+)?$",
    re.I,
)
LEADS = re.compile(
    r"(?:therefore|thus|then|simply|just|exactly|approximately|about|equal to|given by)[\s,:]+",
    re.I,
)
NO_ANSWER = re.compile(
    r"(?:not|un\w+|an|below|above|here|yet|still|shown|wrong|right|correct|in|the|that|this|what|to|given|found|obtained|as|of|we|it|a)\b",
    re.I,
)
NUMBER = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"
MONEY = re.compile(rf"\\?\$\s?(-?{NUMBER})(?![0-9A-Za-z$}}^_=+*/\\]|[.,][0-9])")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
WHERE = re.compile(r"[\s,(]*(?:where|which|for|with|when|if|since|because|as|or equivalently)\b")
SAME = re.compile(r",?\s+or\s+(?:equivalently|about|approximately|roughly)\b.*|,\s+or\s+[0-9.]+%.*")
BOLD = re.compile(r"\*\*([^*\n]*[0-9][^*\n]*)\*\*")
QUANTITY = re.compile(
    r"(?<![\w.^=+*/-])-?\\?\$?\s?-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+|/[0-9]+)?(?:%|°)?(?![\w^=+*/$])"
    r"(?:\s+(?:dozen|hundred|thousand|million|billion))?"
)
UNDECIDED = re.compile(
    r"\b(?:need|check|whether|let|assume|suppose|consider|next|try|if|factor|multiple|divides?|can|(?-i:may)"
    r"|might|not|step|case|should|then|equation|formula)\b|\?",
    re.I,
)
CONCLUDES = re.compile(
    r"(?:therefore|thus|so(?!\s+far)|hence|finally|(?:in )?conclusion|in total|altogether|overall"
    r"|consequently|(?:this|that|which) means|we conclude|it follows|as a result|the)\b",
    re.I,
)
IS = re.compile(
    r"\s(?:is|are|equals?|has\s+(?:an?\s+)?[a-z]+(?:\s+of)?)\s+"
    r"(?:(?:equal to|exactly|therefore|thus)\s+)?"
)
ASSIGNED = re.compile(r"\s*[A-Za-z](?:_\w)?\s*=(?!.*=)[^A-Za-z]*(?:\\[a-z]+[^A-Za-z]*)*")
SUMS = re.compile(r"[0-9][-0-9.,\s+*/×÷()$]*=\s*(?=\\?\$?[0-9])")  # of 15 + 7 = 22 the left side
WORDS = r"(?:\s+[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,3})?"  # what is counted: 72 clips, 20 cups of feed
VALUE = re.compile(rf"[-+]?[0-9][0-9.,/:]*(?:%|°)?{WORDS}")


def stated_answer(completion):
    """The answer as text, or None: of "So the answer is $5$." it is 5."""
    thought, ended, said = completion.rpartition("</think>")
    return _stated(said) or (_stated(thought) if ended else None)


def _stated(text):
    return _boxed(text) or _marked(text) or _concluded(text)


def _boxed(text):
    """The last box, and those joined to it: the list of x = 1 and x = 4, the point x = 2, y = 5."""
    found = []  # (end, name, answer)
    for box in BOX.finditer(text):
        answer = (box[1] or box[2] or box[3] or "").strip()
        if not answer:
            continue
        joined = BOX_JOINED.fullmatch(text, found[-1][0], box.start()) if found else None
        name = joined[1] if joined else _name_before(text, box.start())
        found = [*found, (box.end(), name, answer)] if joined else [(box.end(), name, answer)]
    names = {name for _, name, _ in found}
    if len(names) == len(found) > 1 and None not in names:
        return ", ".join(f"{name} = {answer}" for _, name, answer in found)
    return ", ".join(dict.fromkeys(answer for _, _, answer in found)) or None


def _name_before(text, end):
    """x, in front of the box of x = \\boxed{2}."""
    name = re.search(
        r"(?<![\w\\^+*/)}-])([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*$", text[max(0, end - 30) : end]
    )
    return name[1] if name else None


def _marked(text):
    """What the last mark with something behind it marks."""
    marks = [m.end() for m in HEADING.finditer(text)]
    for mark in MARK.finditer(text):
        if not SUPPOSED.search(text[max(0, mark.start() - 40) : mark.start()]):
            marks.append(mark.end())
    marks.sort()
    for start in reversed(marks[-50:]):  # a text of nothing but marks says nothing
        answer = _statement(text[start : start + 2 * MAX_CHARS])
        if answer:
            return answer
    return None


def _concluded(text):
    """Of a last sentence such as "The total is 72 clips, altogether." what it says there is."""
    line = text.rstrip()[-MAX_CHARS:].rpartition("\n")[2].strip(" *")
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", line)[-1]
    if not CONCLUDES.match(sentence):
        return None
    bold = BOLD.findall(sentence)
    if len(bold) == 1:
        return _statement(bold[0])
    formulas = list(FORMULA.finditer(sentence))
    equations = [formula for formula in formulas if "=" in formula[0]]
    if len(equations) == len(formulas) > 1 and not sentence[formulas[-1].end() :].strip(" .!*"):
        return _of_formulas(sentence, formulas)
    formula = formulas[0] if formulas else None
    if len(formulas) == 1 and ASSIGNED.fullmatch(_inside(formula)):
        if not UNDECIDED.search(sentence) and not re.search(r"[0-9]", FORMULA.sub("", sentence)):
            return _inside(formula)
    if formula and "=" in formula[0] and not sentence[formula.end() :].strip(" .!*"):
        return _inside(formula).rpartition("=")[2].strip() or None
    _, found, rest = _after_is(sentence)
    if not found:
        return None if formulas else _counted(sentence)
    if MONEY.match(rest) or FORMULA.match(rest) or VALUE.fullmatch(_first_part(rest)):
        return _statement(rest)
    return None if formulas else _counted(sentence)


def _counted(sentence):
    """The one number of a sentence: "So Janet makes $18 every day." """
    sentence = SUMS.sub("", sentence)
    quantities = list(QUANTITY.finditer(sentence))
    if UNDECIDED.search(sentence) or len(quantities) != 1 or sentence[-1:] not in ".!":
        return None
    return quantities[0][0].replace("$", "").replace("\\", "").strip()


def _after_is(sentence):
    """(before, "is", behind) by the last "is" of a sentence that is not inside of a formula."""
    blank = FORMULA.sub(lambda m: "\0" * len(m[0]), sentence)
    places = list(IS.finditer(blank))
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
    blank = FORMULA.sub(lambda m: "\0" * len(m[0]), line)
    if end := re.search(r"[.!?]\s+[A-Z]", blank):  # of the sentence
        line = line[: end.start()]
    formulas = list(FORMULA.finditer(line))
    if formulas:
        return _of_formulas(line, formulas)
    sentence = re.split(r"\.(?:\s|$)|。", line)[0]
    answer = SAME.sub("", _first_part(sentence)).strip(" *$")
    if re.search("[\u4e00-\u9fff]", answer) and len(numbers := re.findall(NUMBER, answer)) == 1:
        return numbers[0]
    _, found, rest = _after_is(answer)
    if found and VALUE.fullmatch(rest):  # The number is 13
        return rest
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
    if len(joined) == len(formulas) and not _after_is(line)[1]:
        return answer or None
    before, found, rest = _after_is(line)
    if found and rest.strip(" .*"):
        return _statement(rest)
    return None if len(formulas) > len(joined) else answer or None


def _inside(formula):
    return next(part for part in formula.groups() if part is not None)


def _first_part(sentence):
    """A sentence up to the comma behind which it goes on in words: 72 clips, altogether."""
    sentence = re.split(r",?\s+(?:because|since)\s", sentence)[0].strip(" .!*")
    words = re.search(r"(?<=[0-9A-Za-z%)}])\s*(?:,\s+(?=[a-z]{2,}\s|[a-z]{3,}$)|\s\()", sentence)
    if words and re.search(r"[0-9]", sentence[: words.start()]):
        if not re.match(r",\s+(?:and|or)\b", sentence[words.start() :]):
            return sentence[: words.start()]
    return sentence
