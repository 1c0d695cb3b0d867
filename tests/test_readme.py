"""What the README and the results say is what the files hold: extracts, examples, line counts, tables, figures, commands, links."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", ROOT / "tiny/README.md", *sorted((ROOT / "results").glob("*.md"))]}
SCRIPTS = ["majority.py", "best_of_n.py", "beam.py", "dvts.py", "rebase.py"]
BLOCKS = re.findall(r"^```(.*)\n([\s\S]*?)^```$", README, re.M)  # (language and what follows it, text)
CURVES = (ROOT / "results/curves.md").read_text()


def dedent(text):
    lines = text.rstrip("\n").split("\n")
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:].rstrip() for line in lines)


def contains(source, extract):
    """Does `extract` stand in `source`, in one piece, indented by whatever number of spaces?"""
    lines, wanted = source.split("\n"), dedent(extract).split("\n")
    return any(dedent("\n".join(piece)) == "\n".join(wanted) for i in range(len(lines) - len(wanted) + 1)
               if any(map(str.strip, piece := lines[i:i + len(wanted)])))


@pytest.mark.parametrize("name, text", [(info.split()[1], text) for info, text in BLOCKS if re.fullmatch(r"(python|text) \S+\.py", info)])
def test_extracts_are_the_files(name, text):
    assert contains((ROOT / name).read_text(), text)


def test_every_script_has_an_extract_a_picture_and_an_example():
    for script in SCRIPTS:
        infos = [info for info, _ in BLOCKS]
        assert f"python {script}" in infos and f"text {script}" in infos and f"python example {script}" in infos
        assert f"results/curves-{script.removesuffix('.py')}.png" in README


def test_a_changed_extract_is_noticed():
    source = (ROOT / "dvts.py").read_text()
    text = next(text for info, text in BLOCKS if info == "python dvts.py")
    assert contains(source, text) and not contains(source.replace("subtrees = alive", "subtrees = dead"), text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_run(script, tmp_path):
    """As one would use them: the script and common/ beside a file of one's own."""
    (text,) = [text for info, text in BLOCKS if info == f"python example {script}"]
    assert len(text.splitlines()) <= 15
    for name in (script, "common", "tiny"):
        os.symlink(ROOT / name, tmp_path / name)
    (tmp_path / "mine.py").write_text(text)
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    assert "34" in done.stdout  # (12 + 5) * 2


def test_line_counts():
    counted = re.findall(r"\[([\w/]+\.py)\]\([\w/.]+\), (\d+) lines", README)
    assert set(SCRIPTS) <= {name for name, _ in counted}
    for name, lines in counted:
        assert len((ROOT / name).read_text().splitlines()) == int(lines), name


def test_figures_stand_in_the_results():
    """A table row with figures is a row of results/curves.md or results/search.md, to the letter."""
    results = {line.strip() for page in PAGES if page.startswith("results/") for line in PAGES[page].split("\n")}
    rows = [line for line in README.split("\n") if line.startswith("|") and len(re.findall(r"(?<=\| )\d[\d,.]*(?= )", line)) > 2]
    assert len(rows) > 10
    assert [row for row in rows if row.strip() not in results] == []


def figures(text):
    return [float(number.replace(",", "")) for number in re.findall(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?", text.replace("−", "-"))]


@pytest.mark.parametrize("sentence", re.findall(r"<!-- (\S+: .*?) -->", README))
def test_figures_in_sentences(sentence):
    """`<!-- file: "words" -> "words" -->` behind a sentence: the figures of the second words stand in the file's line with the first."""
    page, words, said = re.fullmatch(r'(\S+): "(.*?)" -> "(.*?)"', sentence).groups()
    before = README[:README.index(sentence)]
    assert said in " ".join(before[-600:].split()), "not in the sentence before"
    lines = [line for line in PAGES[f"results/{page}"].split("\n") if words in line]
    assert len(lines) == 1, lines
    assert set(figures(said)) <= set(figures(lines[0].replace("/", " ")))


COMMANDS = sorted({line.split("#")[0].strip() for page in PAGES.values() for block in re.findall(r"^```\n([\s\S]*?)^```$", page, re.M)
                   for line in re.sub(r"\\\n", "", block).split("\n") if re.match(r"\s*(python|accelerate launch|torchrun \S+ \S+) \w+\.py", line)})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_flags_that_exist(command):
    script, *flags = shlex.split(re.sub(r"^(python|accelerate launch|torchrun \S+ \S+) ", "", command.split(" && ")[-1]))
    if "--help" not in flags:
        import_module(script.removesuffix(".py")).parse_args([flag for flag in flags if not flag.startswith("$")])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGES[page], re.M)}
    for anchor in re.findall(r"\]\(#([^)]*)\)", PAGES[page]):
        assert anchor in anchors, anchor


def test_curves_are_of_the_problems_that_are_there():
    assert hashlib.sha256((ROOT / "tiny/problems.jsonl").read_bytes()).hexdigest()[:12] in CURVES


def test_no_figure_is_without_its_command():
    """Every page of results names the command and the commit that made it."""
    for page, text in PAGES.items():
        if page.startswith("results/") and page != "results/REPRODUCE.md":
            assert re.search(r"python (-m )?\S*(tests|tiny)[/.]\w+", text) and re.search(r"\b[0-9a-f]{7,12}\b", text), page
