"""What a user gives, and what can be wrong with it: flags, models, problems. Knows nothing of search or of results.

Whatever a user can get wrong ends in `fail`: one line on stderr, exit code 2, and before any problem is solved.
"""
import argparse
import functools
import json
import math
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

from common import grading

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

# --- models -----------------------------------------------------------------------------------------------------------

def choose_models(args):
    """Fill in what `args` leaves open, and say so in one line."""
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
    with loading("--policy", args.policy) as folder:
        config, tokenizer = AutoConfig.from_pretrained(folder), _tokenizer(folder)
        lengths = [len(encode_prompt(tokenizer, problem["problem"])) for problem in problems]  # a chat template is a program: it can fail
    if getattr(args, "prm", None) is not None and os.path.samefile(folder, model_folder(args.prm, "--prm", args.allow_pickle)):
        fail(f"--policy and --prm are both {args.policy}: name one model that writes and one that scores")
    if not re.search("CausalLM|LMHead", kinds := str(config.architectures or "CausalLM")):
        fail(f"--policy {args.policy} is {kinds}, no plain language model: name one of text alone; a reward model goes to --prm")
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in DynamicCache(config=config).layers):
        fail(f"--policy {args.policy} has layers without attention, whose state cannot be selected by token as a KV cache can: name another")
    context, unread = getattr(config, "max_position_embeddings", math.inf), []
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


def check_writer(args, policy):
    """fail() at a reward model in the policy's place. Its files may be those of a writer, yet it answers "+" or "-"."""
    import torch
    from common import chat
    tokenizer = _tokenizer(model_folder(args.policy, "--policy"))
    step = [{"role": "user", "content": "What is 1 + 1? ## Step 1: Add\n$1+1=2$"}]
    prompt = chat.encode(tokenizer, chat.render(tokenizer, step, add_generation_prompt=True))
    with torch.inference_mode():
        probs = policy(torch.tensor([prompt], device=policy.device)).logits[0, -1].float().softmax(-1)
    if probs[[chat.encode(tokenizer, sign)[-1] for sign in "+-"]].sum() > 0.5:
        fail(f'--policy {args.policy} answers a step by "+" or "-", as a reward model does: swap --policy and --prm')


def device():
    """The torch.device of this process: its own GPU where there is CUDA, else the CPU."""
    import torch
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


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
def model_folder(name, flag, pickles=False):
    """Folder with the whole model `name`: a local one as it is, else the hub's, downloaded where it is missing.

    Pickled weights (.bin), which can run code, are neither downloaded nor taken unless `pickles` is true and there are
    no others. fail()s where a file is missing; a loader notices one that is cut short.
    """
    for weights in ["*.safetensors", "pytorch_model*.bin"] if pickles else ["*.safetensors"]:
        folder = Path(name) if os.path.isdir(name) else _from_hub(name, flag, "model", [weights, "*.json", "*.txt", "*.jinja", "*.model"])
        if any(folder.glob(weights)):
            break
    for pattern in ("config.json", "tokenizer*", weights):
        if not any(folder.glob(pattern)):
            fail(f"{flag} {name} has no {pattern}: name the folder of a whole model, with its weights in safetensors "
                 "(pickles, .bin, can run code: only a PRM's are read, with --allow-pickle)")
    return str(folder)


@contextmanager
def loading(flag, name, pickles=False):
    """The model's folder, for a loader; what that raises becomes one line: fail()s with flag, model and reason."""
    folder = model_folder(name, flag, pickles)
    try:
        yield folder
    except Exception as error:  # of any kind: a checkpoint can be wrong in more ways than a library names
        reason = f"cannot be loaded ({type(error).__name__}: {error}): name another, or download it again if a file is cut short"
        fail(f"{flag} {name}: {error if type(error) is ValueError else reason}")

# --- problems ---------------------------------------------------------------------------------------------------------

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
