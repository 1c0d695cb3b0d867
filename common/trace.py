"""A search one can look at: the tree of its steps as a page of HTML (`--trace FILE.html`).

Every step of a search passes through the PRM, so what the PRM was asked and what it answered (its `history`) is the whole
tree: nothing is recorded by the searches themselves. The page, trace.html with the trees put in, needs no server and no network.
"""

import json
import math
import re
from pathlib import Path

from common import grading

TEMPLATE = Path(__file__).with_name("trace.html")


def trees(problems: int, history: list) -> list[list[dict]]:
    """For each problem its nodes, parents before children: {"parent": index, None at the question; "text"; "score": None for
    NaN or a blank; "row": which child of its call it is}.

    history: a PRM's; a text of several steps, such as a whole solution, becomes a chain of nodes, one without any a blank node.
    """
    from common.prm import split_steps  # here, for it imports torch, and --help must not

    found = [[] for _ in range(problems)]
    rows = [(problem, None) for problem in range(problems)]  # (problem, node) of each child of the last call
    for parents, texts, scores in history:
        children = []
        for row, (parent, text, of_steps) in enumerate(zip(parents, texts, scores, strict=True)):
            problem, node = rows[parent]
            for step, score in zip(split_steps(text) or [""], of_steps or [math.nan], strict=True):
                found[problem].append(dict(parent=node, text=step, score=round(score, 4) if math.isfinite(score) else None, row=row))
                node = len(found[problem]) - 1
            children.append((problem, node))
        rows = children
    return found


def ends(nodes: list[dict], completions: list[dict]) -> list[int | None]:
    """The node at which each completion ended: one of the same text, and of the same row, for another may have written the same."""
    squeeze = lambda text: re.sub(r"\s", "", text)  # steps are stripped, completions are not
    inner, written, leaves = {node["parent"] for node in nodes}, [], {}
    for index, node in enumerate(nodes):
        written.append(("" if node["parent"] is None else written[node["parent"]]) + squeeze(node["text"]))
        if index not in inner:
            leaves[node["row"], written[index]] = index
    return [leaves.get((completion["row"], squeeze(completion["text"]))) for completion in completions]


def search(row: dict, nodes: list[dict], leaves: list[int | None], winner: dict | None) -> dict:
    """What the page shows of a row of the result file, whose completions ended at the nodes `leaves`; winner: the one chosen."""
    gold = row["answer"]
    for completion, leaf in zip(row["completions"], leaves, strict=True):
        if leaf is not None:
            answer = completion["answer"]
            right = None if gold is None or answer is None else grading.is_correct(answer, gold)
            nodes[leaf] |= dict(finished=completion["finished"], answer=answer, right=right, won=completion is winner)
    return dict(id=row["id"], problem=row["problem"], answer=gold, prediction=row["predictions"]["weighted"],
                right=row["correct"].get("weighted"), nodes=nodes)


def write(file: str, command: str, searches: list[dict]):
    """The page of what search() gives for each problem, headed by the command that made it."""
    data = json.dumps({"command": command, "searches": searches}).replace("<", "\\u003c")  # or a step could end the script
    Path(file).write_text(TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", data), encoding="utf-8")
