"""What the pages say is what the files hold: extracts, examples, tables, commands, links."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from unittest import mock

import pytest
from conftest import ROOT

FILES = [ROOT / "README.md", ROOT / "tiny/README.md"]
FILES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "results").glob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in FILES}
READ = {name: text for name, text in PAGES.items() if not name.startswith("results/")}
SCRIPTS = [
    "majority.py",
    "best_of_n.py",
    "beam.py",
    "dvts.py",
    "rebase.py",
    "particle.py",
    "mcts.py",
]
BLOCK = re.compile(r"^ *```(.*)\n([\s\S]*?)^ *```$", re.M)  # (language and what follows it, text)
BLOCKS = [(page, info, text) for page in READ for info, text in BLOCK.findall(READ[page])]


def dedent(text):
    lines = text.rstrip("\n").split("\n")
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:].rstrip() for line in lines)


def contains(source, extract):
    """Does extract stand in source, in one piece, indented by whatever number of spaces?"""
    lines = source.split("\n")
    wanted = dedent(extract).split("\n")
    for i in range(len(lines) - len(wanted) + 1):
        piece = lines[i : i + len(wanted)]
        if any(map(str.strip, piece)) and dedent("\n".join(piece)) == "\n".join(wanted):
            return True
    return False


EXTRACTS = [(info.split()[1], text) for _, info, text in BLOCKS if re.match(r"\w+ \S+\.py$", info)]
EXAMPLES = [text for _, info, text in BLOCKS if info == "python example"]


@pytest.mark.parametrize("name, text", EXTRACTS)
def test_extracts_are_the_files(name, text):
    assert contains((ROOT / name).read_text(), text)


def test_a_changed_extract_is_noticed():
    source = (ROOT / "dvts.py").read_text()
    text = next(text for name, text in EXTRACTS if name == "dvts.py")
    assert contains(source, text)
    assert not contains(source.replace("best_first(siblings)[0]", "siblings[0]"), text)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_run(text, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(text, "mine.py", "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert "34" in out or "system =" in text or "results/runs" in text  # (12 + 5) * 2
    assert out.strip()


def test_an_example_runs_without_harness(tmp_path):
    """As one would use it: a script and common/ beside a file of one's own."""
    for name in [*SCRIPTS, "common", "tiny"]:
        os.symlink(ROOT / name, tmp_path / name)
    (tmp_path / "mine.py").write_text(EXAMPLES[0])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "34" in done.stdout, done.stderr


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


def test_the_front_page_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 200


def test_rows_of_figures_stand_in_the_results():
    """A table row with figures is a row of a page of results, to the letter."""
    results = set()
    for page, text in PAGES.items():
        if page.startswith("results/"):
            results.update(line.strip() for line in text.split("\n"))
    rows = []
    for text in READ.values():
        for line in text.split("\n"):
            if line.startswith("|") and len(re.findall(r"(?<=\| )\d[\d,.]*(?= )", line)) > 2:
                rows.append(line.strip())
    assert len(rows) > 10
    assert [row for row in rows if row not in results] == []


def test_the_first_command_prints_what_the_page_shows():
    """All but what differs from machine to machine: seconds, memory, the name of the file."""
    shown = next(text for page, info, text in BLOCKS if "problems done" in text)
    assert "10 of 10 problems done" in shown and "weighted*" in shown
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "dvts.py", "--n", "64", "--limit", "10", "--overwrite"]
    command += ["--trace", "dvts.html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr

    def lasting(text):
        text = re.sub(r"[\d.]+ s;|[\d.]+ GiB|runs/\S+", "...", text)
        # Greedy's line is there if that run has been made.
        return [line for line in text.split("\n") if not line.startswith("greedy decoding")]

    assert lasting(shown.strip()) == lasting(done.stdout.strip())


COMMAND = r"\s*(python|accelerate launch|torchrun \S+ \S+) (-m harness\.)?\w+(\.py)? "
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for text in PAGES.values()
        for info, block in BLOCK.findall(text)
        if not info
        for line in re.sub(r"\\\n", "", block).split("\n")
        if re.match(COMMAND, line + " ") and ".py" in line and "tests/" not in line
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_flags_that_exist(command):
    """Each script's main() with these flags, up to where the run would begin."""
    words = re.sub(r"^(python|accelerate launch|torchrun \S+ \S+) ", "", command.split(" && ")[-1])
    script, *flags = shlex.split(words)
    if script == "-m" or "--help" in flags:
        return
    flags = [flag for flag in flags if not flag.startswith("$")]
    module = import_module(script.removesuffix(".py"))
    if hasattr(module, "parse_args"):  # it reads result files
        module.parse_args(flags, pytest.fail)
        return
    with mock.patch("harness.cli.run", return_value="begun") as run:
        assert module.main(flags) == "begun"
    assert run.called


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target
    titles = re.findall(r"^#+ (.*)$", PAGES[page], re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    for anchor in re.findall(r"\]\(#([^)]*)\)", PAGES[page]):
        assert anchor in anchors, anchor


def test_curves_are_of_the_problems_that_are_there():
    digest = hashlib.sha256((ROOT / "tiny/problems.jsonl").read_bytes()).hexdigest()
    assert digest[:12] in PAGES["results/curves.md"]


def test_no_figure_is_without_its_command():
    """Every page of results names the command and the commit that made it."""
    for page, text in PAGES.items():
        if page.startswith("results/") and page != "results/REPRODUCE.md":
            assert re.search(r"python (-m )?\S*(tests|tiny)[/.]\w+", text), page
            assert re.search(r"\b[0-9a-f]{7,12}\b", text), page


def test_nothing_waits_to_be_filled_in():
    assert [page for page, text in READ.items() if re.search(r"^\s*<<\w+>>", text, re.M)] == []
