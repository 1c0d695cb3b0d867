r"""Where a completion states its answer, read as a person would.

Tried in this order, on what stands behind a model's thought (</think>), else on the thought itself:

    boxes        the last \boxed{..}; with those that "and", "or" or a comma join to it
    marks        what follows the last "answer is", "Answer:", "####", "<answer>", 答案是
    conclusion   the last sentence, if it says one thing: "There are 72 clips."; x = 5
    alone        the whole text, if it is one number, formula or word, as "only the number" asks for

What is no statement gives None: the last number in a text is none, nor is what is only supposed.
What a phrase or a sentence says is read in common/phrases.py.
"""

import math
import re

from common.latex import INSIDE, MAX_CHARS
from common.phrases import (
    AND,
    EQUATIONS,
    FORMULA,
    GROUP,
    HENCE,
    MONEY,
    NO_ANSWER,
    RELATED,
    SUBJECT,
    SUM,
    UNDECIDED,
    VALUE,
    YES,
    inside,
    said_by,
    statement,
    value,
    without_formulas,
)

# ------------------------------------------------------------------------------------------- boxes

BOX = re.compile(
    r"(?:\\(?:boxed|fbox|framebox)|(?<![A-Za-z\\])boxed(?=\{))(?![A-Za-z])\s*"
    r"(?:\{(%s)\}|(?=\{([^\n$]{0,%d})|([^\s$]{0,%d})))"
    r"|(?<![A-Za-z\\])boxed\((\s*[^()\n]{1,50})\)" % (INSIDE, MAX_CHARS, MAX_CHARS),
    re.S,
)
NAME = r"([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*"  # x = \boxed{2} and y = \boxed{3}
BOX_JOINED = re.compile(AND + f"(?:{NAME})?")
NAMED = re.compile(rf"(?<![\w\\^+*/)}}-]){NAME}$")

# A box with nothing in it, or in which the text was cut
OPEN_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\b(?!\s*\{(?!\s*\})%s\})" % INSIDE, re.S)
# Special tokens, left in a text
END_OF_TEXT = re.compile(r"(?:\s|<\|\w+\|>|</s>|<end_of_turn>)+$")
END_OF_TURN = re.compile(
    r"(?<=\S)\s*(?:<\|(?:eot_id|im_end|endoftext|end)\|>|<end_of_turn>|\n(?:User|Human): )"
)

# ------------------------------------------------------------------------------------------- marks

SAYS = r"(?![a-z]|\s+not\b)"  # behind a mark: no word goes on, nothing is denied
MARKS = [
    # the answer (to the question) (in cm) is
    r"(?<![A-Za-z])(?:answers?|ans)(?:\s+to\s[^.\n]{0,60}?)?"
    r"(?:[*_\s]*\([^()\n]{0,40}\))?"
    rf"[)*_\s]*(?:=>?|:|\b(?:is|are|(?:must|would|should|will)\s+be)){SAYS}",
    # Answer - 5
    r"^[#* \t]*+(?:final[ \t]+)?answer[* \t]*(?:-|–|→|=>|(?=\$|\\[(\[]))(?=[ \t$\\])",
    rf"correct\s+(?:option|choice)s?[*_\s]*(?:is|are|:){SAYS}",
    r"\bI\s+(?:choose|select|pick)\s+(?=(?:option\s+)?\(?[A-E]\b)",
    r"^[#*∴ \t]*+(?:(?:solution|result)[* \t]*:|ans\.)",
    r"^[#* \t]*+A[* \t]*:(?![\s\S]{0,200}?^[#* \t]*+B[* \t]*[:.)])",  # A: 5, if no B: follows
    r"答案?\s*(?:是|为|：|:)",
    r"^[#* \t]*+(?:Ответ|Respuesta|Resposta|Réponse|Risposta|Antwort|答え|정답|답)"
    r"[* \t]*[:：]",
    r"####(?!\s*(?:explanation|solution|step|reasoning|check|verif|note))",
    r"[<\[](?:final_)?answer[>\]]|^\(answer\)",
]
MARK = re.compile("|".join(MARKS), re.I | re.M)
HEADING = re.compile(
    r"^[#* \t]*+(?:final[ \t]+answer|answer|最终答案|答案)[#* \t]*+\n(?:[-=_]+\n)?",
    re.I | re.M,
)
JSON = re.compile(
    r'"(?:final[_ ]?)?answer"\s*:\s*(?:"([^"\n]{1,200})"|([^\s",}\]][^",}\]\n]{0,200}))', re.I
)
# Where a next question begins: the few-shot prompts of GSM8K
ASKS = re.compile(r"\n[*# ]*(?:Q|Question|Problem|Human|User)(?: [0-9]+)?[* ]*:")
CLOSED = re.compile(r"\s*[<\[]/")
ANSWER_TAG = re.compile(r"[<\[](?:final_)?answer[>\]]\s*[^\s<]", re.I)
BARE_LINE = re.compile(r"(-?[0-9][0-9.,]*)[.!]?\n")  # of a tag that nobody closes
# **Understanding the Problem**
TITLE = re.compile(r"\s*(?:#+ |\*\*)[A-Z][a-z]+ing (?:the|our|this|all|for)\b[^*\n]*[*:]*\n")
ITEM = re.compile(r"\s*1[.)]\s+[A-Z]")  # Solution: 1. The distance is
SEVERAL = re.compile(r"[.!?]\s+[A-Z]|\n")  # sentences
# What makes "the answer is 5" no statement, if it stands right before
SUPPOSED = re.compile(
    r"\b(?:if|suppose|assume|whether|what|say|guess|unless|until|maybe|perhaps|your)\s+(?:that\s+)?"
    r"(?:the\s+|our\s+)?(?:final\s+|correct\s+)?$"
    r"|\b(?:explain|explanation|arrive at|check|verify)\b[^.:\n]*\b(?:this|the)\s+$",
    re.I,
)

# "[Your answer here]" is none ...
HOLLOW = re.compile(
    r"\W*(?:text\W+)?(?:(?:your|final|the|my|insert|numerical|correct) )*"
    r"(?:answer|result|number|value)(?: here)?\W*",
    re.I,
)
# ... and what takes it back, if it stands at the end
TAKES_BACK = re.compile(
    r"\b(?:(?:cannot|can['’]t|can not) (?:tell|say|decide|determine|be sure)|wait, (?:no|that)"
    r"|let me (?:go back|think again)|hmm, but)\b",
    re.I,
)

GIVES_UP = re.compile(
    r"\b(?:cannot|can not|can['’]t|impossible to) (?:be )?(?:determine|find|say)", re.I
)

# Of \cos\theta = -4/5 the value, of 5_{10} = 101_2 what was asked for
VALUE_OF = re.compile(
    r"^\s*\\text\s*\{[^{}]*\b(?:is|are|equals)[:\s]*\}\s*|"  # {\text{The sum is } 16}
    r"^\s*(?:\\(?:sin|cos|tan|det)(?![a-z])[^=]*|\|z\||\\\|[^=|]*\\\||[0-9]+_\{?10\}?)\s*=\s*"
    r"(?=[^=A-Za-z]*(?:\\(?:d?frac|sqrt|pi)(?![a-z])[^=A-Za-z]*)*$)"
)

# ------------------------------------------------------------------------------------ last sentence

DISPLAY = re.compile(r"\$\$[^$]+\$\$|\\\[[^]]+\\\]")
ALIGNED = re.compile(r"(?:\$\$|\\\[)?\s*\\begin\{(\w+)\*?\}([^$]*?)\\end\{\1\*?\}\s*(?:\$\$|\\\])?")
SENTENCES = re.compile(r"(?<=[.!?])(?<![ap]\.m\.)(?<!i\.e\.|e\.g\.)\s+(?=[A-Z*$\\(])|(?<=。)(?=.)")
# A line that ends so goes on in the next: So the area is \n $$12$$
LEADS_ON = re.compile(
    r"(?:\b(?:is|are|be|equals?|get|obtain|have|[Ss]o|[Tt]hus|that),?|[=:])[*_ ]*$"
)
UNFINISHED = re.compile(
    r"(?:[,;+=(×/&\\-]|\s\*|\n\s*(?:[-*•]|[0-9]+[.)])[ \t]+\**"
    r"|\b(?:and|or|therefore|thus|so|the|of|for|is|are|to|that|by|with|from|as))\s*$"
)
OPEN_FORMULA = re.compile(r"\\\((?:(?!\\\)).)*$|\\\[(?:(?!\\\]).)*$", re.S)
BARE = re.compile(r"\n[ \t]*\n[ \t]*\$?(-?[0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?)\$?$")
# An answer before what explains it
FIRST_LINE = re.compile(r"\s*(-?[0-9][0-9.,]*)\n+(?:Explain|Explanation|Reasoning)\b")
# <div align="center">, and what quotes: > So it is 5.
TAGS = re.compile(r"^[ \t]*</?[a-z]+(?: [^<>\n]*)?>[ \t]*$|^[ \t]*>(?: |$)", re.M)
CODE = re.compile(r"\n[a-z_]{3,} = \S+\n[a-z_]{3,} = \S+$")  # width = 2, length = 8: to be computed
DECIMAL = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
LAST_SUM = re.compile(rf"(?<![-+*/×÷.] )\b{DECIMAL} ([-+*/×÷]) {DECIMAL} = ([0-9]{{1,9}})$")
MUSES = re.compile(r"\b(?:Wait|Hmm)\b[^\0]*[0-9A-Za-z]$")  # a thought that was cut
LAST_SIDE = re.compile(r"\$?(?:=>?|→|⇒)\s*([^=$]+)\$?\.?")  # the last line of many
UNITS_ALONE = re.compile(r"[a-z]+(?: [a-z]+){0,2}\.?")  # behind a formula of its own line
NUMBERED = re.compile(r"^(?:[*#_ ]*(?:Step )?[0-9]+[*_]*[:.)][*_]*\s+(?=[A-Z])|[-*]\s+(?=Total))")
THEN = re.compile(r"^Then,?\s+(?=\$|[a-z] =|[a-z]\(|[0-9])")
WE_HAVE = re.compile(r"^(?:we (?:have|take) (?=\$|\\\()|[Nn]ow,? we (?:can )?see (?:that )?)")
TAKING = re.compile(
    r"^(?:[A-Z][a-z]+ing|Divide|Multiply|Add|Subtract|Simplify)\b"
    r"(?:[^,$]|\$[^$]*\$)*,\s+(?=\$|the\b|we\b|[A-Z])"
)  # Taking roots, $x = 3$.
HEADS_NO_ANSWER = re.compile(r"\W*(?:formulas?|given|to find|known|plan)\b\W*", re.I)
CONDITION = re.compile(r"^([^0-9]*[0-9][^.]*?) if (?:s?he|they|it|the)\b[^.]*")  # behind a number
IN_CASE = re.compile(r"^(So|Therefore|Thus|Hence),? if [^,]*, (?=.*[0-9])")
REMARK = re.compile(r"[A-Z][^0-9$\\=:?]*[a-z][.!]")  # what has no number in it
ORNAMENTS = re.compile(
    r"(?:\s|\$?\\(?:blacksquare|square|qed)\b\$?"
    "|[\u220e\u25a0-\u27bf\ufe0f\U0001f000-\U0001faff])+$"
)
# Sentences behind the last one of a solution
CLOSING = re.compile(
    r"\([A-Z][^()]*[.!]\)$|[*#_ ]*(?:(?:i )?hope (?:this|that|it)|let me know|feel free|please"
    r"|thank|great|good luck|if you (?:have|need|would|want)|is there anything|(?:would|do) you\b"
    r"|does th(?:at|is)\b|(?:step [0-9]+[:.] )?(?:check(?:ing)?\b|verif)|note\b"
    r"|(?:to|let['’]s|we can) (?:double[- ]?)?(?:check|verify)|(?:it|this) works"
    r"|(?:this|that)(?:'s| is) (?:a little|about|roughly|approximately|almost|just)\b"
    r"|(?:therefore,? )?the problem is|that['’]s how|you can|isn['’]t|we verify|indeed"
    r"|alternatively|as expected|you['’]re welcome|happy \w+ing|enjoy|another way"
    r"|we can also|as a check"
    r"|that['’]s (?:a lot|quite|it\b|correct|right)"
    r"|this (?:fraction|answer|result|value) (?:is (?:already|correct|in|exact)|can)"
    r"|yes, (?:that|this|it)|let me (?:double|check|verify)|this is (?:the|what|how|why)\b"
    r"|this is (?:an? )?(?:reasonable|consistent|plausible)"
    r"|this (?:follows|is because|holds|comes from)"
    r"|(?:this|that|it) (?:checks|matches|agrees|makes sense|is (?:correct|right|consistent))"
    r"(?!.* so )"
    r"|(?:problem )?solved|done|q\.?e\.?d)",
    re.I,
)
# The heading of a list behind it, and a line of that list
RECAP = re.compile(
    r"\W*(?:key (?:\w+)|to (?:summari[sz]e|recap)|in summary|summary|recap|what we did)\b[^.]*:\W*",
    re.I,
)
BULLET = re.compile(r"(?:[-*•]|[0-9]+[.)])\s")
# One that begins so is a conclusion ...
CONCLUDES = re.compile(
    r"(?:(?:therefore|thus|so(?!\s+far)|hence|finally|(?:in )?conclusion|in total|all ?together"
    r"|overall|consequently|(?:this|that|which) means|it follows|as a result|the"
    r"|we (?:conclude|find|get|obtain))\b|所以|因此|综上|故|总共|一共)",
    re.I,
)
# ... and one that begins so, or holds such words, is not the last, though the text ends with it.
GOES_ON = re.compile(
    r"(?:first|now(?! (?:he|she|they|there|it|[A-Z]\w+) (?:has|have|is|are|will)\b)|so far|since"
    r"|given|also|similarly|again|here|recall|where|because|for example|step|case|then|next"
    r"|multiply|divide|add|subtract|plug(?:ging)?|substitut(?:e|ing)|use|solve|simplify|find"
    r"|calculate|compute|expand|set|remember)\b|[-*•]\s|[0-9]+[.)]\s|[^A-Za-z]*$",
    re.I,
)
# A reason, before what follows
SINCE = re.compile(r"(?:since|because|as)\s[^,\n]*,\s+(?:so\s+)?", re.I)
SO = re.compile(  # before what follows in a sentence
    r"\s+so\s+(?=(?:s?he|they|it|there|the)\s)|\s+and\s+it['’]s\s+|"
    r"(?:,|\b(?:principle|rule|theorem|formula|law))\s+we have\s+(?:that\s+)?(?=\$|\\\()|"
    r"(?:,\s+(?:and\s+)?|\s+and\s+)(?:so|hence|thus|therefore|which means|giving|leaving)\s+"
    r"(?:that\s+)?"
    r"|\s+(?:to get|to find|to obtain|gives|yields|and (?:get|obtain|find)"
    r"|we (?:get|obtain|find|see|arrive at|end up with|are left with))\s+(?:that\s+|a total of\s+)?"
    r"(?=\$|\\\(|-?[0-9]|[A-Za-z]\s*=)"
)
UNSURE = re.compile(
    r"\b(?:so far|I|you(?! (?:would |will )?(?:need|get|have|pay)\b)"
    r"|we(?! (?:can )?(?:get|find|obtain|see|read|say|conclude|have [0-9]+ [×*·+÷-])(?:\b|\s))"
    r"|unless|until|maybe|perhaps|seems?)\b",
    re.I,
)


def stated_answer(completion):
    """The answer as text, or None: of "So the answer is $5$." it is 5."""
    completion = END_OF_TURN.split(completion, 1)[0]
    completion = completion[:-200] + END_OF_TEXT.sub("", completion[-200:])
    thought, ended, said = completion.rpartition("</think>")
    if not ended or GIVES_UP.search(said) or ANSWER_TAG.search(said):
        thought = ""
    answer = _stated(said) or _stated(thought)
    return VALUE_OF.sub("", answer) if answer and not OPEN_BOX.search(answer) else None


def _stated(text):
    if asks := ASKS.search(text):  # the model went on and asked itself the next
        before = text[: asks.start()]
        if answer := _boxed(before) or _marked(before):
            return answer
        if not text[asks.end() :].strip() and (answer := _concluded(before)):
            return answer
    return _boxed(text) or _in_json(text) or _marked(text) or _concluded(text) or _alone(text)


def _boxed(text):
    """The last box, and those joined to it: the list of x = 1 and x = 4, the point x = 2, y = 5."""
    found = []  # (end, name, answer)
    for box in BOX.finditer(text):
        answer = next(filter(None, box.groups()), "").strip()
        opened = answer.count("{") > answer.count("}") or "\\begin" in answer
        cut = text.endswith(answer) and (opened or UNFINISHED.search(answer))
        if not answer or cut or HOLLOW.fullmatch(answer):
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


def _in_json(text):
    """9 of {"reasoning": "27 / 3 = 9", "answer": 9}"""
    found = JSON.findall(text)
    return (found[-1][0] or found[-1][1]).strip() or None if found else None


def _marked(text):
    """What the last mark with something behind it marks."""
    marks = [m.end() for m in HEADING.finditer(text)]
    for mark in MARK.finditer(text):
        if not SUPPOSED.search(text[max(0, mark.start() - 40) : mark.start()]):
            marks.append(mark.end())
    for start in sorted(marks)[-50:][::-1]:  # a text of nothing but marks says nothing
        told = text[start : start + 2 * MAX_CHARS]
        if ITEM.match(told) or TITLE.match(told):
            continue
        if text[start - 1] in ">]" and SEVERAL.search(told := CLOSED.split(told.strip(), 1)[0]):
            line = BARE_LINE.match(told)
            answer = line[1] if line else _concluded(told)  # a whole solution in <answer>
        else:
            answer = statement(told)
        if answer and not OPEN_BOX.search(answer):
            taken_back = TAKES_BACK.search(text, max(start, len(text) - 400))
            goes_back = MUSES.search(text[max(start, len(text) - 600) :])
            return None if taken_back or goes_back or HOLLOW.fullmatch(answer) else answer
    return None


def _concluded(text):
    """What the last sentence says: "The total is 72 clips, altogether.", "Variance: 6.5"."""
    if UNFINISHED.search(text[-20:]) or OPEN_FORMULA.search(text[-2 * MAX_CHARS :]):
        return None
    if answer := FIRST_LINE.match(text):
        return answer[1]
    if CODE.search(text[-200:]) or _is_cut_number(text[-200:]) or MUSES.search(text[-600:]):
        return None
    if bare := BARE.search(text):
        return bare[1]
    *before, line = _without_recap(_lines(text))
    if before and HEADS_NO_ANSWER.fullmatch(before[-1]):
        return None
    *earlier, sentence = _sentences(line)
    answer = _of_sentence(sentence)
    if not answer and before and LEADS_ON.search(before[-1]):
        answer = _of_sentence(_sentences(f"{before[-1]} {line}")[-1])
    if not answer and REMARK.fullmatch(sentence) and not GOES_ON.match(sentence):
        *_, conclusion = earlier or (_sentences(before[-1]) if before else [""])
        remark = not (UNDECIDED.search(sentence) or UNSURE.search(sentence))
        explained = sentence.startswith("This means") and CONCLUDES.match(conclusion)
        if remark and (HENCE.match(conclusion) or sentence.endswith("!") or explained):
            answer = _of_sentence(conclusion)
    return answer


def _is_cut_number(text):
    """Does it end within the result of a sum? 3 of 13 + 20 = 33"""
    if not (cut := LAST_SUM.search(text)):
        return False
    left, sign, right, result = cut.groups()
    left, right = float(left), float(right)
    if sign in "/÷":
        true = left / right if right else math.inf
    else:
        true = {"+": left + right, "-": left - right}.get(sign, left * right)
    return f"{true:.9g}" != result and f"{true:.9g}".startswith(result)


def _lines(text):
    """The last lines of a solution, without what is behind it: a check, a wish, an ornament."""
    text = ALIGNED.sub(_one_line, TAGS.sub("", text[-2 * MAX_CHARS :]))
    text = DISPLAY.sub(_displayed, text)
    lines = []
    for line in text.splitlines():
        if lines and UNITS_ALONE.fullmatch(line.strip()) and lines[-1].startswith(("$$", "\\[")):
            continue
        line, ornaments = ORNAMENTS.subn("", line.strip())
        if line.strip("-*_=# "):
            lines.append(f"{line}." if ornaments and line[-1].isalnum() else line)
    return _without_closing(lines or [""])


def _one_line(environment):
    r"""Of \begin{align} x &= 1 + 2 \\ &= 3 \end{align} one formula, but of no matrix."""
    if not environment[1].startswith(("align", "gather", "equation", "split")):
        return environment[0]
    formula = environment[2].replace("&", "").replace(r"\\", " ")
    return f"\n$${formula}$$\n"


def _displayed(formula):
    """On one line, and the end of its sentence behind it."""
    return re.sub(r"\.\s*(\$\$|\\\])$", r"\1.", " ".join(formula[0].split()))


def _without_recap(lines):
    """Lines up to the heading of a list of what was done or is to be remembered."""
    for i in range(len(lines) - 1, 0, -1):
        if not BULLET.match(lines[i]):
            return lines[:i] if RECAP.fullmatch(lines[i]) else lines
    return lines


def _sentences(line):
    return _without_closing(SENTENCES.split(line))


def _without_closing(parts):
    """Lines or sentences up to the last that is no check or wish; the first, if all are."""
    while len(parts) > 1 and CLOSING.match(parts[-1]):
        parts.pop()
    return parts


def _of_sentence(sentence):
    # 1. A line may be all: **24**; (1, 2); = 24; → 24
    sentence = NUMBERED.sub("", sentence.replace("−", "-"))
    if bold := re.fullmatch(r"\*{2,3}([^*]+)\*{2,3}\.?", sentence):
        sentence = bold[1]
        if re.search(r"[0-9$]", sentence) and (answer := value(sentence)):
            return answer
    if "," in sentence and GROUP.fullmatch(sentence):
        return sentence
    if side := LAST_SIDE.fullmatch(sentence):
        return value(side[1]) or said_by(f"So {side[1]}.")

    # 2. Of a chain of reasons only what follows. It may be a sum: 5. Multiply: 3 × 4 = 12
    sentence = _what_follows(sentence)
    if SUM.fullmatch(sentence):
        return sentence.rpartition("=")[2].strip(" .")

    # 3. Is it a conclusion, or at least no step on the way?
    if not any(begins.match(sentence) for begins in (CONCLUDES, SUBJECT, YES)):
        words = without_formulas(sentence)
        if GOES_ON.match(sentence) or UNDECIDED.search(words) or UNSURE.search(words):
            return None
    return said_by(sentence)


def _what_follows(sentence):
    """Since 4 < 5, we have x = 7; Dividing by 2, x = 7; Divide by 2: x = 7; 2x = 14, so x = 7"""
    sentence = CONDITION.sub(r"\1", IN_CASE.sub(r"\1 ", TAKING.sub("", sentence)))
    if (reason := SINCE.match(sentence)) and reason.end() < len(sentence):
        sentence = sentence[reason.end() :]
    sentence = WE_HAVE.sub("So ", THEN.sub("", sentence))

    behind = re.split(r": |\s(?:=>|⇒|→|⟹)\s+", sentence)[-1]
    formula = FORMULA.fullmatch(behind.rstrip("."))
    related = formula and RELATED.fullmatch(inside(formula))
    computed = SUM.fullmatch(behind) and not UNDECIDED.search(sentence)
    if related or computed or EQUATIONS.fullmatch(behind):
        sentence = behind

    clause = SO.split(sentence)[-1]
    on_its_way = GOES_ON.match(clause) and not re.match(r"[0-9$\\]", clause)
    if clause != sentence and clause.strip() and not on_its_way:
        return f"So {clause}"
    return sentence


def _alone(text):
    """Of a text that is an answer and nothing else: 12; 72 clips.; $x = 5$; Paris."""
    text = text.strip(" \t\n*`").removesuffix(".")
    if len(text) > MAX_CHARS:
        return None
    if formula := FORMULA.fullmatch(text):
        answer = inside(formula).strip()
        return answer if "=" not in answer or RELATED.fullmatch(answer) else None
    if money := MONEY.fullmatch(text):
        return money[1]
    word = re.fullmatch(r"[A-Za-z]{2,20}|\(?[A-E]\)?", text) and not NO_ANSWER.match(text.lower())
    return text if word or VALUE.fullmatch(text) else None
