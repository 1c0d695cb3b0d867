"""Each script stands alone: what it shares with another, or the PRM with the scripts, is repeated in it, and must not drift."""

import ast
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

SCRIPTS = ["majority.py", "best_of_n.py", "beam.py", "dvts.py", "rebase.py"]
OWN = {"parse_args", "main"}  # of the same name in every script, and different on purpose


def definitions(source: str) -> dict[str, tuple[str, str]]:
    """Name -> (source, line above) of every function and class at the top level."""
    lines, found = source.split("\n"), {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = min([node.lineno] + [decorator.lineno for decorator in node.decorator_list])
            found[node.name] = "\n".join(lines[first - 1:node.end_lineno]), lines[first - 2]
    return found


def drift(sources: dict[str, str]) -> list[str]:
    """Everything that is wrong with the copies, in words."""
    scripts = {name: definitions(source) for name, source in sources.items()}
    faults = []
    for name, functions in scripts.items():
        for function, (body, above) in functions.items():
            origin = re.fullmatch(r"# (Copied|Differs) from (\w+\.py)(: .+)?", above)
            others = [other for other in scripts if other != name and function in scripts[other]]
            if not origin:
                owners = [o for o in others if not re.match("# (Copied|Differs) from", scripts[o][function][1])]
                if function not in OWN and owners:
                    faults.append(f"{function} is unmarked in {name} and in {owners[0]}: mark the copy")
                continue
            kind, source, reason = origin.groups()
            if function not in scripts.get(source, {}):
                faults.append(f"{name} says {function} is from {source}, which has none")
            elif re.match("# (Copied|Differs) from", scripts[source][function][1]):
                faults.append(f"{function} in {name} is a copy of the copy in {source}")
            elif kind == "Copied" and body != scripts[source][function][0]:
                faults.append(f"{function} in {name} has drifted from {source}")
            elif kind == "Differs" and not reason:
                faults.append(f"{function} in {name} differs from {source} without a reason")
    return faults


def test_copies_are_identical():
    assert drift({name: (ROOT / name).read_text() for name in [*SCRIPTS, "common/prm.py"]}) == []


@pytest.mark.parametrize("a, b, fault", [
    ("def f():\n    return 1", "# Copied from a.py\ndef f():\n    return 2", "drifted"),
    ("def f():\n    return 1", "def f():\n    return 1", "unmarked"),
    ("def g():\n    return 1", "# Copied from a.py\ndef f():\n    return 1", "which has none"),
    ("# Copied from b.py\ndef f():\n    return 1", "# Copied from a.py\ndef f():\n    return 1", "copy of the copy"),
    ("def f():\n    return 1", "# Differs from a.py\ndef f():\n    return 2", "without a reason"),
])
def test_the_test_sees_every_kind_of_fault(a, b, fault):
    assert any(fault in found for found in drift({"a.py": a, "b.py": b}))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_alone_with_common(script, tmp_path):
    """One script and common/ in an empty folder, models elsewhere: a run of one problem, and its result line."""
    shutil.copy(ROOT / script, tmp_path)
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, script, "--n", "4", "--limit", "1", "--policy", ROOT / "tiny/policy", "--problems", ROOT / "tiny/problems.jsonl", "--output", "out.jsonl"]
    if script != "majority.py":
        command += ["--prm", ROOT / "tiny/prm"]
    run = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, textwrap.shorten(run.stderr, 2000)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_read_in_one_sitting(script):
    assert len((ROOT / script).read_text().splitlines()) <= 400


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_answered_before_heavy_imports(script):
    run = subprocess.run([sys.executable, "-X", "importtime", script, "--help"], cwd=ROOT, capture_output=True, text=True)
    imported = set(re.findall(r"\| +(\w+)$", run.stderr, re.M))
    assert run.returncode == 0 and "--temperature" in run.stdout
    assert "argparse" in imported and not imported & {"torch", "transformers", "sympy"}
    assert len(run.stdout.splitlines()) <= 50
