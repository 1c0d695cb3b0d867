"""The run: batches of problems through a search, a row for each, and what it cost."""

import hashlib
import inspect
import itertools
import math
import os
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from threading import Thread

import psutil
import torch
import torch.distributed as dist

from common import chat, grading, programs
from harness import models, results
from harness.terminal import RANK, WORLD, bar, fail, note, printable

OWN_RULES = ("tests", "weighted", *grading.WEIGHTS, "majority")
REDUCE = {"last": lambda scores: scores[-1], "min": min, "mean": fmean, "prod": math.prod}


class Meter:
    """Counts what really goes through a model: positions (rows x new tokens, pads too) and FLOPs.

    FLOPs = 2 x parameters x positions, plus 4 x layers x heads x head_dim x rows x new x (past +
    new) for q.k and p.v over all slots, masked ones too. Parameters are all of the model's, but of
    a mixture of experts those that work on a token: the 2N rule of the papers this compares with.
    Embeddings are in it: tied ones do work as the output head, untied ones (6 % of an 8B model)
    come on top.
    """

    def __init__(self, model):
        config = model.config.get_text_config()
        self.attention = 4 * config.num_hidden_layers
        self.attention *= config.num_attention_heads * head_dim(config)
        self.parameters = active_parameters(model)
        self.positions = 0
        self.flops = 0
        model.base_model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, _module, given, kwargs):
        rows, new = (given[0] if given else kwargs["input_ids"]).shape
        cache = kwargs.get("cache", kwargs.get("past_key_values"))  # its name from 5.24 on, before
        past = cache.get_seq_length() if cache is not None else 0
        self.positions += rows * new
        self.flops += 2 * self.parameters * rows * new
        self.flops += self.attention * rows * new * (past + new)

    def take(self):
        """(positions, flops) since the last take."""
        taken = self.positions, self.flops
        self.positions = 0
        self.flops = 0
        return taken


def active_parameters(model):
    """All, but of a mixture of experts only as many experts as a token goes through."""
    total = model.num_parameters()  # knows how 4-bit weights are packed
    for module in model.modules():
        experts = getattr(module, "num_experts", None)
        weights = list(module.parameters(recurse=False))
        if experts and any(weight.dim() == 3 for weight in weights):  # [experts, out, in]
            chosen = model.config.get_text_config().num_experts_per_tok
            total -= sum(weight.numel() for weight in weights) // experts * (experts - chosen)
    return total


class Record:
    """What a search did, step by step. Copied from its Nodes: they hold keys and values."""

    def __init__(self, problems):
        self.tokens = [0] * problems  # sampled for each problem
        self.trees = [[] for _ in range(problems)]
        self.places = [{0: None} for _ in range(problems)]  # number of a node -> where it is

    def add(self, children):
        for child in children:
            tree = self.trees[child.problem]
            places = self.places[child.problem]
            places[child.number] = len(tree)
            self.tokens[child.problem] += len(child.tokens)
            tree.append(
                {
                    "parent": places[child.parent.number],
                    "text": child.text,
                    "tokens": len(child.tokens),
                    "scores": [finite(score) for score in child.scores],
                    "value": finite(child.value),
                }
            )


def finite(number):
    """number, or None for NaN and infinities, which JSON does not have."""
    return float(number) if math.isfinite(number) else None


class Solver:
    """A search with its models and settings: problems in, rows of the result file out."""

    def __init__(self, args, search, policy, tokenizer, prm):
        self.args = args
        self.given = [policy, tokenizer, *([prm] if prm else [])]
        self.search = search
        self.meters = {"policy": Meter(policy)}
        if prm:
            self.meters["prm"] = Meter(prm.model)
        self.settings = {}
        for name, parameter in inspect.signature(search).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and hasattr(args, name):
                self.settings[name] = getattr(args, name)
        if prm:
            self.settings["reduce"] = REDUCE[args.reduction]

    def rows(self, problems, on_step):
        """The whole rows of problems solved side by side.

        Where that fails, each is tried alone, and what fails then is its "error".
        """
        for meter in self.meters.values():
            meter.take()
        record = Record(len(problems))

        def watch(depth, children):
            record.add(children)
            on_step(depth, len(children))

        start = time.perf_counter()
        failure = None
        try:
            found = self.search(
                *self.given,
                [problem["problem"] for problem in problems],
                [self.generator(problem) for problem in problems],
                on_step=watch,
                **self.settings,
            )
            rows = [
                judge(problem, solutions, self.args, tree, places)
                for problem, solutions, tree, places in zip(
                    problems, found, record.trees, record.places, strict=True
                )
            ]
        except Exception as error:
            failure = describe(error)
        if failure is None:
            self.add_usage(rows, record.tokens, time.perf_counter() - start)
            return rows
        torch.cuda.empty_cache()  # most likely memory ran out: begin again with a clean slate
        if len(problems) == 1:
            return [{**problems[0], "error": failure}]
        return [row for problem in problems for row in self.rows([problem], on_step)]

    def generator(self, problem):
        """Each problem's own random stream: neither batch nor order, share or limit change it."""
        stream = hashlib.sha256(f"{self.args.seed}:{problem['id']}".encode()).digest()[:8]
        return torch.Generator().manual_seed(int.from_bytes(stream, "big"))

    def add_usage(self, rows, sampled, seconds):
        """Share what the batch cost among its rows in proportion to the tokens sampled for each.

        The shares add up exactly.
        """
        cost = {"prm": (0, 0)}
        for name, meter in self.meters.items():
            cost[name] = meter.take()
        total = {
            "policy_tokens": cost["policy"][0],
            "prm_tokens": cost["prm"][0],
            "flops": cost["policy"][1] + cost["prm"][1],
        }
        upto = list(itertools.accumulate(sampled, initial=0))
        for i, row in enumerate(rows):
            row["usage"] = {"generated_tokens": sampled[i]}
            for key, value in total.items():
                before = value * upto[i] // upto[-1]
                row["usage"][key] = value * upto[i + 1] // upto[-1] - before
            row["usage"]["seconds"] = round(seconds * sampled[i] / upto[-1], 3)


def describe(error):
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())
    file = os.path.basename(place.filename)
    return f"{type(error).__name__}: {message} ({file}:{place.lineno})"


def judge(problem, solutions, args, tree, places):
    """The problem's row but for its usage.

    Only completions that are finished and state an answer have a vote.
    """
    completions = []
    for solution in solutions:
        completion = {
            "text": solution.text,
            "scores": [finite(score) for score in solution.scores],
            "value": finite(solution.value),
            "tokens": len(solution.tokens),
            "finished": solution.finished,
            "answer": grading.extract_answer(solution.text),
            "path": solution.path,
        }
        if solution.subtree is not None:
            completion["subtree"] = solution.subtree
        if args.keep_tree or args.trace:
            completion["node"] = places[solution.path[-1]]
        completions.append(completion)

    if "tests" in problem:
        predictions, correct = judge_programs(problem, completions, args.reduction)
    else:
        predictions, correct = judge_answers(problem, completions, args.reduction, args.weights)
    row = {
        **problem,
        "finished": sum(one["finished"] for one in completions),
        "distinct": len({tuple(solution.tokens) for solution in solutions}),
        "ancestors": ancestors(solutions),
        "completions": completions,
        "predictions": predictions,
        "correct": correct,
    }
    if args.stop_at is not None:
        row["drawn"] = len(completions)
    if args.keep_tree or args.trace:
        row["tree"] = tree
    return row


def ancestors(solutions):
    """How many steps of each depth the solutions descend from. What ended before is its own."""
    longest = max((len(solution.path) for solution in solutions), default=0)
    depths = range(1, longest + 1)
    return [len({solution.path[:depth][-1] for solution in solutions}) for depth in depths]


def judge_answers(problem, completions, reduction, weights):
    """(answer, right or wrong) by rule."""
    voters = [one for one in completions if one["finished"] and one["answer"] is not None]
    predictions = {"majority": grading.majority([one["answer"] for one in voters])}
    if reduction is not None:
        scored = [one for one in voters if reduced(one["scores"], reduction) is not None]
        scores = [reduced(one["scores"], reduction) for one in scored]
        answers = [one["answer"] for one in scored]
        best = max(zip(scores, answers), key=lambda pair: pair[0], default=(None, None))
        predictions["best"] = best[1]
        predictions["weighted"] = grading.weighted(answers, scores)
    if weights is not None:
        answers = [one["answer"] for one in voters]
        predictions[weights] = grading.weighted(answers, votes_by(weights, voters))
    correct = {}
    if problem["answer"] is not None:
        for rule, answer in predictions.items():
            right = answer is not None and grading.is_correct(answer, problem["answer"])
            correct[rule] = right
    return predictions, correct


def judge_programs(problem, completions, reduction):
    """(program, right or wrong) by rule. Each completion is told whether it passed.

    "tests" takes a program that passes, if there is one: unit tests are the verifier. "best" is the
    PRM's. Programs do not vote, for hardly two are alike. Equal ones are run once.
    """
    written = [programs.extract_program(one["text"]) for one in completions]
    runs = {program: None for program, one in zip(written, completions) if one["finished"]}
    runs.pop(None, None)

    def run(program):
        setup, entry_point = problem.get("setup", ""), problem.get("entry_point")
        return programs.passes(program, problem["tests"], setup, entry_point)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = dict(zip(runs, pool.map(run, runs)))
    for program, one in zip(written, completions):
        one["passed"] = one["finished"] and runs.get(program, False)

    passed = [program for program, one in zip(written, completions) if one["passed"]]
    predictions = {"tests": passed[0] if passed else None}
    correct = {"tests": bool(passed)}
    if reduction is not None:
        scored = []
        for program, one in zip(written, completions):
            score = reduced(one["scores"], reduction)
            if one["finished"] and program is not None and score is not None:
                scored.append((score, program, one["passed"]))
        best = max(scored, key=lambda entry: entry[0], default=(None, None, False))
        predictions["best"], correct["best"] = best[1:]
    return predictions, correct


def votes_by(weights, voters):
    """What each counts by the policy's own certainty: 0 if that was no finite number."""
    sure = [one["value"] for one in voters if one["value"] is not None]
    votes = iter(grading.WEIGHTS[weights](sure))
    return [0.0 if one["value"] is None else next(votes) for one in voters]


def own_rule(row):
    """By which rule the answer is chosen, unless one asks for another: what takes most pains."""
    return next(rule for rule in OWN_RULES if rule in row["predictions"])


def reduced(scores, reduction):
    """One score from those of the steps; None without any, or if one is no finite number."""
    if not scores or None in scores:
        return None
    return REDUCE[reduction](scores)


def rows_side_by_side(args):
    """How many rows to solve problems with: 64, and on a GPU 64 for every 4 GB that the loaded
    models leave free, at most 256.

    A GPU writes a token for one row or for 256 in about the same time. A search with 64 rows of a
    1B policy's and an 8B PRM's keys and values takes 2 GB (results/caches.md). Where that is not
    enough, the searches halve their batches.
    """
    if args.device != "cuda":
        return 64
    free, _ = torch.cuda.mem_get_info(models.device(args))
    return 64 * min(4, max(1, int(free / 4e9)))


def rows_of_a_problem(args):
    """How many steps or solutions of it a search writes side by side. MCTS: `width` at a time."""
    if args.stop_at is not None:
        return min(args.n, args.at_once)
    return max(args.n, getattr(args, "width", 1))


def check_memory(args, policy, tokenizer, prm, problems):
    """fail() if the solutions need more memory than is free whatever they turn out to be.

    That is for each row the numbers that its tokens are drawn by, twice while they are put
    together, and on a CPU the keys and values of the prompt and the logits of one token: a GPU need
    not have all rows in a batch. The n that is proposed would do for solutions of full length.
    """
    config = policy.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None) or math.inf
    tokens = args.max_new_tokens
    if tokens > context:
        fail(
            f"--max-new-tokens {tokens} is more than the context of --policy {args.policy}: name "
            f"{context} at most"
        )
    prompt = len(chat.encode_prompt(tokenizer, problems[0]["problem"], args.system))
    rows = rows_of_a_problem(args) * min(args.batch_problems, len(problems[: args.limit]))
    numbers = 2 * 4 * tokens
    begun = prompt * key_value_bytes(policy) + 4 * config.vocab_size
    whole = min(prompt + tokens, context) * key_value_bytes(policy) + 4 * config.vocab_size
    if prm:
        whole += min(prompt + tokens, context) * key_value_bytes(prm.model)

    free = free_memory()
    if policy.device.type == "cuda":
        needed = rows * numbers
        fit = min(free // numbers, torch.cuda.mem_get_info(policy.device)[0] // whole)
    else:
        needed = rows * (numbers + begun)
        fit = free // (numbers + whole)
    if needed > free:
        flag = "width" if getattr(args, "width", 0) > args.n else "n"
        given = vars(args)[flag]
        fitting = int(0.8 * fit) * given // rows  # some room is for what else there is
        remedy = f"--{flag} {fitting} would fit" if fitting else "name fewer --max-new-tokens"
        if rows > given:
            remedy += f", or fewer than {rows // given} --batch-problems"
        fail(
            f"--{flag} {given} takes at least {needed / 2**30:,.1f} GiB of memory, and "
            f"{free / 2**30:,.1f} GiB are free: {remedy}"
        )


def key_value_bytes(model):
    """Of a token in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_dim(config) * model.dtype.itemsize


def head_dim(config):
    given = getattr(config, "head_dim", None)
    return given or config.hidden_size // config.num_attention_heads


def free_memory():
    """Bytes that are free for this process, in a container no more than its limit leaves."""
    free = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip().isdecimal():
        free = min(free, int(limit.read_text()) - psutil.Process().memory_info().rss)
    return free


def batches_to_do(args, problems, solved):
    """Batches are cut from the file, not from what is left of it. So neither a resume nor the
    number of processes changes them."""
    wanted = problems[: args.limit]
    batches = []
    for first in range(0, len(wanted), args.batch_problems):
        batch = wanted[first : first + args.batch_problems]
        batch = [one for one in batch if one["id"] not in solved]
        if batch:
            batches.append(batch)
    return batches


def is_right(row):
    return "error" not in row and row["correct"].get(own_rule(row), False)


def work(args, solver, problems, output):
    """Solve what output has not yet: this process its share of the batches."""
    batches = []
    right = []  # of each problem done: is the answer of the search's own rule right?
    begun = None
    if RANK == 0:
        now = results.header(args)
        begun = output.header or now
        other = ", ".join(key for key in now if now[key] != begun.get(key))
        if other:
            note(f"{args.output} was begun with other {other}")
        solved = {key: row for key, row in output.rows.items() if "error" not in row}
        batches = batches_to_do(args, problems, solved)
        if not batches:
            note(f"all was solved in {args.output} before: add --overwrite to solve it again")
        right = [is_right(row) for row in solved.values()]
        output.begin(begun)
    if WORLD > 1:
        batches, begun = from_first([batches, begun])

    share = batches[RANK::WORLD]
    progress = bar(total=len(right) + sum(map(len, share)), initial=len(right), unit="problem")
    tokens = 0
    start = time.perf_counter()

    def tell(where=""):
        speed = tokens / (time.perf_counter() - start)
        text = f"{where}{sum(right)} right, {speed:.0f} tokens/s"
        progress.set_postfix_str(text, refresh=False)

    def on_step(depth, count):
        tell(f"step {depth}, {count} rows, ")
        progress.update(0)

    if RANK == 0:
        file = output.file
    else:
        file = open(results.part_file(args.output, RANK), "xb")
        results.append(file, {"part": begun})
    with progress:
        for batch in share:
            more = " ..." if len(batch) > 1 else ""
            progress.set_description_str(printable(batch[0]["id"]) + more, refresh=False)
            rows = solver.rows(batch, on_step)
            results.append(file, *rows)
            for row in rows:
                tokens += row.get("usage", {}).get("generated_tokens", 0)
                right.append(is_right(row))
            tell()
            progress.update(len(rows))
    if WORLD > 1:
        dist.barrier()  # all part files are whole
    if RANK == 0:
        output.sort(problems)


def from_first(given):
    """A list that the first process has, in all. Nothing but it and a barrier goes through here."""
    faults = []

    def meet():
        try:
            dist.init_process_group("gloo", timeout=timedelta(days=30))
        except (RuntimeError, ValueError) as error:
            faults.append(error)

    # In a thread: it waits until all are there, and while it waits Ctrl-C would not be heard.
    waiting = Thread(target=meet, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(0.1)
    for error in faults:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        fail(f"the other processes are not to be reached at {where}: {str(error).splitlines()[0]}")
    dist.broadcast_object_list(given)
    return given
