"""Problem files: lines of JSON, or Parquet, checked to the last line before any work."""

import ast
import gzip
import json
import math
import os
import re
from pathlib import Path

from common import programs
from harness import models
from harness.terminal import cure, fail, note


def load(args):
    """All problems, in file order: [{"id": str, "problem": str, "answer": str, "level"}].

    Reads JSONL with problem, answer and perhaps id (or unique_id) and level, or GSM8K's question
    and answer ending in "#### 42". In place of an answer a problem may have "tests", Python that
    raises if a program is wrong; or HumanEval's prompt, test and entry_point. A hub id means the
    test.jsonl of that dataset, or its Parquet files. fail()s at the first fault. A single question
    (args.problem) has no answer.
    """
    if args.problem is not None:
        if not args.problem.strip():
            fail("--problem is empty: write the question between quotes")
        named = re.fullmatch(r"\S+\.(?:jsonl|json|parquet)", args.problem)
        if named or os.path.isfile(args.problem):
            fail(f"--problem {args.problem} is a file: give it to --problems")
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
    for flag in ("weights", "stop_at"):
        if vars(args).get(flag) is not None:
            fail(f"--{flag.replace('_', '-')} is of votes, and programs have none: leave it out")
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
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            return file.read().split("\n")
    except (EOFError, gzip.BadGzipFile) as error:
        fail(f"--problems {name} cannot be unpacked ({error}): download it again")
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
        remedy = "mend or delete it"
        first = where.endswith("line 1")
        if first and line.lstrip().startswith("["):
            remedy = "write the objects of a JSON array one a line (jq -c '.[]' does)"
        elif first and "{" not in line:
            remedy = "write each problem as a line {...} of JSON, no CSV"
        if "escape" in str(error):
            remedy = "JSON wants a backslash twice, \\\\div for \\div"
        if isinstance(error, json.JSONDecodeError):
            if error.msg == "Extra data":
                remedy = "end the line with its }, without a comma"
            elif re.search(r",\s*\}", line[max(0, error.pos - 20) : error.pos + 20]):
                remedy = "leave out the comma before }"
            near = line[max(0, error.pos - 15) : error.pos + 15]
            error = f"{error.msg} at character {error.pos + 1}, near {near}"
        fail(f"{where} is no JSON object ({error}): {remedy}")


# What JSON makes of \frac, \times, \right or \neq with one backslash
LOST = re.compile(
    r"(?:[\b\f]|\t(?=(?:imes|ext|heta|frac|riangle|an|au)(?![a-z]))"
    r"|\r(?=(?:ho|ight|angle|floor|ceil)(?![a-z]))|\n(?=(?:eq|eg|abla|otin)(?![a-z])))([a-z]*)"
)


def parse(record, number, where):
    if "entry_point" in record and "tests" not in record:
        return human_eval(record, number, where)
    problem = record.get("problem", record.get("question"))
    problem = problem.strip() if isinstance(problem, str) else ""
    found = {"id": record.get("id", record.get("unique_id", number)), "problem": problem}
    if "tests" in record:
        tests = check_python(record["tests"], "tests", where)
        if programs.assert_nothing(tests):
            fail(f"{where} has tests that assert nothing: add a line that calls what they define")
        found |= {"answer": None, "tests": tests}
        if record.get("entry_point") is not None:
            found["entry_point"] = check_entry_point(record["entry_point"], where)
    else:
        if isinstance(record.get("answer"), list | dict | bool):
            fail(f"{where} has an answer that is no text: {record['answer']!r:.60}: write text")
        answer = as_text(record.get("answer")).split("####")[-1].strip()
        found["answer"] = answer or None
    for text in (record.get("problem"), record.get("question"), record.get("answer")):
        if lost := isinstance(text, str) and LOST.search(text):
            name = "\\" + "bftrn"["\b\f\t\r\n".index(lost[0][0])] + lost[1]
            once = f"{name} with one backslash, of which JSON makes another sign"
            fail(f"{where} has {once}: write \\{name}")
    if not problem or not (found["answer"] or found.get("tests")):
        field = "answer" if problem else "problem"
        if field in record:
            value = json.dumps(record[field], ensure_ascii=False)
            fail(
                f"{where} has no text in its field {field}, but {value:.60}: write text or a number"
            )
        lacking = f"{field} (or tests, for a program)" if problem else field
        has = ", ".join(map(repr, record)) or "none"
        fail(f"{where} has no text in its field {lacking}: add it; its fields are {has}")
    return check_names(found | {"level": record.get("level")}, where)


def human_eval(record, number, where):
    """A line of HumanEval. Its prompt, as a code block, is the question. It is also what both the
    program and the tests can use: imports, and helpers defined before the function to write."""
    prompt = check_python(record.get("prompt"), "prompt", where)
    test = check_python(record.get("test"), "test", where)
    name = check_entry_point(record["entry_point"], where)
    found = {
        "id": record.get("task_id", number),
        "problem": f"```python\n{prompt.strip()}\n```",
        "answer": None,
        "level": record.get("level"),
        "setup": prompt,
        "tests": f"{test}\n\ncheck({name})\n",
        "entry_point": name,
    }
    return check_names(found, where)


def check_entry_point(name, where):
    if type(name) is str and name.isidentifier():
        return name
    fail(f"{where} has an entry_point that is no name of a function: {name!r}")


def check_python(source, field, where):
    """source, if it is Python that says something."""
    try:
        if type(source) is str and ast.parse(source).body:
            return source
        reason = "it is empty or no text"
        if isinstance(source, list):
            reason = "it is a list: join its lines to one text"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error
    fail(f"{where} has no Python in its field {field} ({reason}): mend or delete it")


def check_names(found, where):
    """The problem, if its id and level fit a line of a table."""
    key = found["id"]
    if type(key) not in (str, int) or not fits_a_line(key):
        fail(f"{where} has the id {key!r}: write a short text or a whole number")
    level = found["level"]
    if level is not None and not fits_a_line(level):
        fail(f"{where} has the level {level!r}: write a short text or a number")
    return found | {"id": str(key)}


def fits_a_line(field):
    """Is it a number, or text without a line break?"""
    if type(field) is str:
        return len(field.splitlines()) == 1
    return type(field) in (int, float) and math.isfinite(field)


def as_text(field):
    plain = type(field) in (str, int) or type(field) is float and math.isfinite(field)
    return str(field).strip() if plain else ""
