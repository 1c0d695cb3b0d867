"""Each script stands alone: what it shares with another is repeated in it, and must not drift."""

import ast
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

SEARCHES = {
    "majority.py": "sample_solutions",
    "best_of_n.py": "best_of_n",
    "beam.py": "beam_search",
    "dvts.py": "dvts",
    "rebase.py": "rebase",
    "particle.py": "particle_filter",
    "mcts.py": "mcts",
}
OWN = {"main"}  # of the same name in every script, and different on purpose
MARK = re.compile(r"# Copied from (\w+\.py)")


def definitions(source):
    """Name -> (source, line above) of every function and class at the top level."""
    lines = source.split("\n")
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            starts = [decorator.lineno for decorator in node.decorator_list]
            first = min([node.lineno, *starts])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno]), lines[first - 2]
    return found


def drift(sources):
    """Everything that is wrong with the copies, in words."""
    scripts = {name: definitions(source) for name, source in sources.items()}
    faults = []
    for name, functions in scripts.items():
        for function, (body, above) in functions.items():
            mark = MARK.fullmatch(above)
            if not mark:
                for other in scripts:
                    twin = scripts[other].get(function)
                    if other != name and function not in OWN and twin and not MARK.match(twin[1]):
                        faults.append(f"{function} is unmarked in {name} and in {other}")
                continue
            source = mark[1]
            if function not in scripts.get(source, {}):
                faults.append(f"{name} says {function} is from {source}, which has none")
            elif MARK.match(scripts[source][function][1]):
                faults.append(f"{function} in {name} is a copy of the copy in {source}")
            elif body != scripts[source][function][0]:
                faults.append(f"{function} in {name} has drifted from {source}")
    return faults


def test_copies_are_identical():
    names = [*SEARCHES, "common/prm.py"]
    assert drift({name: (ROOT / name).read_text() for name in names}) == []


@pytest.mark.parametrize(
    "a, b, fault",
    [
        ("def f():\n    return 1", "# Copied from a.py\ndef f():\n    return 2", "drifted"),
        ("def f():\n    return 1", "def f():\n    return 1", "unmarked"),
        ("def g():\n    return 1", "# Copied from a.py\ndef f():\n    return 1", "has none"),
        (
            "# Copied from b.py\ndef f():\n    return 1",
            "# Copied from a.py\ndef f():\n    return 1",
            "copy of the copy",
        ),
    ],
)
def test_the_test_sees_every_kind_of_fault(a, b, fault):
    assert any(fault in found for found in drift({"a.py": a, "b.py": b}))


# --- how the code reads ---------------------------------------------------------------------------


def test_no_line_is_wider_than_100_columns():
    files = ["*.py", "common/**/*.py", "harness/*.py", "tiny/*.py"]
    for file in [file for pattern in files for file in ROOT.glob(pattern)]:
        for number, line in enumerate(file.read_text().split("\n"), 1):
            assert len(line.encode()) <= 100, f"{file}:{number}"  # box drawing takes three bytes


@pytest.mark.parametrize("script", SEARCHES)
def test_a_search_is_read_on_one_screen(script):
    """At most 60 lines, with numbered phases."""
    lines = (ROOT / script).read_text().split("\n")
    for node in ast.parse("\n".join(lines)).body:
        if getattr(node, "name", "") == SEARCHES[script]:
            assert node.end_lineno - node.lineno < 60
            body = "\n".join(lines[node.lineno : node.end_lineno])
            assert "# 1. " in body and "# 2. " in body
            return
    raise AssertionError("no search")


@pytest.mark.parametrize("script", SEARCHES)
def test_only_main_knows_the_command_line(script):
    for node in ast.parse((ROOT / script).read_text()).body:
        imports = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
        modules = [n.module for n in imports if isinstance(n, ast.ImportFrom)]
        modules += [alias.name for n in imports for alias in n.names]
        if any(str(module).split(".")[0] == "harness" for module in modules):
            assert getattr(node, "name", "") == "main"


def test_rooms_know_what_they_may_know():
    """common/ has no command line and no search, chat.py and grading no models."""
    for file in ROOT.glob("common/**/*.py"):
        text = file.read_text()
        assert not re.search(r"^\s*(from|import) (harness|argparse|tqdm)", text, re.M), file
        for script in SEARCHES:
            assert not re.search(rf"^\s*(from|import) {script[:-3]}\b", text, re.M), file
    for name in ("chat.py", "grading.py"):
        text = (ROOT / "common" / name).read_text()
        assert not re.search(r"^\s*(from|import) (torch|transformers)", text, re.M), name


# --- alone ----------------------------------------------------------------------------------------

MINE = """
import sys
from {module} import {function}, load_policy
from common.prm import Scorer, load_prm

policy, tokenizer = load_policy({tiny!r} + "/policy")
question = "Start with 12. Add 5, multiply by 2. What is the result?"
if {function!r} == "sample_solutions":
    prms = [None]
else:
    prms = [load_prm({tiny!r} + "/prm"), Scorer(lambda pairs: [0.5 for _ in pairs])]
for prm in prms:
    given = [prm] if prm else []
    [solutions] = {function}(policy, tokenizer, *given, [question], n=4)
    assert len(solutions) and all(one.finished for one in solutions)
assert not any(name.split(".")[0] == "harness" for name in sys.modules)
print("34" in solutions[0].text)
"""


# Folder after folder in one process, for to import torch takes seconds: ours are imported anew.
EACH = """
import runpy
import sys
for folder in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "common"]:
        del sys.modules[name]
    sys.path[0] = folder
    runpy.run_path(folder + "/mine.py")
"""


def test_a_script_is_a_library_with_common_alone(tmp_path):
    """One script and common/ in an empty folder, models elsewhere, defaults for all the rest."""
    for script, function in SEARCHES.items():
        folder = tmp_path / script[:-3]
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "common", folder / "common", ignore=ignore)
        shutil.copy(ROOT / script, folder)
        text = MINE.format(module=script[:-3], function=function, tiny=str(ROOT / "tiny"))
        (folder / "mine.py").write_text(text)
    folders = [str(tmp_path / script[:-3]) for script in SEARCHES]
    command = [sys.executable, "-c", EACH, *folders]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == "True\n" * len(folders)
