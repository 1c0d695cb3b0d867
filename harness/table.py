"""Results for a person: the table of a run, and the vote on one question."""

import glob
import json
import math
import os
import resource
import shlex
import sys

import torch

from common import grading
from harness.solve import own_rule, reduced, votes_by
from harness.terminal import WORLD, printable


def table(args, done, total, gpu):
    """Accuracy by rule and level, mean cost, one solved problem, and how to go on, as text.

    done: rows. total: how many problems there are. Failed problems count as wrong.
    """
    wanted = min(args.limit or total, total)
    solved = [row for row in done if "error" not in row]
    failed = [row for row in done if "error" in row]
    lines = [f"{len(done)} of {wanted} problems done, {len(failed)} of them failed"]
    if solved:
        lines += accuracy_lines(args, done, list(solved[0]["predictions"]), own_rule(solved[0]))
        lines += sample_lines(solved)
        lines += cost_lines(args, solved)
        lines += ["", *example_lines(solved, args.reduction), ""]
    lines += [f"failed: {row['id']}: {row['error']}"[:100] for row in failed[:3]]
    memory = torch.cuda.max_memory_allocated() if gpu else process_memory()
    lines += [
        f"peak memory {memory / 2**30:.2f} GiB (of this process)",
        f"results in {args.output}",
    ]
    if len(solved) < total:
        lines.append(f"to go on: {command(args, wanted, total, len(solved))}")
    return "\n".join(line.rstrip() for line in lines)


def accuracy_lines(args, done, rules, own):
    heads = [f"{rule}*" if rule == own else rule for rule in rules]
    lines = ["accuracy, % [95 % interval] (* the search's own rule)"]
    lines.append(f"{'level':<10}{'problems':>8}  " + "".join(f"{head:<22}" for head in heads))
    levels = sorted({str(row["level"]) for row in done} - {"None"})
    groups = {"all": done}
    for level in levels if len(levels) < 10 else []:
        group = [row for row in done if str(row["level"]) == level]
        if len(group) >= 5:  # of fewer the interval says nothing
            groups[level] = group
    for name, group in groups.items():
        cells = []
        for rule in rules:
            right = sum(row.get("correct", {}).get(rule, False) for row in group)
            low, high = wilson(right, len(group))
            share = 100 * right / len(group)
            cells.append(f"{f'{share:5.1f} [{100 * low:.1f}, {100 * high:.1f}]':<22}")
        lines.append(f"{name[:10]:<10}{len(group):>8}  " + "".join(cells))
    hidden = [level for level in levels if level not in groups]
    if len(levels) >= 10:
        lines.append(f"{len(levels)} levels are too many to be shown")
    elif hidden:
        lines.append(f"levels not shown, of fewer than 5 problems each: {', '.join(hidden)}")
    greedy = greedy_accuracy(args, done)
    if greedy is not None:
        lines.append(f"greedy decoding, {greedy[1]}: {100 * greedy[0]:.1f}")
    return lines


def sample_lines(solved):
    """Of programs: what one sample would solve, the mean over problems."""
    if "tests" not in solved[0]:
        return []
    shares = []
    for row in solved:
        passed = [one["passed"] for one in row["completions"]]
        shares.append(sum(passed) / max(1, len(passed)))
    share = 100 * sum(shares) / len(shares)
    return [f"tests*: any of the programs passes them; a single program (pass@1): {share:.1f} %"]


def greedy_accuracy(args, done):
    """(accuracy, file) of a greedy run in runs/ over the same problems; None if there is none."""
    alike = {"script": "majority.py", "n": 1, "temperature": 0.0}
    for key in ("policy_weights", "policy_4bit", "system"):
        alike[key] = getattr(args, key)
    if args.n == 1 and args.temperature == 0:
        return None
    asked = {(row["id"], row["problem"], row["answer"]) for row in done}
    for path in sorted(glob.glob("runs/majority-n1-*.jsonl")):
        try:
            with open(path, encoding="utf-8") as file:
                first, *rows = [json.loads(line) for line in file]
            same = all(first["run"].get(key) == value for key, value in alike.items())
            rule = "tests" if "tests" in done[0] else "majority"
            rows = [row for row in rows if (row["id"], row["problem"], row["answer"]) in asked]
            right = [row["correct"][rule] is True for row in rows]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # half a file, or none of ours
        if same and len(right) == len(asked):
            return sum(right) / len(asked), path
    return None


def cost_lines(args, solved):
    completions = [one for row in solved for one in row["completions"]]
    finished = sum(one["finished"] for one in completions) / len(solved)
    cut = len(completions) / len(solved) - finished
    distinct = sum(row["distinct"] for row in solved) / len(solved)
    mean = {}
    for key in solved[0]["usage"]:
        mean[key] = sum(row["usage"][key] for row in solved) / len(solved)
    drawn = f"{finished + cut:.1f} drawn, " if args.stop_at is not None else ""
    lines = [
        f"a problem: {drawn}{finished:.1f} solutions finished and {cut:.1f} cut, {args.n} at most; "
        f"{distinct:.1f} distinct",
        f"  {mean['flops'] / 1e9:,.1f} GFLOP, {mean['seconds']:.2f} s; "
        f"{mean['generated_tokens']:,.0f} tokens sampled,",
        f"  {mean['policy_tokens']:,.0f} through the policy",
    ]
    if args.reduction is not None:
        lines[-1] += f", {mean['prm_tokens']:,.0f} through the PRM"
    if cut > 0.1 * (finished + cut):
        lines.append("many were cut: a larger --max-new-tokens lets more finish")
    bad = sum(None in one["scores"] for one in completions)
    if bad:
        lines.append(f"{bad} solutions had NaN or infinite scores, and no say in best and weighted")
    silent = sum(not states_one(row) for row in solved)
    if silent:
        which = f"{silent} of {len(solved)} problems"
        lines.append(f"{which}: no finished solution states an answer (docs/grading.md)")
    return lines


def states_one(row):
    """Does a finished solution state an answer? Or is it a problem of code, or none finished?"""
    finished = [one for one in row["completions"] if one["finished"]]
    answers = [one["answer"] for one in finished if "passed" not in one]
    return not answers or any(answer is not None for answer in answers)


def example_lines(solved, reduction):
    """One problem that was solved, or the first if none was, as it was solved."""
    rule = own_rule(solved[0])
    right = [row for row in solved if row["correct"].get(rule)]
    row = (right or solved)[0]
    _, best = winner(row, reduction)
    lines = [f"for example, {row['id']}: {short(row['problem'], 300)}"]
    if best is None:
        return [*lines, "  no answer"]
    steps = [line for line in best["text"].strip().split("\n") if line.strip()]
    if len(steps) > 12:
        steps = [*steps[:8], f"... {len(steps) - 10} lines more", *steps[-2:]]
    for line in steps:  # indentation is part of a program
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(f"  {indent}{short(line, 96)}")
    verdict = "right" if row["correct"].get(rule) else "wrong"
    if rule == "tests":
        return [*lines, f"  by the tests: {verdict}"]
    return [*lines, f"  answer {row['predictions'][rule]}, {verdict}"]


def short(text, length):
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def process_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def command(args, wanted, total, solved):
    """The command that goes on where this one ended."""
    words = ["python", sys.argv[0]]
    if WORLD > 1:
        local = os.environ.get("LOCAL_WORLD_SIZE", WORLD)
        words = ["torchrun", "--nproc-per-node", str(local), "--", sys.argv[0]]
    given = {key: value for key, value in args.given.items() if key != "overwrite"}
    if solved == wanted:
        given["limit"] = min(2 * wanted, total)
    for key, value in given.items():
        flag = "--" + key.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is False:
            words.append(flag.replace("--", "--no-", 1))
        elif str(value).startswith("-"):  # or it would be taken for a flag
            words.append(f"{flag}={value}")
        else:
            words += [flag, str(value)]
    return " ".join(map(quoted, words))


def quoted(word):
    """As a shell takes it. What a terminal would not show as it is, bash reads spelled out."""
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"


def wilson(right, total):
    """95 % interval (low, high) of the share right / total (Wilson 1927). Unlike right +- 2 sigma
    it is sound near 0 and 1."""
    z = 1.959964
    p = right / total
    centre = p + z * z / (2 * total)
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


# --- one question ---------------------------------------------------------------------------------


def winner(row, reduction):
    """(ballots, best): for each answer's canonical form the [(score, completion)] that vote for it;
    of those for the answer chosen the completion with the highest score, None if none was. Programs
    have no vote: of them the first that passes its tests, else the first."""
    if "tests" in row:
        passed = [one for one in row["completions"] if one["passed"]]
        return {}, (passed or row["completions"] or [None])[0]
    rule = own_rule(row)
    voters = [one for one in row["completions"] if one["finished"] and one["answer"] is not None]
    if rule in grading.WEIGHTS:
        scores = votes_by(rule, voters)
    else:
        scores = [reduced(one["scores"], reduction) or 0 for one in voters]
    ballots = {}
    for one, score in zip(voters, scores):
        ballots.setdefault(grading.canonical_form(one["answer"]), []).append((score, one))
    answer = row["predictions"][rule]
    if answer is None:
        return ballots, None
    votes = ballots.get(grading.canonical_form(answer), [])
    return ballots, max(votes, key=lambda vote: vote[0], default=(None, None))[1]


def tally(ballots):
    """[(sum of the scores, number of votes, answer)] of the ballots that winner() gives."""
    found = []
    for votes in ballots.values():
        found.append((sum(score for score, _ in votes), len(votes), votes[0][1]["answer"]))
    return found


def vote(row, reduction):
    """The solution, the answer it gives and the vote behind it, as text."""
    if "error" in row:
        return f"Failed: {row['error']}"
    rule = own_rule(row)
    ballots, best = winner(row, reduction)
    if best is None:
        texts = [one["text"].strip() for one in row["completions"]]
        finished = sum(one["finished"] for one in row["completions"])
        told = f"No answer: of {len(texts)} solutions {finished} are finished, and none states one"
        return "\n".join([*texts[:1], "", f"{told}. The first is above."]).lstrip()
    lines = [best["text"].strip(), "", f"Answer: {row['predictions'][rule]}"]
    if reduction is not None and (reduced(best["scores"], reduction) or 0) < 0.5:
        lines.append(
            "The PRM does not believe it: it scores the best solution behind it under 0.5."
        )
    scored = reduction is not None or rule in grading.WEIGHTS
    lines += ["", f"  votes{'    scores' if scored else ''}  answer ({rule} wins)"]
    for total, count, answer in sorted(tally(ballots), key=lambda entry: entry[:2], reverse=True):
        score = f" {total:9.3f}" if scored else ""  # without a PRM all totals are 0
        lines.append(f"{count:7}{score}  {answer}")
    silent = len(row["completions"]) - sum(map(len, ballots.values()))
    if silent:
        lines.append(f"{silent:7} of {len(row['completions'])} were cut, or state no answer")
    return "\n".join(lines)
