"""Problem files: JSON lines of problems and answers, checked to the last line before any work."""

import json
import os
from pathlib import Path

from harness import models
from harness.terminal import fail


def load(args):
    """All problems, in file order: [{"id": str, "problem": str, "answer": str, "level"}].

    Reads JSONL with problem, answer and perhaps id (or unique_id) and level, or GSM8K's question
    and answer ending in "#### 42". A hub id means the test.jsonl of that dataset. fail()s at the
    first fault. A single question (args.problem) has no answer.
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
    return problems


def read_lines(name):
    path = Path(name)
    if not os.path.exists(name):
        path = models.from_hub(name, "--problems", "dataset", "test.jsonl") / "test.jsonl"
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
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
    problem = as_text(record.get("problem", record.get("question")))
    answer = as_text(record.get("answer")).split("####")[-1].strip()
    if not problem or not answer:
        fail(f"{where} has no problem or no answer: add it, as text, or delete the line")
    key = str(record.get("id", record.get("unique_id", number)))
    return {"id": key, "problem": problem, "answer": answer, "level": record.get("level")}


def as_text(field):
    return str(field).strip() if type(field) in (str, int, float) else ""
