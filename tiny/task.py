"""Arithmetic word problems with worked solutions, and a checker that labels every step of a
solution.

A problem is a chain of 2 to 8 operations on a number; in half of them the last one is a division
that leaves a fraction. The solution writes each operation as a step of the format that Llama's math
prompt asks for, and writes a fraction at random as \\frac, \\dfrac or decimal, so that equal
answers look different:

    ## Step 1: Add 12
    $34+12=46$

    ## Step 2: Divide by 4
    $46\\div4=11.5$

    Therefore, the final answer is: $\\boxed{11.5}$. I hope it is correct.
"""

import random
from dataclasses import dataclass
from fractions import Fraction

# Fewest and most operations. Training draws by group, tests are told apart by level: more are long.
GROUPS = {1: (2, 2), 2: (3, 4), 3: (5, 5), 4: (6, 7), 5: (8, 8)}
LEVEL = {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 4, 8: 5}  # of so many operations
LARGEST = 99

SIGN = {"+": "+", "-": "-", "*": "\\times", "/": "\\div"}
TITLE = {"+": "Add", "-": "Subtract", "*": "Multiply by", "/": "Divide by"}
NAMES = [
    ("Mia", "She"),
    ("Tom", "He"),
    ("Ava", "She"),
    ("Leo", "He"),
    ("Zoe", "She"),
    ("Ben", "He"),
    ("Ivy", "She"),
    ("Sam", "He"),
]
COUNTABLE = ["coins", "stamps", "marbles", "stickers", "cards", "shells"]
DIVISIBLE = ["litres of juice", "kilograms of rice", "metres of rope", "grams of salt"]
PHRASES = {
    "+": ["gets {} more", "buys {} more", "finds {} more"],
    "-": ["gives away {}", "loses {}", "sells {}"],
    "*": {
        2: "doubles what is there",
        3: "triples what is there",
        4: "makes it 4 times as much",
        5: "makes it 5 times as much",
    },
    "/": {
        2: "keeps only half",
        3: "keeps only one third",
        4: "keeps only one fourth",
        5: "keeps only one fifth",
    },
}


@dataclass
class Problem:
    operations: list  # (one of + - * /, operand), in order
    values: list  # the number before the first operation, then after each: one more than operations
    text: str

    @property
    def answer(self) -> Fraction:
        return self.values[-1]

    @property
    def level(self) -> int:
        return LEVEL[len(self.operations)]


def make_problem(
    rng: random.Random, group: int | None = None, length: int | None = None
) -> Problem:
    group = group or rng.randint(1, 5)
    operations, values = make_chain(rng, length or rng.randint(*GROUPS[group]))
    tell = rng.choice([tell_story, tell_expression, tell_recipe])
    return Problem(operations, values, tell(rng, operations, values))


def make_chain(rng, length):
    """Operations and values: all values whole and in [6, 99], but in half of the chains the last, a
    fraction.
    """
    ends_in_fraction = rng.random() < 0.5
    while True:
        value = rng.randint(6, LARGEST)
        operations, values = [], [Fraction(value)]
        for _ in range(length - ends_in_fraction):
            divisors = [d for d in range(2, 6) if value % d == 0 and value // d >= 6]
            possible = (
                ["+"] * (value < LARGEST - 8)
                + ["-"] * (value > 20)
                + ["*"] * (value <= LARGEST // 2)
                + ["/"] * bool(divisors)
            )
            sign = rng.choice(possible)
            if sign == "+":
                operand = rng.randint(3, min(30, LARGEST - value))
            elif sign == "-":
                operand = rng.randint(3, min(30, value - 6))
            elif sign == "*":
                operand = rng.randint(2, min(5, LARGEST // value))
            else:
                operand = rng.choice(divisors)
            value = int(calculate(value, sign, operand))
            operations.append((sign, operand))
            values.append(Fraction(value))
        if not ends_in_fraction:
            return operations, values
        divisors = [d for d in (2, 4, 5, 8) if value % d]
        if divisors:
            operations.append(("/", rng.choice(divisors)))
            return operations, values + [calculate(value, *operations[-1])]


def calculate(value, sign, operand) -> Fraction:
    value = Fraction(value)
    return {"+": value + operand, "-": value - operand, "*": value * operand, "/": value / operand}[
        sign
    ]


def tell_story(rng, operations, values):
    (name, pronoun), shared = rng.choice(NAMES), values[-1].denominator > 1
    things = rng.choice(DIVISIBLE if shared else COUNTABLE)
    phrases = []
    for sign, operand in operations[:-1] if shared else operations:
        forms = PHRASES[sign]
        phrases.append(
            rng.choice(forms).format(operand) if isinstance(forms, list) else forms[operand]
        )
    story = f"{name} has {values[0]} {things}."
    for i in range(0, len(phrases), 2):
        story += f" {pronoun} {'then ' if i else ''}{', then '.join(phrases[i : i + 2])}."
    unit = things.split()[0]
    if shared:
        people = operations[-1][1]
        story += f" {pronoun} shares it equally among {people} people."
        return f"{story} How many {unit} does each person get?"
    return f"{story} How many {unit} does {name} have at the end?"


def tell_expression(rng, operations, values):
    expression, before = str(values[0]), "*"
    for sign, operand in operations:
        if sign in "*/" and before in "+-":
            expression = f"({expression})"
        expression += f"{SIGN[sign]}{operand}"
        before = sign
    return f"Evaluate ${expression}$."


def tell_recipe(rng, operations, values):
    orders = ", ".join(f"{TITLE[sign].lower()} {operand}" for sign, operand in operations)
    return f"Start with {values[0]}. {orders.capitalize()}. What is the result?"


def ways_to_write(value: Fraction) -> list[str]:
    if value.denominator == 1:
        return [str(value)]
    digits = f"{float(value):.6f}".rstrip(
        "0"
    )  # denominators divide 8 or 5, so the decimal is exact
    return [
        f"\\frac{{{value.numerator}}}{{{value.denominator}}}",
        f"\\dfrac{{{value.numerator}}}{{{value.denominator}}}",
        digits,
    ]


def write_step(number: int, before: str, sign: str, operand: int, after: str) -> str:
    return f"## Step {number}: {TITLE[sign]} {operand}\n${before}{SIGN[sign]}{operand}={after}$"


def write_answer(answer: str) -> str:
    return f"Therefore, the final answer is: $\\boxed{{{answer}}}$. I hope it is correct."


def right_steps(problem: Problem, index: int) -> list[str]:
    """Every right way to write step `index` (0-based; the one after the last operation states the
    answer).
    """
    if index == len(problem.operations):
        return [write_answer(form) for form in ways_to_write(problem.answer)]
    sign, operand = problem.operations[index]
    return [
        write_step(index + 1, str(problem.values[index]), sign, operand, form)
        for form in ways_to_write(problem.values[index + 1])
    ]


def write_solution(rng, problem: Problem) -> list[str]:
    last = rng.choice(ways_to_write(problem.answer))
    steps = [right_steps(problem, i)[0] for i in range(len(problem.operations) - 1)]
    sign, operand = problem.operations[-1]
    return steps + [
        write_step(len(steps) + 1, str(problem.values[-2]), sign, operand, last),
        write_answer(last),
    ]


def label_steps(problem: Problem, steps: list[str]) -> list[bool]:
    """For each step whether the solution is still right up to and including it: once wrong, always
    wrong.
    """
    labels, right = [], True
    for i, step in enumerate(steps):
        right = right and i <= len(problem.operations) and step.strip() in right_steps(problem, i)
        labels.append(right)
    return labels
