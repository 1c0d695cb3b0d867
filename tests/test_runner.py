"""The run, from the outside: real processes of a stub script whose search is a seeded die
(stub.py).

Most are forked from this one, where all is imported already. So they start at once, and dozens can
be killed. Some tests of several processes start new ones.
"""

import gzip
import json
import math
import os
import pty
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import stub as stub_script
import torch
from conftest import ROOT

from harness import cli, models, problems, results, solve, table, terminal, trace

MODELS = ["--policy", "p", "--prm", "r"]  # the stub loads none, but their folders are looked at
MODULES = [cli, models, problems, results, solve, table, terminal, trace]


@pytest.fixture
def folder(tmp_path):
    shutil.copy(ROOT / "tests/stub.py", tmp_path)
    (tmp_path / "p").symlink_to(ROOT / "tiny/policy")
    (tmp_path / "r").symlink_to(ROOT / "tiny/prm")
    (tmp_path / "empty").mkdir()
    write_problems(tmp_path)
    return tmp_path


def write_problems(folder, count=12, special={}, name="problems.jsonl"):
    records = [
        {
            "id": f"p{i}",
            "problem": f"problem {i} {special.get(i, '')}".strip(),
            "answer": str(i % 3),
            "level": i % 3 + 1,
        }
        for i in range(count)
    ]
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))


class Forked:
    """A child of this process that runs the stub's main(), in the place of a subprocess.Popen."""

    def __init__(self, folder, words, env, stderr=None, before=None):
        out, self.out = os.pipe()
        err, self.err = os.pipe()
        self.stdout = open(out)
        self.stderr = open(err)
        self.returncode = None
        self.pid = os.fork()
        if self.pid:
            os.close(self.out)
            os.close(self.err)
            return
        code = 99
        try:
            os.close(out)
            os.close(err)
            os.dup2(self.out, 1)
            os.dup2(stderr or self.err, 2)
            sys.stdout = open(1, "w", closefd=False)
            sys.stderr = open(2, "w", closefd=False, buffering=1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            os.environ.update(env)
            for module in MODULES:
                if hasattr(module, "RANK"):
                    module.RANK = int(env.get("RANK", 0))
                if hasattr(module, "WORLD"):
                    module.WORLD = int(env.get("WORLD_SIZE", 1))
            sys.argv = ["stub.py", *words]
            if before:
                before()
            try:
                code = stub_script.main()
            except SystemExit as stop:
                code = stop.code
            sys.stdout.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def communicate(self, timeout=None):
        texts = {}
        readers = []
        for name in ("stdout", "stderr"):
            stream = getattr(self, name)

            def read(name=name, stream=stream):
                texts[name] = "" if stream.closed else stream.read()

            readers.append(threading.Thread(target=read))
            readers[-1].start()
        for reader in readers:
            reader.join()
        self.wait()
        for stream in (self.stdout, self.stderr):
            stream.close()
        return texts["stdout"], texts["stderr"]

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def words_of(flags):
    flags = [str(flag) for flag in flags]
    given = any(flag.startswith("--problem") for flag in flags)
    return [*MODELS, *([] if given else ["--problems", "problems.jsonl"]), *flags]


def start(folder, *flags, env={}, stderr=None, before=None):
    return Forked(folder, words_of(flags), env, stderr, before)


def start_anew(folder, *flags, launcher=(sys.executable,), env={}):
    """A process that imports all by itself."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(
        [*launcher, "stub.py", *words_of(flags)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background inherits deafness to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stub(folder, *flags, code=0, **kwargs):
    process = start(folder, *flags, **kwargs)
    out, err = process.communicate()
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def rows_of(path):
    """Header and rows as they stand in the file, times removed; every line must be whole JSON."""
    header, *rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for row in rows:
        row.get("usage", {}).pop("seconds", None)
    return [header, *rows]


def ids(path):
    """Of the rows that are whole in a file, or in a part file, which has no header."""
    rows = [json.loads(line) for line in Path(path).read_text().split("\n")[:-1]]
    return [row["id"] for row in rows if "id" in row]


@pytest.fixture
def unbroken(folder):
    stub(folder, "--output", "unbroken.jsonl")
    (folder / "solved.log").unlink()
    return rows_of(folder / "unbroken.jsonl")


# --- what is written ------------------------------------------------------------------------------


def test_file_of_a_run(folder, unbroken):
    header, *rows = unbroken
    run = header["run"]
    assert (
        run["script"] == "stub.py"
        and run["n"] == 4
        and run["temperature"] == 0.8
        and run["policy"] == str(ROOT / "tiny/policy")
    )
    assert run["batch_problems"] == 1 and re.fullmatch("[0-9a-f]{16}", run["policy_weights"])
    assert run["versions"]["transformers"] and run["device"] == "cpu" and "commit" in run
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(12)]
    row = rows[4]
    assert list(row) == [
        "id",
        "problem",
        "answer",
        "level",
        "finished",
        "distinct",
        "ancestors",
        "completions",
        "predictions",
        "correct",
        "usage",
    ]
    assert row["answer"] == "1" and row["level"] == 2 and len(row["completions"]) == 4
    assert set(row["completions"][0]) == {
        "text",
        "answer",
        "scores",
        "value",
        "tokens",
        "finished",
        "path",
        "subtree",
    }
    assert row["distinct"] == len({completion["text"] for completion in row["completions"]})
    assert [completion["path"] for completion in row["completions"]] == [[1], [2], [3], [4]]
    assert row["ancestors"] == [4]
    assert [completion["subtree"] for completion in row["completions"]] == [0, 0, 1, 1]
    assert list(row["predictions"]) == list(row["correct"]) == ["majority", "best", "weighted"]
    assert row["usage"] == {
        "generated_tokens": 20,
        "policy_tokens": 7,
        "prm_tokens": 7,
        "flops": 2000,
    }
    assert not list(folder.glob("*.new")) and not list(folder.glob("*.part*"))


def test_default_name_resumes_and_differs_by_arguments(folder):
    out, _ = stub(folder, "--limit", 5)
    (path,) = (folder / "runs").iterdir()
    assert path.name.startswith("stub-n4-seed0-") and f"results in runs/{path.name}" in out
    assert "--limit 10" in out  # how to get more
    stub(folder, "--limit", 7)
    assert ids(path) == [f"p{i}" for i in range(7)]
    assert (
        len((folder / "solved.log").read_text().splitlines()) == 7
    )  # five of them were not run again
    stub(folder, "--limit", 2, "--temperature", 0.5)
    assert len(list((folder / "runs").iterdir())) == 2


def test_a_problem_does_not_depend_on_order_limit_or_neighbours(folder, unbroken):
    lines = (folder / "problems.jsonl").read_text().splitlines(keepends=True)
    (folder / "reversed.jsonl").write_text("".join(reversed(lines)))
    stub(folder, "--problems", "reversed.jsonl", "--output", "reversed-out.jsonl", "--limit", 6)
    assert rows_of(folder / "reversed-out.jsonl")[:0:-1] == unbroken[-6:]
    texts = [str(row["completions"]) for row in unbroken[1:]]
    assert len(set(texts)) == 12  # each has a stream of its own
    stub(folder, "--seed", 1, "--output", "seed1.jsonl")
    assert all(a != b for a, b in zip(rows_of(folder / "seed1.jsonl")[1:], unbroken[1:]))


def test_table(folder):
    write_problems(folder, 16, {2: "RAISE", 5: "NAN"})
    out, err = stub(folder, "--output", "o.jsonl", code=1)
    rows = rows_of(folder / "o.jsonl")[1:]
    right = sum(row.get("correct", {}).get("best", False) for row in rows)
    low, high = table.wilson(right, 16)
    lines = out.splitlines()
    assert lines[0] == "16 of 16 problems done, 1 of them failed"
    assert "95 % interval" in lines[1] and "* the search's own rule" in lines[1]
    assert lines[2].split() == ["level", "problems", "majority", "best", "weighted*"]
    assert lines[3].split()[:2] == ["all", "16"]
    assert (
        f"{100 * right / 16:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in lines[3]
    )  # failed is wrong
    assert [line.split()[:2] for line in lines[4:7]] == [["1", "6"], ["2", "5"], ["3", "5"]]
    assert "a problem: 3.0 solutions finished and 1.0 cut, 4 at most" in out and " distinct" in out
    assert "20 tokens sampled" in out and "7 through the policy, 7 through the PRM" in out
    assert "3 solutions had NaN or infinite scores" in out and "GiB" in out
    assert "results in o.jsonl" in out
    assert "failed: p2: MemoryError: no room for 9 rows at all (stub.py:" in out
    assert (
        lines[-1]
        == "to go on: python stub.py --policy p --prm r --problems problems.jsonl --output o.jsonl"
    )
    assert len(lines) <= 26 and err == ""


def test_the_table_shows_one_solved_problem(folder):
    out, _ = stub(folder, "--output", "o.jsonl")
    rows = rows_of(folder / "o.jsonl")[1:]
    row = next(row for row in rows if row["correct"]["weighted"])
    assert f"for example, {row['id']}: {row['problem']}\n" in out
    assert f"  answer {row['predictions']['weighted']}, right\n" in out


def write_code_problems(folder, count=8):
    records = []
    for i in range(count):
        wanted = "assert rolled == 1" if i < 6 else "assert rolled > 5"  # never rolled
        records.append({"id": f"c{i}", "problem": f"roll {i} CODE", "tests": wanted})
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "code.jsonl").write_text(text)


def test_unit_tests_are_the_verifier_of_programs(folder):
    write_code_problems(folder)
    code = ["--problems", "code.jsonl", "--n", 8, "--output", "code.out"]
    out, _ = stub(folder, *code, "--run-code")
    _, *rows = map(json.loads, (folder / "code.out").read_text().splitlines())
    assert len(rows) == 8
    singles = []
    for row in rows:
        assert row["answer"] is None and row["tests"].startswith("assert")
        wanted = "rolled = 1" if int(row["id"][1:]) < 6 else "rolled = never"
        for one in row["completions"]:
            assert one["passed"] is (one["finished"] and wanted in one["text"])
        passed = [one for one in row["completions"] if one["passed"]]
        singles.append(len(passed) / 8)
        assert set(row["predictions"]) == {"tests", "best"}
        assert row["correct"]["tests"] == bool(passed)
        assert row["predictions"]["tests"] == ("rolled = 1\n" if passed else None)
        finished = [one for one in row["completions"] if one["finished"]]
        best = max(finished, key=lambda one: one["scores"][-1])
        assert row["predictions"]["best"] in best["text"]
        assert row["correct"]["best"] == best["passed"]
    share = sum(row["correct"]["tests"] for row in rows) / 8
    assert 0 < share < 1 and 0 < sum(singles) / 8 < share
    assert "tests*" in out and f"{100 * share:5.1f} [" in out
    assert f"a single program (pass@1): {100 * sum(singles) / 8:.1f} %" in out
    assert "by the tests: right" in out and "```python" in out

    # A resume runs nothing again, and other tests are another problem.
    before = (folder / "code.out").read_bytes()
    stub(folder, *code, "--run-code")
    assert (folder / "code.out").read_bytes() == before
    text = (folder / "code.jsonl").read_text().replace("== 1", "== 2")
    (folder / "code.jsonl").write_text(text)
    _, err = stub(folder, *code, "--run-code", code=2)
    assert "problem 'c0' differs in its tests" in err


def test_a_program_is_run_once_however_often_it_is_written(monkeypatch):
    ran = []

    def passes(program, tests, setup, entry_point):
        ran.append(program)
        return "1" in program

    monkeypatch.setattr(solve.programs, "passes", passes)
    completions = []
    for i, finished in enumerate([True, True, True, False]):
        text = f"```python\nrolled = {i % 2}\n```"
        completions.append({"text": text, "finished": finished, "scores": [0.1 * i]})
    found = solve.judge_programs({"tests": "..."}, completions, "last")
    assert sorted(ran) == ["rolled = 0\n", "rolled = 1\n"]
    assert [one["passed"] for one in completions] == [False, True, False, False]  # the last is cut
    assert found == (
        {"tests": "rolled = 1\n", "best": "rolled = 0\n"},
        {"tests": True, "best": False},
    )


def test_programs_are_run_only_if_the_user_said_so(folder):
    write_code_problems(folder)
    _, err = stub(folder, "--problems", "code.jsonl", "--output", "o", code=2)
    assert "'c0'" in err and "--run-code" in err and "no jail" in err and err.count("\n") == 1
    _, err = stub(folder, "--run-code", "--output", "o", code=2)
    assert "--run-code" in err and "problems.jsonl" in err and err.count("\n") == 1
    with open(folder / "code.jsonl", "a") as file:
        file.write('{"problem": "1 + 1?", "answer": "2"}\n')
    _, err = stub(folder, "--problems", "code.jsonl", "--run-code", "--output", "o", code=2)
    assert "mixes" in err and err.count("\n") == 1
    assert not (folder / "o").exists()


def test_human_evals_lines_are_read_as_they_are(folder):
    record = {
        "task_id": "HumanEval/0",
        "prompt": 'from math import pi\n\ndef area(r):\n    """Of a circle."""\n',
        "entry_point": "area",
        "canonical_solution": "    return pi * r * r\n",
        "test": "def check(candidate):\n    assert candidate(1) == pi\n",
    }
    (folder / "HumanEval.jsonl").write_text(json.dumps(record) + "\n")
    packed = gzip.compress((folder / "HumanEval.jsonl").read_bytes())
    (folder / "HumanEval.jsonl.gz").write_bytes(packed)
    for name in ("HumanEval.jsonl", "HumanEval.jsonl.gz"):
        args = SimpleNamespace(problem=None, problems=str(folder / name), run_code=True)
        [problem] = problems.load(args)
        assert problem["id"] == "HumanEval/0" and problem["answer"] is None
        assert problem["problem"] == f"```python\n{record['prompt'].strip()}\n```"
        tests = problem["tests"], problem["setup"], problem["entry_point"]
        solution = record["prompt"] + record["canonical_solution"]
        line = {"problem": problem["problem"], "tests": problem["tests"], "entry_point": "area"}
        assert problems.parse(line, 1, "line 1")["entry_point"] == "area"
        assert solve.programs.passes(solution, *tests)
        assert not solve.programs.passes(record["prompt"], *tests)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("tests", "assert (", ["field tests", "never closed"]),
        ("tests", "", ["field tests", "empty"]),
        ("tests", ["assert True"], ["field tests", "a list"]),
        ("tests", 1, ["field tests", "no text"]),
        ("tests", "def check(f):\n    assert f\n", ["assert nothing", "add a line"]),
        ("entry_point", "rm -rf", ["entry_point", "rm -rf"]),
        ("prompt", "def f(", ["field prompt"]),
    ],
)
def test_tests_that_are_no_python_are_refused_by_line(folder, field, value, words):
    good = {"problem": "roll CODE", "tests": "assert rolled == 1"}
    if field != "tests":
        good = {"prompt": "def f():\n    'Does it.'\n", "test": "pass", "entry_point": "f"}
    lines = [json.dumps(good), json.dumps(good | {field: value})]
    (folder / "code.jsonl").write_text("\n".join(lines) + "\n")
    flags = ["--problems", "code.jsonl", "--run-code", "--output", "o"]
    _, err = stub(folder, *flags, code=2)
    assert "line 2" in err and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_problem_is_counted_in_which_nothing_is_stated():
    says, silent, cut = [
        {"finished": True, "answer": "5"},
        {"finished": True, "answer": None},
        {"finished": False, "answer": "5, and"},
    ]
    code = {"finished": True, "answer": None, "passed": False}
    for completions, states in [([says, silent], True), ([silent, cut], False), ([cut], True)]:
        assert table.states_one({"completions": completions}) is states
    assert table.states_one({"completions": [code]})


def test_levels_of_few_problems_are_left_out(folder):
    write_problems(folder, 14)  # 5, 5 and 4
    out, _ = stub(folder, "--output", "o.jsonl")
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["all", "1", "2"]
    assert not any(line.startswith("3 ") for line in out.splitlines())
    assert "levels not shown, of fewer than 5 problems each: 3\n" in out


def test_greedys_accuracy_stands_beside_if_it_is_known(folder):
    run = {
        "script": "majority.py",
        "n": 1,
        "temperature": 0.0,
        "policy_weights": results.fingerprint(folder / "p"),
        "policy_4bit": False,
        "system": "",
    }
    asked = [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]
    right = [one | {"correct": {"majority": i % 4 == 0}} for i, one in enumerate(asked)]
    path = folder / "runs/majority-n1-seed0-1.jsonl"
    path.parent.mkdir()

    def greedy(rows, **changes):
        lines = [{"run": run | changes}, *rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        out, _ = stub(folder, "--output", "o.jsonl")
        return [line for line in out.splitlines() if line.startswith("greedy")]

    assert greedy(right) == [f"greedy decoding, runs/{path.name}: 25.0"]
    assert greedy(right[:11]) == []  # not the same problems
    assert greedy(right, policy_weights="another") == greedy(right, system="Be brief.") == []
    assert greedy([one | {"answer": "9"} for one in right]) == []  # other problems
    path.write_text("half a fi")
    assert "greedy" not in stub(folder, "--output", "o.jsonl")[0]


@pytest.mark.parametrize(
    "right, total, low, high", [(8, 10, 0.4902, 0.9433), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1)]
)
def test_wilson(
    right, total, low, high
):  # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) by hand
    assert table.wilson(right, total) == pytest.approx((low, high), abs=5e-5)


# --- kills and resumes ----------------------------------------------------------------------------


def test_kill_9_at_random_moments(folder, unbroken):
    moments, kills, resumed, output, log = (
        random.Random(0),
        0,
        0,
        folder / "o.jsonl",
        folder / "solved.log",
    )
    log.touch()
    while kills < 20:
        before, solved = (set(ids(output)) if output.exists() else set()), log.stat().st_size
        process = start(folder, "--output", output.name, env={"PAUSE": "0.005"})
        while (
            kills % 4 and log.stat().st_size == solved and process.poll() is None
        ):  # not only while it starts
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        again = {f"p{line.split()[1]}" for line in log.read_text()[solved:].splitlines()}
        after = set(ids(output)) if output.exists() else set()
        assert not before & again and before <= after  # what was on disk is not run again
        assert (
            len(again - after) <= 1
        )  # and what was done is on disk, but for the one that was being written
        resumed += bool(before and again)
        if process.returncode == 0 or len(after) == 12:
            stub(folder, "--output", output.name)
            assert rows_of(output) == unbroken
            output.unlink()
    assert resumed > 4


def test_torn_last_line(folder, unbroken):
    whole = (folder / "unbroken.jsonl").read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in (last, last + 1, (last + len(whole)) // 2, len(whole) - 1):
        (folder / "o.jsonl").write_bytes(whole[:end])
        stub(folder, "--output", "o.jsonl")
        assert rows_of(folder / "o.jsonl") == unbroken
    assert (folder / "solved.log").read_text().splitlines() == ["problem 11"] * 4


def test_part_files_of_a_dead_run_are_taken_in(folder, unbroken):
    header, *lines = (folder / "unbroken.jsonl").read_text().splitlines(keepends=True)
    (folder / "o.jsonl").write_text(header + "".join(lines[:3]))
    part = header.replace("run", "part", 1)
    (folder / "o.jsonl.part1").write_text(part + "".join(lines[5:8]))
    (folder / "o.jsonl.part7").write_text(part + lines[10] + lines[2] + lines[11][:50])
    stub(folder, "--output", "o.jsonl")
    assert rows_of(folder / "o.jsonl") == unbroken and not list(folder.glob("*.part*"))
    assert len((folder / "solved.log").read_text().splitlines()) == 5


def test_other_arguments_are_refused(folder, unbroken):
    before = (folder / "unbroken.jsonl").read_bytes()
    _, err = stub(folder, "--output", "unbroken.jsonl", "--temperature", 0.7, "--n", 5, code=2)
    assert err == (
        "stub.py: error: --output unbroken.jsonl is of another run (n 4 there, 5 here; "
        "temperature 0.8 there, 0.7 here): name another --output, or drop it by --overwrite\n"
    )
    write_problems(folder, 11)  # the file knows a problem that is gone
    _, err = stub(folder, "--output", "unbroken.jsonl", code=2)
    assert "it has a problem 'p11', which --problems has not" in err and err.count("\n") == 1
    assert (folder / "unbroken.jsonl").read_bytes() == before


def test_overwrite(folder, unbroken):
    out, _ = stub(folder, "--output", "unbroken.jsonl", "--n", 5, "--limit", 3, "--overwrite")
    header, *rows = rows_of(folder / "unbroken.jsonl")
    assert header["run"]["n"] == 5 and len(rows) == 3
    assert "--overwrite" not in out  # the command that goes on must not drop the rows


def test_what_is_read_is_no_path_and_steers_no_terminal(folder):
    """Neither an id nor an answer nor the message of an error."""
    ids_ = ["../up", "/tmp/absolute", "..", "a\0b", "\x1b[31m", "$(touch cmd)"]
    records = [
        {
            "id": key,
            "problem": f"ESCAPE {'RAISE' * (i == 4)} {key}",
            "answer": "\x1b[2J",
            "level": "\x9b1m",
        }
        for i, key in enumerate(ids_)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    before = {path for path in folder.parent.rglob("*")}
    out, err = stub(folder, "--output", "o.jsonl", code=1)
    assert {path for path in folder.parent.rglob("*")} - before == {
        folder / "o.jsonl",
        folder / "solved.log",
    }
    assert ids(folder / "o.jsonl") == ids_ and "failed: \\x1b[31m: MemoryError" in out
    assert not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in out + err)


def test_stdout_that_is_closed(folder):
    process = start(folder, "--output", "o.jsonl")
    process.stdout.close()  # as `| head -0` does
    _, err = process.communicate()
    assert (
        err
        == "stub.py: error: stdout cannot be written (Broken pipe): send it elsewhere and try again\n"
    )
    assert process.wait() == 2 and len(ids(folder / "o.jsonl")) == 12


def test_smaller_limit_keeps_the_rows(folder, unbroken):
    out, _ = stub(folder, "--output", "unbroken.jsonl", "--limit", 2)
    assert rows_of(folder / "unbroken.jsonl") == unbroken and out.startswith("2 of 2 problems")


def test_ctrl_c(folder):
    write_problems(folder, 12, {4: "INTERRUPT"})
    out, err = stub(folder, "--output", "o.jsonl", code=130)
    assert len(rows_of(folder / "o.jsonl")) == 1 + 4 and "Traceback" not in err
    assert out.startswith("4 of 12 problems done") and "accuracy" in out
    command = out.splitlines()[-1].removeprefix("to go on: python ").split()
    assert command == ["stub.py", *MODELS, "--problems", "problems.jsonl", "--output", "o.jsonl"]
    stub(folder, *command[5:])
    stub(folder, "--output", "unbroken.jsonl")
    assert rows_of(folder / "o.jsonl") == rows_of(folder / "unbroken.jsonl")


def test_failed_problem_is_recorded_and_tried_again(folder):
    write_problems(folder, 6, {2: "RAISE"})
    out, _ = stub(folder, "--output", "o.jsonl", code=1)
    row = rows_of(folder / "o.jsonl")[3]
    assert set(row) == {"id", "problem", "answer", "level", "error"}
    assert (
        row["error"].startswith("MemoryError: no room for 9 rows") and "(stub.py:" in row["error"]
    )
    assert len(ids(folder / "o.jsonl")) == 6  # the run went on
    (folder / "repaired").touch()
    stub(folder, "--output", "o.jsonl")
    stub(folder, "--output", "unbroken.jsonl")
    assert rows_of(folder / "o.jsonl") == rows_of(folder / "unbroken.jsonl")
    assert (folder / "solved.log").read_text().count("problem 3") == 2  # once a file


@pytest.mark.parametrize("size", [5, 99])
def test_problems_side_by_side_have_the_rows_they_have_alone(folder, unbroken, size):
    stub(folder, "--output", "o.jsonl", "--batch-problems", size)
    rows = rows_of(folder / "o.jsonl")
    assert [{**row, "usage": 0} for row in rows[1:]] == [
        {**row, "usage": 0} for row in unbroken[1:]
    ]
    batches = math.ceil(12 / size)  # for each the stub's meters say 7 and 1000, of both models
    assert sum(row["usage"]["prm_tokens"] for row in rows[1:]) == 7 * batches
    assert sum(row["usage"]["flops"] for row in rows[1:]) == 2000 * batches
    assert {row["usage"]["flops"] for row in rows[1:6]} <= {
        2000 // min(size, 12),
        2000 // min(size, 12) + 1,
    }  # equal shares
    _, err = stub(folder, "--output", "o.jsonl", "--batch-problems", 3, code=2)
    assert f"batch_problems {size} there, 3 here" in err  # in bfloat16 it decides answers


@pytest.mark.parametrize("gigabytes, rows", [(None, 64), (0.5, 64), (9, 128), (18, 256), (70, 256)])
def test_rows_side_by_side_follow_what_a_gpu_has_free(monkeypatch, gigabytes, rows):
    """64 on a CPU. The figures of a GPU stand in for one: nothing else here has seen any."""
    args = SimpleNamespace(device="cuda" if gigabytes else "cpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gigabytes * 1e9, 80e9))
    assert solve.rows_side_by_side(args) == rows


def test_one_that_fails_in_a_batch_takes_no_other_with_it(folder):
    write_problems(folder, 3, {1: "RAISE"})
    stub(folder, "--output", "o.jsonl", "--batch-problems", 3, code=1)
    rows = rows_of(folder / "o.jsonl")[1:]
    assert ["error" in row for row in rows] == [False, True, False]
    assert (
        "MemoryError: no room for 9 rows at all" in rows[1]["error"]
        and rows[2]["usage"]["policy_tokens"] == 7
    )


def test_full_disk(folder):
    write_problems(folder, 40, dict.fromkeys(range(40), "BIG"))
    full = lambda kib: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10))
    _, err = stub(folder, "--output", "o.jsonl", code=2, before=full(512))
    assert err.endswith(
        "--output o.jsonl cannot be written (File too large): make room or name another --output\n"
    )
    assert err.count("\n") == 1
    assert (
        not (folder / "o.jsonl").exists() and not (folder / "solved.log").exists()
    )  # told before the work
    _, err = stub(folder, "--output", "o.jsonl", code=2, before=full(1200))
    assert err.count("\n") == 1 and "then give this command again" in err
    assert 5 < len(ids(folder / "o.jsonl")) < 40
    stub(folder, "--output", "o.jsonl")
    stub(folder, "--output", "unbroken.jsonl")
    assert rows_of(folder / "o.jsonl") == rows_of(folder / "unbroken.jsonl")


def test_a_kill_while_the_file_is_replaced(folder, unbroken, monkeypatch):
    before = (folder / "unbroken.jsonl").read_bytes()
    args = SimpleNamespace(output=str(folder / "unbroken.jsonl"), overwrite=False)
    args.batch_problems = None
    for step in ("fsync", "replace"):
        monkeypatch.setattr(results, "identity", lambda args: {})
        output = results.Output(
            args, [{k: row[k] for k in ("id", "problem", "answer")} for row in unbroken[1:]]
        )
        with monkeypatch.context() as killed, pytest.raises(InterruptedError), output:
            killed.setattr(results.os, step, lambda *_: exec("raise InterruptedError"))
            output.sort([{"id": "p3"}])
        assert (folder / "unbroken.jsonl").read_bytes() == before
        assert not list(folder.glob(".*.new"))


def test_a_row_is_flushed_and_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(results.os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    with open(tmp_path / "o.jsonl", "wb") as file:
        results.append(file, {"id": "a"})
        assert synced == [len('{"id": "a"}\n')]
        results.append(file, {"id": "b"})
        assert synced == [12, 24]


def test_the_commit_in_the_header(monkeypatch, tmp_path):
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", results.commit())
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no git
    assert results.commit() is None


def test_only_part_files_are_taken_for_such(folder):
    (folder / "o.jsonl.party").write_text("a diary\n")
    stub(folder, "--output", "o.jsonl")
    assert (folder / "o.jsonl.party").read_text() == "a diary\n"


def test_two_runs_do_not_write_one_file(folder):
    """The first is stopped in the middle, until the second has been told."""
    first = start(folder, "--output", "o.jsonl", env={"PAUSE": "0.01"})
    while not (folder / "o.jsonl").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    _, err = stub(folder, "--output", "o.jsonl", code=2)
    assert err.count("\n") == 1 and "is being written by another run" in err
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0 and len(ids(folder / "o.jsonl")) == 12


# --- many processes -------------------------------------------------------------------------------


def ranks(folder, *flags, world=2, env={}):
    """What torchrun starts, without its agent, so that each process can be killed by itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**env, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start_anew(folder, *flags, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world)
    ]


def test_two_processes_write_the_file_of_one(folder, unbroken):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--"]
    process = start_anew(folder, "--output", "o.jsonl", launcher=torchrun)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert rows_of(folder / "o.jsonl") == unbroken and not list(folder.glob("*.part*"))
    assert out.count("problems done") == 1  # one table
    assert sorted((folder / "solved.log").read_text().splitlines()) == sorted(
        row["problem"] for row in unbroken[1:]
    )


def test_ctrl_c_of_two_processes(folder):
    processes = ranks(folder, "--output", "o.jsonl", env={"PAUSE": "0.1"})
    while not list(folder.glob("o.jsonl.part*")) or len(ids(folder / "o.jsonl")) < 2:
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGINT)
    (out, err), (other_out, other_err) = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [
        130,
        130,
    ] and "Traceback" not in err + other_err
    assert " of 12 problems done" in out and other_out == ""
    assert out.splitlines()[-1].startswith("to go on: torchrun --nproc-per-node 2 -- stub.py ")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_ctrl_c_while_one_waits_for_another(folder, rank):
    """That may be dead, and the wait is as long as a run may be."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    process = start(folder, "--output", "o.jsonl", env={**where, "RANK": rank, "WORLD_SIZE": "2"})
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and "Traceback" not in err, err


def test_kill_9_of_two_processes(folder):
    write_problems(folder, 60)
    stub(folder, "--output", "unbroken.jsonl")
    moments, kills, output, log = random.Random(1), 0, folder / "o.jsonl", folder / "solved.log"
    while kills < 2:  # each takes seconds to start
        before = {
            key for path in folder.glob("o.jsonl*") if path.suffix != ".new" for key in ids(path)
        }
        processes, solved = (
            ranks(folder, "--output", output.name, env={"PAUSE": "0.01"}),
            log.stat().st_size,
        )
        while (
            log.stat().st_size == solved and processes[0].poll() is None
        ):  # not only while they import
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        for process in moments.sample(
            processes, 2
        ):  # a launcher kills the others when one has died
            process.kill()
            time.sleep(moments.uniform(0, 0.1))
        for process in processes:
            process.communicate()
        again = {f"p{line.split()[1]}" for line in log.read_text()[solved:].splitlines()}
        after = {
            key for path in folder.glob("o.jsonl*") if path.suffix != ".new" for key in ids(path)
        }
        assert not before & again and before <= after and len(again - after) <= 2
        kills += -signal.SIGKILL in [process.returncode for process in processes]
        if processes[0].returncode == 0:
            assert rows_of(output) == rows_of(folder / "unbroken.jsonl")
            output.unlink()
    stub(folder, "--output", output.name)  # one process goes on where two were
    assert rows_of(output) == rows_of(folder / "unbroken.jsonl") and not list(
        folder.glob("*.part*")
    )


# --- wrong input ----------------------------------------------------------------------------------


def lines_with(**changes):
    """A problem file of 40 lines, some of them (counted from 1) replaced."""
    lines = [json.dumps({"problem": f"problem {i}", "answer": "1"}) for i in range(1, 41)]
    for number, line in changes.items():
        lines[int(number[1:]) - 1] = line
    return "\n".join(lines)


FLAGS = [
    ("--n 0", "--n", "'0'"),
    ("--n 2.5", "--n", "'2.5'"),
    ("--temperature -1", "--temperature", "'-1'"),
    ("--temperature nan", "--temperature", "'nan'"),
    ("--temperature inf", "--temperature", "'inf'"),
    ("--top-p 0", "--top-p", "'0'"),
    ("--top-p 1.1", "--top-p", "'1.1'"),
    ("--seed x", "--seed", "'x'"),
    ("--limit 0", "--limit", "'0'"),
    ("--reduction lst", "--reduction", "'lst'"),
    ("--temp 1", "--temp", "1"),
    ("--n", "--n", "expected"),
    ("--problem a --problems b", "--problem", "--problems"),
    ("--problem=", "--problem", "empty"),
    ("stray", "stray", "--help"),
]


@pytest.mark.parametrize("fault", FLAGS, ids=lambda fault: fault[0])
def test_wrong_flag(folder, fault):
    flags, *named = fault
    out, err = stub(folder, *flags.split(), code=2)
    assert (
        out == ""
        and err.startswith("stub.py: error: ")
        and err.count("\n") == 1
        and err.endswith("\n")
    )
    assert all(name in err for name in named)


PROBLEMS = {
    "missing.jsonl": (None, "missing.jsonl is not here"),
    "empty.jsonl": ("", "is empty"),
    "blank.jsonl": ("\n\n", "is empty"),
    "torn.jsonl": (lines_with(_37='{"problem": "a'), "line 37 is no JSON"),
    "array.jsonl": (lines_with(_37="[1]"), "line 37"),
    "number.jsonl": (lines_with(_2="3"), "line 2 is no JSON"),
    "noanswer.jsonl": (
        lines_with(_37='{"problem": "a", "solution": "1"}'),
        "line 37 has no text in its field answer (or tests, for a program): add it; its fields are "
        "'problem', 'solution'",
    ),
    "comma.jsonl": (
        lines_with(_37='{"problem": "a", "answer": "1",}'),
        "leave out the comma before }",
    ),
    "ends.jsonl": (lines_with(_37='{"problem": "a",'), "line 37 is no JSON object"),
    "behind.jsonl": (lines_with(_37='{"problem": "a", "answer": "1"},'), "without a comma"),
    "null.jsonl": (
        lines_with(_37='{"problem": "a", "answer": null}'),
        "line 37 has no text in its field answer",
    ),
    "listed.jsonl": (
        lines_with(_37='{"problem": "a", "answer": ["1"]}'),
        "line 37 has an answer that is no text: ['1']: write text",
    ),
    "all.json": (
        '[{"problem": "a", "answer": "1"}]',
        "write the objects of a JSON array one a line",
    ),
    "blankanswer.jsonl": (
        lines_with(_37='{"problem": "a", "answer": " "}'),
        "line 37 has no text in its field answer",
    ),
    "tab.jsonl": (
        lines_with(_5=r'{"problem": "$2\times3$", "answer": "6"}'),
        r"line 5 has \times with one backslash, of which JSON makes another sign: write \\times",
    ),
    "feed.jsonl": (lines_with(_5=r'{"problem": "a", "answer": "\frac12"}'), r"write \\frac"),
    "escape.jsonl": (lines_with(_5=r'{"problem": "$6\div3$", "answer": "2"}'), r"\\div for \div"),
    "noproblem.jsonl": (
        lines_with(_5='{"answer": "a"}'),
        "line 5 has no text in its field problem:",
    ),
    "twice.jsonl": (
        lines_with(_3='{"id": "7", "problem": "a", "answer": "a"}'),
        "line 7 has the id '7' of line 3",
    ),
    "latin.jsonl": (b'{"problem": "\xe9", "answer": "1"}', "cannot be read"),
    "empty": (None, "is not a plain file"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_wrong_problems(folder, name):
    content, named = PROBLEMS[name]
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    out, err = stub(folder, "--problems", name, code=2)
    assert (
        err.startswith(f"stub.py: error: --problems {name}")
        and err.count("\n") == 1
        and named in err
    ), err
    assert not (folder / "runs").exists()


def test_a_failed_row_never_hides_a_solved_one(folder, unbroken):
    """Whichever of the two stands first, in the file or in a part file."""
    header, line, *_ = (folder / "unbroken.jsonl").read_text().splitlines(keepends=True)
    solved = json.loads(line)
    failed = {key: solved[key] for key in ("id", "problem", "answer", "level")}
    failed = json.dumps(failed | {"error": "MemoryError"}) + "\n"
    for first, second in [(line, failed), (failed, line)]:
        (folder / "o.jsonl").write_text(header + first)
        (folder / "o.jsonl.part1").write_text(header.replace("run", "part", 1) + second)
        assert results.read(str(folder / "o.jsonl"))[1] == {"p0": solved}


def test_batches_are_cut_from_the_file():
    """Not from what is left of it: a batch decides roundings, and a resume must not change it."""
    asked = [{"id": i} for i in range(10)]
    args = SimpleNamespace(limit=9, batch_problems=4, n=1)
    assert solve.batches_to_do(args, asked, {}) == [asked[0:4], asked[4:8], asked[8:9]]
    done = {0: {}, 1: {}, 2: {}, 5: {}}
    assert solve.batches_to_do(args, asked, done) == [
        asked[3:4],
        [asked[4], *asked[6:8]],
        asked[8:9],
    ]
    assert solve.batches_to_do(args, asked, dict.fromkeys(range(9))) == []


def test_wrong_output(folder):
    (folder / "precious.txt").write_text("a diary\n")
    shutil.copy(folder / "problems.jsonl", folder / "other.jsonl")
    (folder / "list.jsonl").write_text("[1]\n")
    (folder / "damaged.jsonl").write_text('{"run": {}}\n{"id": \n{"id": "a"}\n')
    os.mkfifo(folder / "fifo")
    for output in (
        "empty",
        "precious.txt",
        "other.jsonl",
        "list.jsonl",
        "damaged.jsonl",
        "fifo",
        "stub.py/o.jsonl",
    ):
        before = (folder / output).read_bytes() if (folder / output).is_file() else None
        for overwrite in ([], ["--overwrite"]):
            out, err = stub(folder, "--output", output, *overwrite, code=2)
            assert err.startswith(f"stub.py: error: --output {output} ") and err.count("\n") == 1, (
                err
            )
            assert "name another --output" in err
        assert before is None or (folder / output).read_bytes() == before
    assert (folder / "fifo").is_fifo() and not (folder / "solved.log").exists()


def test_an_answer_that_is_no_mathematics_is_compared_as_text_and_noted(folder):
    answers = [r"\frac{1}{", "east", r"\text{(C)}", "1/2", "6:30 a.m.", "\x1b[31m1"]
    (folder / "odd.jsonl").write_text(
        "".join(json.dumps({"problem": "a", "answer": answer}) + "\n" for answer in answers)
    )
    _, err = stub(folder, "--problems", "odd.jsonl", "--output", "o.jsonl")
    assert err == (
        r"stub.py: note: read as text, not as mathematics: the answer '\\frac{1}{' of problem '1', "
        "and those of 2 more\n"
    )
    _, err = stub(folder, "--problems", "odd.jsonl", "--output", "o.jsonl", "--limit", 5)
    assert "and those of 1 more\n" in err  # of those that are to be solved
    (folder / "odd.jsonl").write_text(json.dumps({"problem": "a", "answer": "\x1b[31m1"}) + "\n")
    _, err = stub(folder, "--problems", "odd.jsonl", "--output", "p.jsonl")
    assert err.endswith("of problem '1'\n") and "\x1b" not in err


def test_gsm8k_and_defaults(tmp_path):
    (tmp_path / "g.jsonl").write_text(
        '{"question": " How many ####? ", "answer": "6*7=<<6*7=42>>42\\n#### 42"}\n\n'
        '{"problem": "b", "answer": 0.5, "unique_id": "u/1", "level": "Level 5"}\n'
    )
    args = SimpleNamespace(problem=None, problems=str(tmp_path / "g.jsonl"), run_code=False)
    assert problems.load(args) == [
        {"id": "1", "problem": "How many ####?", "answer": "42", "level": None},
        {"id": "u/1", "problem": "b", "answer": "0.5", "level": "Level 5"},
    ]


def test_help_fits(folder):
    out, _ = stub(folder, "--help", env={"COLUMNS": "80"})
    assert "(default: 0.8)" in out and "(default: last)" in out and "None" not in out
    assert out.startswith("usage: stub.py [flags]\n") and len(out.splitlines()) <= 40


# --- one question ---------------------------------------------------------------------------------


def test_question(folder):
    out, _ = stub(folder, "--problem", "ESCAPE what?")
    assert "\x1b" not in out and "\\x1b[31m" in out and "Answer: " in out and "weighted wins" in out
    assert not list(folder.glob("*.jsonl.*")) and not (folder / "runs").exists()
    stub(folder, "--problem", "what?", "--output", "o.jsonl")
    (row,) = rows_of(folder / "o.jsonl")[1:]
    assert row["problem"] == "what?" and row["answer"] is None and row["correct"] == {}
    out, _ = stub(folder, "--problem", "what?", "--output", "o.jsonl")  # read from the file
    assert (folder / "solved.log").read_text().count("\nwhat?") == 1
    answer = row["predictions"]["weighted"]
    score = sum(
        c["scores"][-1] for c in row["completions"] if c["finished"] and c["answer"] == answer
    )
    votes = sum(c["finished"] and c["answer"] == answer for c in row["completions"])
    assert f"Answer: {answer}\n" in out and f"{votes:7} {score:9.3f}  {answer}" in out
    assert ("The PRM does not believe it" in out) == (
        max(c["scores"][-1] for c in row["completions"] if c["finished"] and c["answer"] == answer)
        < 0.5
    )
    out, _ = stub(folder, "--problem", "CUT what?")
    *first, told = out.splitlines()
    assert first[0].strip() and told.startswith("No answer: of 4 solutions 0 are finished")
    out, _ = stub(folder, "--problem", "RAISE what?", code=1)
    assert out.startswith("Failed: MemoryError: no room")


# --- rules ----------------------------------------------------------------------------------------


def completion(answer, *scores, finished=True):
    text = f"\\boxed{{{answer}}}" if answer else "no idea"
    value = scores[-1] if scores else 0.0
    return stub_script.Found(text, [1], list(scores), value, finished, [1])


def judged(reduction, *solutions):
    problem = {"id": "a", "problem": "b", "answer": "1", "level": None}
    args = SimpleNamespace(
        reduction=reduction, keep_tree=False, trace=None, weights=None, stop_at=None
    )
    return solve.judge(problem, list(solutions), args, [], {})


def test_ancestors():
    """What ended early stands for itself further down; copies are one."""
    paths = [[1, 5, 7], [1, 5, 8], [1, 5, 8], [1, 6], [2]]
    found = [SimpleNamespace(path=path) for path in paths]
    assert solve.ancestors(found) == [2, 3, 4]  # 1 2; 5 6 2; 7 8 6 2
    assert solve.ancestors(found[:1]) == [1, 1, 1] and solve.ancestors([]) == []


def test_rules():
    completions = lambda: [
        completion("1", 0.9, 0.3),
        completion("1", 0.9, 0.3),
        completion("1", 0.1, 0.1),
        completion("2", 0.2, 0.8),
        completion("3", 0.55, 0.5),
        completion("4", 1, 1, finished=False),
        completion(None, 1, 1),
    ]
    row = judged("last", *completions())
    assert row["predictions"] == {"majority": "1", "best": "2", "weighted": "2"}  # .7 .8 .5
    assert row["correct"] == {"majority": True, "best": False, "weighted": False}
    assert judged("min", *completions())["predictions"] == {
        "majority": "1",
        "best": "3",
        "weighted": "1",
    }  # .7 .2 .5
    assert judged("prod", *completions())["predictions"] == {
        "majority": "1",
        "best": "3",
        "weighted": "1",
    }
    assert judged("mean", *completions())["predictions"] == {
        "majority": "1",
        "best": "1",
        "weighted": "1",
    }  # 1.3 .5 .525
    assert judged(None, completion("1"), completion("2"), completion("2"))["predictions"] == {
        "majority": "2"
    }
    empty = judged("last", completion("1", 0.9, finished=False))
    assert empty["predictions"] == {"majority": None, "best": None, "weighted": None}
    assert empty["correct"] == {"majority": False, "best": False, "weighted": False}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("reduction", solve.REDUCE)
def test_scores_that_are_no_numbers_never_win(bad, reduction):
    row = judged(
        reduction, completion("2", 0.9, bad), completion("2", bad, 0.9), completion("1", 0.1, 0.1)
    )
    assert row["predictions"]["best"] == row["predictions"]["weighted"] == "1"
    assert row["completions"][0]["scores"] == [0.9, None] and json.loads(
        json.dumps(row, allow_nan=False)
    )


# --- meter ----------------------------------------------------------------------------------------


def llama(**changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            **changes,
        )
    ).eval()


def test_meter_counts_what_is_forwarded():
    from transformers import DynamicCache

    model = llama()
    meter = solve.Meter(model)
    parameters = sum(p.numel() for p in model.parameters())
    attention = 4 * 3 * 4 * 32
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.zeros(2, 5, dtype=torch.long), past_key_values=cache)
        model(input_ids=torch.zeros(2, 3, dtype=torch.long), past_key_values=cache)
        assert meter.take() == (16, 2 * parameters * 16 + attention * (2 * 5 * 5 + 2 * 3 * 8))
        assert meter.take() == (0, 0)
        model.generate(
            torch.ones(3, 6, dtype=torch.long),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            attention_mask=torch.ones(3, 6, dtype=torch.long),
            pad_token_id=0,
        )
    assert meter.take() == (3 * (6 + 3), 2 * parameters * 27 + attention * 3 * (36 + 7 + 8 + 9))


@pytest.mark.parametrize("tied", [True, False])
def test_meter_counts_packed_weights(tmp_path, tied):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = llama(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    packed = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=nf4)
    assert sum(p.numel() for p in packed.parameters()) < solve.Meter(packed).parameters
    assert solve.Meter(packed).parameters == solve.Meter(model).parameters
    with torch.no_grad():
        packed(torch.zeros(1, 2, dtype=torch.long))  # on a CPU this packs the weights anew
    assert solve.Meter(packed).parameters == solve.Meter(model).parameters


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    llama().save_pretrained(tmp_path / "m", max_shard_size="100KB")
    shutil.copy(ROOT / "tiny/policy/tokenizer.json", tmp_path / "m")
    return tmp_path / "m"


def test_whole_model_is_taken_as_it_is(checkpoint):
    assert len(list(checkpoint.glob("*.safetensors"))) > 1
    assert models.model_folder(str(checkpoint), "--policy") == str(checkpoint)


def damage(folder, what):
    shard = sorted(folder.glob("*.safetensors"))[1]
    if what == "cut":
        shard.write_bytes(shard.read_bytes()[:-10])
    elif what == "pickled":
        for file in folder.glob("model*"):
            file.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"1")
    elif what == "index":
        (folder / "model.safetensors.index.json").write_text("{")
    else:
        (shard if what == "shard" else folder / what).unlink()


@pytest.mark.parametrize(
    "what, named",
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer"),
        ("shard", "cannot"),
        ("cut", "cannot"),
        ("pickled", "pickles"),
        ("index", "model.safetensors.index.json is no JSON"),
    ],
)
def test_damaged_model(checkpoint, capsys, what, named):
    damage(checkpoint, what)
    from transformers import AutoModelForCausalLM

    with pytest.raises(SystemExit) as stop, models.loading("--prm", str(checkpoint)) as folder:
        AutoModelForCausalLM.from_pretrained(folder)
    err = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and err.count("\n") == 1
        and f"--prm {checkpoint}" in err
        and named in err
    )


HUB = [
    ("nowhere", 0, "", "hub id"),
    ("a/b/c", 0, "", "hub id"),
    ("own/model", 404, "RepoNotFound", "spelling"),
    ("own/model", 403, "GatedRepo", "licence"),
    ("own/model", 500, "", "try again"),
    ("own/model", None, "", "go online"),
]


@pytest.mark.parametrize("name, status, code, named", HUB, ids=[f"{h[0]} {h[1]}" for h in HUB])
def test_hub_faults(tmp_path, name, status, code, named):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET
        log_message = lambda *_: None

    server = HTTPServer(("127.0.0.1", 0), Hub)
    port = server.server_port
    if status is None:
        server.server_close()  # nobody listens there
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    script = "import sys; from harness import models; models.model_folder(*sys.argv[1:])"
    env = {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HUB_OFFLINE": "0",
    }
    process = subprocess.run(
        [sys.executable, "-c", script, name, "--policy"],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if status is not None:
        server.shutdown()
    err = process.stderr
    assert process.returncode == 2 and process.stdout == "" and err.count("\n") == 1, err
    assert f"--policy {name}" in err and named in err, err


def test_defaults_are_told(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def chosen(has_prm=True, **given):
        args = SimpleNamespace(
            **dict.fromkeys(["policy", "prm", "prm_4bit", "problems", "problem", "device", "dtype"])
            | given
        )
        models.choose(args, has_prm)
        return args, capsys.readouterr().out

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    args, out = chosen()
    assert (args.policy, args.prm) == (
        "meta-llama/Llama-3.2-1B-Instruct",
        "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",
    )
    assert args.problems == "HuggingFaceH4/MATH-500" and args.prm_4bit is True
    assert out.count("\n") == 1
    assert all(
        part in out
        for part in ("A CUDA GPU", "give these", "--policy ", "--prm ", "--prm-4bit", "--problems ")
    )
    assert (args.device, args.dtype) == ("cuda", "bfloat16")
    assert chosen(prm_4bit=False)[0].prm_4bit is False
    args, out = chosen(device="cpu", dtype="bfloat16", policy="a", prm="b", problems="c")
    assert (args.device, args.dtype, args.prm_4bit) == ("cpu", "bfloat16", False)
    assert "--prm" not in chosen(has_prm=False)[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(models, "TINY", f"{tmp_path}/tiny")
    with pytest.raises(SystemExit):
        chosen()
    assert "bundled models are gone" in capsys.readouterr().err
    (tmp_path / "tiny").mkdir()
    args, out = chosen(prm="mine")
    assert args.prm == "mine" and args.prm_4bit is False
    assert (args.device, args.dtype) == ("cpu", "float32")
    with pytest.raises(SystemExit):
        chosen(device="cuda")
    assert "--device cuda" in capsys.readouterr().err
    assert args.policy.endswith("tiny/policy") and args.problems.endswith("tiny/problems.jsonl")
    assert "No CUDA GPU" in out and "--prm" not in out
    assert chosen(policy="a", prm="b", problems="c")[1] == ""


@pytest.mark.parametrize(
    "millions, given, threads", [(1, None, 1), (99, None, 1), (101, None, 7), (1, "4", 7)]
)
def test_small_models_take_one_thread_on_a_cpu(monkeypatch, millions, given, threads):
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    set_to = [7]
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    policy = SimpleNamespace(device=torch.device("cpu"), num_parameters=lambda: 1)
    prm = SimpleNamespace(model=SimpleNamespace(num_parameters=lambda: millions * 1_000_000))
    models.limit_threads(policy, prm)
    assert set_to[-1] == threads
    models.limit_threads(policy, None)
    models.limit_threads(
        SimpleNamespace(device=torch.device("cuda"), num_parameters=lambda: 1), None
    )


# --- progress -------------------------------------------------------------------------------------


def test_bar(folder):
    write_problems(folder, 40)
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    process = start(folder, "--output", "o.jsonl", stderr=slave, env={"PAUSE": "0.02"})
    os.close(slave)
    process.communicate()
    shown = os.read(master, 1 << 16).decode()
    assert (
        process.wait() == 0
        and "/40" in shown
        and "1 rows" in shown
        and "tokens/s" in shown
        and "right" in shown
    )
