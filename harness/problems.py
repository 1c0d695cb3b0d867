"""Problem files: JSON lines of problems and answers, checked to the last line before any work."""

import ast
import gzip
import json
import os
from pathlib import Path

from common import programs
from harness import models
from harness.terminal import fail, note


def load(args):
    """All problems, in file order: [{"id": str, "problem": str, "answer": str, "level"}].

    Reads JSONL with problem, answer and perhaps id (or unique_id) and level, or GSM8K's question
    and answer ending in "#### 42". In place of an answer a problem may have "tests", Python that
    raises if a program is wrong; or HumanEval's prompt, test and entry_point. A hub id means the
    test.jsonl of that dataset. fail()s at the first fault. A single question (args.problem) has no
    answer.
    """
    if args.problem is not None:
        if not args.problem.strip():
            fail("--problem is empty: write the question between quotes")
        return [{"id": "question", "problem": args.problem, "answer": None, "level": None}]

    problems = []
    first = {}  # id -> the line that has it
    for number, line in enumerate(read_lines(args.problems), 1):
        if not line.strip():
            continue
        where = f"--problems {args.problems}, line {number}"
        problem = parse(line, number, where)
        earlier = first.setdefault(problem["id"], number)
        if earlier != number:
            fail(f"{where} has the id {problem['id']!r} of line {earlier}: make them differ")
        problems.append(problem)
    if not problems:
        fail(f"--problems {args.problems} is empty: write one problem a line")
    check_tests(args, problems)
    return problems


def check_tests(args, problems):
    """Programs run only if the user said so. What this system cannot keep from them is said."""
    with_tests = [problem["id"] for problem in problems if "tests" in problem]
    if args.run_code and not with_tests:
        fail(f"--run-code: no problem of --problems {args.problems} has tests: leave it out")
    if not with_tests:
        return
    if len(with_tests) < len(problems):
        fail(f"--problems {args.problems} mixes problems with tests and with answers: split it")
    if not args.run_code:
        fail(
            f"--problems {args.problems} has unit tests (problem {with_tests[0]!r}): add "
            "--run-code to run what the policy writes here, which is no jail (docs/code.md)"
        )
    try:
        free = programs.uncontained()
    except RuntimeError as error:
        fail(f"--run-code: {error}: try another user or another machine")
    if free:
        note(f"programs that the policy writes can {' and '.join(free)} on this system")


def read_lines(name):
    path = Path(name)
    if not os.path.exists(name):
        path = models.from_hub(name, "--problems", "dataset", "test.jsonl") / "test.jsonl"
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            return file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        fail(
            f"--problems {name} cannot be read as JSONL ({error}): save lines of JSON with the "
            "fields problem and answer (GSM8K's own test.jsonl will do: "
            "github.com/openai/grade-school-math)"
        )


def parse(line, number, where):
    try:
        record = dict(json.loads(line))
        json.dumps(record, ensure_ascii=False).encode()  # "\ud800" is JSON, but half a character
    except (ValueError, TypeError, RecursionError) as error:
        fail(f"{where} is no JSON object ({error}): mend or delete it")
    if "entry_point" in record:
        return human_eval(record, number, where)
    key = str(record.get("id", record.get("unique_id", number)))
    problem = as_text(record.get("problem", record.get("question")))
    found = {"id": key, "problem": problem, "answer": None, "level": record.get("level")}
    if "tests" in record:
        found["tests"] = check_python(record["tests"], "tests", where)
    else:
        found["answer"] = as_text(record.get("answer")).split("####")[-1].strip() or None
    if not problem or not (found["answer"] or found.get("tests")):
        fail(f"{where} has no problem or no answer: add it, as text, or delete the line")
    return found


def human_eval(record, number, where):
    """A line of HumanEval. Its prompt, as a code block, is the question. It is also what both the
    program and the tests can use: imports, and helpers defined before the function to write."""
    prompt = check_python(record.get("prompt"), "prompt", where)
    test = check_python(record.get("test"), "test", where)
    name = record["entry_point"]
    if type(name) is not str or not name.isidentifier():
        fail(f"{where} has an entry_point that is no name of a function: {name!r}")
    return {
        "id": str(record.get("task_id", number)),
        "problem": f"```python\n{prompt.strip()}\n```",
        "answer": None,
        "level": record.get("level"),
        "setup": prompt,
        "tests": f"{test}\n\ncheck({name})\n",
        "entry_point": name,
    }


def check_python(source, field, where):
    """source, if it is Python that says something."""
    try:
        if type(source) is str and ast.parse(source).body:
            return source
        reason = "it is empty or no text"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error
    fail(f"{where} has no Python in its field {field} ({reason}): mend or delete it")


def as_text(field):
    return str(field).strip() if type(field) in (str, int, float) else ""
