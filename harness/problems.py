"""Problem files: lines of JSON, or Parquet, checked to the last line before any work."""

import json
import math
import os
from pathlib import Path

from harness import models
from harness.terminal import cure, fail


def load(args):
    """All problems, in file order: [{"id": str, "problem": str, "answer": str, "level"}].

    Reads JSONL with problem, answer and perhaps id (or unique_id) and level, or GSM8K's question
    and answer ending in "#### 42". A hub id means the test.jsonl of that dataset, or its Parquet
    files. fail()s at the first fault. A single question (args.problem) has no answer.
    """
    if args.problem is not None:
        if not args.problem.strip():
            fail("--problem is empty: write the question between quotes")
        return [{"id": "question", "problem": args.problem, "answer": None, "level": None}]

    problems = []
    first = {}  # id -> the line that has it
    for number, record, where in records(args.problems):
        problem = parse(record, number, where)
        earlier = first.setdefault(problem["id"], number)
        if earlier != number:
            fail(f"{where} has the id {problem['id']!r} of line {earlier}: make them differ")
        problems.append(problem)
    if not problems:
        fail(f"--problems {args.problems} is empty: write one problem a line")
    return problems


def records(name):
    """(number, record, where it stands) of each line that is not blank, or row of Parquet."""
    paths = [Path(name)] if os.path.exists(name) else hub_files(name)
    if paths[0].suffix == ".parquet":
        for number, record in enumerate(read_parquet(name, paths), 1):
            yield number, record, f"--problems {name}, row {number}"
        return
    for number, line in enumerate(read_lines(name, paths[0]), 1):
        if line.strip():
            where = f"--problems {name}, line {number}"
            yield number, read_object(line, where), where


def hub_files(name):
    """test.jsonl of a dataset on the hub, or else the Parquet files of its test set. Where it has
    but one set of problems, as a file of "train", that is it."""
    folder = models.from_hub(name, "--problems", "dataset", ["test.jsonl", "*test*.parquet"])
    if (folder / "test.jsonl").exists():
        return [folder / "test.jsonl"]
    if not list(folder.rglob("*.parquet")):
        folder = models.from_hub(name, "--problems", "dataset", ["*.parquet"])
    sets = {}
    for path in sorted(folder.rglob("*.parquet")):
        split = path.name.split("-")[0].removesuffix(".parquet")
        sets.setdefault(str(path.parent.relative_to(folder) / split), []).append(path)
    for wanted in ("main/test", "data/test", "test"):  # main: GSM8K's, beside socratic
        if wanted in sets:
            return sets[wanted]
    if len(sets) == 1:
        return list(sets.values())[0]
    found = f"has {', '.join(sets)}" if sets else "has neither test.jsonl nor Parquet files"
    fail(f"--problems {name} {found}: download the file that you mean, and name it")


def read_parquet(name, paths):
    try:
        from datasets import load_dataset
    except ImportError:
        fail(f"--problems {name} is Parquet, which needs another package: pip install datasets")
    try:
        files = [str(path) for path in paths]
        return list(load_dataset("parquet", data_files=files, split="train", streaming=True))
    except Exception as error:  # of any kind: the file is no Parquet
        fail(f"--problems {name} cannot be read as Parquet ({error}): download it again")


def read_lines(name, path):
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        remedy = cure(error) or "mend that or name another file"
        fail(f"--problems {name} cannot be read ({error.strerror}): {remedy}")
    except UnicodeDecodeError as error:
        fail(
            f"--problems {name} cannot be read as JSONL ({error}): save lines of JSON with the "
            "fields problem and answer (GSM8K's own test.jsonl will do: "
            "github.com/openai/grade-school-math)"
        )


def read_object(line, where):
    """The JSON object in a line, without what JSON allows and nobody means."""

    def pairs(given):
        record = dict(given)
        if len(record) < len(given):
            twice = next(key for key, _ in given if [one for one, _ in given].count(key) > 1)
            raise ValueError(f"it has {twice!r} twice")
        return record

    def number(text):
        if math.isfinite(float(text)):
            return float(text)
        raise ValueError(f"{text} is no number")

    try:
        record = json.loads(
            line, object_pairs_hook=pairs, parse_float=number, parse_constant=number
        )
        if not isinstance(record, dict):
            raise ValueError("it is no {...}")
        json.dumps(record, ensure_ascii=False).encode()  # "\ud800" is JSON, but half a character
        return record
    except (ValueError, TypeError, RecursionError) as error:
        fail(f"{where} is no JSON object ({error}): mend or delete it")


def parse(record, number, where):
    problem = record.get("problem", record.get("question"))
    problem = problem.strip() if isinstance(problem, str) else ""
    answer = as_text(record.get("answer")).split("####")[-1].strip()
    if not problem or not answer:
        fail(f"{where} has no problem or no answer: add it, as text, or delete the line")
    key = record.get("id", record.get("unique_id", number))
    if type(key) not in (str, int) or not fits_a_line(key):
        fail(f"{where} has the id {key!r}: write a short text or a whole number")
    level = record.get("level")
    if level is not None and not fits_a_line(level):
        fail(f"{where} has the level {level!r}: write a short text or a number")
    return {"id": str(key), "problem": problem, "answer": answer, "level": level}


def fits_a_line(field):
    """Is it a number, or text without a line break?"""
    if type(field) is str:
        return len(field.splitlines()) == 1
    return type(field) in (int, float) and math.isfinite(field)


def as_text(field):
    plain = type(field) in (str, int) or type(field) is float and math.isfinite(field)
    return str(field).strip() if plain else ""
