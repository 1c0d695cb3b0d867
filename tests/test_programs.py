"""Programs run against unit tests: what passes, what does not, and that nothing is left behind."""

import ast
import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from common import programs
from common.programs import extract_program, passes

RIGHT = "def add_one(x):\n    return x + 1\n"
WRONG = "def add_one(x):\n    return 0\n"
TESTS = "assert add_one(1) == 2\n"

contained = pytest.mark.skipif(
    programs.uncontained() != [], reason="this system does not contain programs: Linux does"
)


@pytest.mark.parametrize(
    "text, program",
    [
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```python\nx = 1\n```\nBetter:\n```python\nx = 2\n```\n", "x = 2\n"),
        ("```python\nx = 1\n```\nRun it:\n```bash\npython x.py\n```\n", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\ndef f():\n    1\n```\nUse:\n```py\nf()\n```\n", "def f():\n    1\n"),
        ("```py\nclass A:\n    1\n```\nor\n```py\nclass B:\n    1\n```\n", "class B:\n    1\n"),
        ("```py\ndefault = 1\n```\nor\n```py\nx = 2\n```\n", "x = 2\n"),
        ("```python\nx = 1\n```\nIt prints\n```\n1\n```\n", "x = 1\n"),
        ("```Python\nx = 1", "x = 1"),  # cut off
        ("- so:\n  ```py\n  if x:\n    y = 1\n  ```\n", "if x:\n  y = 1\n"),
        ('```python\nx = """\na ``` b\n"""\n```\n', 'x = """\na ``` b\n"""\n'),
        ("def f():\n    return 1", "def f():\n    return 1"),  # bare code
        ("```bash\nls\n```", None),
        (" \n", None),
    ],
)
def test_the_program_is_the_last_python_block(text, program):
    assert extract_program(text) == program


def test_a_right_program_passes_and_a_wrong_one_does_not():
    assert passes(RIGHT, TESTS)
    assert not passes(WRONG, TESTS)
    assert not passes("def other(x):\n    return 2\n", TESTS)
    assert not passes("def add_one(x) return 2", TESTS)  # no Python
    assert not passes(RIGHT, "raise ValueError")


TEST_OF_HUMAN_EVAL = "def check(candidate):\n    assert candidate(1) == 2\n"
HUMAN_EVAL = {
    "setup": "from typing import List\n\ndef helper(x):\n    return 2 * x\n\n"
    'def twice(xs: List[int]) -> List[int]:\n    """Each doubled, as helper() does."""\n',
    "tests": "def check(candidate):\n    assert candidate([1]) == [helper(1)]\n\ncheck(twice)\n",
    "entry_point": "twice",
}


@pytest.mark.parametrize(
    "program, right",
    [
        ("def twice(xs: List[int]):\n    return [helper(x) for x in xs]\n", True),
        ("import math\n", False),  # the stub of the prompt returns None
        ("def check(candidate):\n    pass\n", False),
        ("def helper(x):\n    return 1\n\ndef twice(xs):\n    return [1]\n", False),
        ("twice = None\n", False),
    ],
)
def test_human_eval_gives_its_prompt_to_both_and_takes_one_name(program, right):
    assert passes(program, **HUMAN_EVAL) is right


@pytest.mark.parametrize(
    "tests",
    ["", "# assert\n", TEST_OF_HUMAN_EVAL, "import math\n", "class A:\n    'B.'\n", "'a'", "pass"]
    + ["x == 2", "if __name__ == '__main__':\n    assert x == 2\n"],
)
def test_tests_that_test_nothing_are_refused(tests):
    with pytest.raises(ValueError, match="give one text"):
        passes("def f(): return 1", ["assert f() == 1"])
    with pytest.raises(ValueError, match="assert nothing"):
        passes("x = 1", tests)
    assert passes("x = 1", tests + "\nassert x == 1")


HOSTILE = {
    "leaves at once": "import os\nos._exit(0)",
    "leaves politely": "raise SystemExit(0)",
    "interrupts": "raise KeyboardInterrupt",
    "says that it passed": "print('passed')\nimport os\nos._exit(0)",
    "writes to every descriptor": (
        "import os\nfor i in range(3, 64):\n    try:\n        os.write(i, b'passed')\n"
        "    except OSError:\n        pass\nos._exit(0)"
    ),
    "loops": "while True:\n    pass",
    "loops and will not hear": (
        "import signal\nfor i in range(1, 32):\n    try:\n        signal.signal(i, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass"
    ),
    "takes memory": "x = bytearray(1 << 34)",
    "takes it in pieces": "x = []\nwhile True:\n    x.append(bytearray(1 << 24))",
    "recurses": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "prints without end": "while True:\n    print('x' * 1000000)",
    "writes a large file": "open('large', 'w').write('x' * (1 << 25))",
}
FORBIDDEN = {
    "starts a process": "import os\nif os.fork() == 0:\n    os._exit(0)",
    "bombs": "import os\nwhile True:\n    os.fork()",
    "hides a child": "import os\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n    input()",
    "runs a command": "import subprocess\nsubprocess.run(['true'], check=True)",
    "starts a thread": "import threading\nthreading.Thread(target=print).start()",
    "opens a socket": "import socket\nsocket.socket()",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "starves its parent": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_program_passes(name):
    assert not passes(f"{HOSTILE[name]}\n{RIGHT}", TESTS, cpu_seconds=1)


@contained
@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_program_must_not_do_fails(name):
    assert not passes(f"{FORBIDDEN[name]}\n{RIGHT}", TESTS, cpu_seconds=1)


@contained
def test_this_system_contains_programs():
    assert programs.uncontained() == []


def test_a_program_that_sleeps_is_killed():
    assert not passes(f"import time\ntime.sleep(10**6)\n{RIGHT}", TESTS, wall_seconds=2)


CHEATS = {
    "len, for all": "import builtins\nbuiltins.len = lambda x: 3\ndef f():\n    return []\n",
    "len, when called": "import builtins\ndef f():\n    builtins.len = lambda x: 3\n    return []\n",
    "len, as its own": "def len(x):\n    return 3\ndef f():\n    return []\n",
    "isclose of math": "import math\nmath.isclose = lambda *a: True\ndef f():\n    return [1, 2]\n",
    "math itself": "import sys, types\nsys.modules['math'] = types.SimpleNamespace("
    "isclose=lambda *a: True)\ndef f():\n    return [1, 2]\n",
    "vars": "import builtins, math\nmath.isclose = lambda *a: True\nbuiltins.vars = lambda m: {}\n"
    "builtins.exec = lambda *a: None\ndef f():\n    return [1, 2]\n",
    "check": "def check(x):\n    pass\ndef f():\n    return [1, 2]\n",
    "what follows a call": "import sys\nsys.settrace(lambda *a: sys.exit(0))\ndef f():\n    return []\n",
}
CHEATED = "import math\ndef check(x):\n    assert len(x) == 3\n    assert math.isclose(x[0], 1)\ncheck(f())\n"


@pytest.mark.parametrize("name", CHEATS)
def test_a_program_cannot_replace_what_the_tests_use(name):
    assert not passes(CHEATS[name], CHEATED)


def test_a_program_that_replaces_things_may_still_be_right():
    right = "import math\nmath.isclose = None\nlen = None\ndef f():\n    return [1, 2, 3]\n"
    assert passes(right, CHEATED)


@pytest.mark.parametrize(
    "program",
    [
        "import numpy\n",
        "import importlib.util, json.tool, urllib.parse\nassert importlib.util and json.tool\n",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\nimport pickle\npickle.loads(pickle.dumps(A(1)))\n",
    ],
)
def test_ordinary_programs_can_do_ordinary_things(program):
    tests = "import json, importlib\n" + TESTS
    assert passes(program + RIGHT + "import json\n", tests)


def test_verdicts_do_not_change():
    """Hashes of strings are the same each time."""
    verdicts = {passes(RIGHT, f"{TESTS}assert hash('a') % 2 == 0") for _ in range(6)}
    assert len(verdicts) == 1


def test_folders_nested_deep_are_deleted_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deep = "import os\nfor i in range(2000):\n    os.mkdir('a')\n    os.chdir('a')\n"
    assert passes(deep + RIGHT, TESTS)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_inherited(monkeypatch):
    monkeypatch.setenv("TOKEN_OF_MINE", "secret")
    ours = fcntl.fcntl(os.open(__file__, os.O_RDONLY), fcntl.F_DUPFD, 40)
    os.set_inheritable(ours, True)
    look = (
        "import os, sys\nassert 'TOKEN_OF_MINE' not in os.environ\nassert os.listdir() == []\n"
        "assert sys.stdin.read() == ''\n"
        f"try:\n    os.fstat({ours})\nexcept OSError:\n    pass\nelse:\n    raise ValueError\n"
    )
    assert passes(look + RIGHT, TESTS)
    os.close(ours)


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    litter = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('x')\nos.chmod('a', 0)\n"
    assert passes(litter + RIGHT, TESTS)
    for name in ("loops", "writes a large file"):
        assert not passes(HOSTILE[name], TESTS, cpu_seconds=1)
    if os.geteuid() == 0:  # a folder without rights is root's to delete
        assert list(tmp_path.iterdir()) == []
    if sys.platform == "linux":  # its home, in its environment, tells whose a process is
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                assert str(tmp_path).encode() not in environment.read_bytes()


def test_the_file_needs_the_standard_library_alone():
    tree = ast.parse(Path(programs.__file__).read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)
