"""A search one can look at: the tree of its steps as a page of HTML.

It is drawn from the rows of a result file that has trees (--keep-tree, or --trace), also later:

    python -m harness.trace runs/mine.jsonl --output tree.html

The page, trace.html with the trees put in, needs no server and no network.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from common import grading
from harness import results
from harness.solve import REDUCE, own_rule
from harness.table import tally, winner
from harness.terminal import cure, fail, note, say

TEMPLATE = Path(__file__).with_name("trace.html")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m harness.trace", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", metavar="FILE.jsonl", help="a result file with trees")
    parser.add_argument("--output", metavar="FILE.html", help="default: the same name with .html")
    parser.add_argument("--overwrite", action="store_true", help="replace a page of other results")
    args = parser.parse_args(argv)
    if not os.path.isfile(args.results):
        fail(f"{args.results} is no file: name a result file")
    page = args.output or str(Path(args.results).with_suffix(".html"))
    if os.path.exists(page) and os.path.samefile(page, args.results):
        fail(f"{args.results} would be replaced by its page: name another --output")
    check(page, args.results, args.overwrite, flag="--output")
    header, rows = results.read(args.results)
    reduction = header.get("reduction")
    if reduction not in list(REDUCE):
        fail(f"{args.results} is of a run without a PRM: there is nothing to draw")
    if not any("tree" in row for row in rows.values()):
        fail(
            f"{args.results} has no trees: give the command that made it once more, with "
            "--keep-tree --overwrite"
        )
    write(page, args.results, list(rows.values()), reduction, args.overwrite)
    return 0


def check(page, source, overwrite, flag="--trace"):
    """fail() where the page of a result file, source, cannot be had, or would replace another."""
    if not page.endswith(".html"):
        fail(f"{flag} {page} would be a page of HTML: give it a name that ends in .html")
    if os.path.exists(page) and not os.path.isfile(page):
        fail(f"{flag} {page} is not a plain file: name another {flag}")
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(page))):
            pass
        if os.path.exists(page) and not overwrite:
            begin = start_of_page(source).encode()
            with open(page, "rb") as file:
                if file.read(len(begin)) != begin:
                    fail(
                        f"{flag} {page} is there, and is no page of {source}: name another, or "
                        "replace it by --overwrite"
                    )
    except OSError as error:
        remedy = cure(error) or f"name another {flag}"
        fail(f"{flag} {page} cannot be written ({error.strerror}): {remedy}")


def start_of_page(source):
    """What a page begins with, up to the name of the result file that it was drawn from."""
    before, _ = TEMPLATE.read_text(encoding="utf-8").split("/*DATA*/null")
    return before + as_script({"command": source}).removesuffix("}")


def as_script(data):
    return json.dumps(data).replace("<", "\\u003c")  # or a step could end the script


def write(page, source, rows, reduction, overwrite=False):
    """Draw the rows that have a tree, and say where."""
    searches = [search(row, reduction) for row in rows if "tree" in row]
    without = len(rows) - len(searches)
    if without:
        note(
            f"{without} of {len(rows)} problems in {source} have no tree: they failed, or were "
            "solved without --keep-tree (--overwrite solves them again)"
        )
    if not searches:
        return
    data = {"command": source, "searches": searches, "start": most_telling(searches)}
    text = TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", as_script(data))
    check(page, source, overwrite)  # it may have come while the problems were solved
    try:
        with results.replacing(page) as file:
            file.write(text.encode())
    except OSError as error:
        fail(f"{page} cannot be written ({error.strerror}): {cure(error) or 'name another file'}")
    say(f"trees in {page}: open it in a browser")


def search(row, reduction):
    """What the page shows of a row."""
    nodes, ends = chains(row["tree"])
    ballots, best = winner(row, reduction)
    rule = own_rule(row)
    for completion in row["completions"]:
        answer = completion["answer"]
        right = completion.get("passed")
        if row["answer"] is not None and answer is not None:
            right = grading.is_correct(answer, row["answer"])
        node = nodes[ends[completion["node"]]]
        node |= {
            "finished": completion["finished"],
            "answer": answer,
            "right": right,
            "won": completion is best or node.get("won", False),
            "copies": node.get("copies", 0) + 1,  # of a particle
        }
        if "subtree" in completion:
            while node["parent"] is not None:
                node = nodes[node["parent"]]
            node["subtree"] = completion["subtree"] + 1
    return {
        "id": row["id"],
        "problem": row["problem"],
        "answer": row["answer"],
        "prediction": row["predictions"][rule],
        "right": row["correct"].get(rule),
        "votes": told(ballots, rule),
        "nodes": nodes,
    }


def told(ballots, rule):
    """The answers with most votes, as text: how many solutions, and what their scores add up to."""
    ranked_by = 1 if rule == "majority" else 0  # the number of votes, or their sum
    answers = sorted(tally(ballots), key=lambda one: one[ranked_by], reverse=True)
    texts = []
    for total, count, answer in answers[:4]:
        score = "" if rule == "majority" else f" ({total:.2f})"
        texts.append(f"{answer} has {count}{score}")
    more = f", and {len(answers) - 4} more" if len(answers) > 4 else ""
    return ", ".join(texts) + more


def chains(tree):
    """(nodes, ends): a node of several steps, such as a whole solution, as a chain of nodes.

    ends: where each node of the tree ends among them.
    """
    nodes = []
    ends = []
    for node in tree:
        parent = None if node["parent"] is None else ends[node["parent"]]
        steps = [step.strip() for step in node["text"].split("\n\n") if step.strip()]
        if len(steps) < 2 or len(steps) != len(node["scores"]):
            steps = [node["text"].strip()]
            scores = node["scores"][-1:] or [None]
        else:
            scores = node["scores"]
        for text, score in zip(steps, scores):
            score = None if score is None else round(score, 4)
            nodes.append({"parent": parent, "text": text, "score": score})
            parent = len(nodes) - 1
        ends.append(parent)
    return nodes, ends


def most_telling(searches):
    """Where the page opens: a right answer won, and wrong ones or low scores were turned down."""

    def tells(one):
        scores = [node["score"] for node in one["nodes"] if node["score"] is not None]
        wrong = sum(node.get("right") is False for node in one["nodes"])
        low = sum(score < 0.5 for score in scores)
        return bool(one["right"]), bool(wrong), min(low, len(scores) - low)

    return max(range(len(searches)), key=lambda i: tells(searches[i]))


if __name__ == "__main__":
    sys.exit(main())
