"""A run: problems in, progress and results out. Knows nothing of search itself.

A script calls `inputs.ArgumentParser` and `inputs.add_run_flags` (before its heavy imports), `prepare`, `inputs.loading`, and
`run(args, problems, solve, policy, prm)`, where its own `solve` answers problems side by side.
"""
import fcntl
import glob
import hashlib
import itertools
import json
import math
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import timedelta
from importlib import metadata
from pathlib import Path

from common import grading, inputs, trace
from common.inputs import RANK, REDUCE, SCRIPT, WORLD, fail, printable, say

# --- cost -------------------------------------------------------------------------------------------------------------

class Meter:
    """Counts what really goes through a model: positions (rows x new tokens, pads included) and FLOPs.

    FLOPs = 2 x parameters x positions, plus 4 x layers x heads x head_dim x rows x new x (past + new) for q.k and
    p.v over all slots, masked ones too. Parameters are all of the model's: the 2N rule of the papers this compares
    with. Embeddings are in it; tied ones do work as the output head, untied ones (6% of an 8B model) come on top.
    """

    def __init__(self, model):
        config = model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.attention = 4 * config.num_hidden_layers * config.num_attention_heads * head_dim
        self.parameters = model.num_parameters()  # knows how 4-bit weights are packed
        self.positions = self.flops = 0
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module, given, kwargs):
        rows, new = (given[0] if given else kwargs["input_ids"]).shape
        cache = kwargs.get("past_key_values")
        slots = new + (cache.get_seq_length() if cache is not None else 0)
        self.positions += rows * new
        self.flops += 2 * self.parameters * rows * new + self.attention * rows * new * slots

    def take(self):
        """(positions, flops) since the last take."""
        taken, self.positions, self.flops = (self.positions, self.flops), 0, 0
        return taken

# --- results file -----------------------------------------------------------------------------------------------------

def _identity(args):
    """What decides every answer, and so must be equal where a run goes on with a file."""
    free = ("limit", "output", "overwrite", "batch_problems", "allow_pickle", "trace")
    return {"script": SCRIPT} | {k: v for k, v in vars(args).items() if k not in free}


def _header(args):
    """First line of a result file: the arguments and what else explains the figures."""
    import torch
    git = subprocess.run("GIT_OPTIONAL_LOCKS=0 git describe --always --dirty --abbrev=40 --exclude='*'", shell=True,
                         cwd=os.path.dirname(os.path.abspath(sys.argv[0])), capture_output=True, text=True)
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "accelerate", "bitsandbytes")}
    return _identity(args) | {"commit": git.stdout.strip() or None, "versions": versions,
                              "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}


def read_results(output):
    """(header, {id: row}) of a result file and the part files of other processes; fail()s if it is something else.

    A line without its newline was cut off by a kill and does not count. A solved row beats a failed one.
    """
    paths = [output, *glob.glob(f"{glob.escape(output)}.part[0-9]*")]
    lines = [line for path in paths for line in Path(path).read_bytes().split(b"\n")[:-1]]
    try:
        header, rows = dict(json.loads(lines[0])["run"]), {}
        for row in map(json.loads, lines[1:]):
            if "error" in rows.setdefault(row["id"], row):
                rows[row["id"]] = row
        return header, rows
    except (ValueError, IndexError, KeyError, TypeError):
        fail(f"--output {output} is no result file, or a damaged one, and stays as it is: name another --output")


def resume(args, problems):
    """(header, {id: row}) of what args.output holds already; (None, {}) where this run begins it.

    fail()s, and leaves all as it is, if the file cannot be written, is no result file, or another run's.
    """
    output, folder, remedy = args.output, os.path.dirname(os.path.realpath(args.output)), "name another --output"
    if os.path.exists(output or ".") and not os.path.isfile(output):
        fail(f"--output {output} is not a plain file: {remedy}")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 20))  # a full disk shows here, before the work
        if not os.path.exists(output) or os.path.getsize(output) == 0:
            return None, {}
        with open(output, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        header, rows = read_results(output)
    except BlockingIOError:
        fail(f"--output {output} is being written by another run: wait for it or {remedy}")
    except OSError as error:
        fail(f"--output {output} cannot be written ({error.strerror}): make room or {remedy}")
    if args.overwrite:
        return None, {}
    differing = [f"{k} {header.get(k)!r} there, {v!r} here" for k, v in _identity(args).items() if header.get(k) != v]
    known = {(problem["id"], problem["problem"], problem["answer"]) for problem in problems}
    differing += [f"another problem {key!r}" for key, row in rows.items()
                  if (key, row.get("problem"), row.get("answer")) not in known][:1]
    if differing:
        fail(f"--output {output} is of another run ({'; '.join(differing)}): {remedy}, or drop it by --overwrite")
    return header, rows


def append(file, *rows):
    """Write `rows` and return when they are on the disk."""
    file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    file.flush()
    os.fsync(file.fileno())


def save(output, header, rows, problems):
    """Replace the file, rows in problem order, so that a kill leaves the old or the new one whole; the open file."""
    target = os.path.realpath(output)
    file = open(f"{target}.new", "wb")
    fcntl.flock(file, fcntl.LOCK_EX)  # by this `resume` knows that a run is alive
    append(file, {"run": header}, *(rows[problem["id"]] for problem in problems if problem["id"] in rows))
    os.replace(f"{target}.new", target)
    for part in glob.glob(f"{glob.escape(output)}.part[0-9]*"):
        os.remove(part)
    return file

# --- the run ----------------------------------------------------------------------------------------------------------

def prepare(args):
    """The problems. Fills in what `args` leaves open; checks all that can be before any weights load."""
    inputs.choose_models(args)
    if args.output is None and args.problem is None:
        digest = hashlib.sha256(json.dumps(_identity(args), sort_keys=True).encode()).hexdigest()[:8]
        args.output = f"runs/{Path(SCRIPT).stem}-n{args.n}-seed{args.seed}-{digest}.jsonl"
    problems = inputs.load_problems(args)
    if RANK == 0 and args.output is not None:
        resume(args, problems)
    inputs.check(args, problems[:args.limit])
    if args.trace is not None:
        inputs.check_trace(args)
    return problems


def reduced(scores, reduction):
    """One score from those of the steps; None without any, or if one is no finite number."""
    return REDUCE[reduction](scores) if scores and None not in scores else None


def judge(problem, completions, reduction):
    """The problem's row but for its usage. Only completions that are finished and state an answer have a vote.

    reduction: None without a PRM; then `majority` is the only rule. NaN and infinite scores are kept as None.
    """
    completions = [{"text": c["text"], "scores": [float(score) if math.isfinite(score) else None for score in c["scores"]],
                    "tokens": c["tokens"], "finished": c["finished"], "answer": grading.extract_answer(c["text"])} for c in completions]
    voters = [c for c in completions if c["finished"] and c["answer"] is not None]
    predictions = {"majority": grading.majority([c["answer"] for c in voters])}
    if reduction is not None:
        scored = [(score, c["answer"]) for c in voters if (score := reduced(c["scores"], reduction)) is not None]
        predictions["best"] = max(scored, key=lambda pair: pair[0], default=(None, None))[1]
        predictions["weighted"] = grading.weighted([answer for _, answer in scored], [score for score, _ in scored])
    correct = {rule: answer is not None and grading.is_correct(answer, problem["answer"])
               for rule, answer in predictions.items() if problem["answer"] is not None}
    finished = sum(completion["finished"] for completion in completions)  # of the n asked for
    return {**problem, "finished": finished, "completions": completions, "predictions": predictions, "correct": correct}


def attempt(args, solve, meters, problems, on_step, draw):
    """The whole rows of problems solved side by side. Where that fails, each is tried alone; what fails then is its "error".

    What the batch cost is shared among its rows in proportion to the tokens generated for each, and adds up exactly.
    """
    import torch
    streams = [hashlib.sha256(f"{args.seed}:{problem['id']}".encode()).digest()[:8] for problem in problems]
    generators = [torch.Generator().manual_seed(int.from_bytes(stream, "big")) for stream in streams]
    for meter in meters.values():
        meter.take()
    start, failure = time.perf_counter(), None
    try:
        answers, generated = solve([problem["problem"] for problem in problems], generators, on_step)
        rows = [judge(problem, found, getattr(args, "reduction", None)) for problem, found in zip(problems, answers, strict=True)]
        if args.trace:
            draw(rows, answers)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{type(error).__name__}: {' '.join(str(error).split())} ({os.path.basename(at.filename)}:{at.lineno})"
    if failure:
        torch.cuda.empty_cache()  # most likely memory ran out: let what comes next start from a clean slate
        if len(problems) == 1:
            return [{**problems[0], "error": failure}]
        return [row for problem in problems for row in attempt(args, solve, meters, [problem], on_step, draw)]
    cost = {"prm": (0, 0)} | {name: meter.take() for name, meter in meters.items()}
    total = {"policy_tokens": cost["policy"][0], "prm_tokens": cost["prm"][0], "flops": sum(flops for _, flops in cost.values())}
    seconds, upto = time.perf_counter() - start, list(itertools.accumulate(generated, initial=0))
    for i, row in enumerate(rows):
        share = {key: value * upto[i + 1] // upto[-1] - value * upto[i] // upto[-1] for key, value in total.items()}
        row["usage"] = {"generated_tokens": generated[i], **share, "seconds": round(seconds * generated[i] / upto[-1], 3)}
    return rows


def rows_side_by_side():
    """How many rows to solve problems with: 64, and on a GPU 64 for every 4 GB that the loaded models leave free, at most 256.

    A GPU writes a token for one row or for 256 in about the same time. A search with 64 rows of a 1B policy's and an 8B
    PRM's keys and values takes 3 GB (results/caches.md); where that is not enough, batches halve.
    """
    import torch
    free = torch.cuda.mem_get_info(inputs.device())[0] if torch.cuda.is_available() else 0
    return 64 * min(4, max(1, int(free / 4e9)))


def work(args, solve, meters, problems, draw):
    """Solve what args.output has not yet: this process its share, rows on disk when their batch is done."""
    import torch.distributed as dist
    from tqdm import tqdm
    todo, right, rule = [], [], "weighted" if "prm" in meters else "majority"
    if RANK == 0:
        now, (header, rows) = _header(args), resume(args, problems)
        if header and header != now:
            print(f"{SCRIPT}: note: {args.output} was begun with another "
                  f"{', '.join(key for key in now if now[key] != header.get(key))}", file=sys.stderr)
        # A tree is drawn from the search itself, so for --trace all is solved again, and the file keeps what it has.
        solved = {key: row for key, row in rows.items() if "error" not in row and not args.trace}
        wanted, size = problems[:args.limit], args.batch_problems or max(1, rows_side_by_side() // args.n)
        # Batches are cut from the file, not from what is left: then neither a resume nor the number of processes changes them.
        batches = [[problem for problem in wanted[first:first + size] if problem["id"] not in solved] for first in range(0, len(wanted), size)]
        todo = [batch for batch in batches if batch]
        if not todo:
            print(f"{SCRIPT}: note: all was solved in {args.output} before: add --overwrite to solve it again", file=sys.stderr)
        right = [row["correct"].get(rule, False) for row in solved.values()]
        file = save(args.output, header or now, rows, problems)
    if WORLD > 1:
        dist.init_process_group("gloo", timeout=timedelta(days=30))  # nothing but this list and a barrier passes through it
        dist.broadcast_object_list(shared := [todo])
        todo = shared[0]
    if RANK > 0:
        file = open(f"{args.output}.part{RANK}", "ab")
    share, tokens, start = todo[RANK::WORLD], 0, time.perf_counter()
    with file, tqdm(total=len(right) + sum(map(len, share)), initial=len(right), unit="problem", disable=RANK > 0, miniters=0,
                    delay=1, mininterval=0.2 if sys.stderr.isatty() else 60, dynamic_ncols=True) as bar:
        def on_step(step, alive):
            speed = tokens / (time.perf_counter() - start)
            bar.set_postfix_str(f"step {step}, {alive} rows, {sum(right)} right, {speed:.0f} tokens/s", refresh=False)
            bar.update(0)
        for batch in share:
            bar.set_description_str(printable(batch[0]["id"]) + " ..." * (len(batch) > 1), refresh=False)
            rows = attempt(args, solve, meters, batch, on_step, draw)
            append(file, *rows)
            tokens += sum(row.get("usage", {}).get("generated_tokens", 0) for row in rows)
            right += [row.get("correct", {}).get(rule, False) for row in rows]
            bar.update(len(rows))
        # Still under the lock: a second run that took the file now would take the part files from under those who write them.
        if WORLD > 1:
            dist.barrier()
        if RANK == 0:
            save(args.output, *read_results(args.output), problems).close()


def run(args, problems, solve, policy, prm=None):
    """Solve the problems into args.output and print the table, or answer args.problem. Returns the exit code: 0, 1 if
    problems failed (the same command tries them again), 130 after Ctrl-C.

    solve(problems, generators, on_step) -> (completions of each, generated tokens of each): every problem has a CPU
    torch.Generator of its own, so that neither batch nor order, share or limit changes an answer; on_step(step, rows) shows
    progress; a completion is {"text", "scores": [float a step] ([] without a PRM), "tokens": int, "finished": bool}, and for
    --trace "row": which of the PRM's children it is.
    Processes that accelerate or torchrun started share the problems; several machines need one file system.
    """
    if args.output is None:
        with tempfile.TemporaryDirectory() as folder:  # a question asked in passing leaves no file behind
            args.output = f"{folder}/answer.jsonl"
            return run(args, problems, solve, policy, prm)
    meters, stopped, searches = {"policy": Meter(policy)} | ({"prm": Meter(prm.model)} if prm else {}), False, []

    def draw(rows, answers):
        for row, completions, nodes in zip(rows, answers, trace.trees(len(rows), prm.history)):
            searches.append(trace.search(row, nodes, trace.ends(nodes, completions), winner(row, args.reduction)[1]))

    try:
        inputs.check_writer(args, policy)
        work(args, solve, meters, problems, draw)
    except KeyboardInterrupt:
        stopped = True
    except OSError as error:
        fail(f"--output {args.output} cannot be written ({error.strerror}): make room, then give this command again")
    if RANK > 0:
        return 130 if stopped else 0
    rows = read_results(args.output)[1] if os.path.exists(args.output) else {}
    done = [rows[problem["id"]] for problem in problems[:args.limit] if problem["id"] in rows]
    if args.problem is None:
        say(table(args, done, len(problems)))
    elif done:
        say(vote(done[0], getattr(args, "reduction", None)))
    if searches:
        try:
            trace.write(args.trace, f"{SCRIPT} {shlex.join(sys.argv[1:])}", searches)
        except OSError as error:
            fail(f"--trace {args.trace} cannot be written ({error.strerror}): name another file")
        say(f"trees in {args.trace}: open it in a browser")
    return 130 if stopped else int(any("error" in row for row in done))


def winner(row, reduction):
    """(ballots, winner): for each answer's canonical form the [(score, completion)] that vote for it; of those for the
    answer chosen the completion with the highest score, None if none was."""
    ballots, answer = {}, row["predictions"]["majority" if reduction is None else "weighted"]
    for c in row["completions"]:
        if c["finished"] and c["answer"] is not None:
            ballots.setdefault(grading.canonical_form(c["answer"]), []).append((reduced(c["scores"], reduction) or 0, c))
    return ballots, answer and max(ballots[grading.canonical_form(answer)], key=lambda ballot: ballot[0])[1]


def vote(row, reduction):
    """The solution, the answer it gives and the vote behind it, as text."""
    if "error" in row:
        return f"Failed: {row['error']}"
    rule = "majority" if reduction is None else "weighted"
    ballots, best = winner(row, reduction)
    if best is None:
        return f"No answer: of {len(row['completions'])} completions none is finished, states one and may vote."
    tally = sorted(((sum(score for score, _ in ballot), len(ballot), ballot[0][1]["answer"])
                    for ballot in ballots.values()), reverse=True)
    return "\n".join([best["text"].strip(), "", f"Answer: {row['predictions'][rule]}", "", f"  votes    scores  answer ({rule} wins)"]
                     + [f"{count:7} {score:9.3f}  {text}" for score, count, text in tally])


def wilson(right, total):
    """95% interval (low, high) of the share right / total; unlike right +- 2 sigma it is sound near 0 and 1."""
    z, p = 1.959964, right / total
    centre, spread = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, (centre - spread) / (1 + z * z / total)), min(1.0, (centre + spread) / (1 + z * z / total))


def table(args, done, total):
    """Accuracy by rule and by (at most 9) levels, failed problems being wrong, mean cost, and how to go on, as text."""
    import torch
    wanted, solved = min(args.limit or total, total), [row for row in done if "error" not in row]
    lines = [f"{len(done)} of {wanted} problems done, {len(done) - len(solved)} of them failed"]
    if solved:
        rules, levels = solved[0]["predictions"], sorted({str(row["level"]) for row in done} - {"None"})
        lines.append("accuracy, % [95 % interval]" + ", overall and by level" * bool(levels))
        lines.append(" " * 14 + "".join(f"{rule:<21}" for rule in rules))
        for level in ["all", *(levels if len(levels) < 10 else [])]:
            group = [row for row in done if level in ("all", str(row["level"]))]
            lines.append(f"  {level:<12}")
            for rule in rules:
                right = sum(row.get("correct", {}).get(rule, False) for row in group)
                low, high = wilson(right, len(group))
                lines[-1] += f"{f'{right / len(group):6.1%} [{low:.1%}, {high:.1%}]'.replace('%', ''):<21}"
        completions = [completion for row in solved for completion in row["completions"]]
        finished, bad = sum(c["finished"] for c in completions), sum(None in c["scores"] for c in completions)
        mean = {key: sum(row["usage"][key] for row in solved) / len(solved) for key in solved[0]["usage"]}
        mean |= {"gflop": mean["flops"] / 1e9, "finished": finished / len(solved), "cut": (len(completions) - finished) / len(solved)}
        cost = ("a problem: {finished:.1f} completions finished, {cut:.1f} cut; {gflop:,.1f} GFLOP, {seconds:.2f} s\n"
                "  {generated_tokens:,.0f} tokens generated, {policy_tokens:,.0f} forwarded by the policy")
        lines.append((cost + ", {prm_tokens:,.0f} by the PRM" * ("best" in rules)).format(**mean))
        lines += [f"{bad} completions had NaN or infinite scores, and no say in best and weighted"] * (bad > 0)
    lines += [f"failed: {row['id']}: {row['error']}"[:118] for row in done if "error" in row][:3]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else memory
    lines += [f"peak memory {memory / 2**30:.2f} GiB (of this process)", f"results in {args.output}"]
    launcher = "python" if WORLD == 1 else f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', WORLD)} --"
    command = f"{launcher} {shlex.join(argument for argument in sys.argv if argument != '--overwrite')}"
    command = re.sub(r" --trace[ =]('[^']*'|\S+)", "", command)  # what is solved cannot be drawn any more
    if len(solved) == wanted:
        command = re.sub(r" --limit[ =]\d+", "", command) + f" --limit {min(2 * wanted, total)}"
    return "\n".join(line.rstrip() for line in lines + [f"to go on: {command}"] * (len(solved) < total))
