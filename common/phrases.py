r"""What a phrase or a sentence says: 72 clips; $x = 5$; So there are 72 clips altogether.

    statement(text)     what a text begins with, up to the end of the sentence: behind "answer is"
    said_by(sentence)   the one thing that a sentence says there is
    value(text)         the text, if it is no more than a number, a formula, a group or a name

Each gives None where there is no telling: of two numbers none is taken.
"""

import re

from common.normalise import COUNTS

# -------------------------------------------------------------------------- formulas and quantities

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
NUMBER = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"
MONEY = re.compile(
    rf"\\?\$\s?(-?{NUMBER})(?![0-9A-Za-z$}}^_=+*/\\]|[.,][0-9]|\s*(?:\\[a-z]|[<>≤≥]))"
)
# What is counted: 72 clips, 20 cups of feed; but not 12 more than this
WORDS = r"(?:\s+(?!times\b|[^.]*\bthan\b)[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,3}[²³]?)?"
VALUE = re.compile(rf"[-+]?(?:[0-9][0-9.,/:]*(?:√[0-9]+|π)?|√[0-9]+|π)(?:%|°)?{WORDS}")
QUANTITY = re.compile(
    r"(?<![\w:])[0-9]{1,2}:[0-9]{2}(?:\s?[ap]\.?m\b\.?)?(?![\w:])"  # 5:45 PM
    r"|\b[0-9]+ (?:hours?|feet|pounds?|years?|dollars?),? (?:and )?"  # 3 hours and 20 minutes
    r"[0-9]+ (?:minutes?|inches|ounces|months|cents)"
    rf"|(?<![\w.^=+*/:-])-?\\?\$?\s?-?{NUMBER}(?:(?:\s[0-9]+)?/[0-9]+)?(?:%|°)?(?![\w^=+*/$:])"
    r"(?:\s+(?:dozen|hundred|thousand|million|billion))?",
    re.A | re.I,
)
MONEY_LAST = re.compile(rf"=\s*\\?\$({NUMBER})[ .]*$")  # 40 hours x $10 / hour = $400
# No formula is $4*42 = $ of $4*42 = $168
MONEY_SUM = re.compile(r"\$([0-9][0-9.,]*(?:\s*[-+*/×÷]\s*\$?[0-9][0-9.,]*)+\s*=\s*)\$(?=[0-9])")
# Nor are $12$, $\$12$ and $9 + 3 = 12$
MERE = re.compile(
    r"(?<!\$)\$\s*(?:(?:[-+*/×÷^= 0-9.,(){}]|\\cdot|\\times)+=\s*)?"
    rf"((?:\\\$)?-?{NUMBER})\s*\$(?!\$)"
)
IMPLIES = r"\\implies|\\Longrightarrow|\\Rightarrow|\\iff|⇒|⟹|→"
NUMBER_WORD = re.compile(
    r"\b(?:one|two|three|four|five)[- ]"
    r"(?:half|halves|thirds?|quarters?|(?:four|fif|six|eigh|ten)ths?)"
    rf"|(?<!of )(?<!at least )(?<!at most )\b(?:{'|'.join(COUNTS[2:])})\b"
    r"(?!-| (?:hundred|thousand|[a-z]*th))",
    re.I,
)
COUNT = re.compile(rf"({'|'.join(COUNTS)})")
# Of 15 + 7 = 22 the left side
SUMS = re.compile(r"(?<![\w^.])[0-9][-0-9.,\s+*/×÷·()$!%°\\]*=\s*(?=\\?\$?[0-9])")
SIGNS = r"[-+*/×÷·^(). 0-9{}%√π]+"
SUM = re.compile(rf"{SIGNS}(?:={SIGNS})+")  # 3/6 + 2/6 = 5/6
COMPUTED = re.compile(r"[0-9][^-+*/×÷·]* [-+*/×÷·] [^-+*/×÷·]*[0-9]")
VARIABLE = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
# What makes quantities, here #, part of a formula
PART = re.compile(r"[=+*^×÷√π<>≤≥≈]|[a-z]\(#|#\s?(?:[-−–/:]|out of)\s?#")
NOUN_END = re.compile(  # so in total 7 pets
    rf"\b{NUMBER} (?!(?:is|are|was|and|or|of|in|on|at|the|to|for|with|from|by|per|more|less|fewer"
    r"|times|that|which|but|so|minus|plus|other|different|red|blue|green|white|black)\b)[a-z]{3,}$"
)
CUBED = re.compile(r"\b([ckm]?m|ft|in)(?:\^[23]|[²³])")
BOUND = re.compile(rf"\bthan {NUMBER}\b")  # seven primes less than 18
# 1.2 kg to bake 3 cakes; 3 miles per hour to have an average of 4
PURPOSE = re.compile(rf"^(.*?[0-9].*?) to [a-z]+ {NUMBER}")
AIM = re.compile(rf"^(.*?[0-9].*?) to (?:have|get) an? .*{NUMBER}")
TO_DO = re.compile(r"(?<=[a-z]) to [a-z]+ [^0-9=]*$")  # 220 minutes to download the file
# What is counted beside what is asked for: 25 grams remain after 24 days
BESIDE = re.compile(
    r"\b(?:after|for|per|every|each|at|(?<!total )of|between|with|from|number|containing|holding"
    r"|(?:from|by|after) [a-z]+ing"
    r"|^in)\s+"
    rf"(?:(?:the|her|his|their|all|these|those)\s+)?\$?{NUMBER}(?:(?<=[0-9]) and {NUMBER}\b)?"
    rf"|\bin (?:the|her|his|their|its|all) [a-z]+ {NUMBER}\b"
    rf"|\b(?:in|over) {NUMBER} (?:years?|months?|weeks?|days?|hours?|minutes?|seconds?)\b",
    re.I,
)

# --------------------------------------------------------------------------------- plain text maths

GROUP = re.compile(
    r"[(\[{][^()\[\]{}=]*[0-9][^()\[\]{}=]*[)\]}]|\\\{[^{}=]*\\\}|[0-9]+(?: ?: ?[0-9]+)+"
)
GROUPS = re.compile(rf"(?:{GROUP.pattern})(?:(?:,|,? and|,? or) (?:{GROUP.pattern}))+")
GROUP_END = re.compile(rf"^[^0-9()$]*\s({GROUP.pattern})\.?$")  # They meet at the point (2, -1).
FUNCTION = r"(?<![A-Za-z])(?:sqrt|ln|log|exp|sin|cos|tan)(?=\()"
SIDE = (
    r"(?:\([^()\n]*\)|[-+±*/×^0-9.√π²³° ]"
    rf"|{FUNCTION}|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))+"
)
# 4π - 8; 3.5 × 10^4 meters
MATHS = re.compile(rf"(?=.*[0-9π]){SIDE}(?<=[A-Za-z0-9)π²³°]){WORDS}")
LINE = re.compile(rf"(?=.*x)(?=.*y){SIDE}={SIDE}(?<=[A-Za-z0-9)])")  # 2x + 3y = 12
LISTED = re.compile(r"{0}(?:, {0})*,? (?:and|or) {0}".format(rf"-?{NUMBER}(?:/[0-9]+)?"))  # 2 and 3
# x, angle C, f'(x), P(7 or 11), (x, y)
LEFT = (
    r"(?:[A-Za-z]|∠[A-Z]+|[a-z]'*(?:\^\{?-1\}?)?\((?:[a-z]|-?[0-9.]+)\)"
    r"|[a-z]\([a-z]\([a-z0-9]\)\)|(?:[A-Z]{1,4}|gcd|lcm)\([^()\n]{1,40}\)"
    r"|\([a-z](?:, ?[a-z])+\))"
)
BETWEEN = r"-?[0-9./]+\s*[<≤]=?\s*[a-z]\s*[<≤]=?\s*-?[0-9./]+"  # -2 < x < 3
PLAIN = rf"(?:{LEFT}\s*(?:=|≈|[<>≤≥]=?){SIDE}(?:={SIDE})*|{BETWEEN})"  # y = 2x + 1
UNDONE_SUM = re.compile(rf"\\?\$\s?{NUMBER} [*×÷] ")  # $5 * 0.6, if it is all
UNFINISHED_SUM = re.compile(r"[0-9. ]+(?:[-+*×·][0-9. ]+)+")
UNDONE = re.compile(r"^[^=]*=(?=.*[0-9)]\s*[-+*×·])(?!.*=)[-+*×·0-9 ().]+$")  # a = 3 + (20 - 1)
EQUATIONS = re.compile(rf"(?<![^\s,:])({PLAIN}(?:,?\s+(?:and|or)\s+{PLAIN}|,\s+{PLAIN})*)[.!]?$")

# ----------------------------------------------------------------------------------------- formulas

GAP = r"(?:[\s$]|\\quad|\\qquad|\\[ ,;])*"
AND = rf"{GAP}(?:,|;|,?\s*(?:\\text\{{\s*)?(?:and|or)(?:\s*\}})?){GAP}"
JOINED = re.compile(AND)
EQUALS = r"(?:(?<![<>!:])=|\\equiv(?![a-z]))"
SIDES = re.compile(EQUALS + r"(?![^{}]*\})")  # the = of \sum_{n = 1} parts none
RELATED = re.compile(  # x = 5, x < 5
    rf"\s*[A-Za-z](?:_\{{?\w+\}}?)?\s*(?:{EQUALS}|[<>]=?|!=|\\(?:leq?|geq?|neq?|lt|gt|in)(?![a-z]))"
    r"(?!.*=)[^A-Za-z]*(?:\\[a-z]+[^A-Za-z]*)*"
)
LESS = r"\s*(?:<|\\leq?(?![a-z])|\\lt(?![a-z]))\s*"
CHAIN = re.compile(rf"[^A-Za-z=<]*{LESS}[a-z]{LESS}[^A-Za-z=<]*")  # -2 < x < 3
ASSIGNED = re.compile(r"\s*[A-Za-z]\s*=[^=,]*(?:,\s*[A-Za-z]\s*=[^=,]*)+")  # x = 2, y = 3
GIVES = re.compile(r"[\s,]*(?:gives|implies|yields|means|so|hence|then|thus)[\s,]*(?:that\s+)?")

# -------------------------------------------------------------------------------------------- words

# What stands between a mark and its answer
LEADS = re.compile(
    r"^(?:(?i:therefore|thus|then|either|simply|just|exactly|approximately|about|equal to|given by"
    r"|closest to)"
    r"[\s,:]+"
    r"|(?:the )?(?:number|integer|value|point|interval|fraction)\s+(?=[-$\d(\[\\]))"
)
NO_ANSWER = re.compile(
    r"\(?(?:not|un\w+|an?(?! [a-z]{3,}$)|an? (?:number|integer|fraction|bit|lot|multiple|value)"
    r"|below|above|here|yet|still|shown|wrong|right|correct|consistent|reasonable|in|the|that|this"
    r"|what|to|given|found|obtained|as|of|we|it)\b"
)
CUT = re.compile(r"\b(?:is|are|be|equals?|of|the|that)$")  # The area is
NONE_OF = re.compile(r"none of (?:these|the (?:\w+ )?(?:options|choices|answers|above))\b", re.I)
LETTERS = re.compile(r"\**[A-E]\**(?:(?:,| and|, and) \**[A-E]\**)+(?=[.\s]*$)")

BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
BOLD_END = re.compile(r"\*\*([^*\n]+)\*\*[.!]?$")
WHERE = re.compile(
    r"[\s,(]*(?:where|which|for|with|when|if|since|because|as|provided|assuming|or equivalently"
    r"|or (?:in|as) (?:an? )?(?:\w+ )?(?:form|number|fraction|decimal)"
    r"|(?:attained|reached|achieved|occurring) (?:when|at|for|if))\b"
)
WHO = re.compile(
    rf"({NUMBER} [a-z]+) (?:have|had|are|were|can|will|would|could)\b|({NUMBER}%) of (?:the|all)\b"
)
# Where what is counted is: 13 chickens on the farm
PLACE = re.compile(
    r"(?<=[a-z]) (?:on|in|at|for|from|left|inside|during)"
    r" (?:(?:the|an?|his|her|their|each|all) .*|(?-i:[A-Z][a-z]+)$)"
)
# The minimum is -4 at $x = 1$
WHEN = re.compile(
    rf"(?<!=)(\s-?{NUMBER}),?\s+(?:which )?(?:occurs |attained |reached )?"
    r"(?:at|when|for|if) \$?[a-z]\s*=.*"
)
IN_OTHER_WORDS = re.compile(
    r"[,;:(]\s*(?:that is|i\.e\.|in other words|or simply),?\s+|out of [0-9]+,? or (?=\$)"
)
ASIDE = re.compile(r"\s\((?=[a-z]{2,}\s)[^()]*\)")
BECAUSE = re.compile(r",?\s+(?:(?:because|since)\s|if (?=(?:s?he|they|it|the)\b))")
BESIDES = re.compile(r"(?<=[0-9A-Za-z%$]),\s+which (?:is|was|are|were|means|makes)\s([^,]*)$")
# The chance is one sixth (1/6)
SPELLED = re.compile(r".*\s[a-z]+[- ][a-z]+ \((-?[0-9]+/[0-9]+)\)\.?$")
STANDS_FOR = re.compile(r",\s+where\s+\$?[A-Za-z]\$?\s+(?:is|denotes)\b.*")
ROUGHLY = re.compile(r"(?<=\$),\s+(?:or\s+)?(?:about|approximately|roughly)\s[^$]*(?=\.$)")
AGAIN = re.compile(  # the same once more
    r",?\s+or\s+equivalently\b.*"
    r"|(?<! is)(?<! are)(?<! was),?\s+(?:or\s+)?(?:about|approximately|roughly)\b.*"
    r"|,\s+or\s+[0-9.]+%.*|,\s+or\s+[0-9]+ (?:hours?|minutes?|days?|weeks?|feet|dollars)\b.*"
    r"|(?<=%),?\s+or\s+[0-9]+/[0-9]+.*"
    r"|\s+in (?:its )?(?:simplest|lowest|simplified) (?:form|terms).*"
    r"|(?:(?<=/[0-9])|(?<=/[0-9][0-9])),?\s+or\s+(?:0?\.[0-9]|[0-9.]+%).*"
)
IS = re.compile(
    r"\s(?:is|are|was|were|(?:must|will|would|should) be|must equal|equals?|factors (?:as|into|to)"
    r"|(?:simplifies|comes|reduces|evaluates|works out|amounts) to"
    r"|has\s+(?:an?\s+)?[a-z]+(?:\s+of)?|has(?=\s[0-9]+ (?!choices|options|possib))"
    r"|(?:i\.e\.|that is|namely),?)(?:\s+|:\s*)"
    r"(?:(?:equal to|written(?: as)?|exactly|therefore|thus|then|now|still|also|just|only|indeed"
    r"|always|at)\s+){0,2}"
)
PROPER = re.compile(
    r"(?:on |in |an? )?((?:[A-Z][a-z]+ ?){1,3}|true|false|even|odd|infinite|undefined"
    r"|not (?!(?:clear|known|sure|given|possible|easy|obvious)\b)[a-z]+"
    r"|neither even nor odd|prime|composite|positive|negative|(?:ir)?rational|perpendicular"
    r"|parallel|increasing|decreasing|right triangle|isosceles|equilateral|scalene|acute|obtuse"
    r"|(?<!right )triangle|pentagon|hexagon|octagon|square|rectangle|parallelogram|rhombus"
    r"|trapezoid|circle|ellipse|parabola|hyperbola)"
    r"(?: triangle)?"
)
UNITS = re.compile(
    r"\s*(?:(?:cubic|square) )?(?:units|inch(?:es)?|feet|ft|(?:centi|milli|kilo)?met(?:er|re)s?"
    r"|[ckm]?m|yards|miles|dollars|cents|degrees|hours|minutes|seconds|days|years|ways)?[\s.!*。]*"
)
NAMED = re.compile(r"[A-Za-z][A-Za-z ]{2,40}\s*[:=≈]\s*(?=\S)")  # Variance: 6.5
SUBJECT = re.compile(  # Thus, $12$ is the largest; Therefore $x > 5$ is the solution
    r"(?:therefore|thus|so|hence)?[\s,]*(\$[^$]+\$|[-0-9.,/]+)\s+is (?:the|our)\b", re.I
)
TALLEST = re.compile(  # So Emily is the tallest; Maria rides faster
    r"(?:(?:therefore|thus|so|hence|th(?:is|at) means)[\s,]+(?:that\s+)?)?"
    r"(?!(?:It|This|That|She|He|Each|One|The)\b)"
    r"((?-i:(?:[A-Z][a-z]+ )?[A-Z]|[A-Z][a-z]+)) "
    r"(?:\w+ the (?:\w+est|most|least)\b|\w+s \w+er\.?$"
    r"|is the (?!answer|number)\w+er\b|is (?:cheap|fast|slow|old|young|tall|short|heavi|light)er\b"
    r"|\w+ (?:more|fewer|less)\b.* than (?-i:[A-Z])|\w+ (?:more|fewer|less) \w+\.?$)",
    re.I,
)
DAY = re.compile(r".*\b(?:is|be|on) (?:an? )?((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b")
WAYS = re.compile(rf".*\bin ({NUMBER})(?: [a-z]+)? ways\b")
OPTION = re.compile(
    r"(?:.*\s)?(?:option|choice) \(?([A-E])\)? is (?:the )?(?:correct|right)\b", re.I
)
RATIO = re.compile(r".*\bratio\b.*\b([0-9]+) to ([0-9]+)\b")
YES = re.compile(r"(?:.*, (?:and )?|(?:so|therefore|thus|hence),? |)(yes|no), ", re.I)
HENCE = re.compile(r"(?:so|therefore|thus|hence)\b", re.I)
HENCE_COMMA = re.compile(r"^(?:so|therefore|thus|hence),\s+", re.I)
NO_SOLUTION = re.compile(
    r".*\b(?:has|have|there (?:is|are))(?: exactly| only)? "
    r"(no (?:[a-z]+ )?solutions?|infinitely many solutions"
    r"|(?:one|two|three|four)(?= (?:\w+ ){0,2}(?:solutions?|roots?|zeros?)\.$))\b"
)
TOTAL = re.compile(
    r"(?:so|therefore|thus|hence)\b(?!.*\b(?:if|whether|need|not|would|each)\b).*"
    rf"\ba total of (\\?\$?{NUMBER})(?!\s*[-+*/×÷=^])\b",
    re.I,
)
STANDS_OUT = (SUBJECT, SPELLED, YES, DAY, TALLEST, OPTION, NO_SOLUTION, WAYS, TOTAL)
# A sentence with one of these says nothing yet.
UNDECIDED = re.compile(
    r"\b(?:check|whether|let|assume|suppose|consider|next|try|if|factor|multiple|divides?"
    r"|(?:we|I)\s+(?:\w+\s+)?(?:need(?! (?:at least )?[0-9])|can(?! (?:read|see|say|conclude))"
    r"|could|should|must)"
    r"|(?-i:may)|might|cannot|not|steps?|(?<!our )(?<!this )(?<!all )cases?|then"
    r"|(?<!has )(?<!has the )(?<!of the )equation(?! of| in)|(?<!by the )formula|but|wrong"
    r"|(?!were|was|ha)\w+n['’]t|none|given|divisible|choices|(?:question|problem) (?:asks|is)"
    r"|(?:more|less|\w+er) than(?!\s+[0-9]))\b|\?",
    re.I,
)

# What is still to be done with a formula: It remains to compute $2^{10}$.
ON_ITS_WAY = re.compile(
    r"\b(?:remains|suffices|(?:comput|evaluat|simplif|determin|rewrit|writ|expand|factor|look)\w*"
    r"|we (?!get|obtain|find)|I|you|first|term)\b",
    re.I,
)


def statement(text):
    """The answer that a text begins with: money, formulas, or plain words up to the end of the
    sentence."""
    text = re.sub(r"^(?:-\s+|(?:\.\.\.|…)\s*\n)", "", text.lstrip(' \t\n:*_#=}`"'))
    text = LEADS.sub("", text)
    text = re.sub(r"^that (?=there|the|s?he|they|it)", "", text)
    if choice := re.match(r"\(?([A-E])\)?, (?=\$?[0-9])", text):
        return choice[1]
    if spelled := re.match(r"[a-z-]+ \(([0-9]+)\)", text):  # five (5)
        return spelled[1]
    if none := NONE_OF.match(text):
        return none[0]
    if letters := LETTERS.match(text):
        return letters[0].replace("*", "")
    formula = FORMULA.match(text)
    if (money := MONEY.match(text)) and not (formula and re.search(r"[^-\s(+*/=]\$$", formula[0])):
        return money[1]
    if text.startswith(("$$", "\\[")):
        return inside(formula).strip() or None if formula else None
    line = text.partition("\n")[0].partition("</")[0].partition("[/")[0]
    if line.count("**") == 1:  # of **Answer: 40%** (12 of 30) the end
        line = line.partition("**")[0] or line
    line = re.sub(r"\s+#+\s*$", "", line)
    if line.count("$") % 2 and (money := MONEY_LAST.search(line)):
        return money[1]
    if end := re.search(r"[.!?]\s+[A-Z]", without_formulas(line)):  # of the sentence
        line = line[: end.start()]
    formulas = list(FORMULA.finditer(line))
    if formulas:
        return _of_formulas(line, formulas)
    return _of_words(line)


def said_by(sentence):
    """The one thing that a sentence says there is: 72 of "So there are 72 clips altogether."."""
    sentence = _to_the_point(sentence)
    behind = IN_OTHER_WORDS.split(sentence)[-1]
    if behind != sentence and EQUATIONS.match(behind):
        return behind.strip(" .")
    if behind != sentence and (answer := value(LEADS.sub("", behind))):
        return answer
    undecided = UNDECIDED.search(without_formulas(sentence))

    # 1. What stands out: $12$ is the largest; No, 91 is none; no solution; It is on **Thursday**.
    for known in STANDS_OUT:
        if found := known.match(sentence):
            return found[1].strip("\\$ ,")
    if ratio := RATIO.match(sentence):
        return f"{ratio[1]}:{ratio[2]}"
    if (bold := _bold(sentence)) and bold != sentence:
        return statement(bold)

    # 2. Equations at its end: So x = 2 or x = 3; Range = [3, 5); Hence $n = 7$.
    equations = EQUATIONS.search(sentence)
    if equations and UNDONE.search(equations[1]):
        return None
    if equations and not re.search("[0-9]", sentence[: equations.start()]):
        return None if undecided else _last_side(equations[1])
    if answer := _computed(sentence):
        return answer
    clause = HENCE_COMMA.sub("", sentence)
    named = NAMED.match(clause)
    if named and (answer := value(clause[named.end() :].rpartition("=")[2])):
        return None if _is_undone(answer, sentence) else answer
    if group := GROUP_END.search(sentence):
        return group[1]
    formulas = list(FORMULA.finditer(sentence))
    if formulas and (answer := _last_equation(sentence, formulas)):
        return answer

    # 3. What is behind the last "is", else the one quantity that there is.
    rest = _after_is(sentence)
    rest = rest if FORMULA.match(rest) else SUMS.sub("", rest)
    if (MONEY.match(rest) and not UNDONE_SUM.match(rest)) or FORMULA.match(rest):
        return statement(rest)
    answer = value(rest)
    if answer and _is_undone(answer, sentence):
        return None
    if answer and not (undecided and re.fullmatch(r"(?!not\b)[a-z ]+", answer)):
        return answer
    if formulas:
        return _at_its_end(sentence, formulas)
    return _counted(sentence)


def value(text):
    """A number with what it counts, a formula, a group or a name, if that is all there is."""
    text = AGAIN.sub("", text.strip(" *"))
    part = _first_part(text)
    if VALUE.fullmatch(part) or MONEY.fullmatch(part) or FORMULA.fullmatch(part):
        return statement(text)
    if word := PROPER.fullmatch(text.strip(".")) or COUNT.fullmatch(text.strip(".")):
        return word[1]
    if LISTED.fullmatch(part) or GROUPS.fullmatch(part):
        return re.sub(r",?\s+(?:and|or)\s+", ", ", part)
    mathematics = GROUP.fullmatch(part) or MATHS.fullmatch(part) or LINE.fullmatch(part)
    return part if mathematics else None


def _is_undone(answer, sentence):
    """Was the text cut within a sum? Red seats = 45 - 13"""
    return UNFINISHED_SUM.fullmatch(answer) and not sentence.endswith(".")


def _to_the_point(sentence):
    """A sentence without reasons, asides and what a formula stands for. What is no formula between
    dollars loses them, so that one rule reads $12$ students, \\$12 and 12 students."""
    if "$" not in sentence:
        sentence = re.sub(r"\\[()]", "$", sentence)
    sentence = ASIDE.sub("", BECAUSE.split(MONEY_SUM.sub(r"\1\$", sentence))[0])
    sentence = STANDS_FOR.sub(".", ROUGHLY.sub("", sentence))
    besides = BESIDES.search(sentence)
    if besides and not value(besides[1]) and re.search("[0-9]", sentence[: besides.start()]):
        sentence = f"{sentence[: besides.start()]}."
    if len(MERE.findall(sentence)) == 1:
        sentence = WHEN.sub(r"\1", MERE.sub(r"\1", sentence))
    if len(MONEY.findall(sentence)) == sentence.count("$"):  # none of them is a formula's
        sentence = sentence.replace("\\$", "$").replace("$", "\\$")
    return sentence


def _bold(text):
    """The one number, or else the last words, that stand out: So it is **12 cm**."""
    bold = [one for one in BOLD.findall(text) if re.search("[0-9]", one)] or BOLD_END.findall(text)
    return bold[0] if len(bold) == 1 else None


def inside(formula):
    return next(part for part in formula.groups() if part is not None)


def without_formulas(text):
    """The text, with formulas blanked."""
    return FORMULA.sub(lambda m: "\0" * len(m[0]), text)


def _of_words(line):
    """72 clips; 13 of "The number is 13"; Monday; but not "unclear to me"."""
    sentence = _bold(line) or re.split(r"\.(?:\s|$)|。", line)[0]
    answer = AGAIN.sub("", _first_part(sentence)).strip(' *$`<>"')
    if answer.count("}") > answer.count("{"):
        answer = answer.rstrip("}")
    if yes := re.match(r"(yes|no)\b,", answer, re.I):
        return yes[1]
    if letter := re.fullmatch(r"\(([A-E])", answer):
        return letter[1]
    if re.search("[\u4e00-\u9fff]", answer) and len(numbers := re.findall(NUMBER, answer)) == 1:
        return numbers[0]
    if counted := WHO.match(answer):  # 8 students have both
        return counted[1] or counted[2]
    if rest := value(_after_is(answer)) or _computed(TO_DO.sub("", answer)):
        return PLACE.sub("", rest)
    if VALUE.fullmatch(answer):
        return PLACE.sub("", answer)
    if tallest := TALLEST.match(answer):
        return tallest[1]
    if len(answer.split()) > 3 and re.match(
        r"(?:[A-Z][a-z]+(?:,|['’]s)?|s?he|they|it|there) ", answer
    ):
        if counted := _counted(answer + "."):  # She needs 12 more tiles
            return counted
    wordy = len(answer.split()) > 4 or NO_ANSWER.match(answer) or CUT.search(answer)
    if wordy and not re.search(r"[0-9\\]", answer):
        return None
    return re.sub(r"^an? (?=[a-z]{3,}$)", "", answer) or None  # a cat


def _of_formulas(line, formulas):
    """One formula; several, if they are joined; else what the sentence says there is."""
    if re.match(r"(?:obtained|found|given) by \w+ing\b", line):
        return None
    joined = [formulas[0]]
    if WHERE.match(line, joined[0].end()):
        return inside(joined[0]).strip() or None
    for formula in formulas[1:]:
        if not JOINED.fullmatch(line, joined[-1].end(), formula.start()):
            break
        joined.append(formula)
    answer = ", ".join(inside(formula).strip() for formula in joined)
    rest = _after_is(line)
    if rest.strip(" .*"):
        return statement(rest)
    return None if len(formulas) > len(joined) else answer or None


def _last_equation(sentence, formulas):
    """Hence $n = 7$; Therefore, $x = 2$ or $x = 3$; Thus, $f(3) = 6 + 1 = 7$."""
    if len(formulas) == 2 and RELATED.fullmatch(inside(formulas[1])):
        joined = JOINED.fullmatch(sentence, formulas[0].end(), formulas[1].start())
        if joined and "=" in formulas[0][0] and not RELATED.fullmatch(inside(formulas[0])):
            formulas = formulas[1:]  # $4n = 28$ and $n = 7$
    last = re.split(IMPLIES, inside(formulas[-1]))[-1].strip(" .")
    last = re.sub(r",?\s*\\q?quad.*|\s*\\p?mod\b.*", "", last)
    ends = UNITS.fullmatch(sentence, formulas[-1].end())
    words = FORMULA.sub("", sentence)
    if len(formulas) > 1:
        equations = all("=" in formula[0] for formula in formulas)
        if ends and GROUP.fullmatch(last) and "notation" in words:  # written as $(-4, 4)$.
            return last
        if not ends or not equations or UNDECIDED.search(words):
            return None
        between = sentence[formulas[-2].end() : formulas[-1].start()]
        return last if GIVES.fullmatch(between) else _of_formulas(sentence, formulas)
    if RELATED.fullmatch(last) or CHAIN.fullmatch(last):
        decided = not UNDECIDED.search(words) and (ends or not re.search("[0-9]", words))
        return last if decided and sentence[-1] in ".!$)]*。" else None
    if "equation" in words:  # of a line, a circle
        return last if ends and not UNDECIDED.search(words) else None
    bare = (
        GROUP.fullmatch(last)
        or not re.search(EQUALS, last)
        and re.fullmatch(r"[Ss]o[\s,:.]*", words)
    )
    if bare and ends:  # They meet at $(1, -2)$. So $2\sqrt{3}$.
        return None if UNDECIDED.search(words) else last
    if ends and ASSIGNED.fullmatch(last):
        return last
    first, *others = SIDES.split(last)
    operator = re.search(r"\\(?:int|sum|prod|lim|binom)|\\frac\{d\}", first)
    first = re.sub(r"\\(?:begin|end)\{\w+\}", "", first)
    bare = re.sub(r"[A-Za-z]'*(?:\^\{-1\})?\([^()]*\)|_\{?\w+\}?|\\[a-z]+", "", first)
    on_its_way = re.search("[0-9]", bare) and re.search("[A-Za-hj-z]", bare)
    factors = others and re.fullmatch(r"\s*\S*\([^()]+\)\s*\([^()]+\)", others[-1])
    rewritten = len(others) > 1 or operator or factors
    if not (ends or WHERE.match(sentence, formulas[-1].end())) or not others:
        return None
    if on_its_way and not rewritten:
        return None  # $2x = 14$
    return others[-1].strip() or None


def _at_its_end(sentence, formulas):
    """Each of them measures $45^\\circ$. Of a conclusion the last formula of several, too."""
    answer = inside(formulas[-1]).strip(" .")
    words = without_formulas(sentence)
    ends = UNITS.fullmatch(sentence, formulas[-1].end()) and sentence[-1] in ".!*。"
    if not ends or UNDECIDED.search(words) or ON_ITS_WAY.search(words):
        return None
    if HENCE.match(sentence):  # So it is all $x$ with $-2 < x < 6$.
        related = RELATED.fullmatch(answer) or CHAIN.fullmatch(answer)
        return answer if related else SIDES.split(answer)[-1].strip()
    alone = len(formulas) == 1 and not re.search("[0-9]", words)
    return (
        answer if alone and re.search("[0-9]", answer) and not re.search("[=<>]", answer) else None
    )


def _computed(sentence):
    """90 minutes ÷ 60 minutes per hour = 1.5 hours"""
    left, _, right = sentence.partition("=")
    numbers = COMPUTED.search(left) and not VARIABLE.search(left) and "$" not in left
    return value(right) if numbers and "," not in right else None


def _last_side(equations):
    """x = 2 or x = 3; y = 2x + 1; of n = 3 + 4 = 7, f(3) = 7 and P(7 or 11) = 2/9 the last side."""
    several = re.search(r",|\b(?:and|or)\b", equations)
    if (
        re.match(r"(?:[A-Z]+|gcd|lcm)\(|[a-z]\([a-z]\(", equations)
        or equations.count("=") > 1
        and not several
    ):
        return equations.rpartition("=")[2].strip(" .")
    return equations.strip(" .")


def _counted(sentence):
    """The one number of a sentence, or its one sum of money: So Janet makes $18 every day. In a
    conclusion the last of several, or all: Therefore there are 8 rabbits and 12 chickens."""
    sentence = BOUND.sub("", SUMS.sub("", CUBED.sub(r"\1", sentence)))
    sentence = AIM.sub(r"\1", sentence)
    if HENCE.match(sentence):
        sentence = PURPOSE.sub(r"\1", sentence)
    quantities = QUANTITY.findall(sentence) or NUMBER_WORD.findall(sentence)
    if len(quantities) > 1:
        quantities = QUANTITY.findall(BESIDE.sub("", sentence))
    if PART.search(QUANTITY.sub("#", sentence)):
        return None
    money = [quantity for quantity in quantities if "$" in quantity]
    if len(money) == 1:
        quantities = money
    ends = sentence.endswith((".", "!", "。")) or NOUN_END.search(sentence)
    if UNDECIDED.search(sentence) or not ends:
        return None
    if len(quantities) > 1 and not HENCE.match(sentence):
        return None  # There are 5 red and 6 blue balls
    if len(quantities) > 1 and not re.search(r"\band\b", sentence):
        quantities = quantities[-1:]
    quantities = [quantity.strip(" $\\") for quantity in quantities]
    if len(quantities) > 1:
        quantities = [quantity.replace(",", "") for quantity in quantities]
    return ", ".join(quantities) or None


def _after_is(sentence):
    """What is behind the last "is" of a sentence, which is in no formula; "" if there is none."""
    places = list(IS.finditer(without_formulas(sentence)))
    if not places:
        return ""
    if len(places) > 1 and re.search(r"\band\b", sentence[places[-2].end() : places[-1].start()]):
        return ""  # one is this and the other that
    return sentence[places[-1].end() :]


def _first_part(sentence):
    """A sentence up to the comma behind which it goes on in words: 72 clips, altogether."""
    sentence = BECAUSE.split(sentence)[0].strip(" .!*")
    words = re.search(
        r"(?<=[0-9A-Za-z%)}])\s*(?:,\s+(?=[a-z]{2,}\s|[a-z]{3,}$)|\s\((?!-?[0-9]+,))", sentence
    )
    if words and re.search(r"[0-9]", sentence[: words.start()]):
        if not re.match(r",\s+(?:and|or)\b", sentence[words.start() :]):
            return sentence[: words.start()]
    return sentence
