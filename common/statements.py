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
JOINED = re.compile(r"[\s$]*(?:,|;|,?\s*(?:\\text\{\s*)?(?:and|or)(?:\s*\})?)[\s$]*")

MARK = re.compile(r"answers?[*_\s]*(?:is|are|=|:)(?![a-z]|\s+not\b)|####|<answer>", re.I)
HEADING = re.compile(r"^[#* \t]*+(?:final[ \t]+)?answer[* \t]*+\n", re.I | re.M)
NUMBER = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"
MONEY = re.compile(rf"\\?\$\s?(-?{NUMBER})(?![0-9$}}^_=+*/\\]|[.,][0-9])")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
WHERE = re.compile(r"[\s,]*(?:where|for|with|when|if)\b")
CONCLUDES = re.compile(r"(?:therefore|thus|so|hence|finally|in conclusion|in total|the)\b", re.I)
IS = re.compile(r"\s(?:is|are|equals?)\s+(?:equal to\s+|exactly\s+)?")
WORDS = r"(?:\s+[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,3})?"  # what is counted: 72 clips, 20 cups of feed
VALUE = re.compile(rf"[-+]?[0-9][0-9.,/:]*(?:%|°)?{WORDS}")


def stated_answer(completion):
    """The answer as text, or None."""
    thought, ended, said = completion.rpartition("</think>")
    return _stated(said) or (_stated(thought) if ended else None)


def _stated(text):
    return _boxed(text) or _marked(text) or _concluded(text)


def _boxed(text):
    found = []
    for box in BOX.finditer(text):
        answer = (box[1] or box[2] or box[3] or "").strip()
        if not answer:
            continue
        if not (found and JOINED.fullmatch(text, found[-1][0], box.start())):
            found = []
        found.append((box.end(), answer))
    answers = list(dict.fromkeys(answer for _, answer in found))
    return ", ".join(answers) or None


def _marked(text):
    """What the last mark with something behind it marks."""
    marks = sorted(
        [m.end() for m in MARK.finditer(text)] + [m.end() for m in HEADING.finditer(text)]
    )
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
    formula = FORMULA.search(sentence)
    if formula and "=" in formula[0] and not sentence[formula.end() :].strip(" .!*"):
        return _inside(formula).rpartition("=")[2].strip() or None
    _, found, rest = _after_is(sentence)
    if not found:
        return None
    if MONEY.match(rest) or FORMULA.match(rest) or VALUE.fullmatch(_first_part(rest)):
        return _statement(rest)
    return None


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
    sentence = re.split(r"\.(?:\s|$)", line)[0]
    return _first_part(sentence).strip(" *$") or None


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
