"""The command line of a script: its flags, and the run from first check to last line."""

import argparse
import inspect
import math
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from common.families import FAMILIES
from common.prm import load_prm
from harness import models, problems, results, solve, table, trace
from harness.terminal import RANK, cure, fail, say


class Parser(argparse.ArgumentParser):
    """The flags of a search. A flag's default is that of the search function's argument."""

    def __init__(self, search, description):
        super().__init__(usage="%(prog)s [flags]", allow_abbrev=False, description=description)
        self.parameters = inspect.signature(search).parameters
        source = inspect.getsourcefile(inspect.unwrap(search))
        self.set_defaults(script=Path(source).name)
        self.finished = False

    def add(self, flag, kind, help):
        """Add a flag of the search. kind: one of the number types below, or a list of choices."""
        default = self.parameters[flag.removeprefix("--").replace("-", "_")].default
        if default is not None:
            help += " (default: %(default)s)"
        if isinstance(kind, list):
            self.add_argument(flag, choices=kind, default=default, help=help)
        else:
            self.add_argument(flag, type=kind, metavar="N", default=default, help=help)

    def parse_args(self, argv=None):
        if not self.finished:
            self.finished = True
            add_run_flags(self)
        args = super().parse_args(argv)
        unset = object()  # keeps away the defaults: what is left was given
        given = super().parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), unset)))
        args.given = {key: value for key, value in vars(given).items() if value is not unset}
        for key in ("problem", "system"):
            if not is_text(vars(args)[key] or ""):
                self.error(f"--{key} is not text in UTF-8: {vars(args)[key]!a}")
        if args.system and os.path.isfile(args.system):
            self.error(f'--system {args.system} is a file: write --system "$(cat {args.system})"')
        return args

    def error(self, message):
        fail(f"{message} (--help lists all flags)")


def is_text(text):
    """False if it has bytes that are no UTF-8, or halves of a character."""
    try:
        return bool(text.encode()) or True
    except UnicodeEncodeError:
        return False


def number(convert, accept, wanted):
    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and accept(value):
            return value
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")

    return parse


positive_int = number(int, lambda value: value > 0, "a whole number of at least 1")
non_negative_int = number(int, lambda value: value >= 0, "a whole number of at least 0")
positive_float = number(float, lambda value: value > 0, "a number above 0")
non_negative_float = number(float, lambda value: value >= 0, "a number of at least 0")
probability = number(float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def add_run_flags(parser):
    """The flags that every script has. Those of a reward model only where the search takes one."""
    parser.set_defaults(keep_tree=False, trace=None, reduction=None)
    if "weights" not in parser.parameters:
        parser.set_defaults(weights=None, stop_at=None)  # of majority.py
    add = parser.add_argument
    system = parser.parameters["system"].default
    add("--system", metavar="TEXT", default=system, help="system prompt (default: Meta's for MATH)")
    yes_no = argparse.BooleanOptionalAction
    help = "have a policy that can think first do so (default: no)"
    add("--thinking", action=yes_no, default=False, help=help)
    add("--policy", metavar="MODEL", help="hub id or folder of the model that writes")
    add("--policy-4bit", action="store_true", help="load the policy in 4-bit NF4")
    if "prm" in parser.parameters:
        add("--prm", metavar="MODEL", help="hub id or folder of the reward model")
        names = ", ".join(FAMILIES)
        add("--prm-family", choices=FAMILIES, metavar="NAME", help=f"{names} (default: detected)")
        add("--allow-pickle", action="store_true", help="read a PRM's pickled weights (.bin)")
        add("--prm-4bit", action=yes_no, help="PRM in NF4 (default: on a GPU)")
        add(
            "--reduction",
            choices=solve.REDUCE,
            default="last",
            help="how step scores become one (default: last)",
        )
    help = "cuda, cpu, or mps, not tried here (default: found)"
    add("--device", choices=["cuda", "cpu", "mps"], metavar="NAME", help=help)
    help = "bfloat16, float16, float32 (default: by device)"
    add("--dtype", choices=["bfloat16", "float16", "float32"], metavar="NAME", help=help)
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--problems", metavar="FILE", help="JSONL of problems, or hub id")
    question.add_argument("--problem", metavar="TEXT", help="answer this one question instead")
    help = "run what the policy writes against unit tests: no jail"
    add("--run-code", action="store_true", help=help)
    add("--limit", type=positive_int, metavar="N", help="take the first N problems only")
    help = "solved side by side (default: 64 / n, on big GPUs more)"
    add("--batch-problems", type=positive_int, metavar="N", help=help)
    add("--output", metavar="FILE", help="JSONL of results (default: named in runs/)")
    add("--overwrite", action="store_true", help="drop what the output file holds")
    if "prm" in parser.parameters:
        add("--keep-tree", action="store_true", help="put every step sampled into the results")
        add("--trace", metavar="FILE", help="draw the searches as HTML; keeps the trees")
    add("--seed", type=int, metavar="N", default=0, help="of every random number (default: 0)")


def run(args, search, load_policy):
    """Solve the problems into args.output and print the table, or answer args.problem.

    search: the function of a script. load_policy: the script's. Returns the exit code: 0; 1 if
    problems failed (the same command tries them again); 130 after Ctrl-C. Processes that accelerate
    or torchrun started share the problems.
    """
    try:
        if args.problem is None or args.output is not None:
            return solve_and_tell(args, search, load_policy)
        with temporary_folder() as folder:  # a question in passing leaves no file behind
            args.output = os.path.join(folder, "answer.jsonl")
            return solve_and_tell(args, search, load_policy)
    except KeyboardInterrupt:
        return 130


def temporary_folder():
    try:
        return tempfile.TemporaryDirectory()
    except OSError as error:
        fail(f"no temporary file can be made ({error.strerror}): make room in /tmp or set TMPDIR")


def solve_and_tell(args, search, load_policy):
    # 1. What can be checked before any weights load.
    has_prm = "prm" in inspect.signature(search).parameters
    models.choose(args, has_prm)
    results.check_paths(args)
    asked = problems.load(args)
    models.check(args, asked[: args.limit])
    with models.loading("--policy", args.policy) as folder:
        args.policy_weights = results.fingerprint(folder)
    if has_prm:
        with models.loading("--prm", args.prm, args.allow_pickle) as folder:
            args.prm_weights = results.fingerprint(folder)
    results.name_output(args)
    if args.trace is not None:
        trace.check(args.trace, args.output, args.overwrite)

    # The first of several processes has the result file to itself from here to the last line.
    with results.Output(args, asked) if RANK == 0 else nullcontext() as output:
        # 2. The models.
        policy, tokenizer, prm = load_models(args, load_policy, has_prm)
        if args.batch_problems is None:
            rows = solve.rows_of_a_problem(args)
            args.batch_problems = max(1, solve.rows_side_by_side(args) // rows)
        solve.check_memory(args, policy, tokenizer, prm, asked)

        # 3. The run.
        stopped = False
        try:
            solve.work(args, solve.Solver(args, search, policy, tokenizer, prm), asked, output)
        except KeyboardInterrupt:
            stopped = True
        except OSError as error:
            advice = f"{cure(error) or 'mend that'}, then give this command again"
            fail(f"--output {args.output} cannot be written ({error.strerror}): {advice}")
        if RANK > 0:
            return 130 if stopped else 0

        # 4. What came of it.
        rows = results.read(args.output)[1] if output.header else {}
        done = [rows[problem["id"]] for problem in asked[: args.limit] if problem["id"] in rows]
        if args.problem is None:
            say(table.table(args, done, len(asked), args.device == "cuda"))
        elif done:
            say(table.vote(done[0], args.reduction))
        if args.trace is not None:
            trace.write(args.trace, args.output, done, args.reduction, args.overwrite)
    if stopped:
        return 130
    return int(any("error" in row for row in done))


def load_models(args, load_policy, has_prm):
    """(policy, tokenizer, prm). prm is None where the search has none."""
    with models.loading("--policy", args.policy) as folder:
        policy, tokenizer = load_policy(
            folder,
            four_bit=args.policy_4bit,
            device=models.device(args),
            dtype=getattr(torch, args.dtype),
        )
        models.check_writer(args, policy, tokenizer)
    prm = None
    if has_prm:
        with models.loading("--prm", args.prm, args.allow_pickle) as folder:
            prm = load_prm(
                folder,
                family=args.prm_family,
                four_bit=args.prm_4bit,
                device=policy.device,
                dtype=getattr(torch, args.dtype),
                allow_pickle=args.allow_pickle,
            )
    models.limit_threads(policy, prm)
    return policy, tokenizer, prm
