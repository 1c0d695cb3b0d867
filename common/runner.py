"""Everything around a search: flags and problems in, progress and results out. Knows nothing of search itself.

A script calls, in this order, `ArgumentParser` and `add_run_flags` (before its heavy imports), `choose_models`,
`model_folder`, and `run(args, solve, meters, prm)`, where its own `solve` answers problems side by side.
Whatever a user can get wrong ends in `fail`: one line on stderr, exit code 2, and before any problem is solved.
"""
import argparse
import fcntl
import functools
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
from contextlib import contextmanager
from datetime import timedelta
from importlib import metadata
from pathlib import Path

from common import grading, trace

TINY = os.path.relpath(Path(__file__).resolve().parent.parent / "tiny")
SCRIPT = os.path.basename(sys.argv[0])
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # set by accelerate and torchrun
FAMILIES = "rlhflow", "math-shepherd", "skywork", "qwen-math"  # as in common/prm.py, which takes seconds to import
REDUCE = {"last": lambda scores: scores[-1], "min": min, "prod": math.prod}


def printable(text):
    """`text` with all control characters but newline and tab spelled out: model output must not steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def fail(message):
    """Print `script: error: message` as one line on stderr and raise SystemExit(2)."""
    print(f"{SCRIPT}: error: {' '.join(printable(message).split())}", file=sys.stderr)
    raise SystemExit(2)


def say(text):
    """Print `text` on stdout at once; fail()s where nobody takes it (a full disk, a pipe that was closed)."""
    try:
        print(printable(text), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again when it exits
        fail(f"stdout cannot be written ({error.strerror}): send it elsewhere and give this command again")

# --- command line -----------------------------------------------------------------------------------------------------

class ArgumentParser(argparse.ArgumentParser):
    """argparse with a one-line usage, defaults in the help, no abbreviated flags, and faults told in one line."""

    def __init__(self, **kwargs):
        super().__init__(usage="%(prog)s [flags]", allow_abbrev=False, **kwargs)

    def add_argument(self, *names, **kwargs):
        if "type" in kwargs:
            kwargs.setdefault("metavar", "N")
        if kwargs.get("default") not in (None, argparse.SUPPRESS):
            kwargs["help"] += " (default: %(default)s)"
        return super().add_argument(*names, **kwargs)

    def error(self, message):
        fail(f"{message} (--help lists all flags)")


def _number(convert, accept, wanted):
    def parse(text):
        try:
            if math.isfinite(value := convert(text)) and accept(value):
                return value
        except (ValueError, OverflowError):
            pass
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")
    return parse


positive_int = _number(int, lambda value: value > 0, "a whole number of at least 1")
non_negative_int = _number(int, lambda value: value >= 0, "a whole number of at least 0")
positive_float = _number(float, lambda value: value > 0, "a number above 0")
non_negative_float = _number(float, lambda value: value >= 0, "a number of at least 0")
probability = _number(float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def add_run_flags(parser, prm):
    """Add the flags that every script has; those of a reward model only if `prm`."""
    parser.add_argument("--policy", metavar="MODEL", help="hub id or folder of the model that writes")
    parser.add_argument("--policy-4bit", action="store_true", help="load the policy in 4-bit NF4")
    if prm:
        parser.add_argument("--prm", metavar="MODEL", help="hub id or folder of the reward model")
        parser.add_argument("--prm-family", choices=FAMILIES, metavar="NAME", help=f"{', '.join(FAMILIES)} (detected)")
        parser.add_argument("--allow-pickle", action="store_true", help="read a PRM's pickled weights (.bin)")
        parser.add_argument("--prm-4bit", action=argparse.BooleanOptionalAction, help="PRM in NF4 (default: on GPU)")
        parser.add_argument("--reduction", choices=REDUCE, default="last", help="how step scores become one")
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--problems", metavar="FILE", help="JSONL of problems and answers, or hub id")
    question.add_argument("--problem", metavar="TEXT", help="answer this one question instead")
    parser.add_argument("--limit", type=positive_int, help="take the first N problems only")
    parser.add_argument("--batch-problems", type=positive_int, help="solved side by side (64 / n, on big GPUs more)")
    parser.add_argument("--output", metavar="FILE", help="JSONL of results (default: named in runs/)")
    parser.add_argument("--overwrite", action="store_true", help="drop what the output file holds")
    parser.set_defaults(trace=None)
    if prm:
        parser.add_argument("--trace", metavar="FILE", help="draw searches as HTML; solves all once more")
    parser.add_argument("--seed", type=int, default=0, help="of every random number")

# --- models, problems -------------------------------------------------------------------------------------------------

def choose_models(args):
    """Fill in what `args` leaves open and say so in one line; check all that can be before any weights load."""
    import torch
    from transformers.utils import logging
    logging.disable_progress_bar()  # weights load in seconds; downloads, which do not, have bars of their own
    gpu = torch.cuda.is_available()
    defaults = {"policy": "meta-llama/Llama-3.2-1B-Instruct", "prm": "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",
                "problems": "HuggingFaceH4/MATH-500", "prm_4bit": True} if gpu else {
        "policy": f"{TINY}/policy", "prm": f"{TINY}/prm", "problems": f"{TINY}/problems.jsonl", "prm_4bit": False}
    if args.problem is not None:
        del defaults["problems"]
    taken = {name: value for name, value in defaults.items() if getattr(args, name, "absent") is None}
    vars(args).update(taken)
    flags = [f"--{key.replace('_', '-')}" + f" {value}" * (value is not True) for key, value in taken.items() if value]
    if flags and not gpu and not os.path.isdir(TINY):  # its paths must not pass for ids of the hub
        fail(f"no CUDA GPU here, and the bundled models are gone from {TINY}: give --policy, --prm and --problems")
    if flags and RANK == 0:
        say(f"{'A' if gpu else 'No'} CUDA GPU here: running {' '.join(flags)} (give these to choose)")
    if args.output is None and args.problem is None:
        digest = hashlib.sha256(json.dumps(_identity(args), sort_keys=True).encode()).hexdigest()[:8]
        args.output = f"runs/{Path(SCRIPT).stem}-n{args.n}-seed{args.seed}-{digest}.jsonl"
    problems = load_problems(args)
    if RANK == 0 and args.output is not None:
        resume(args, problems)
    check(args, problems[:args.limit])
    if args.trace is not None:
        check_trace(args)


def check_trace(args):
    """fail() where --trace cannot be had."""
    if not args.trace.endswith(".html"):
        fail(f"--trace {args.trace} would be a page of HTML: give it a name that ends in .html")
    if WORLD > 1:
        fail(f"--trace draws the searches of one process, and these are {WORLD}: start the script by python")
    try:
        open(args.trace, "a").close()
    except OSError as error:
        fail(f"--trace {args.trace} cannot be written ({error.strerror}): name another file")


def check(args, problems):
    """fail() at models not of their kind, prompts beyond the policy's context, and answers with nothing in them."""
    from transformers import AutoConfig, DynamicCache
    from transformers.cache_utils import LinearAttentionCacheLayerMixin
    from common.chat import encode_prompt
    folder, unread = Path(model_folder(args.policy, "--policy")), []
    if getattr(args, "prm", None) is not None and folder.samefile(model_folder(args.prm, "--prm", args.allow_pickle)):
        fail(f"--policy and --prm are both {args.policy}: name one model that writes and one that scores")
    with loading("--policy", args.policy):
        config = AutoConfig.from_pretrained(folder)
    if not re.search("CausalLM|LMHead", kinds := str(config.architectures or "CausalLM")):
        fail(f"--policy {args.policy} is {kinds}, no plain language model: name one of text alone; a reward model goes to --prm")
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in DynamicCache(config=config).layers):
        fail(f"--policy {args.policy} has layers without attention, whose state cannot be selected by token as a KV cache can: name another")
    context = getattr(config, "max_position_embeddings", math.inf)
    try:
        tokenizer = _tokenizer(str(folder))
        lengths = [len(encode_prompt(tokenizer, problem["problem"])) for problem in problems]
    except Exception as error:  # of any kind: a chat template is a program
        fail(f"--policy {args.policy} takes no chat ({error}): name another")
    for problem, length in zip(problems, lengths):
        where, answer = f"problem {problem['id']!r}", problem["answer"] or "1"
        if length >= context:
            fail(f"{where} is too long: a prompt of {length} tokens, of which --policy {args.policy} takes fewer than "
                 f"{context}: shorten or delete it")
        if (key := grading.canonical_form(answer)) == ("text", ""):
            fail(f"{where} has an answer with nothing in it, {answer!r}: write what is right")
        unread += [f"{answer!r} of {where}"] * bool(key[0] == "text" and re.search(r"\\|\d", key[1]))  # not mere words
    if unread and RANK == 0:
        print(printable(f"{SCRIPT}: note: read as text, not as mathematics: the answer {unread[0]}"
                        + f", and those of {len(unread) - 1} more" * (len(unread) > 1)), file=sys.stderr)


def device():
    """The torch.device of this process: its own GPU where there is CUDA, else the CPU."""
    import torch
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


def rows_side_by_side():
    """How many rows to solve problems with: 64, and on a GPU 64 for every 4 GB that the loaded models leave free, at most 256.

    A GPU writes a token for one row or for 256 in about the same time. A search with 64 rows of a 1B policy's and an 8B
    PRM's keys and values takes 3 GB (results/caches.md); where that is not enough, batches halve.
    """
    import torch
    free = torch.cuda.mem_get_info(device())[0] if torch.cuda.is_available() else 0
    return 64 * min(4, max(1, int(free / 4e9)))


def _from_hub(name, flag, kind, patterns):
    """Folder with the files of hub repository `name` that match `patterns`; fail()s with what to do."""
    import huggingface_hub
    from huggingface_hub import errors
    local = f"name a local {'folder' if kind == 'model' else 'JSONL file'}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.endswith(".jsonl"):
        fail(f"{flag} {name} is not here, nor is it a hub id (owner/name): check the spelling or {local}")
    advice = {errors.GatedRepoError: f"accept its licence on huggingface.co/{name} and run `hf auth login`",
              errors.RepositoryNotFoundError: "check the spelling, or run `hf auth login` if it is private"}
    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type=kind, allow_patterns=patterns))
    except Exception as error:  # of any kind: the download failed
        fail(f"{flag} {name} is not here, and the hub did not give it ({type(error).__name__}): "
             f"{advice.get(type(error), 'go online or try again')}, or {local}")


@functools.cache
def _tokenizer(folder):
    """Of the model in `folder`; read once, for one of 128k tokens takes about a second."""
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(folder)


@functools.cache
def model_folder(name, flag, pickles=None):
    """Folder with the whole model `name`: a local one as it is, else the hub's, downloaded where it is missing.

    Pickled weights (.bin), which can run code, are neither downloaded nor taken unless `pickles` is true and there are
    no others; None: this model has no flag --allow-pickle. fail()s where a file is missing or cut.
    """
    from safetensors import safe_open
    folder, weights, others = Path(name), "*.safetensors", ["*.json", "*.txt", "*.jinja", "*.model"]
    if remote := not folder.is_dir():
        folder = _from_hub(name, flag, "model", [weights, *others])
    if pickles and not any(folder.glob(weights)):
        weights = "pytorch_model*.bin"
        folder = _from_hub(name, flag, "model", [weights, *others]) if remote else folder
        print(f"{flag} {name}: reading pickled weights, as --allow-pickle says", file=sys.stderr)
    for pattern in ("config.json", "tokenizer*", weights):
        if not any(folder.glob(pattern)):
            fail(f"{flag} {name} has no {pattern}: name the folder of a whole model, with its weights in safetensors "
                 f"(pickles, .bin, can run code: not read{' without --allow-pickle' if pickles is False else ''})")
    try:
        index = folder / "model.safetensors.index.json"
        shards = json.loads(index.read_text())["weight_map"].values() if index.exists() else os.listdir(folder)
        for shard in {shard for shard in shards if shard.endswith(".safetensors")}:
            safe_open(folder / shard, framework="np")  # reads the header alone, yet notices a file cut short
        _tokenizer(str(folder))
    except Exception as error:  # of any kind: what stands in half a file is anyone's guess
        fail(f"{flag} {name} is only half there ({error}): download it again")
    return str(folder)


@contextmanager
def loading(flag, name):
    """What a loader raises becomes one line: fail()s with flag, model and reason."""
    try:
        yield
    except Exception as error:  # of any kind: a checkpoint can be wrong in more ways than a library names
        reason = str(error) if type(error) is ValueError else f"cannot be loaded ({type(error).__name__}: {error})"
        fail(f"{flag} {name}: {reason}")


def load_problems(args):
    """All problems, in file order: [{"id": str, "problem": str, "answer": str, "level": int | str | None}].

    Reads JSONL with problem, answer and perhaps id (or unique_id) and level, or GSM8K's question and answer ending
    in "#### 42". A hub id means the test.jsonl of that dataset. fail()s at the first fault.
    """
    if args.problem is not None:
        if not args.problem.strip():
            fail("--problem is empty: write the question between quotes")
        return [{"id": "question", "problem": args.problem, "answer": None, "level": None}]
    name, problems, first = args.problems, [], {}
    path = Path(name) if os.path.exists(name) else _from_hub(name, "--problems", "dataset", "test.jsonl") / "test.jsonl"
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--problems {name} cannot be read as JSONL ({error}): save lines of JSON with the fields problem and "
             "answer (GSM8K's own test.jsonl will do: github.com/openai/grade-school-math)")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"--problems {name}, line {number}"
        try:
            record = dict(json.loads(line))
            json.dumps(record, ensure_ascii=False).encode()  # "\ud800" is JSON, but half a character
        except (ValueError, TypeError, RecursionError) as error:
            fail(f"{where} is no JSON object ({error}): mend or delete it")
        fields = record.get("problem", record.get("question")), record.get("answer")
        problem, answer = (str(field).strip() if type(field) in (str, int, float) else "" for field in fields)
        answer = answer.split("####")[-1].strip()
        if not problem or not answer:
            fail(f"{where} has no problem or no answer: add it, as text, or delete the line")
        key = str(record.get("id", record.get("unique_id", number)))
        if first.setdefault(key, number) != number:
            fail(f"{where} has the id {key!r} of line {first[key]}: make them differ")
        problems.append({"id": key, "problem": problem, "answer": answer, "level": record.get("level")})
    return problems or fail(f"--problems {name} is empty: write one problem a line")

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
        self.model, self.parameters = model, model.num_parameters()  # knows how 4-bit weights are packed
        self.positions = self.flops = 0
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module, inputs, kwargs):
        ids = inputs[0] if inputs else kwargs.get("input_ids")
        rows, new = (kwargs["inputs_embeds"] if ids is None else ids).shape[:2]
        cache = kwargs.get("past_key_values")
        slots = new + (cache.get_seq_length() if cache is not None else 0)
        self.positions += rows * new
        self.flops += 2 * self.parameters * rows * new + self.attention * rows * new * slots

    def probability(self, prompt, tokens):
        """That the model goes on from the ids `prompt` with one of the ids `tokens`."""
        import torch
        with torch.inference_mode():
            logits = self.model(torch.tensor([prompt], device=self.model.device)).logits[0, -1]
        return logits.float().softmax(-1)[tokens].sum().item()

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

def reduced(scores, reduction):
    """One score from those of the steps; None without any, or if one is no finite number."""
    return REDUCE[reduction](scores) if scores and None not in scores else None


def judge(problem, completions, reduction):
    """The problem's row but for its usage. Only completions that are finished and state an answer have a vote.

    reduction: None without a PRM; then `majority` is the only rule. NaN and infinite scores are kept as None.
    """
    for completion in completions:
        completion.pop("row", None)  # of a batch, which the file knows nothing of
        completion["answer"] = grading.extract_answer(completion["text"])
        completion["scores"] = [float(score) if math.isfinite(score) else None for score in completion["scores"]]
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


def seed(args, problem):
    """Of the problem's own random stream."""
    return int.from_bytes(hashlib.sha256(f"{args.seed}:{problem['id']}".encode()).digest()[:8], "big")


def attempt(args, solve, meters, problems, on_step):
    """The whole rows of problems solved side by side. Where that fails, each is tried alone; what fails then is its "error".

    What the batch cost is shared among its rows in proportion to the tokens generated for each, and adds up exactly.
    """
    import torch
    generators = [torch.Generator().manual_seed(seed(args, problem)) for problem in problems]
    for meter in meters.values():
        meter.take()
    start, failure = time.perf_counter(), None
    try:
        answers, generated = solve([problem["problem"] for problem in problems], generators, on_step)
        rows = [judge(problem, found, getattr(args, "reduction", None)) for problem, found in zip(problems, answers, strict=True)]
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{type(error).__name__}: {' '.join(str(error).split())} ({os.path.basename(at.filename)}:{at.lineno})"
    if failure:
        torch.cuda.empty_cache()  # most likely memory ran out: let what comes next start from a clean slate
        if len(problems) == 1:
            return [{**problems[0], "error": failure}]
        return [row for problem in problems for row in attempt(args, solve, meters, [problem], on_step)]
    cost = {"prm": (0, 0)} | {name: meter.take() for name, meter in meters.items()}
    total = {"policy_tokens": cost["policy"][0], "prm_tokens": cost["prm"][0], "flops": sum(flops for _, flops in cost.values())}
    seconds, upto = time.perf_counter() - start, list(itertools.accumulate(generated, initial=0))
    for i, row in enumerate(rows):
        share = {key: value * upto[i + 1] // upto[-1] - value * upto[i] // upto[-1] for key, value in total.items()}
        row["usage"] = {"generated_tokens": generated[i], **share, "seconds": round(seconds * generated[i] / upto[-1], 3)}
    return rows


def check_writer(args, policy):
    """fail() at a reward model in the policy's place. Its files may be those of a writer, yet it answers "+" or "-"."""
    from common import chat
    tokenizer = _tokenizer(model_folder(args.policy, "--policy"))
    step = [{"role": "user", "content": "What is 1 + 1? ## Step 1: Add\n$1+1=2$"}]
    prompt = chat.encode(tokenizer, chat.render(tokenizer, step, add_generation_prompt=True))
    if policy.probability(prompt, [chat.encode(tokenizer, sign)[-1] for sign in "+-"]) > 0.5:
        fail(f'--policy {args.policy} answers a step by "+" or "-", as a reward model does: swap --policy and --prm')


def work(args, solve, meters, problems, drawn):
    """Solve what args.output has not yet: this process its share, rows on disk when their batch is done, for --trace in `drawn` too."""
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
        if not dist.is_initialized():  # gloo will do: nothing but this list and a barrier passes through it
            dist.init_process_group("gloo", timeout=timedelta(days=30))
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
            rows = attempt(args, solve, meters, batch, on_step)
            append(file, *rows)
            drawn += rows if args.trace else []
            tokens += sum(row.get("usage", {}).get("generated_tokens", 0) for row in rows)
            right += [row.get("correct", {}).get(rule, False) for row in rows]
            bar.update(len(rows))
        # Still under the lock: a second run that took the file now would take the part files from under those who write them.
        if WORLD > 1:
            dist.barrier()
        if RANK == 0:
            save(args.output, *read_results(args.output), problems).close()


def run(args, solve, meters, prm=None):
    """Solve the problems into args.output and print the table, or answer args.problem. Returns the exit code: 0, 1 if
    problems failed (the same command tries them again), 130 after Ctrl-C.

    solve(problems, generators, on_step) -> (completions of each, generated tokens of each): every problem has a CPU
    torch.Generator of its own, so that neither batch nor order, share or limit changes an answer; on_step(step, rows) shows
    progress; a completion is {"text", "scores": [float a step] ([] without a PRM), "tokens": int, "finished": bool}, and for
    --trace "row": which of the PRM's children it is.
    meters: {"policy": Meter, "prm": Meter}, the latter only where there is a PRM; prm: a PRM, with the history that --trace draws.
    Processes that accelerate or torchrun started share the problems; several machines need one file system.
    """
    if args.output is None:
        with tempfile.TemporaryDirectory() as folder:  # a question asked in passing leaves no file behind
            args.output = f"{folder}/answer.jsonl"
            return run(args, solve, meters, prm)
    problems, stopped, trees, drawn = load_problems(args), False, {}, []

    def traced(questions, generators, on_step):
        answers = solve(questions, generators, on_step)
        for generator, nodes, completions in zip(generators, trace.trees(len(questions), prm.history), answers[0]):
            trees[generator.initial_seed()] = nodes, trace.ends(nodes, completions)
        return answers

    try:
        check_writer(args, meters["policy"])
        work(args, traced if args.trace else solve, meters, problems, drawn)
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
    if drawn := [row for row in drawn if "error" not in row]:
        searches = [trace.search(row, *trees[seed(args, row)], winner(row, args.reduction)[1]) for row in drawn]
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
