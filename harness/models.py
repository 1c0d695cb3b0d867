"""Which models, where their files are, and what can be wrong with them."""

import functools
import json
import math
import os
import re
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import errors
from transformers import AutoConfig, AutoTokenizer, DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin
from transformers.utils import logging

from common import chat, grading
from common.prm import read_family
from harness import results
from harness.terminal import RANK, bar, cure, fail, note, say

TINY = os.path.relpath(Path(__file__).resolve().parent.parent / "tiny")
SMALL = 100_000_000  # parameters: below, threads cost more than they bring


def choose(args, has_prm):
    """Fill in the models and problems that args leaves open, and say so in one line."""
    logging.disable_progress_bar()  # weights load in seconds; downloads have bars of their own
    logging.set_verbosity_error()  # what is wrong is told in one line
    getLogger("bitsandbytes").setLevel(ERROR)  # it misses packages that it does not need
    gpu = find_device(args)
    if gpu:
        defaults = {
            "policy": "meta-llama/Llama-3.2-1B-Instruct",
            "prm": "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",
            "problems": "HuggingFaceH4/MATH-500",
            "prm_4bit": True,
        }
    else:
        defaults = {
            "policy": f"{TINY}/policy",
            "prm": f"{TINY}/prm",
            "problems": f"{TINY}/problems.jsonl",
            "prm_4bit": False,
        }
    if args.problem is not None:
        del defaults["problems"]
    if not has_prm:
        del defaults["prm"], defaults["prm_4bit"]
    taken = {key: value for key, value in defaults.items() if getattr(args, key) is None}
    vars(args).update(taken)
    flags = []
    for key, value in taken.items():
        flag = "--" + key.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value:
            flags.append(f"{flag} {value}")
    if flags and not gpu and not os.path.isdir(TINY):  # its paths must not pass for hub ids
        fail(
            f"no CUDA GPU here, and the bundled models are gone from {TINY}: "
            "give --policy, --prm and --problems"
        )
    if flags and RANK == 0:
        found = "A" if gpu else "No"
        lost = not gpu and "prm" in taken and "policy" not in taken
        told = f"; {TINY}/prm knows the bundled problems only" if lost else ""
        say(f"{found} CUDA GPU here: running {' '.join(flags)} (give these to choose{told})")


def find_device(args):
    """Fill in args.device and args.dtype. Returns whether it is a CUDA GPU."""
    gpu = torch.cuda.is_available()
    if args.device == "cuda" and not gpu:
        fail("--device cuda: PyTorch finds no CUDA GPU here: leave it out, or see nvidia-smi")
    if args.device == "mps" and not torch.backends.mps.is_available():
        fail("--device mps: PyTorch finds no Apple GPU here: leave it out")
    args.device = args.device or ("cuda" if gpu else "cpu")
    args.dtype = args.dtype or ("float32" if args.device == "cpu" else "bfloat16")
    return args.device == "cuda"


def device(args):
    """The torch.device of this process: of several GPUs its own."""
    if args.device == "cuda":
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    return torch.device(args.device)


def limit_threads(policy, prm):
    """One thread for small models on a CPU, unless OMP_NUM_THREADS says otherwise."""
    sizes = [model.num_parameters() for model in (policy, prm and prm.model) if model]
    if policy.device.type == "cpu" and max(sizes) < SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


# --- files ----------------------------------------------------------------------------------------


@functools.cache
def model_folder(name, flag, pickles=False):
    """Folder with the whole model: a local one as it is, else the hub's, downloaded if missing.

    Pickled weights (.bin), which can run code, are neither downloaded nor taken unless `pickles` is
    true and there are no others. fail()s where a file is missing.
    """
    for weights in ["*.safetensors", "pytorch_model*.bin"] if pickles else ["*.safetensors"]:
        if os.path.isdir(name):
            folder = Path(name)
        else:
            patterns = [weights, "*.json", "*.txt", "*.jinja", "*.model"]
            folder = from_hub(name, flag, "model", patterns)
        if any(folder.glob(weights)):
            break
    check_files(flag, name, folder)
    if os.path.isdir(name) and not pickles and any(folder.glob(weights)):
        for pickle in folder.glob("pytorch_model*.bin"):
            fail(f"{flag} {name} has {pickle.name} beside its safetensors: delete one of the two")
    for pattern in ("config.json", "tokenizer*", weights):
        if not any(folder.glob(pattern)):
            fail(
                f"{flag} {name} has no {pattern}: name the folder of a whole model, with its "
                "weights in safetensors (pickles, .bin, can run code: only a PRM's are read, with "
                "--allow-pickle)"
            )
    return str(folder)


def check_files(flag, name, folder):
    """fail() at files that cannot be read, or that transformers would pass over without a word."""
    if (folder / "adapter_config.json").exists():
        fail(f"{flag} {name} has an adapter: merge it into its model, and name that")
    for path in sorted(folder.iterdir()):
        if path.suffix in results.OF_A_MODEL and not path.is_file():
            fail(f"{flag} {name}: {path.name} is not a plain file: download it again")
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            fail(f"{flag} {name}: {path.name} is no JSON ({error}): download it again")


def from_hub(name, flag, kind, patterns):
    """Folder with the files of a hub repository that match patterns. fail()s with what to do."""
    local = f"name a local {'folder' if kind == 'model' else 'JSONL file'}"
    if kind == "model" and os.path.isfile(name):
        fail(f"{flag} {name} is a file: name the folder that it is in")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.endswith((".jsonl", ".parquet")):
        fail(
            f"{flag} {name} is not here, nor is it a hub id (owner/name): "
            f"check the spelling or {local}"
        )
    advice = {
        errors.GatedRepoError: f"accept its licence at huggingface.co/{name}, `hf auth login`",
        errors.RepositoryNotFoundError: "check the spelling, or `hf auth login` if it is private",
    }
    try:
        folder = huggingface_hub.snapshot_download(name, repo_type=kind, allow_patterns=patterns)
        return Path(folder)
    except Exception as error:  # of any kind: the download failed
        what = advice.get(type(error), "go online or try again")
        reason = f"is not here, and the hub did not give it ({type(error).__name__})"
        fail(f"{flag} {name} {reason}: {what}, or {local}")


@contextmanager
def loading(flag, name, pickles=False):
    """The model's folder, for a loader. What that raises becomes one line."""
    try:
        yield model_folder(name, flag, pickles)
    except Exception as error:  # of any kind: a checkpoint can be wrong in many ways
        if "trust_remote_code" in str(error):
            fail(f"{flag} {name} needs code that comes with it, which is never run: name another")
        if type(error) is ValueError:
            fail(f"{flag} {name}: {error}")
        if isinstance(error, OSError) and error.errno:  # of the system, not of what a file holds
            what = f"{error.strerror}: {error.filename}"
            fail(f"{flag} {name} cannot be read ({what}): {cure(error) or 'mend that'}, try again")
        fail(
            f"{flag} {name}: cannot be loaded ({type(error).__name__}: {error}): "
            "name another, or download it again if a file is cut short"
        )


# --- checks ---------------------------------------------------------------------------------------


def check(args, problems):
    """fail() at models not of their kind, prompts beyond the context, and answers without any."""
    with loading("--policy", args.policy) as folder:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        # A chat template is a program: it can fail.
        prompts = []
        for one in bar(problems, desc="checking the prompts", leave=False):
            text = one["problem"]
            prompts.append(chat.encode_prompt(tokenizer, text, args.system, args.thinking))
        if args.thinking:
            text = problems[0]["problem"]
            if prompts[0] == chat.encode_prompt(tokenizer, text, args.system):
                raise ValueError("its chat template has no switch for --thinking: leave that out")
    check_vocabulary("--policy", args.policy, config, tokenizer)
    prm = getattr(args, "prm", None)
    if prm and os.path.samefile(folder, model_folder(prm, "--prm", args.allow_pickle)):
        same = f"--policy and --prm are both {args.policy}"
        fail(f"{same}: name one model that writes and one that scores")
    kinds = str(config.architectures or "CausalLM")
    if not re.search("CausalLM|LMHead", kinds):
        fail(
            f"--policy {args.policy} is {kinds}, no plain language model: name one of text alone; "
            "a reward model goes to --prm"
        )
    layers = DynamicCache(config=config).layers
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers):
        fail(
            f"--policy {args.policy} has layers without attention, whose state cannot be selected "
            "by token as a KV cache can: name another"
        )
    check_lengths("--policy", args.policy, config, problems, map(len, prompts))
    if prm:
        with loading("--prm", prm, args.allow_pickle) as folder:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            tokenizer, family = read_family(folder, args.prm_family)
            lengths = [len(family.opening(one["problem"].strip())) for one in problems]
        check_vocabulary("--prm", prm, config, tokenizer)
        check_lengths("--prm", prm, config, problems, lengths)
    check_answers(problems)


def check_lengths(flag, name, config, problems, lengths):
    """fail() at a problem that fills a model's context. lengths: of each, in tokens."""
    context = getattr(config, "max_position_embeddings", None) or math.inf
    if flag == "--prm":
        context = min(context, getattr(config, "sliding_window", None) or math.inf)
    for problem, length in zip(problems, lengths):
        if length >= context:
            fail(
                f"problem {problem['id']!r} is too long: a prompt of {length} tokens, of "
                f"which {flag} {name} takes fewer than {context}: shorten or delete it"
            )


def check_vocabulary(flag, name, config, tokenizer):
    """fail() at a tokenizer of another model, whose tokens this one does not have."""
    known = config.get_text_config().vocab_size
    if len(tokenizer) > known:
        fail(
            f"{flag} {name}: its tokenizer has {len(tokenizer)} tokens and the model {known}: "
            "they are not of one model, download it again"
        )


def check_answers(problems):
    unread = []
    for problem in bar(problems, desc="checking the answers", leave=False):
        answer = problem["answer"]
        if answer is None or answer.isdecimal():  # nothing to parse
            continue
        key = grading.canonical_form(answer)
        if key == ("text", ""):
            where = f"problem {problem['id']!r}"
            fail(f"{where} has an answer with nothing in it, {answer!r}: write what is right")
        if key[0] == "text" and re.search(r"\\|\d", key[1]):  # not mere words
            unread.append(f"{answer!r} of problem {problem['id']!r}")
    if unread:
        more = f", and those of {len(unread) - 1} more" if len(unread) > 1 else ""
        note(f"read as text, not as mathematics: the answer {unread[0]}{more}")


def check_writer(args, policy, tokenizer):
    """fail() at a policy that the searches cannot use, or that is a reward model: its files may be
    those of a writer, yet it answers "+" or "-"."""
    step = "What is 1 + 1? ## Step 1: Add\n$1+1=2$"
    prompt = torch.tensor([chat.encode_prompt(tokenizer, step, "")], device=policy.device)
    cache = DynamicCache(config=policy.config)
    with torch.inference_mode():
        output = policy(prompt, past_key_values=cache)
    shapes = set()
    for layer in cache.layers:
        shapes |= {(kv.shape[1], kv.shape[3]) for kv in (layer.keys, layer.values)}
    if len(shapes) > 1:
        fail(
            f"--policy {args.policy} has keys and values of several shapes, and a node of the tree "
            "holds those of all layers in one tensor: name another"
        )
    if not output.logits.isfinite().all():
        fail(f"--policy {args.policy} computes NaN or infinite logits: its weights are damaged")
    probs = output.logits[0, -1].float().softmax(-1)
    signs = [chat.encode(tokenizer, sign)[-1] for sign in "+-"]
    if probs[signs].sum() > 0.5:
        fail(
            f'--policy {args.policy} answers a step by "+" or "-", as a reward model does: '
            "swap --policy and --prm"
        )
