"""Tests of common/grading.py: the table of pairs, real answers, votes, extraction, properties, hostile input."""

import ast
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))
from bench_grading import hostile_answers, read_completions

from common import grading, latex, normalise, structure
from common.grading import canonical_form, extract_answer, is_correct, majority, weighted

MATH500 = ROOT.parent / "shared" / "data" / "math500.jsonl"


def forget():
    for function in (grading._key, latex._parse, latex._atom):
        function.cache_clear()


# ---------------------------------------------------------------------------- pairs and real answers


def read_pairs():
    lines = (ROOT / "tests" / "grading_pairs.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines[1:]]


def test_the_table_is_well_formed():
    rows = read_pairs()
    assert len(rows) > 700
    assert all(len(row) == 5 and row[1] in ("=", "!=") and row[4] for row in rows)
    assert len({tuple(row[:4]) for row in rows}) == len(rows)


# Pairs that are wrong today, by category and sides. What needs more than arithmetic stays text: sums, products, limits,
# integrals, determinants, cis, conjugates. P(3,4) might be a probability. A sum of floors is looked at for whole
# numbers, n is not.
KNOWN_WRONG = [
    ["latex", "=", r"\sum_{k=1}^{4} k", "10"],
    ["complex", "=", r"2 \operatorname{cis} 60^\circ", r"1+i\sqrt3"],
    ["complex", "=", r"\overline{3+4i}", "3-4i"],
    ["absolute", "=", r"\abs{x-1}", "|x-1|"],
    ["tuple", "=", "P(3,4)", "(3,4)"],
    ["matrix", "=", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "-2"],
    ["latex", "=", "``5''", "5"],
    ["latex", "=", r"\prod_{k=1}^{4}k", "24"],
    ["latex", "=", r"\lim_{x\to0}\frac{\sin x}{x}", "1"],
    ["latex", "=", r"\int_0^1 2x\,dx", "1"],
    ["integer", "=", "C(10,3)", "120"],
    ["tuple", "=", "A(2,3)", "(2,3)"],
    ["floor", "=", r"\lfloor n/2 \rfloor + \lceil n/2 \rceil", "n"],
    [
        "unit",
        "=",
        r"6 \text{ apples and } 4 \text{ pears}",
        r"4 \text{ pears and } 6 \text{ apples}",
    ],
    ["unseen", "=", "1:4", r"\frac{1}{4}"],
]


def test_pairs_of_the_table():
    """The bar: 98.5 % right, at most 4 false positives in 1,500; nothing that was right becomes
    wrong; whichever is the first of two, and with at most half of the work that an answer may take.
    """
    rows = read_pairs()
    grading._key.cache_clear()  # so that each is worked on here
    wrong = []
    for row in rows:
        _, sign, left, right, _ = row
        for text in (left, right):
            canonical_form(text)
            assert latex.WORK.left > latex.BUDGET / 2, text
        same = is_correct(left, right)
        assert same == is_correct(right, left)
        if same != (sign == "="):
            wrong.append(row)
    false_positives = [row for row in wrong if row[1] == "!="]
    assert len(wrong) <= 0.015 * len(rows), wrong
    assert len(false_positives) <= 4 / 1500 * len(rows), false_positives
    assert [row[:4] for row in wrong] == KNOWN_WRONG


@pytest.fixture(scope="module")
def math500():
    if not MATH500.exists():
        pytest.skip("MATH-500 is not here")
    return [json.loads(line) for line in MATH500.read_text(encoding="utf-8").splitlines()]


def test_math500_solutions_are_right(math500):
    wrong = [
        row["answer"]
        for row in math500
        if not is_correct(extract_answer(row["solution"]), row["answer"])
    ]
    assert not wrong


@pytest.mark.parametrize(
    "write",
    [
        "${}$",
        r"\({}\)",
        r"\boxed{{{}}}",
        " {} ",
        "{}.",
        r"\displaystyle {}",
        r"{}\,",
        "**{}**",
        "{{{}}}",
        r"\left.{}\right.",
    ],
)
def test_math500_in_other_clothes(math500, write):
    wrong = [
        row["answer"]
        for row in math500
        if not is_correct(write.format(row["answer"]), row["answer"])
    ]
    assert not wrong


def test_math500_answers_that_are_equal_are_few(math500):
    """All pairs of distinct answers of MATH-500, 46,000 of them: what is called equal is equal."""
    groups = {}
    for answer in {row["answer"] for row in math500}:
        groups.setdefault(canonical_form(answer), set()).add(answer)
    assert sorted(sorted(group) for group in groups.values() if len(group) > 1) == sorted(
        [
            ["-2,1", "1,-2"],
            ["10,\\!080", "10080"],
            ["120", "120^\\circ"],
            ["15", "15\\mbox{ cm}^2"],
            ["2 \\sqrt{5}", "2\\sqrt{5}"],
            ["30", "30^\\circ"],
            ["36", "36^\\circ", "\\$36"],
            ["5", "x=5"],
            ["90", "90^\\circ"],
            ["\\frac14", "\\frac{1}{4}"],
        ]
    )


# --------------------------------------------------------------------------------------------- rules

RULES = [(group, i) for group, rules in normalise.GROUPS.items() for i in range(len(rules))]
NAMES = [f"{group}: {normalise.GROUPS[group][i].why}" for group, i in RULES]


@pytest.mark.parametrize("group, i", RULES, ids=NAMES)
def test_a_rule_does_what_its_examples_show(group, i):
    rule = normalise.GROUPS[group][i]
    assert rule.why and rule.examples
    for before, after in rule.examples.items():
        assert rule(before) == after


@pytest.mark.parametrize("place", range(len(RULES)), ids=NAMES)
def test_no_rule_is_idle(place):
    """No later rule does the same: without it, its example becomes something else in the end."""
    rules = [rule for group in normalise.GROUPS.values() for rule in group]

    def rewrite(text, rules):
        for rule in rules:
            text = rule(text)
        return text

    examples = rules[place].examples
    with_it = [rewrite(text, rules[place:]) for text in examples]
    assert [rewrite(text, rules[place + 1 :]) for text in examples] != with_it


def test_code_is_not_wide():
    for path in (ROOT / "common").glob("*.py"):
        wide = [line for line in path.read_text(encoding="utf-8").split("\n") if len(line) > 100]
        assert not wide, path.name


# ---------------------------------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    "completion, answer",
    [
        (r"So \boxed{5}.", "5"),
        (r"First \boxed{5}, no: \boxed{6}.", "6"),  # the last box wins
        (r"\boxed {7}", "7"),
        (r"\fbox{8}", "8"),
        (r"\boxed{ 9 }", "9"),
        ("\\boxed{\n10\n}", "10"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),  # nested braces
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),  # escaped ones are no braces
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (
            r"\boxed{" + r"\sqrt{" * 12 + "2" + "}" * 13,
            r"\sqrt{" * 12 + "2" + "}" * 12,
        ),  # twelve deep
        (r"\boxed{\boxed{5", "5"),  # cut off within two boxes
        (r"\boxed{x = \boxed{3}}", r"x = \boxed{3}"),  # of two, the outer
        (r"\boxed{5} and \boxed{}", "5"),  # an empty box says nothing
        (r"\boxed{5} and \boxed{ }", "5"),
        (r"\boxed{}", None),
        (r"\boxed{", None),
        (r"it is $\boxed{\frac{1}{2$.", r"\frac{1}{2"),  # cut off: to the $
        ("it is \\boxed{12\nand so on", "12"),  # or to the line's end
        (r"\boxed{3 and then \boxed{4}", "4"),
        (r"it is $\boxed 5$", "5"),  # no braces
        (r"\boxed5 it is", "5"),
        (r"\boxedtext{5}", None),  # another command
        ("The final answer is 42.", "42"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("Final Answer: The final answer is $x+1$. I hope it is correct.", "x+1"),
        ("The answer is 3.5. Let me check that.", "3.5"),
        ("the answer is:\n\n17\n", "17"),
        (r"The answer is \(7\).", "7"),
        ("**Answer:** 12", "12"),
        ("She has 3 left.\n#### 3", "3"),
        ("the answer is 4. But no, the answer is 5", "5"),
        (r"The answer is 4, so \boxed{5}", "5"),  # a box goes first
        ("There are 3 apples and 4 pears.", None),
        ("12", "12"),  # as a prompt may ask for
        ("72 clips.\n", "72"),
        ("**Paris**", "Paris"),
        ("(B)", "(B)"),
        ("$x = 5$", "x = 5"),
        ("$12+5=17$", None),
        ("The capital is Paris, as is well known.", None),
        ("unclear", None),
        ("The answer is ", None),
        ("", None),
    ],
)
def test_extraction(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    "completion, answer",
    [
        # Boxes that are joined are one list.
        (r"They are $\boxed{2}$ and $\boxed{3}$.", "2, 3"),
        (r"$\boxed{-1}, \boxed{0}, \text{and } \boxed{1}$", "-1, 0, 1"),
        (r"$\boxed{2}$ or $\boxed{2}$", "2"),
        ("First $\\boxed{2}$.\n\nSo $\\boxed{3}$.", "3"),
        # A thought counts only if nothing is stated after it.
        (r"<think>Maybe \boxed{5}.</think>" "\n\nThe answer is 4.", "4"),
        (r"<think>Maybe \boxed{5}.</think> So be it.", "5"),
        (r"<think>Is it \boxed{5}? No.</think> $\boxed{6}$", "6"),
        # Marks and headings.
        ("**Final Answer**: 42", "42"),
        ("### Final Answer\n\n**42**", "42"),
        ("Answer = 42", "42"),
        ("<answer>\n42\n</answer>", "42"),
        ("The final answer is:\n$$\n\\frac{7}{9}\n$$", r"\frac{7}{9}"),
        ("The answer is: \\[ x^2 + 1 \\]", "x^2 + 1"),
        ("Answer:\n- 3 apples", "3 apples"),
        # Money is no formula.
        ("The answer is $9,500 in total, or $4,750 each.", "9,500"),
        ("**Final Answer:** $29.00 (including the $5.00 tip)", "29.00"),
        ("So the answer is $10, which is little.", "10"),
        # What a sentence goes on to say.
        ("The answer is 72, in total, so she earns that much.", "72"),
        ("The answer is 72 clips, altogether.", "72 clips"),
        ("The answer is 18 because 9 * 2 = 18.", "18"),
        ("The answer is 5 (five).", "5"),
        ("The answer is five (5).", "5"),
        ("The answer is 3, 4, and 5.", "3, 4, and 5"),
        # Several formulas: all, or what the sentence says.
        ("The answer is $5$ or $7$.", "5, 7"),
        ("The answer is $2$, $3$, and $5$.", "2, 3, 5"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("The answer is $f(x) = x^2$ where $x > 0$.", "f(x) = x^2"),
        ("The answer is $5$ apples and $7$ pears.", None),
        # A last sentence that concludes.
        ("We get $x = 5$.\n\nTherefore, the value of $x$ is $5$.", "5"),
        ("Therefore, $f(3) = 2\\cdot 3 + 1 = 7$.", "7"),
        ("The total is 72 clips, altogether.", "72 clips"),
        ("Thus, the total cost of her order is $29.00.", "29.00"),
        ("Hence the probability is 1/3.", "1/3"),
        # No statement.
        ("I am not sure what the answer is.", None),
        ("The answer is not clear.", None),
        ("The value is 3. Now we add 4.", None),
        ("The next step is to add 3.", None),
        ("She bought 4 of them and 3 more.", None),
    ],
)
def test_what_is_stated_without_one_clean_box(completion, answer):
    assert extract_answer(completion) == answer


# What a last sentence says, behind others: words without a box or a mark.
SAYS = {
    "So, if Ann takes all the cake, she will take 36 pieces in one day.": "36",
    "Final Answer: It takes Bob 90 minutes + 30 minutes = 120 minutes to paint the fence.": "120 minutes",
    "Final Answer: 45% of the entire club came on Monday.": "45%",
    "Answer: Mia needs to run at a speed of 5 miles per hour to have an average of 6.": "5",
    "Answer: There are 14 litres of milk in the remaining 20 litres.": "14",
    "Answer: (C": "C",
    "The answer is 12 m, about 39 feet.": "12 m",
    "**Answer:** 9 pupils have both a cat and a dog.": "9 pupils",
    "So, there are 700 people in Oslo.": "700 people",
    "She would have saved 60 more dollars if she worked for 6 hours.": "60",
    "The baker can fill 24 boxes holding 6 rolls each.": "24",
    "Therefore, Ann ran a total of 35 miles over the 5 weeks.": "35",
    "So, Tom has walked a total of 21 steps this morning.": "21",
    "Hence they paid a total of $64 for the 8 tickets.": "64",
    "He takes $3 a seat, so he takes $3*15 = $45 in 2 evenings.": "45",
    "Now we can see that Bob has 3 more pens than pencils.": "3",
    r"So each guest could drink approximately \(1.75\) litres during the evening.": "1.75",
    "**Answer:** Rome, Oslo, and Bern have a total of 340 trams.": "340",
    "The answer is that there are 6 more cats than dogs.": "6",
    "The answer is closest to C, 25%.": "C",
    "#### 36 ####": "36",
    "Hence there are 44 seats in both rooms.\n\nboxed(44)": "44",
    "Total seats = 20 + 24 = 44\n\n44.0": "44.0",
    '<div align="center">\n  **$44**\n</div>': "44",
    "So there are 44 seats.<end_of_turn>\nGreat! Next question: what is 3 + 4?": "44 seats",
    "There are 44 seats.<|im_end|>\nuser\nAnd how many rows?": "44 seats",
    "<answer>There are 20 seats here. Together there are 44 seats.</answer>": "44 seats",
    "Therefore, Sarah has 14 apples left.": "14 apples left",
    "So the train arrives at 5:45 PM.": "5:45 PM.",
    "Hence the area is 36 square units.": "36 square units",
    "2x = 14\n\nx = 7": "x = 7",
    "3 + 4 = 7\n\n**42**": "42",
    "Adding up.\nThere are 12 ways.": "12 ways",
    "This means the probability is 3/8, or 37.5%.": "3/8",
    "We compute.\nSo there are 72 clips altogether. Let me know if you need more help!": "72 clips altogether",
    "We compute 3+4=7.\nSo Tom has 7 marbles.\nCheck: 3+4=7 ✓": "7 marbles",
    "So the line is y = -3/2 x + 4.": "y = -3/2 x + 4",
    "Hence x = 2 or x = -3.": "x = 2 or x = -3",
    "So x = 2 and y = 5.": "x = 2 and y = 5",
    "Therefore, the solution set is {1, 2, 3}.": "{1, 2, 3}",
    "So the domain is [2, 5).": "[2, 5)",
    "Therefore, the equation has no real solutions.": "no real solutions",
    "So there are infinitely many solutions.": "infinitely many solutions",
    "Therefore, he paid $4.50 for the sandwich.": "4.50",
    "Thus, it takes 2 hours and 30 minutes.": "2 hours and 30 minutes",
    "So it takes him 2 1/2 hours.": "2 1/2",
    "Thus, 40% of the students passed.": "40%",
    "Out of 30 students, 12 passed.": "12",
    "So there are twelve ways to do it.": "twelve",
    "So Emily is the tallest.": "Emily",
    "Yes, the number 91 is composite.": "Yes",
    "So 91 is not prime.": "not prime",
    "Thus, the meeting is on Friday.": "Friday",
    "Therefore, the day of the week is Friday.": "Friday",
    "The minimum is attained at x = 3.": "x = 3",
    "So the greatest common divisor of 12 and 18 is 6.": "6",
    "So f(3) = 7.": "f(3) = 7",
    "Therefore f(x) = 2x + 3.": "f(x) = 2x + 3",
    "So n = 3 + 4 = 7.": "7",
    "The perimeter is 2(3 + 4) = 14 cm.": "14 cm",
    "So we have 3 + 4 = 7 apples.": "7 apples",
    "She will have $120 - $45 = $75 left.": "75",
    "Each friend gets 5 cookies.": "5",
    "John needs 3 more boxes.": "3",
    "It will take 4 days for 6 workers to finish the job.": "4",
    "The price after the discount is $36.": "36",
    "So -2 < x < 3.": "-2 < x < 3",
    "Therefore x > 5.": "x > 5",
    "So the answer would be D.": "D",
    "Therefore, the correct answer is (B).": "(B)",
    "So the correct choice is C.": "C",
    "So, the value of x is approximately 3.14.": "3.14",
    "Simplifying, we get 12.": "12",
    "Thus there are 3! = 6 arrangements.": "6 arrangements",
    "Hence the number of ways is C(5,2) = 10.": "10",
    "So the total cost comes to $18.50.": "18.50",
    "The answer, therefore, is 17.": "17",
    "So, in total, Jim spends 2 + 3 = 5 hours per week.": "5 hours per week",
    "So the sum of the digits of 123 is 6.": "6",
    "Thus, the fraction simplifies to 3/4.": "3/4",
    "So 3/4 of the cake remains.": "3/4",
    "It equals √2.": "√2",
    "So the length of the diagonal is 5√2 cm.": "5√2 cm",
    "The remainder when 2^10 is divided by 7 is 2.": "2",
    "\\[ x = 7 \\]": "x = 7",
    "So\n\\[ x = \\frac{7}{2} \\]": "x = \\frac{7}{2}",
    "Area = 1/2 * 6 * 4 = 12": "12",
    "Answer in simplest form: 3/4": "3/4",
    "Thus, his speed is 60 km/h.": "60 km/h",
    "Therefore, there are 1,024 subsets.": "1,024 subsets",
    "So 17 students play neither sport.": "17",
    "Therefore, he can buy at most 6 tickets.": "6",
    "Thus Maria can make 8 bracelets.": "8",
    "So you would need 6 cans of paint.": "6",
    "In conclusion, the company should produce 40 units.": "40",
    "So, Marcus must score 93 on the final test.": "93",
    "Therefore, the second car should leave at 3:15 p.m.": "3:15 p.m.",
    "Therefore, the cost of one pencil is $0.75 and one pen is $1.25.": "0.75, 1.25",
    "The two numbers are 12 and 15.": "12, 15",
    "So the numbers are 3, 5 and 7.": "3, 5, 7",
    "Therefore, the roots are 2 and -3.": "2, -3",
    "Thus the coordinates are (3, -2).": "(3, -2)",
    "The midpoint is (1/2, 3).": "(1/2, 3)",
    "So, the answer is twelve.": "twelve",
    "So the angle measures 45 degrees.": "45",
    "Therefore, the angle is 45°.": "45°",
    "So the ratio of boys to girls is 3:2.": "3:2",
    "Their average speed was 45 miles per hour.": "45 miles per hour",
    "The temperature dropped by 12 degrees.": "12",
    "Therefore Lily has twice as many, which is 24.": "24",
    "In total, they collected 350 cans.": "350",
    "In total she spent $12 + $8 = $20.": "20",
    "Answer: she spent $20 in total.": "20",
    "The product equals -48.": "-48",
    "Mr. Smith earns $1,250 per month.": "1,250",
    "That leaves 17 oranges.": "17",
    "That gives a total of 40 legs.": "40",
    "So the 10th term of the sequence is 29.": "29",
    "So there are 5 red and 6 blue balls.": "5, 6",
    "Hence, 7 is the smallest such number.": "7",
    "So he has $15 left after buying 3 books.": "15",
    "Since there are 7 days in a week, she drinks 14 glasses.": "14",
    "In 5 years, he will be 32 years old.": "32 years old",
    "After 5 years, the tree is 20 feet tall.": "20 feet tall",
    "Of the 50 students, 20 like tea.": "20",
    "The 3 friends each pay $14.": "14",
    "So she needs 2 dozen eggs.": "2 dozen",
    "Therefore the volume is 3.5 × 10^4 cubic meters.": "3.5 × 10^4 cubic meters",
    "So the area is 25π.": "25π",
    "So the area is 25π square cm.": "25π square cm",
    "Thus, the area is 4π - 8.": "4π - 8",
    "Therefore the inverse is f^{-1}(x) = (x - 3)/2.": "f^{-1}(x) = (x - 3)/2",
    "Therefore, the expression simplifies to x^2 + 3x + 2.": "x^2 + 3x + 2",
    "So the factored form is (x + 1)(x + 2).": "(x + 1)(x + 2)",
    "The polynomial has degree 4.": "4",
    "The polynomial has 3 real roots.": "3 real roots",
    "Hence, n must be 8.": "8",
    "Therefore k = ±2.": "k = ±2",
    "so the total is 45": "45",
    "The total is therefore 45 apples.": "45 apples",
    "Total: 45 apples": "45 apples",
    "Total cost = $45": "45",
    "=> x = 9": "x = 9",
    "∴ x = 9": "x = 9",
    "Therefore, p + q = 3 + 4 = 7.": "7",
    "Thus a + b + c = 12.": "c = 12",
    "Thus, \\(x = 4\\) and \\(y = 3\\).": "x = 4, y = 3",
    "So the final result is \\(\\frac{3}{4}\\).": "\\frac{3}{4}",
    "## Final Answer\n12": "12",
    "### Answer\n\n$12$": "12",
    "**Final Answer:** The final answer is $\\boxed{12}$": "12",
    "**Answer**: B": "B",
    "The correct option is (C).": "(C)",
    "Therefore, the correct answer is option D.": "option D",
    "So the answer is (B) 12.": "(B) 12",
    "Answer: $x = 3$ or $x = -2$": "x = 3, x = -2",
    "Final answer: 3/4 cup": "3/4 cup",
    "Answer:\n\n42": "42",
    "The answer is: 42 apples.": "42 apples",
    "The answer is $42.": "42",
    "the answer is **42**.": "42",
    "Final Answer: $\\frac{1}{2}$.": "\\frac{1}{2}",
    "#### $1,200": "1,200",
    "#### 12 hours": "12 hours",
    "#### -5": "-5",
    "So the answer is 3 because 3+4 = 7.": "3",
    "The final answer is 12. I hope it is correct.": "12",
    "Hence, the answer is no.": "no",
    "The answer is Yes, they are similar.": "Yes",
    "Therefore, our final answer is x = 5.": "x = 5",
    "Hence the required ratio is 2 : 3.": "2 : 3",
    "The solution to the equation is $x = 7$.": "x = 7",
    "The solutions are x = 1 and x = 4.": "x = 1 and x = 4",
    "So our solution is $x \\in [2, 5)$.": "x \\in [2, 5)",
    "So $\\sin\\theta = \\frac{3}{5}$.": "\\frac{3}{5}",
    "Thus, the area of triangle $ABC$ is $12\\sqrt{3}$ square units.": "12\\sqrt{3}",
    "Therefore, $m+n = 3+4 = 7$.": "7",
    "Hence, $\\boxed{5}$ is the answer.": "5",
    "So, the probability that both are red is $\\frac{1}{5}$.": "\\frac{1}{5}",
    "The vertex of the parabola is $(2, -3)$.": "(2, -3)",
    "The equation of the circle is $(x-1)^2 + (y+2)^2 = 9$.": "(x-1)^2 + (y+2)^2 = 9",
    "Thus, there is no solution.": "no solution",
    "So the number is **prime**.": "prime",
    "So the team scored **85 points** in total.": "85 points",
    "In conclusion, Alice has \\$45.": "45",
    "Total time: 2 hours": "2 hours",
    "Time = 200 / 50 = 4 hours": "4 hours",
    "Total = $12 + $8 = $20": "20",
    "Final result: $x=\\pm 3$": "x=\\pm 3",
    "Result: 14": "14",
    "Solution: x = 14": "x = 14",
    "Therefore, Tom is 12 years old and Bob is 15 years old.": "12, 15",
    "So they meet at 10:30 AM.": "10:30 AM.",
    "So 25% of 80 is 20.": "20",
    "Therefore, we can conclude that the value of $x$ is $7$.": "7",
    "We conclude that $x = 7$.": "x = 7",
    "It follows that the sum is $110$.": "110",
    "This gives us a total of 24 different arrangements.": "24",
    "So our answer is $\\frac{25}{4} = 6.25$.": "\\frac{25}{4} = 6.25",
    "Hence $k=4$ is the only value.": "k=4",
    "Since the triangle is right, the hypotenuse is $13$.": "13",
    "The greatest number of boxes she can fill is 12.": "12",
    "**So the total is 45.**": "45",
    "The man walked 12 km north.": "12",
    "Therefore, the sequence converges to 2.": "2",
    "Thus $\\lim_{x\\to 0} f(x) = 1$.": "1",
    "Thus x ≈ 2.45.": "x ≈ 2.45",
    "$$x = \\frac{5}{2}$$": "x = \\frac{5}{2}",
    "So the answer is\n\\[\n\\frac{5}{2}\n\\]": "\\frac{5}{2}",
    "Hence the answer:\n\n$$\\frac{5}{2}$$": "\\frac{5}{2}",
    "That means he has 7 left 😊": "7 left",
    "Answer => 12": "12",
    "Ans. 12": "12",
    "Step 4: Therefore, she needs 12 tiles.": "12",
    "4. Thus, the total is 12.": "12",
    "4. The total is 12.": "12",
    "- Total: 12": "12",
    "* Total cost: $12.50": "12.50",
    "**Conclusion:** The value of x is 12.": "12",
    "**Conclusion**\n\nThe value of x is 12.": "12",
    "## Conclusion\n\nTherefore, there are 12 ways.": "12 ways",
    "### Step 3: Conclusion\nSo there are 12 apples in the basket.": "12 apples",
    "## Step 4: Calculate the total\nTotal = 3 * 4 = 12": "12",
    "## Step 4: Calculate the total\n3 * 4 = 12 apples": "12 apples",
    "5. Multiply: 3 × 4 = 12": "12",
    "Step 5: Multiply the two numbers: 3 × 4 = 12.": "12",
    "Thus, 12.": "12",
    "So, 12!": "12",
    "So 12 it is.": "12",
    "So it's 12.": "12",
    "It's 12.": "12",
    "That would be 12.": "12",
    "Which is 12.": "12",
    "= 12": "12",
    "=12": "12",
    "→ 12": "12",
    "=> 12": "12",
    "Therefore there are 12 apples.\n\nThis completes the solution.": "12 apples",
    "Therefore there are 12 apples.\n\nTherefore, the problem is solved.": "12 apples",
    "Therefore there are 12 apples.\n\nThat's how we solve it.": "12 apples",
    "Therefore there are 12 apples.\n\nLet me know if you want more examples!": "12 apples",
    "Therefore there are 12 apples.\n\nYou can use the same method for other problems.": "12 apples",
    "Therefore there are 12 apples. Isn't that neat?": "12 apples",
    "Therefore there are 12 apples. Easy!": "12 apples",
    "So $x = 12$.\n\nChecking: $3 \\cdot 4 = 12$.": "x = 12",
    "So $x = 12$.\n\nVerification:\n$3 \\cdot 4 = 12$ ✓": "12",
    "So $x = 12$.\n\nWe verify: $3 \\cdot 4 = 12$, which holds.": "x = 12",
    "So $x = 12$.\n\nIndeed, $3 \\cdot 4 = 12$.": "x = 12",
    "So $x = 12$, as required.": "x = 12",
    "So $x = 12$ (since $x$ is positive).": "x = 12",
    "So $x = 12$ or $x = -12$. Since $x > 0$, we take $x = 12$.": "x = 12",
    "Since $x$ must be positive, $x = 12$.": "x = 12",
    "But $x > 0$, so $x = 12$.": "x = 12",
    "We reject $x = -3$, leaving $x = 12$.": "x = 12",
    "The negative root is rejected, so the width is 12 cm.": "12 cm",
    "Dividing both sides by 3, we get $x = 12$.": "x = 12",
    "Dividing by 3 gives x = 12.": "x = 12",
    "Divide both sides by 3 to get x = 12.": "x = 12",
    "Adding these, we get 5 + 7 = 12.": "12",
    "Adding these gives $5 + 7 = 12$.": "12",
    "The total comes to 5 + 7 = 12 apples.": "12 apples",
    "Hence the number of ways is $\\binom{4}{2} \\times 2 = 12$.": "12",
    "There are $\\binom{4}{2} \\cdot 2 = 12$ ways.": "12",
    "So we have $4 \\cdot 3 = 12$ possibilities in total.": "12",
    "By the formula, the area is $\\frac{1}{2} \\cdot 6 \\cdot 4 = 12$.": "12",
    "By symmetry, the area is 12.": "12",
    "From this we conclude that the area is 12.": "12",
    "From the graph, the maximum is 12.": "12",
    "In this case, the area is 12.": "12",
    "At the end of the day he has 12 apples left.": "12 apples left",
    "After giving away 5, he has 12 apples left.": "12 apples left",
    "After 5 days there will be 12 apples.": "12 apples",
    "If we add them up, we get 12.": "12",
    "When we add them up, we get a total of 12.": "12",
    "Putting it all together, the area is 12.": "12",
    "To summarize, the area is 12.": "12",
    "In summary, x = 12 and y = 5.": "x = 12 and y = 5",
    "Probability = 3/12 = 1/4": "1/4",
    "The probability is 3/12, which simplifies to 1/4.": "1/4",
    "The probability is 3/12 = 1/4 = 0.25.": "0.25",
    "The slope is (5 - 1)/(3 - 1) = 4/2 = 2.": "2",
    "The slope of the line is $m = 2$.": "m = 2",
    "Thus the y-intercept is $b = -1$, i.e. the point $(0, -1)$.": "(0, -1)",
    "Therefore Lisa has 12 dollars and Mark has 5 dollars.": "12, 5",
    "She bought 12 apples.": "12",
    "x=12": "x=12",
    "x = 12, y = 5": "x = 12, y = 5",
    "$x=12, y=5$": "x=12, y=5",
    "(x, y) = (12, 5)": "(x, y) = (12, 5)",
    "(12, 5)": "(12, 5)",
    "{12, 5}": "{12, 5}",
    "x ∈ {12, 5}": "{12, 5}",
    "**Answer:**\n\n42": "42",
    "### Answer\n\n$x = 3$": "x = 3",
    "### Final Answer:\n**$\\frac{3}{4}$**": "\\frac{3}{4}",
    "Final answer is **12 cm²**.": "12 cm²",
    "My answer: 12": "12",
    "My final answer would be 12.": "12",
    "Answer = 12": "12",
    "Answer:12": "12",
    "ans = 12": "12",
    "RESULT: 12": "12",
    "Result = 12": "12",
    ">> Answer: 12 <<": "12",
    "{answer: 12}": "12",
    "<answer>\n12\n</answer>": "12",
    "<answer> $\\frac{1}{2}$ </answer>": "\\frac{1}{2}",
    "<final_answer>12</final_answer>": "12",
    "**12**": "12",
    "***12***": "12",
    "The answer is 12, since 3 * 4 = 12.": "12",
    "The answer is $12$ because $3 \\cdot 4 = 12$.": "12",
    "The answer is twelve.": "twelve",
    "The answer is **twelve (12)**.": "12",
    "The answer is approximately 3.14.": "3.14",
    "The answer is about \\$3.14.": "3.14",
    "The correct answer is $\\textbf{(B)}\\ 12$.": "\\textbf{(B)}\\ 12",
    "The answers are 12 and 13.": "12 and 13",
    "The answer is either 12 or 13.": "12 or 13",
    "The answer is x = 12 and y = 13.": "x = 12 and y = 13",
    "The answer is (12, 13).": "(12, 13)",
    "The answer is the interval [12, 13].": "[12, 13]",
    "The answer is no.": "no",
    'The answer is "yes".': "yes",
    "$\\boxed{12 \\text{ cm}}$": "12 \\text{ cm}",
    "$\\boxed{\\text{12 cm}}$": "\\text{12 cm}",
    "$$\\boxed{x = 12}$$": "x = 12",
    "$\\boxed{ 12 }$.": "12",
    "\\boxed{12}\\% ": "12",
    "$\\boxed{12}^\\circ$": "12",
    "$\\boxed{\\dfrac{1}{2}}$": "\\dfrac{1}{2}",
    "$\\boxed{(-\\infty, 2) \\cup (3, \\infty)}$": "(-\\infty, 2) \\cup (3, \\infty)",
    "$\\boxed{\\$12.50}$": "\\$12.50",
    "$\\boxed{\\mathrm{Yes}}$": "\\mathrm{Yes}",
    "$\\boxed{\\text{Evelyn}}$": "\\text{Evelyn}",
    "$x = \\boxed{12}$ and $y = \\boxed{13}$": "x = 12, y = 13",
    "$\\boxed{12}$ and $\\boxed{13}$": "12, 13",
    "$\\framebox{12}$": "12",
    "$\\boxed 12$": "12",
    "$\\boxed5$": "5",
    "\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}": "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
    "\\[\\boxed{\\frac{\\sqrt{3}}{2}}.\\]": "\\frac{\\sqrt{3}}{2}",
    r"The final amount in the account is \$1,102.50.": "1,102.50",
    "So after 3 years she will have $1157.63 in her account.": "1157.63",
    "It will take 4 more days to finish the job.": "4",
    "Hence, the two numbers are 12 and 15.": "12, 15",
    "The two numbers are therefore $12$ and $15$.": "12, 15",
    "There are therefore 120 different ways to arrange the books.": "120",
    "The books can be arranged in 120 different ways.": "120",
    "This means 120 arrangements are possible.": "120",
    "So Sam has twice as many marbles as Tom, i.e. 24 marbles.": "24 marbles",
    "Therefore, the statement is false.": "false",
    "So the function is odd.": "odd",
    "Therefore, f is neither even nor odd.": "neither even nor odd",
    "The triangle is isosceles.": "isosceles",
    r"Thus $\triangle ABC$ is a right triangle.": "right triangle",
    r"So the largest fraction is $\frac{7}{9}$.": r"\frac{7}{9}",
    "The smallest of the three is $0.45$.": "0.45",
    "Thus, the coefficient of $x^3$ is $-160$.": "-160",
    "So $a = 2$, $b = -3$, and $c = 5$.": "a = 2, b = -3, c = 5",
    "So a = 2, b = -3 and c = 5.": "a = 2, b = -3 and c = 5",
    "So $(a, b, c) = (2, -3, 5)$.": "(2, -3, 5)",
    "Thus the ordered pair is $(x, y) = (4, 1)$.": "(4, 1)",
    r"The inverse is $\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$.": r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    "So the determinant equals $-2$.": "-2",
    r"This yields $\det A = -2$.": "-2",
    r"The dot product is $1\cdot 4 + 2 \cdot 5 = 14$.": "14",
    r"Therefore the function is increasing on $(1, \infty)$.": r"(1, \infty)",
    r"So the range of the function is $[0, \infty)$.": r"[0, \infty)",
    "So the graph crosses the x-axis at x = -1 and x = 4.": "x = -1 and x = 4",
    "The expected value of the game is -$0.50.": r"-\$0.50",
    "The expected value is $3.5$.": "3.5",
    "Therefore, the median is 14.5 and that is our answer.": "14.5",
    "So there's a total of 36 handshakes.": "36",
    "She saved a total of 36 dollars over 9 weeks.": "36",
    "He drove 180 miles in total.": "180",
    "Altogether they picked 57 apples.": "57",
    "They picked 57 apples altogether.": "57",
    "Now he has only 13 coins.": "13 coins",
    "That leaves him with 13 coins.": "13",
    "Tim therefore spends $48 a month on coffee.": "48",
    "So, in one week, she uses 21 eggs.": "21",
    "So she uses 21 eggs in one week.": "21",
    "The perimeter of the rectangle comes out to be 34 cm.": "34",
    "The distance between the two points is thus 5.": "5",
    "So the distance is 5 units.": "5 units",
    r"The arc length is $4\pi$ cm.": r"4\pi",
    r"Thus its volume is $36\pi$ cubic centimeters.": r"36\pi",
    "Volume = 36π cm³": "36π cm³",
    "Area ≈ 78.54 cm²": "78.54 cm²",
    "The hypotenuse is approximately 8.06 units long.": "8.06",
    "The number 91 is composite.": "composite",
    "No, 91 is not prime.": "No",
    "Yes, the triangle is right-angled.": "Yes",
    "Therefore, the 2023rd digit is 7.": "7",
    "So 2023 in base 8 is $3747_8$.": "3747_8",
    "In binary, this is $1011_2$.": "1011_2",
    r"Hence $2023 \equiv 1 \pmod{3}$, so the remainder is 1.": "1",
    r"So the probability of drawing two aces is $\frac{1}{221}$.": r"\frac{1}{221}",
    "P(A and B) = 0.12": "0.12",
    "P(X = 3) = 5/16": "5/16",
    "So P(X = 3) is 5/16.": "5/16",
    "So we have x = 7.": "x = 7",
    "So we have $x = 7$ and $y = 3$.": "x = 7, y = 3",
    "Solving, x = 7.": "x = 7",
    "Solving for $x$, we find $x = 7$.": "x = 7",
    "This implies that $x = 7$.": "x = 7",
    "which means x = 7.": "x = 7",
    "Then $x = 7$.": "x = 7",
    "Thus we have the solution x = 7.": "x = 7",
    "The only solution is $x = 7$.": "x = 7",
    "The equation has one solution: $x = 7$.": "x = 7",
    "The equation has exactly two real solutions.": "two",
    "There are exactly two real solutions.": "two",
    "The system has no solution.": "no solution",
    "So our polynomial is $x^2 - 5x + 6$.": "x^2 - 5x + 6",
    "The quotient is $x + 3$ with remainder $-2$.": "x + 3",
    "So the sum is 1 + 2 + ... + 10 = 55.": "55",
    "The final temperature was -4 degrees.": "-4 degrees",
    "At noon the temperature was −4°C.": "-4°C",
    "The mode is 7, since it appears most often.": "7",
    "The greatest common factor of 24 and 36 is 12.": "12",
    "GCF(24, 36) = 12": "12",
    "LCM = 72": "72",
    "The fraction simplifies to 3/4.": "3/4",
    "In simplest form, it is 3/4.": "3/4",
    r"Thus, the mixed number is $2\frac{1}{3}$.": r"2\frac{1}{3}",
    r"So the scientific notation is $3.2 \times 10^5$.": r"3.2 \times 10^5",
    "It will be a Friday.": "Friday",
    "The answer would therefore be Friday.": "Friday",
    "So the smallest possible perimeter is 26 units.": "26 units",
    "Thus, the vertex of the parabola is located at $(2, -5)$.": "(2, -5)",
    "Thus the parabola has its vertex at (2, -5).": "(2, -5)",
    "So Maria has read a grand total of 84 pages by Friday.": "84",
    "Therefore, the 10th term of the sequence is $a_{10} = 29$.": "a_{10} = 29",
    r"Therefore $\cos\theta = -\frac{3}{5}$.": r"-\frac{3}{5}",
    r"Hence $\angle ABC = 40^\circ$.": r"40^\circ",
    r"Thus, the matrix is invertible for all $k \neq 2$.": r"k \neq 2",
    "So it takes Pump B 12 hours to fill the pool alone.": "12",
    "Therefore, she should invest $5,000 at 4% and $3,000 at 6%.": "5000, 3000",
    "So 7 of the marbles must be drawn.": "7",
    "So we need at least 7 marbles.": "7",
    "That's 45 in all.": "45",
    "She will be 42 years old in 6 years.": "42",
    "In 6 years she will be 42.": "42",
    "The units digit of $7^{2023}$ is therefore 3.": "3",
    "So the remainder when $2^{100}$ is divided by 7 is 2.": "2",
    "So, the equation of the line is $y = 3x - 4$.": "y = 3x - 4",
    "Therefore the line has equation y = 3x - 4.": "y = 3x - 4",
    r"So the roots are $x = -1 \pm 2i$.": r"-1 \pm 2i",
    "Hence, $z = 3 - 4i$.": "3 - 4i",
    "So the polynomial factors to $(x+1)(x+2)$.": "(x+1)(x+2)",
    r"The simplified form is therefore $\frac{x+1}{x-2}$, provided $x \neq 2$.": r"\frac{x+1}{x-2}",
    r"Therefore the sum of the series is $\frac{1}{1 - 1/3} = \frac{3}{2}$.": r"\frac{3}{2}",
    r"So, $\log_2 32 = 5$.": "5",
    r"$\boxed{}$ is 5.": "5",
    r"So there are $\binom{6}{2} = 15$ ways to choose them.": r"\binom{6}{2} = 15",
    "So $15$ different handshakes take place.": "15",
    r"Thus the number of positive divisors of 360 is $4 \cdot 3 \cdot 2 = 24$.": "24",
    r"Therefore, $f^{-1}(x) = \frac{x-3}{2}$.": r"\frac{x-3}{2}",
    r"So the area of triangle $ABC$ is $\frac{1}{2} \cdot 6 \cdot 8 = 24$ square units.": r"\frac{1}{2} \cdot 6 \cdot 8 = 24",
    "So the sides measure 5, 12 and 13.": "5, 12, 13",
    "Thus x is between -2 and 3, i.e., $-2 < x < 3$.": "-2 < x < 3",
    r"Therefore, the solution set is $(-\infty, -1) \cup (4, \infty)$.": r"(-\infty, -1) \cup (4, \infty)",
    r"So, $x \in [2, 5)$.": r"x \in [2, 5)",
    "Therefore the gcd is 12 and the lcm is 144.": "12, 144",
    "So Ben needs to score at least 92 on his last test.": "92",
    "The store made $340 profit.": "340",
    "It would take them 2 hours and 24 minutes working together.": "2 hours and 24 minutes",
    "The discount comes to $12.": "12",
    "Each friend gets 8 cookies, with 2 left over.": "8",
    "So each of them pays $6.25.": "6.25",
    r"He is left with $\$13$.": "13",
    "So John's average speed for the whole trip was 48 mph.": "48 mph",
    "Which gives us 18.": "18",
    "We get $x = 4$ and $y = -1$.": "x = 4, y = -1",
    "So our final value is 7/12.": "7/12",
    "Therefore, the correct choice is (B).": "(B)",
    "The correct answer is option C.": "option C",
    "Option C is correct.": "C",
    "Therefore the probability that both are red is 3/10 or 30%.": "3/10",
    "Hence there's a 30% chance of rain.": "30%",
    "Thus $a+b = 5 + 9 = 14$.": "14",
    "That gives $p+q=41$.": "41",
    "so the value of the expression at x=2 is 11": "11",
    "x = 3/2": "x = 3/2",
    "=> x = 3/2": "x = 3/2",
    "∴ x = 3/2": "x = 3/2",
    "Therefore, the radius of the circle is √5.": "√5",
    "Hence proved that the number is 5.": "5",
    "Jill ends up with 3 more apples than Tom, which is 9.": "9",
    "The train arrives at 4:15 p.m.": "4:15 p.m.",
    "So the answer, then, is 24.": "24",
    r"Simplifying, we obtain $2\sqrt{3}$.": r"2\sqrt{3}",
    "Dividing gives 6.": "6",
    "The final price of the shirt after both discounts is $28.80.": "28.80",
    "So the perimeter = 2(5) + 2(7) = 24 cm.": "24 cm",
    "Perimeter = 24 cm": "24 cm",
    "Number of students = 24": "24",
    "Thus, n=24": "n=24",
    "This leaves 24 students.": "24",
    "There would be 24 students left.": "24 students left",
    "It follows that $f$ has a minimum of $-4$ at $x = 1$.": "-4",
    "The maximum is 9, which occurs at x = 2.": "9",
    "Hence, the value of $k$ must be $-2$ or $6$.": "-2, 6",
    "The ratio of boys to girls is 3 to 4.": "3:4",
    "Therefore he ran 3 1/2 miles.": "3 1/2",
    "ANSWER: 12": "12",
    "Thus the answer, in simplest radical form, is $3\\sqrt{2}$.": "3\\sqrt{2}",
    "So all players together are 12 + 19 = 31": "31",
    "So, Ann burned 45 calories from walking 3 miles.": "45",
    "**Final Answer:** The mean of the three times is approximately 20.5 seconds.": "20.5",
    "Explain how we come to this answer:\nTo solve it, take 5 from 20.\nSo 20 - 5 equals 15.": "15",
    "Ответ: $-15$": "-15",
    "**Respuesta:** 15 euros": "15 euros",
    "정답: 15": "15",
    "The totals match, so the answer is consistent.\n\n###ANSWER###\n17": "17",
    "So the answer is \\(1\\frac{1}{4}\\) or in decimal form, \\(1.25\\).": "1\\frac{1}{4}",
    "**Therefore, the value of $k$ is ln(3).**": "ln(3)",
    "So the height is 2*sqrt(5).": "2*sqrt(5)",
    "Thus, total time = 30 + 15 = 45 minutes": "45 minutes",
    "The chance that she wins is **1**. This means she is sure to win at least two games.": "1",
    "> Therefore, the way is $\\color{red}{12\\ km}$.\n>": "\\color{red}{12\\ km}",
    "The series is $\\sum_{n = 2}^{5} \\frac{1}{n}$.": "\\sum_{n = 2}^{5} \\frac{1}{n}",
    "The correct options are **A** and **D**.": "A and D",
    "Therefore, the correct answer is none of the given options.": "none of the given options",
    "The answer is:\n...\n36": "36",
    "<answer> 6 hours x $20 / hour + $12/hour = $132. </answer>": "132",
    "<answer> 7 boxes are red. 8 are blue. Thus, total boxes = 7 + 8 = 15 </answer>": "15",
    "<answer> 31!\n\nMy question: is it what you want? I can say more about it.": "31",
    "(answer) $ 2 \\cdot 9 = 18 $ apples.\nUser: What is 5 + 7?\n(answer) 12": "2 \\cdot 9 = 18",
    "**Answer: Tom's aunt was born 40 years ago.**": "40",
}
SAYS_NOTHING = [
    "Red seats = Seats - Blue seats\nRed seats = 45 - 13\n",
    "- Price: The shop was paid \\$9 for it.\n-   **",
    "So the answer is 15.\n\nWait, but I should check the first years.\n\nCost: \\$4",
    "3. The price of the third cup is $7 * 0.9",
    "So all players together are 12 + 19 = 3",
    "48 / 2 = 24\n25 / 2 = 1",
    "That seems too small. Wait, it must be per hour, which is 9 km per hour",
    "**Answer**\n\n**Understanding the Question**\n\nWe look for the sum of the two.",
    "The total is 5.</think><answer> Tom has 5 or 6 of them. He may want more. </answer>",
    "The code is:\n\nwidth = 2\nlength = 8",
    "Solution:\n\n1. The way is 8 km.\n2. The time = 8 km / (2 + 3) km",
    "It is 0.</think>\n\n**Answer:** The time cannot be determined.",
    "<answer>There are 20 seats here. The other room",
    "So the number of seats is 20 + 24",
    r"5. **Half of the seats are red**:\n   - So, \(44 \times \frac{1}{2",
    "Therefore, Bob won the race.",
    "Then the remainder is 2.",
    "First, we find that there are 3 red balls.",
    "Let's try x = 5.",
    "Now there are 3 cases.",
    "Step 2: Multiply by 3.",
    "The next term is 12 more than this one.",
    "Next we divide both sides by 2.",
    "Is it 5?",
    "I think we should use the formula with n = 4.",
    "1. Multiply by 2\n2. Add 3\n3. Divide by 5",
    "- 3 apples\n- 4 pears",
    "So far, we have counted 12 pairs.",
    "We get the equation 2x + 3 = 7.",
    "This simplifies to x^2 = 16.",
    "Dividing by 2 gives x + 3 = 5.",
    "so the number of red balls is twice the number of",
    "Total = 3 + 4 +",
    "The probability of the first event is 1/2.\nThe probability of the second event is 1/3.\nTo get the total",
    "x = 5 is one root, so the other",
    "Sorry, I cannot determine this from the 3 values given.",
    "The total number of students is 120.\n\n## Step 2: Find the number of girls",
    "Substituting x = 3 into the second equation:",
    "It took them 3 hours to drive 180 miles.",
    "Tom has 3 more than Bob.",
    "So the probability is 5 out of 36.",
    "Thus 3 divides 12.",
    "So 3x = 12.",
    "So the slope is 3.\nThe y-intercept is 4.\nSo the line",
    "Then there are 12 of them. We will count the others too.",
    "I got 12 but I am not sure.",
    "This is a contradiction.",
    "Let me recompute: 3 * 4 = 12.",
    "Wait, that is wrong.",
    "Hmm, 12 does not work.",
    "We still need to subtract 12.",
    "The sum must be divisible by 3.",
    "There are 4 cases to consider.",
    "There are two cases.",
    "The first digit has 9 choices.",
    "We know that the radius is 5.",
    "We are given that 40% are boys.",
    "Remember that a dozen is 12.",
    "Let n be 5.",
    "The first number is 12. The second is",
    "So the possible values of x are 1, 2, and",
    "The problem asks for the value at 3.",
    "Plug in x = 4.",
    "Multiply both sides by 6.",
    "Using the formula above with r = 3.",
    "Here a = 1.",
    "where b = 2.",
    "It is given that x = 3.",
    "The question is about 3 friends.",
    "Therefore, the function has no real zeros.",
    "So she has \\$45 more than he does.",
    "So 3 out of 4 students passed.",
    "Alice is 5 years older than Bob.",
    "The limit does not exist.",
    "The dimensions are 5 cm by 8 cm.",
    "\\[\n\\frac{5}{2}\n\\]",
    "So the total number of",
    "Therefore, the area of the triangle is",
    "We can now use the Pythagorean theorem to find the hypotenuse.",
    "So we have a system of two equations.",
    "Next, we need to find the value of y when x = 3.",
    "Let me try another approach with n = 4.",
    "I am not able to solve this problem.",
    "The answer depends on the value of $k$.",
    "Thus, we must have $x > 0$ and",
    "So, 3x + 2 = 14",
    "Subtract 2 from both sides: 3x = 12",
    "So the area is (1/2) * 6 *",
    "But that contradicts the fact that there are 12 students.",
    "Hmm, this does not match any of the options.",
    "So is the answer 12 or 15?",
    "Let's denote the number of apples as $a$.",
    "We know that $a + b = 12$.",
    "The first step is to find the slope of the line.",
    "Therefore, we can write $x^2 - 5x + 6 = (x-2)(x-3)$ and consider each factor.",
    "Step 3: Find the area of the circle with radius 5.",
    "There are three cases to consider, depending on whether $n$ is 0, 1 or 2.",
    "We can check the possible values 2, 3 and 5.",
    "To find the answer, multiply 12 by 5.",
    "Thus we need to determine how many of the 12 are even.",
    "Wait, I made a mistake: there are 7 days in a week.",
    "First, calculate the cost of 5 pens.",
    "So the equation becomes $2x + 5 = 11$.",
    "This is equivalent to solving $x^2 = 9$.",
    "Now we will compute f(3).",
    "Maybe the answer is 12.",
    "If x = 3, then y = 5, but this does not satisfy the second equation.",
    "So 12 can't be right either.",
    "The problem seems to be missing information.",
    "Let $x = 5$ be the number of apples",
    r"Since the angle is 30 degrees, we can use $\sin 30^\circ = \frac{1}{2}$.",
    "We have 4 choices for the first digit and 3 for the",
    r"So the ratio of the areas is $\left(\frac{2}{3}\right)^2$ and therefore",
    "This gives us two equations:",
    "I need more information to solve this.",
]


@pytest.mark.parametrize("sentence, answer", SAYS.items())
def test_what_the_last_sentence_says(sentence, answer):
    assert extract_answer(f"Let us see what 3 * 4 is.\n{sentence}") == answer


@pytest.mark.parametrize(
    "completion, answer",
    [
        ('{"reasoning": "27 / 3 = 9", "answer": 9}', "9"),
        ('{"answer": "9 cm", "unit": "cm"}', "9 cm"),
        ("Cost: 4p + 3 = 13.\nA: $2.50", "2.50"),
        ("Let us see.\nA: 3\nB: 4\nC: 5", None),
        ("28\n\nExplanation: To find it, add 3 to 25. This is a good way to do it", "28"),
        ("So Tom paid $12 + $8 = $20.\n\nQ:", "20"),
        ("The answer is 84.\n\nQ: A shop sells 5 boxes of 10 pens.\nA: The number is 50.", "84"),
        ("So the area is 5.\n\n**Key points:**\n- Multiply.\n- Check the units.", "5"),
        ("The answer is", None),
        ("The answer is a cat.", "cat"),
        ("The answer is a number.", None),
    ],
)
def test_what_stands_around_an_answer(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize("sentence", SAYS_NOTHING)
def test_a_last_sentence_that_says_nothing(sentence):
    assert extract_answer(f"Let us see what 3 * 4 is.\n{sentence}") is None


@pytest.mark.parametrize(
    "text", ["", ".", "than 18", ", because 5.", "So\n, since it is 5.", "** **", ": "]
)
def test_a_sentence_without_words_says_nothing(text):
    assert extract_answer(text) is None


@pytest.mark.parametrize(
    "piece",
    [
        "x = 1, ",
        "x = 2 or ",
        "1 < x < ",
        "$1 ",
        "a=",
        "(x, y) = ",
        "1 and ",
        "P(1) = ",
        "= 3 ",
        "\nA: 5",
        "1 + ",
        "[/",
        "= $",
    ],
)
def test_no_text_takes_forever(piece):
    """Two ways to read each of n pieces would be 2^n ways to read a sentence."""
    extract_answer("So " + piece * 3000)


# The answer is not in the last sentence: behind it are an afterthought, a summary, a list. And units
# in a list, and a sum of squares, which is an equation.
KNOWN_UNREAD = [
    "So there are 11 boys and 15 girls in the class.",
    "problem doesn't mention a rest day.",
    "Hence she bought 6 apples and 4 oranges.",
    "4) = 2(10) = 20.",  # C) 20 is C here
    r"$\boxed{11 \pmod{19}}$",
    "Sarah had thirty dollars.",
    "gives us F8.",
    "each of them gets 11 candies",
    r"$1-\frac{3}{10}=\frac{7}{10}$.",
    "it is not a right triangle.",
    "The train arrives at 11:20 am.",
    "So there're 38 students on the bus",
    "The answer is (B) 48, because 6 × 8 = 48.",  # B
    r"$\boxed{\textbf{(C)}\ 0}$.",  # C
    "Yes, there are 21 handshakes in total.",
    "So, 15% of",
    "since the problem asked for the quarters, we are done.",
    "(4 x 506 = 2024), i^2024 = 1.",
    "she is 2(11) = 22 years old.",
    "So we must have $k>4$.",
]


def test_completions_of_the_table():
    """In the styles of Llama, Qwen, DeepSeek and GSM8K; about one in five states nothing."""
    rows = read_completions()
    assert len(rows) > 800
    wrong, guessed = [], []
    for completion, answer in rows:
        found = extract_answer(completion)
        if answer is None and found is not None:
            guessed.append((completion, found))
        elif answer is not None and not is_correct(found, answer):
            wrong.append(completion)
    assert not guessed
    assert len(wrong) == len(KNOWN_UNREAD) and all(map(str.endswith, wrong, KNOWN_UNREAD)), wrong


@pytest.mark.parametrize(
    "one, other, same",
    [
        (r"\{1,2\} \cup \{2,3\}", r"\{1,2,3\}", True),
        (r"\{1,2\}\cup\{2\}", r"\{1,2\}", True),
        (r"x = 5 \text{ or } x = 5", "5", True),
        (r"[0,1]\cup[0.5,2]", "[0,2]", True),
        (r"[0,1]\cup(1,2]", "[0,2]", True),
        (r"[0,1)\cup(1,2]", "[0,2]", False),
        (r"(-\infty,1]\cup[0,\infty)", r"(-\infty,\infty)", True),
        (r"(0,1)\cup(2,3)", "(0,3)", False),
        (r"5^\circ C", "5", True),
        ("20°F", "20", True),
        ("12 kJ", "12", True),
        ("60 Hz", "60", True),
        ("20 cups of feed", "20", True),
        (r"3.0 \times 10^{8}\ \mathrm{m\,s^{-1}}", "3e8", True),
        (r"2\text{ squared}", "2", False),
        (r"5\text{ factorial}", "5", False),
        (r"\lceil x \rceil", r"\lfloor x \rfloor + 1", False),  # not at whole numbers
        (r"n - \lfloor n/2 \rfloor", r"\lceil n/2 \rceil", True),
        (r"\max\{a,b\}", r"\max(a,b)", True),
        (r"\max\{a,b\}", r"\min(a,b)", False),
        (r"x \notin \{0\}", r"x\neq0", True),
        ("110_2", r"110_{\text{two}}", True),
        ("110_3", r"110_{\text{two}}", False),
        ("9^{1012}", "3^{2024}", True),
        ("9^{1012}", "3^{2023}", False),
        ("x=2 \\quad y=3", "x=2, y=3", True),
        ("x=2 \\quad y=3", "3", False),
        ("x=2 \\\\ y=3", "3", False),
        (r"5\text{个}", "5", True),
        (r"12\text{平方厘米}", "12", True),
        (r"5\text{万}", "5", False),  # 50,000
        (r"x=2\text{或}x=3", "2,3", True),
    ],
)
def test_what_is_the_same(one, other, same):
    assert is_correct(one, other) is same
    assert is_correct(other, one) is same


@pytest.mark.parametrize(
    "completion",
    [
        "\\boxed{" * 20_000,
        "boxed{" * 30_000,
        "\\boxed{}" * 20_000,
        "\\boxed{1}" * 20_000,
        "{" * 100_000,
        "}" * 100_000,
        "\\" * 100_001,
        "answer is " * 20_000,
        "the answer is:\n" * 20_000,
        "$" * 100_000,
        "#### " * 20_000,
        "\0" * 1000,
        "\\boxed{\ud800}",
        "answer is " + "$" * 100_000,
        "answer is " + "\\(" * 50_000,
        "a" * 1_000_000,
    ],
)
def test_extraction_of_hostile_text_is_fast(completion):
    start = time.process_time()
    extract_answer(completion)
    assert time.process_time() - start < 2


# --------------------------------------------------------------------------------------------- votes


def test_majority_counts_spellings_of_one_answer_together():
    assert majority(["3", r"\frac12", "3", "0.5", r"\dfrac{1}{2}"]) == r"\frac12"


def test_majority_of_equals_is_the_first():
    assert majority(["2", "1", "1", "2"]) == "2"


def test_majority_returns_a_spelling_as_it_was_written():
    assert majority([" $ 12\\pi $ ", "12\\pi"]) == " $ 12\\pi $ "


@pytest.mark.parametrize("answers", [[], [None], [None, None, ""], ["", " ", "\n"]])
def test_nothing_wins_where_nobody_answered(answers):
    assert majority(answers) is None
    assert weighted(answers, [1.0] * len(answers)) is None


def test_a_missing_answer_never_wins():
    assert majority([None, None, None, "", "", " ", "7"]) == "7"
    assert weighted([None, "", "7"], [9.0, 9.0, 0.1]) == "7"


def test_weighted_sums_over_spellings():
    assert weighted(["1", "0.5", r"\frac12"], [0.6, 0.4, 0.3]) == "0.5"
    assert weighted(["1", "2"], [-1.0, -0.5]) == "2"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weighted_ignores_scores_that_are_no_numbers(bad):
    assert weighted(["1", "2"], [bad, 0.1]) == "2"
    assert weighted(["2", "1", "1"], [0.1, bad, 0.05]) == "2"
    assert weighted(["1"], [bad]) is None


def test_weighted_wants_one_score_an_answer():
    with pytest.raises(ValueError):
        weighted(["1", "2"], [1.0])


@pytest.mark.parametrize("prediction", [None, "", "  ", "\n"])
def test_a_missing_prediction_is_wrong_even_where_gold_is_blank(prediction):
    assert not is_correct(prediction, "5")
    assert not is_correct(prediction, "")


# ---------------------------------------------------------------------------------------- properties


def random_expression(rng: random.Random, depth: int):
    """A random expression as a tree: a leaf, or (operation, left, right)."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(["x", "y", "a", r"\pi", "2", "3", "7", "5", "10", "n"])
    return (
        rng.choice(["+", "-", "*", "/", "^", "sqrt", "neg"]),
        random_expression(rng, depth - 1),
        random_expression(rng, depth - 1),
    )


def to_latex(tree, rng: random.Random | None = None) -> str:
    """Write a tree down, with rng in a random one of several equivalent ways."""
    if isinstance(tree, str):
        return tree
    operation, left, right = tree
    choose = rng.choice if rng else lambda ways: ways[0]
    a, b = to_latex(left, rng), to_latex(right, rng)
    return choose(
        {
            "+": [
                f"({a}+{b})",
                f"({b}+{a})",
                f"({a} + {b})",
                rf"\left({a}+{b}\right)",
                f"({a}-(-{b}))",
                f"({b}+{a}+0)",
            ],
            "-": [f"({a}-{b})", f"(-{b}+{a})", f"(-({b}-{a}))", f"({a}+(-1)({b}))"],
            "*": [
                rf"({a}\cdot {b})",
                rf"({b}\cdot {a})",
                f"({a})({b})",
                f"({b})*({a})",
                rf"({a}\times {b})",
                rf"(2\cdot {a}\cdot \frac{{{b}}}{{2}})",
            ],
            "/": [
                rf"\frac{{{a}}}{{{b}}}",
                rf"\dfrac{{{a}}}{{{b}}}",
                f"(({a})/({b}))",
                rf"({a}\cdot ({b})^{{-1}})",
                rf"\frac{{3({a})}}{{3({b})}}",
            ],
            "^": [f"({a})^{{2}}", f"({a})^2", f"(({a})({a}))", f"(-({a}))^2", f"({a})^{{1+1}}"],
            "sqrt": [
                rf"\sqrt{{{a}}}",
                rf"({a})^{{\frac12}}",
                rf"({a})^{{0.5}}",
                rf"\frac{{\sqrt{{4({a})}}}}{{2}}",
            ],
            "neg": [f"(-{a})", f"(-1)({a})", f"(-({a}))", f"(0-{a})"],
        }[operation]
    )


@pytest.mark.parametrize("seed", range(12))
def test_rewriting_an_expression_keeps_its_key(seed):
    rng = random.Random(seed)
    for _ in range(25):
        tree = random_expression(rng, rng.randint(1, 4))
        plain, rewritten = to_latex(tree), to_latex(tree, rng)
        assert canonical_form(plain) == canonical_form(rewritten), (plain, rewritten)


@pytest.mark.parametrize("seed", range(4))
def test_changing_an_expression_changes_its_key(seed):
    rng = random.Random(1000 + seed)
    for _ in range(25):
        plain = to_latex(random_expression(rng, rng.randint(1, 4)))
        if canonical_form(plain)[0] != "value":  # such as 1/0: text
            continue
        for other in (f"{plain}+1", f"{plain}+10^{{-40}}", f"{plain}+b", f"{plain}\\cdot B+b"):
            assert canonical_form(plain) != canonical_form(other), (plain, other)


def test_polynomials_in_any_order_and_factored():
    rng = random.Random(5)
    for _ in range(60):
        roots = [rng.randint(-9, 9) for _ in range(rng.randint(1, 4))]
        coefficients = [1]
        for root in roots:  # multiply by (x - root)
            coefficients = [p - root * q for p, q in zip(coefficients + [0], [0] + coefficients)]
        degree = len(roots)
        terms = [f"{c:+d}x^{{{degree - i}}}" for i, c in enumerate(coefficients) if c]
        rng.shuffle(terms)
        rng.shuffle(roots)
        factors = "".join(f"(x{-root:+d})" for root in roots)
        assert is_correct("".join(terms), factors), (terms, factors)
        assert not is_correct("".join(terms) + "+1", factors)


def test_rational_numbers_in_every_spelling():
    rng = random.Random(6)
    for _ in range(200):
        p, q = rng.randint(-99, 99), rng.choice([1, 2, 4, 5, 8, 10, 16, 20, 25])
        k = rng.randint(2, 9)
        spellings = [
            f"{p}/{q}",
            rf"\frac{{{p}}}{{{q}}}",
            rf"\dfrac{{{k * p}}}{{{k * q}}}",
            repr(p / q),
            rf"{p}\cdot\frac{{1}}{{{q}}}",
        ]
        if abs(p) > q and p % q:
            spellings.append(rf"{'-' * (p < 0)}{abs(p) // q}\frac{{{abs(p) % q}}}{{{q}}}")
        assert len({canonical_form(s) for s in spellings}) == 1, spellings
        assert canonical_form(f"{p}/{q}") != canonical_form(f"{p + 1}/{q}")


def test_sets_have_no_order_and_tuples_do():
    rng = random.Random(7)
    for _ in range(40):
        entries = rng.sample(
            [r"\sqrt2", "3", r"\frac12", "x+1", "-4", r"2\pi", "0", "i"], rng.randint(2, 5)
        )
        shuffled = rng.sample(entries, len(entries))
        a, b = ",".join(entries), ", ".join(shuffled)
        assert is_correct(a, b) and is_correct(rf"\{{{a}\}}", rf"\left\{{{b}\right\}}")
        assert is_correct(f"({a})", f"({b})") == (entries == shuffled)
        assert len({canonical_form(left + a + right) for left in "([" for right in ")]"}) == 4


def test_letter_case_is_kept():
    for letter in "abcdefghijklmnopqrstuvwxyz":
        assert not is_correct(f"3{letter}^2", f"3{letter.upper()}^2")
        assert not is_correct(letter, letter.upper())


def test_number_bases_are_kept():
    keys = {
        canonical_form(f"{digits}_{base}")
        for digits in ("52", "25", "110")
        for base in range(6, 10)
    }
    assert len(keys | {canonical_form(s) for s in ("52", "528", "42")}) == 15


# ------------------------------------------------------------------------------------- hostile input

HOSTILE = {
    "tower": "9^{9^{9^9}}",
    "units in a fraction": r"\frac{" + r"\text{cm}^2" * 35 + "}{x}",
    "tall tower": "^".join("2" * 150),
    "letters in a tower": "^".join("x" * 150),
    "factorial": "10^9!",
    "bracketed factorial": "(10^9)!",
    "repeated factorial": "((((9!)!)!)!)!",
    "bangs": "3" + "!" * 300,
    "factorials": "+".join(["999!"] * 70),
    "symbolic factorials": "+".join(["(40+x)!"] * 45),
    "large ones": "+".join(["(170+x)!"] * 44),
    "binomial": r"\binom{10^9}{5\cdot 10^8}",
    "binomials": "+".join([r"\binom{x}{99}"] * 30),
    "exponent": "1E999999999",
    "negative exponent": "1e-999999999",
    "exponent of 400 digits": "1e" + "9" * 390,
    "power of ten": "10^{" + "9" * 390 + "}",
    "digits": "9" * 399,
    "more digits": "9" * 100_000,
    "decimals": "0." + "3" * 390,
    "100k letters": "x" * 100_000,
    "100k spaces": " " * 100_000 + "5",
    "100k braces": "{" * 50_000 + "}" * 50_000,
    "braces": "{" * 10_000 + "x" + "}" * 10_000,
    "open braces": "{" * 399,
    "closed braces": "}" * 399,
    "brackets": "(" * 190 + "x" + ")" * 190,
    "brackets at the limit": "(" * 30 + "x" + ")" * 30,
    "mixed brackets": "({[" * 60 + "x" + "]})" * 60,
    "tuples": "(1," * 90 + "1" + ")" * 90,
    "sets": r"\{1," * 60 + "1" + r"\}" * 60,
    "signs": "-" * 390 + "1",
    "sum": "+".join("x" * 199),
    "product": "*".join("x" * 199),
    "juxtaposition": "x" * 399,
    "quotients": "/".join("x" * 199),
    "fractions": r"\frac{1}{1+" * 28 + "x" + "}" * 28,
    "roots": r"\sqrt{1+" * 30 + "2" + "}" * 30,
    "cube roots": r"\sqrt[3]{" * 30 + "x" + "}" * 30,
    "millionth root": r"\sqrt[1000000]{2}",
    "expansion": "(x+1)^{1000}",
    "larger expansion": "(x+1)^{1000000}",
    "multinomial": "(a+b+c+d+e+f+g)^{90}",
    "sum sign": r"\sum_{k=1}^{10^{10}} \frac{1}{k^k}",
    "product sign": r"\prod_{k=1}^{10^{9}} k",
    "integral": r"\int_0^1 x^x dx",
    "limit": r"\lim_{x\to 0} \frac{\sin x}{x}",
    "modulus": r"5^{10^{10}} \mod 7",
    "gcd": r"\gcd(10^{100}, x^{100}-1)",
    "determinant": r"\det\begin{pmatrix}"
    + r"\\".join(["&".join("abcdefghijkl")] * 12)
    + r"\end{pmatrix}",
    "matrix": r"\begin{pmatrix}" + r"\\".join(["&".join(["x+1"] * 9)] * 9) + r"\end{pmatrix}",
    "ten billion zeros": r"\operatorname{zeros}(100000,100000)",
    "identity matrix": r"\operatorname{eye}(100000)",
    "sines": r"\sin(" * 30 + "x" + ")" * 30,
    "sum of sines": "+".join([r"\sin x"] * 55),
    "arcsines": "+".join([r"\arcsin x"] * 35),
    "logarithms": r"\log_{x}" * 30 + "x",
    "sine of much": r"\sin(10^{10000})",
    "hyperbolic cosine": r"\cosh(4000000)",
    "exponentials": "e^{e^{e^{e^e}}}",
    "powers": "+".join(["x^{x^x}"] * 55),
    "floor": r"\lfloor 10^{400}\pi\rfloor",
    "division by zero": r"\frac{1}{0}",
    "zero by zero": r"\frac{0}{0}",
    "zero to a negative": "0^{-1}",
    "logarithm of zero": r"\ln 0",
    "pole": r"\tan\frac{\pi}{2}",
    "imaginary tower": "i^{i^{i^i}}",
    "plus-minus": r"\pm" * 130,
    "plus-minuses": ",".join([r"\pm x\pm y\pm\sqrt2"] * 20),
    "commas": "," * 399,
    "list": ",".join(["x+1"] * 99),
    "unions": r"\cup" * 99,
    "equals": "=" * 399,
    "chain": "<".join("abcdefgh" * 20),
    "equation": "+".join("xyab" * 40) + "=1+y",
    "bars": "|" * 399,
    "half open bars": "|x" * 190,
    "commands": r"\frac" * 80,
    "begins": r"\begin{pmatrix}" * 26,
    "lefts": r"\left(" * 66,
    "texts": r"\text{" * 66,
    "words": "word " * 79,
    "units": "5" + " apples" * 56,
    "long unit": "5 " + "a" * 390,
    "quoted units": "5" + r"\text{ a}" * 43,
    "names": "x_" * 190 + "=5",
    "degrees": r"\sin" + r"x^\circ" * 56,
    "thousands": "1" + ",000" * 90 + ",",
    "repeating decimal": r"0.\overline{" + "9" * 380 + "}",
    "index": "x_{" + "1" * 390 + "}",
    "halves": "½" * 399,
    "sum of bars": "+".join(["|x|"] * 100),
    "still larger ones": "+".join(["(2900+x)!"] * 40),
    "halves and letters": "½x" * 199,
    "conditions": ",".join(rf"x\neq {n}" for n in range(40)),
    "points left out": r"\R\setminus\{" + ",".join(map(str, range(110))) + r"\}",
    "cases": r"\begin{cases}" * 30,
    "half open": "]a," * 133,
    "null bytes": "\0" * 399,
    "null byte": "x\0y",
    "surrogate": "\ud800",
    "surrogates": "\ud800" * 1000,
    "combining": "x" + "\u0301" * 390,
    "ligature of 18 letters": "\ufdfa" * 399,
    "right to left": "\u202e5",
    "emoji": "😀" * 399,
    "backslashes": "\\" * 399,
    "broken LaTeX": r"\frac{1}{\sqrt{2",
    "empty": "",
    "space": " ",
    "a newline": "\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_fast(name):
    canonical_form("x+1")  # imports are not what is timed
    forget()
    start = time.process_time()
    key = canonical_form(HOSTILE[name])
    assert time.process_time() - start < 2
    hash(key)


@pytest.fixture
def work(monkeypatch):
    """Counts what is really done: calls of costly operations, factors of factorials, characters parsed."""
    done = {"costly": 0, "factors": 0, "parsed": 0}
    cheap = {"Add", "Mul", "Abs", "floor", "ceiling"}

    def counted(name, function):
        def operation(*args):
            done["costly"] += name not in cheap
            result = function(*args)
            if name in ("factorial", "binomial"):
                done["factors"] += min(3000, int(abs(args[0])))
            return result

        return operation

    def parse(text, parse=latex._parse):
        done["parsed"] += len(text)
        return parse(text)

    operations = {name: counted(name, f) for name, f in latex.OPERATIONS.items()}
    monkeypatch.setattr(latex, "OPERATIONS", operations)
    monkeypatch.setattr(latex, "_parse", parse)
    return done


HEAVY = "z<" + "+".join(["2999!"] * 30)


def test_work_on_one_answer_is_bounded(work):
    """Counted, not timed, over made-up answers that cost as much as they can."""
    for text in [*hostile_answers(150, seed=0), HEAVY, *HOSTILE.values()]:
        grading._key.cache_clear()
        work.update(costly=0, factors=0, parsed=0)
        canonical_form(text)
        assert work["costly"] <= latex.BUDGET / 300, text
        assert work["factors"] <= latex.BUDGET / 3, text
        assert work["parsed"] <= latex.BUDGET / latex.PER_CHAR, text


def test_without_a_budget_work_is_not_bounded(work, monkeypatch):
    """That is, the test above can fail."""
    limit = latex.BUDGET
    monkeypatch.setattr(latex, "BUDGET", 10 * limit)
    grading._key.cache_clear()
    canonical_form(HEAVY)
    assert work["factors"] > limit / 3


def test_an_answer_over_its_budget_is_text_as_a_whole():
    """Not in part: a list has one key in any order, whatever is read first."""
    parts = [f"(x+{n})!" for n in range(900, 940)]
    assert canonical_form(",".join(parts))[0] == "text"
    assert canonical_form(",".join(parts[:3]))[0] == "set"
    assert is_correct(HEAVY, HEAVY.replace("+", " + ", 1))
    assert not is_correct(HEAVY, HEAVY.replace("2999!", "2998!", 1))


def test_known_answers_need_little_of_the_budget(math500):
    for text in {row["answer"] for row in math500}:
        grading._key.cache_clear()
        canonical_form(text)
        assert latex.WORK.left > latex.BUDGET / 2, text


def test_a_budget_does_not_depend_on_what_was_read_before():
    texts = hostile_answers(30, seed=3)
    forget()
    before = [canonical_form(text) for text in texts]
    grading._key.cache_clear()  # formulas stay in the parser's cache
    assert [canonical_form(text) for text in texts] == before
    forget()
    assert [canonical_form(text) for text in texts[::-1]] == before[::-1]


def test_hostile_inputs_stay_apart():
    """What is not evaluated is compared as text, not taken to be all the same."""
    assert not is_correct("9^{9^{9^9}}", "9^{9^{9^8}}")
    assert is_correct("9^{9^{9^9}}", "9^{9^{9^{9}}}")
    assert not is_correct("1E999999999", "1E999999998")
    assert not is_correct("x" * 100_000, "x" * 99_999)
    assert is_correct("x" * 100_000, "x " * 100_000)
    assert not is_correct(r"\frac{1}{0}", r"\frac{2}{0}")


def test_deep_nesting_is_text_however_deep_the_stack_of_the_caller():
    """Past MAX_DEPTH nothing is parsed, so that a key does not hang on how much of Python's stack is left."""
    assert canonical_form(r"\sqrt{" * 12 + "2" + "}" * 12)[0] == "value"
    assert canonical_form(r"\sqrt{" * 40 + "2" + "}" * 40)[0] == "text"


def test_random_text_never_raises_and_is_fast():
    rng = random.Random(8)
    tokens = (
        r"\frac \sqrt { } ( ) [ ] ^ _ x y 2 3.5 10 - + * / ! | \sin \log \pi i e , \pm \cup = < \leq \text{ \\ & \{ \} "
        r"\infty \binom ^\circ cm or and east % $ . \overline \lfloor \rfloor 9^{9} \boxed{ ' 1,000 \left \right \in \over "
        r"\begin{pmatrix} \end{pmatrix} \neq \setminus \in \R > \geq \cdot \ln \log_2 f(x) x> AB [ ] \begin{cases} \end{cases} "
        r"\color{red} \mid a_1"
    ).split() + [" ", "\0", "π", "²", '"', "\n"]
    for _ in range(1500):
        text = "".join(rng.choices(tokens, k=rng.randint(1, 50)))
        start = time.process_time()
        try:  # canonical_form falls back on text for any error; see which
            structure.structure(normalise.normalise(text))
        except (ValueError, ArithmeticError, RecursionError):
            pass
        hash(canonical_form(text))
        extract_answer(text)
        assert time.process_time() - start < 2, text


def test_memory_stays_bounded():
    resource = pytest.importorskip("resource")  # not on Windows
    canonical_form("x+1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for round_ in range(2):
        for text in HOSTILE.values():
            canonical_form(text + " " * round_)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (
        200 << 20 if sys.platform == "darwin" else 200 << 10
    )  # bytes there, KiB elsewhere
    assert all(f.cache_info().maxsize for f in (grading._key, latex._parse, latex._atom))
    assert "x" * 401 not in repr(canonical_form("x" * 401))  # a long answer is kept as a digest


def test_no_code_runs(tmp_path):
    target = tmp_path / "pwned"
    code = f"__import__('pathlib').Path({str(target)!r}).touch()"
    for text in (
        code,
        f"${code}$",
        rf"\text{{{code}}}",
        rf"\operatorname{{{code}}}(x)",
        rf"\variable{{{code}}}",
        f"{{{code}}}",
        f"x={code}",
        f"({code}, 1)",
        f"exec({code!r})",
        rf"\frac{{{code}}}{{2}}",
        rf"\boxed{{{code}}}",
    ):
        canonical_form(text)
        extract_answer(text)
    assert not target.exists()


def test_nothing_that_evaluates_text_is_called():
    source = "".join(
        (ROOT / "common" / f"{name}.py").read_text(encoding="utf-8")
        for name in ("grading", "latex", "normalise", "phrases", "statements", "structure")
    )
    tree = ast.parse(source)
    called = {
        getattr(node.func, "id", getattr(node.func, "attr", None))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    assert not called & {
        "eval",
        "exec",
        "sympify",
        "parse_expr",
        "simplify",
        "S",
        "lambdify",
        "latex2sympy",
        "alarm",
    }


def test_one_answer_does_not_change_another():
    texts = [
        "x",
        "d",
        "dx",
        "x+1",
        r"\sin x",
        "odd",
        "A",
        "n",
        "x=3",
        r"\frac{dy}{dx}",
        "e",
        "I",
        "f(x)",
        r"\gamma",
        "1.5",
    ]
    forget()
    before = [canonical_form(text) for text in texts]
    for poison in [
        "x=5",
        r"\text{odd}=2",
        "dx",
        r"x \in \{1,2\}",
        "f(x)=x^2",
        r"\variable{x}",
        "e=2",
        "A=\\begin{pmatrix}1\\end{pmatrix}",
        r"\frac{d}{dx} x^2",
        "((((",
        r"\frac{",
        "n \\approx 3",
        r"\int x dx",
        r"x \in R^{2\times 3}",
        "pi=3",
    ]:
        canonical_form(poison)
    for order in (texts, texts[::-1]):
        forget()
        after = {text: canonical_form(text) for text in order}
        assert [after[text] for text in texts] == before


def test_the_global_precision_of_mpmath_is_neither_used_nor_changed():
    import mpmath

    expected = canonical_form(r"\sqrt{2}x")
    forget()
    with mpmath.workdps(5):
        assert canonical_form(r"\sqrt{2}x") == expected
        assert mpmath.mp.dps == 5


def test_it_works_on_any_thread():
    texts = [row[2] for row in read_pairs()[::8]]
    expected = [canonical_form(text) for text in texts]
    forget()
    found, errors = {}, []

    def work(seed):
        try:
            for i in random.Random(seed).sample(range(len(texts)), len(texts)):
                found[seed, i] = canonical_form(texts[i])
        except BaseException as error:  # a thread would only print it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(found[seed, i] == expected[i] for seed in range(4) for i in range(len(texts)))


# -------------------------------------------------------------------------------- imports and speed


def run_python(code: str, **env) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=env or None,
        check=True,
    )
    return result.stdout.strip()


def test_a_vote_over_numbers_loads_no_parser():
    code = (
        "import sys; from common.grading import majority, weighted, extract_answer\n"
        r"assert majority(['1', '2', '-3', '1/2', r'\frac{1}{2}', '0.5', ' 7 ', '+4', '1', '1', '1', '1', '1']) == '1'"
        "\n"
        r"assert weighted(['1', '7', r'$\frac{14}{2}$', r'\dfrac{1}{2}'], [0.5, 0.3, 0.3, 0.1]) == '7'"
        "\n"
        "print(sorted({'sympy', 'antlr4', 'latex2sympy2_extended', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_algebra_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from common.grading import is_correct\n"
        r"assert is_correct('x+1', '1+x') and 'sympy' in sys.modules"
        "\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_keys_do_not_depend_on_the_process():
    texts = [
        r"\sqrt{2}x",
        r"\{x,y\}",
        r"y=2x+3",
        "x^2+y^2=1",
        r"\text{East}",
        "x" * 5000,
        "6+9i",
        "3,5,7",
    ]
    code = f"from common.grading import canonical_form\nprint([canonical_form(text) for text in {texts!r}])"
    assert {run_python(code, PYTHONHASHSEED=seed) for seed in ("1", "2")} == {
        str([canonical_form(text) for text in texts])
    }


def test_a_vote_over_256_answers_is_fast():
    sys.path.insert(0, str(ROOT / "tests"))
    from bench_grading import ballot

    answers, times = ballot(), []
    majority(answers)  # imports, and the parser's grammar
    for _ in range(5):
        forget()
        start = time.process_time()
        majority(answers)
        times.append(time.process_time() - start)
    assert min(times) < 0.1
