"""`--trace`: the tree that is drawn is the search that was made, and the page works in a browser.

The browser test needs Chromium with its driver and Selenium (`apt install chromium chromium-driver`, `pip install
selenium==4.51.0`), and is skipped where they are not.
"""

import json
import math
import re
import shutil

import pytest
from test_cli import in_process, rows_of, run

from common import trace


def data(page):
    """What the page was given to draw."""
    return json.loads(re.search(r"const trace = (.*);", page.read_text())[1])


def way(nodes, node):
    return [] if node is None else [*way(nodes, nodes[node]["parent"]), node]


def test_trees_of_a_history():
    history = [
        (
            [0, 1, 1],
            ["## a", "b\n\n", "c"],
            [[0.5], [0.25], [math.nan]],
        ),  # of problem 0 one step, of problem 1 two
        ([1, 1, 0, 2], ["d", "  ", "e\n\nf", "g"], [[0.1], [], [0.2, 0.3], [0.4]]),
    ]
    node = lambda parent, text, score, row: dict(parent=parent, text=text, score=score, row=row)
    assert trace.trees(2, history) == [
        [node(None, "## a", 0.5, 0), node(0, "e", 0.2, 2), node(1, "f", 0.3, 2)],
        [
            node(None, "b", 0.25, 1),
            node(None, "c", None, 2),
            node(0, "d", 0.1, 0),
            node(0, "", None, 1),
            node(1, "g", 0.4, 3),
        ],
    ]


def test_completions_are_found_in_the_tree():
    """By row where several steps say the same: one of two equal ones was turned down, or is unfinished."""
    nodes = trace.trees(
        1,
        [
            ([0, 0], ["a", "a"], [[0.5], [0.6]]),
            ([0, 0, 1, 1], ["b\n\n", "b", "b", "c"], [[0.1], [0.2], [0.3], [0.4]]),
        ],
    )[0]
    found = [
        dict(text="a\n\nb", row=1, finished=True, answer="1"),
        dict(text="a\n\nb", row=2, finished=True, answer="1"),
        dict(text="a\n\nc", row=3, finished=False, answer=None),
    ]
    leaves = trace.ends(nodes, found)
    assert leaves == [3, 4, 5]
    row = dict(
        id="x",
        problem="p",
        answer="1",
        completions=found,
        predictions=dict(weighted="1"),
        correct=dict(weighted=True),
    )
    nodes = trace.search(row, nodes, leaves, found[1])["nodes"]
    assert [node.get("finished") for node in nodes] == [None, None, None, True, True, False]
    assert [node.get("won") for node in nodes] == [None, None, None, False, True, False]
    assert [node.get("right") for node in nodes] == [None, None, None, True, True, None]


@pytest.mark.parametrize("script", ["best_of_n.py", "beam.py", "dvts.py", "rebase.py"])
def test_the_page_holds_the_search(script, tmp_path, monkeypatch, capsys):
    """Every completion of the result file is a leaf with its scores, and everything else a parent or turned down."""
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "8", "--limit", "3", "--output", "out.jsonl", "--trace", "tree.html"]
    monkeypatch.setattr("sys.argv", [script, *flags])
    assert in_process(script, *flags) == 0
    printed = capsys.readouterr().out
    assert "trees in tree.html" in printed and "--trace" not in printed.split("to go on:")[1]
    searches, rows = data(tmp_path / "tree.html")["searches"], rows_of(tmp_path / "out.jsonl")[1:]
    assert [search["id"] for search in searches] == [row["id"] for row in rows]
    for search, row in zip(searches, rows):
        nodes = search["nodes"]
        leaves = [i for i, node in enumerate(nodes) if "finished" in node]
        drawn = sorted(
            (node["answer"], [nodes[j]["score"] for j in way(nodes, i)])
            for i in leaves
            for node in [nodes[i]]
        )
        assert drawn == sorted(
            (c["answer"], [round(score, 4) for score in c["scores"]]) for c in row["completions"]
        )
        assert sum(node.get("won", False) for node in nodes) == 1
        won = next(node for node in nodes if node.get("won"))
        assert (
            won["answer"] == row["predictions"]["weighted"]
            and won["right"] == row["correct"]["weighted"]
        )
        depths = [len(way(nodes, i)) for i in range(len(nodes))]
        # Eight rows a depth until the first solution; a tree that is pruned has leaves which are no solution.
        assert depths.count(1) == 8 and (script == "best_of_n.py" or depths.count(2) <= 8)


def test_what_is_solved_is_solved_again_and_the_file_keeps_what_it_has(tmp_path, monkeypatch):
    """Also where it would come out otherwise today, as on a GPU, where another batch rounds otherwise."""
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "4", "--limit", "2", "--output", "out.jsonl", "--trace", "tree.html"]
    assert in_process("dvts.py", *flags) == 0
    drawn, lines = (
        data(tmp_path / "tree.html")["searches"],
        (tmp_path / "out.jsonl").read_text().splitlines(),
    )
    other = json.loads(lines[1])
    other |= dict(
        completions=other["completions"][:1], predictions=dict.fromkeys(other["predictions"], "77")
    )
    changed = "\n".join([lines[0], json.dumps(other), lines[2], ""])
    (tmp_path / "out.jsonl").write_text(changed)
    assert in_process("dvts.py", *flags) == 0
    assert (
        data(tmp_path / "tree.html")["searches"] == drawn
        and (tmp_path / "out.jsonl").read_text() == changed
    )


def test_one_question_can_be_drawn(tmp_path):
    done = run(
        "dvts.py",
        "--n",
        4,
        "--problem",
        "Start with 12. Add 5. What is the result?",
        "--trace",
        "one.html",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (search,) = data(tmp_path / "one.html")["searches"]
    assert (
        search["answer"] is None
        and search["right"] is None
        and f"Answer: {search['prediction']}" in done.stdout
    )


@pytest.mark.parametrize(
    "flags, fault",
    [
        (["--trace", "tree.txt"], "ends in .html"),
        (["--trace", "no/such/folder/tree.html"], "No such file or directory"),
    ],
)
def test_what_is_refused(flags, fault, tmp_path):
    done = run("dvts.py", "--n", 2, "--limit", 1, *flags, cwd=tmp_path)
    assert done.returncode == 2 and fault in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_trees_of_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run("dvts.py", "--n", 2, "--limit", 1, "--trace", "tree.html", cwd=tmp_path)
    assert done.returncode == 2 and "start the script by python" in done.stderr


HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


def test_the_page_in_a_browser(tmp_path):
    """Load it, look, click on a step that was turned down, and go to the next problem; model text stays text."""
    pytest.importorskip("selenium", reason="needs `pip install selenium==4.51.0`")
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs `apt install chromium chromium-driver`")
    (nodes,) = trace.trees(
        1,
        [
            ([0, 0, 0], ["good", HOSTILE, "fair"], [[0.9], [0.1], [math.nan]]),
            ([0, 0], ["So $\\boxed{7}$", "So $\\boxed{8}$"], [[0.95], [0.2]]),
        ],
    )
    completions = [
        dict(text=f"good\n\nSo $\\boxed{{{a}}}$", row=i, finished=True, answer=a)
        for i, a in enumerate("78")
    ]
    row = dict(
        id="first",
        problem=HOSTILE,
        answer="7",
        completions=completions,
        predictions=dict(weighted="7"),
        correct=dict(weighted=True),
    )
    second = dict(
        id="second", problem="Second?", answer=None, prediction=None, right=None, nodes=[]
    )
    trace.write(
        tmp_path / "tree.html",
        "dvts.py --n 3",
        [trace.search(row, nodes, trace.ends(nodes, completions), completions[0]), second],
    )

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1400,900",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get((tmp_path / "tree.html").as_uri())
        find = lambda css: browser.find_element(By.CSS_SELECTOR, css)
        node = lambda index: find(f"[data-node='{index}']")
        assert (
            browser.title == "Search trace"
            and len(browser.find_elements(By.CSS_SELECTOR, "[data-node]")) == 5
        )
        assert find("#problem").text == HOSTILE
        assert (
            "7 ✓" in find("#facts").text and "5 steps sampled, 2 solutions" in find("#facts").text
        )
        assert "the one chosen" in find("#side").text  # what won is picked to begin with
        classes = [set(node(i).get_attribute("class").split()) for i in range(5)]
        assert ["won" in c for c in classes] == [True, False, False, True, False]
        assert ["pruned" in c for c in classes] == [False, True, True, False, False]
        fill = lambda index: (
            node(index).find_element(By.CSS_SELECTOR, ".dot").value_of_css_property("fill")
        )
        assert fill(3) != fill(1) != fill(2)
        node(1).click()
        assert (
            find("#text").text == HOSTILE
            and "0.100" in find("#side").text
            and "picked" in node(1).get_attribute("class")
        )
        node(4).click()
        assert "says 8" in find("#side").text and "good" in find("#side").text  # the way here
        find("#after").click()
        assert find("#problem").text == "Second?" and not browser.find_elements(
            By.CSS_SELECTOR, "[data-node]"
        )
        find("#after").click()
        assert find("#problem").text == HOSTILE and browser.title == "Search trace"
        assert browser.get_log("browser") == []  # neither an error nor a request that failed
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    finally:
        browser.quit()
