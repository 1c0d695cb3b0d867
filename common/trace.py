"""A search one can look at: the tree of its steps as a page of HTML (`--trace FILE.html`).

Every step of a search passes through the PRM, so what the PRM was asked and what it answered (its `history`) is the whole
tree: nothing is recorded by the searches themselves. The page, trace.html with the trees put in, needs no server and no network.
"""

import json
import math
import re
from collections import Counter
from pathlib import Path

from common import grading

TEMPLATE = Path(__file__).with_name("trace.html")


def trees(problems: int, history: list) -> list[list[dict]]:
    """For each problem its nodes, parents before children: {"parent": index, None at the question; "text"; "score": None for NaN}.

    history: a PRM's; a text of several steps, such as a whole solution, becomes a chain of nodes, one without any a blank node.
    """
    from common.prm import split_steps  # here, for it imports torch, and --help must not

    found = [[] for _ in range(problems)]
    rows = [(problem, None) for problem in range(problems)]  # (problem, node) of each child of the last call
    for parents, texts, scores in history:
        children = []
        for parent, text, of_steps in zip(parents, texts, scores, strict=True):
            problem, node = rows[parent]
            for step, score in zip(split_steps(text) or [""], of_steps or [math.nan], strict=True):
                found[problem].append(dict(parent=node, text=step, score=round(score, 4) if math.isfinite(score) else None))
                node = len(found[problem]) - 1
            children.append((problem, node))
        rows = children
    return found


def search(row: dict, nodes: list[dict], winner: dict | None) -> dict:
    """What the page shows of a row of the result file, whose completions are found among the nodes; winner: the one chosen."""
    squeeze = lambda text: re.sub(r"\s", "", text)  # steps are stripped, completions are not
    gold, inner = row["answer"], {node["parent"] for node in nodes}
    ended, seen, written = {}, Counter(), []  # completions by text; nodes that end in that text so far; the text up to each node
    for completion in row["completions"]:
        ended.setdefault(squeeze(completion["text"]), []).append(completion)
    for index, node in enumerate(nodes):
        text = ("" if node["parent"] is None else written[node["parent"]]) + squeeze(node["text"])
        written.append(text)
        if index not in inner and text in ended:
            again = seen[text] >= len(ended[text])  # beam search returns a solution once, however often it was found
            completion = ended[text][0 if again else seen[text]]
            seen[text] += 1
            answer, won = completion["answer"], completion is winner and not again
            right = None if gold is None or answer is None else grading.is_correct(answer, gold)
            node |= dict(finished=completion["finished"], answer=answer, right=right, again=again, won=won)
    return dict(id=row["id"], problem=row["problem"], answer=gold, prediction=row["predictions"]["weighted"],
                right=row["correct"].get("weighted"), nodes=nodes)


def write(file: str, command: str, searches: list[dict]):
    """The page of what search() gives for each problem, headed by the command that made it."""
    data = json.dumps({"command": command, "searches": searches}).replace("<", "\\u003c")  # or a step could end the script
    Path(file).write_text(TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", data), encoding="utf-8")
