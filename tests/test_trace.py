"""`--trace`: the tree that is drawn is the search that was made, and the page works in a browser.

The browser test needs Chromium with its driver and Selenium (`apt install chromium
chromium-driver`, `pip install selenium==4.51.0`), and is skipped where they are not.
"""

import json
import re
import shutil

import pytest
from test_cli import in_process, rows_of, run

from harness import trace


def data(page):
    """What the page was given to draw."""
    return json.loads(re.search(r"const trace = (.*);", page.read_text())[1])


def way(nodes, node):
    return [] if node is None else [*way(nodes, nodes[node]["parent"]), node]


def node(parent, text, *scores):
    return dict(
        parent=parent,
        text=text,
        tokens=1,
        scores=list(scores),
        value=scores[-1] if scores else None,
    )


def test_a_node_of_several_steps_is_drawn_as_a_chain():
    tree = [
        node(None, "a\n\nb", 0.5, 0.6),
        node(None, "c\n\n"),
        node(0, "d\n\n\n e\n\nf", 0.1, None, 0.3),
        node(1, "g", 0.7),
    ]
    nodes, ends = trace.chains(tree)
    assert [(one["parent"], one["text"], one["score"]) for one in nodes] == [
        (None, "a", 0.5),
        (0, "b", 0.6),
        (None, "c", None),
        (1, "d", 0.1),
        (3, "e", None),
        (4, "f", 0.3),
        (2, "g", 0.7),
    ]
    assert ends == [1, 2, 5, 6]


def row_of(tree, completions, answer="7", right=True, key="first", problem="p"):
    found = [
        dict(text="", node=place, finished=finished, answer=said, scores=tree[place]["scores"])
        for place, finished, said in completions
    ]
    best = next((one["answer"] for one in found if one["finished"]), None)
    return dict(
        id=key,
        problem=problem,
        answer=answer,
        completions=found,
        predictions=dict(weighted=best),
        correct=dict(weighted=right),
        tree=tree,
    )


def test_completions_are_leaves_of_the_tree():
    tree = [node(None, "a", 0.5), node(0, "b", 0.6), node(0, "b", 0.9), node(0, "c", 0.1)]
    found = trace.search(row_of(tree, [(1, True, "7"), (2, True, "7"), (3, False, None)]), "last")[
        "nodes"
    ]
    assert [one.get("finished") for one in found] == [None, True, True, False]
    assert [one.get("won") for one in found] == [None, False, True, False]
    assert [one.get("right") for one in found] == [None, True, True, None]


def test_copies_of_a_solution_are_one_leaf_that_tells_their_number():
    tree = [node(None, "a", 0.5), node(0, "b", 0.6), node(0, "b", 0.9)]
    row = row_of(tree, [(2, True, "7"), (1, True, "7"), (2, True, "7"), (2, True, "7")])
    found = trace.search(row, "last")["nodes"]
    assert [one.get("copies") for one in found] == [None, 1, 3]
    assert [one.get("won") for one in found] == [None, False, True]


def test_first_steps_know_their_subtree():
    tree = [node(None, "a", 0.5), node(None, "b", 0.6), node(1, "c", 0.9), node(0, "d", 0.1)]
    row = row_of(tree, [(3, True, "7"), (2, True, "8")])
    for subtree, completion in enumerate(row["completions"]):
        completion["subtree"] = subtree
    found = trace.search(row, "last")["nodes"]
    assert [one.get("subtree") for one in found] == [1, 2, None, None]


def test_the_page_opens_where_there_was_something_to_decide():
    dull = row_of([node(None, "a", 0.9)], [(0, True, "7")])
    lost = row_of(
        [node(None, "a", 0.9), node(None, "b", 0.1)], [(0, True, "8"), (1, True, "7")], right=False
    )
    told = row_of([node(None, "a", 0.9), node(None, "b", 0.1)], [(0, True, "7"), (1, True, "8")])
    searches = [trace.search(row, "last") for row in (dull, lost, told, dull)]
    assert trace.most_telling(searches) == 2


@pytest.mark.parametrize(
    "script", ["best_of_n.py", "beam.py", "dvts.py", "rebase.py", "particle.py", "mcts.py"]
)
def test_the_page_holds_the_search(script, tmp_path, monkeypatch, capsys):
    """Every completion of the result file is a leaf with its scores, and everything else a parent
    or turned down.
    """
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "8", "--limit", "3", "--output", "out.jsonl", "--trace", "tree.html"]
    monkeypatch.setattr("sys.argv", [script, *flags])
    assert in_process(script, *flags) == 0
    printed = capsys.readouterr().out
    assert "trees in tree.html" in printed
    searches, rows = data(tmp_path / "tree.html")["searches"], rows_of(tmp_path / "out.jsonl")[1:]
    assert [search["id"] for search in searches] == [row["id"] for row in rows]
    for search, row in zip(searches, rows):
        nodes = search["nodes"]
        leaves = [i for i, node in enumerate(nodes) if "finished" in node]
        drawn = sorted(
            (node["answer"], [nodes[j]["score"] for j in way(nodes, i)])
            for i in leaves
            for node in [nodes[i]]
            for _ in range(node["copies"])
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
        assert search["votes"].startswith(f"{won['answer']} has ")
        depths = [len(way(nodes, i)) for i in range(len(nodes))]
        if script == "mcts.py":
            assert depths.count(1) == 4  # the first step has four children, whatever n is
            continue
        # Eight rows a depth until the first solution; a tree that is pruned has leaves which are no
        # solution.
        assert depths.count(1) == 8 and (script == "best_of_n.py" or depths.count(2) <= 8)


def test_the_page_tells_the_vote():
    ballots = {}
    for i, scores in enumerate([[0.4, 0.3], [0.9], [0.1], [0.05], [0.0]]):
        ballots[i] = [(score, {"answer": str(i)}) for score in scores]
    weighted = "1 has 1 (0.90), 0 has 2 (0.70), 2 has 1 (0.10), 3 has 1 (0.05), and 1 more"
    assert trace.told(ballots, "weighted") == weighted
    assert trace.told({0: ballots[0], 1: ballots[1]}, "majority") == "0 has 2, 1 has 1"
    assert trace.told({}, "tests") == ""


def test_a_page_can_be_made_later_from_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "4", "--limit", "2", "--output", "out.jsonl"]
    assert in_process("dvts.py", *flags, "--trace", "tree.html") == 0
    assert trace.main(["out.jsonl", "--output", "later.html"]) == 0
    assert data(tmp_path / "later.html") == data(tmp_path / "tree.html")
    assert trace.main(["out.jsonl"]) == 0 and (tmp_path / "out.html").exists()
    for wrong in (["none.jsonl"], ["out.jsonl", "--output", "later.txt"]):
        with pytest.raises(SystemExit) as stop:
            trace.main(wrong)
        assert stop.value.code == 2


def test_what_was_solved_without_a_tree_is_left_out_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--n", "4", "--output", "out.jsonl"]
    assert in_process("dvts.py", *flags, "--limit", "1") == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        trace.main(["out.jsonl"])
    assert stop.value.code == 2 and "with --keep-tree --overwrite" in capsys.readouterr().err
    before = (tmp_path / "out.jsonl").read_text()
    assert in_process("dvts.py", *flags, "--limit", "2", "--trace", "tree.html") == 0
    assert "1 of 2 problems in out.jsonl have no tree" in capsys.readouterr().err
    assert len(data(tmp_path / "tree.html")["searches"]) == 1
    assert (tmp_path / "out.jsonl").read_text().startswith(before)  # nothing is solved again


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


HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


def test_the_page_in_a_browser(tmp_path):
    """Load it, look, click on a step that was turned down, and go to the next problem; model text
    stays text.
    """
    pytest.importorskip("selenium", reason="needs `pip install selenium==4.51.0`")
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs `apt install chromium chromium-driver`")
    tree = [node(None, "good", 0.9), node(None, HOSTILE, 0.1), node(None, "fair", None)]
    tree += [node(0, "So $\\boxed{7}$", 0.95), node(0, "So $\\boxed{8}$", 0.2)]
    first = row_of(tree, [(3, True, "7"), (4, True, "8")], problem=HOSTILE)
    second = row_of([], [], answer=None, right=None, key="second", problem="Second?")
    trace.write(str(tmp_path / "tree.html"), "runs/out.jsonl", [first, second], "last")

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
        mark = lambda index: find(f"[data-node='{index}']")
        assert (
            browser.title == "Search trace"
            and len(browser.find_elements(By.CSS_SELECTOR, "[data-node]")) == 5
        )
        assert find("#problem").text == HOSTILE
        assert (
            "7 ✓" in find("#facts").text and "5 steps sampled, 2 solutions" in find("#facts").text
        )
        assert "the one chosen" in find("#side").text  # what won is picked to begin with
        classes = [set(mark(i).get_attribute("class").split()) for i in range(5)]
        assert ["won" in c for c in classes] == [True, False, False, True, False]
        assert ["pruned" in c for c in classes] == [False, True, True, False, False]
        fill = lambda index: (
            mark(index).find_element(By.CSS_SELECTOR, ".dot").value_of_css_property("fill")
        )
        assert fill(3) != fill(1) != fill(2)
        mark(1).click()
        assert (
            find("#text").text == HOSTILE
            and "0.100" in find("#side").text
            and "picked" in mark(1).get_attribute("class")
        )
        mark(4).click()
        assert "says 8" in find("#side").text and "good" in find("#side").text  # the way here
        find("#after").click()
        assert find("#problem").text == "Second?" and not browser.find_elements(
            By.CSS_SELECTOR, "[data-node]"
        )
        find("#after").click()
        assert find("#problem").text == HOSTILE and browser.title == "Search trace"
        drawn = lambda: [one.text for one in browser.find_elements(By.CSS_SELECTOR, "[data-node]")]
        assert len(drawn()) == 5
        find("#fold").click()
        assert len(drawn()) == 4 and "2 turned down" in drawn()
        mark(1).click()
        assert HOSTILE[:31] in find("#side").text and "fair" in find("#side").text
        find("#fold").click()
        assert len(drawn()) == 5
        assert browser.get_log("browser") == []  # neither an error nor a request that failed
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    finally:
        browser.quit()
