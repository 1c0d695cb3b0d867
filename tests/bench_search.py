"""What the caches save: beam search and DVTS with them and without, on the same models, with the
same random numbers.

    python tests/bench_search.py         # writes results/search.md; about 20 minutes on 2 CPU cores
    python tests/bench_search.py --against ../old     # against another checkout, in turn

The plain way reads everything anew for each step, as an implementation without cache reuse does:
generate() gets whole texts, left-padded, and pads rows that have ended until the slowest has; the
PRM gets whole dialogues. Within one call of generate() it has generate()'s own cache. Both ways
must find the same tree, or this stops.

Two pairs: the bundled one, whose steps are all about equally long, and one of 26 million parameters
a model with random weights, whose head is biased so that one token in 32 ends a step and one in 250
the text: lengths differ as chance has it. Its question is 200 tokens long, as a real prompt is with
a tokenizer that has no token for all of Llama's math prompt.

CPU seconds are those of all threads. Each case runs --repeat times (the slow random pair a third as
often), the ways in turn; the table has the median, and the spread of the ratio. Positions are
counted by hooks on the models, pads included. Live tensors are the most that all tensors held at a
forward, weights included, in a run of its own. Memory is what the process grew by.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import beam
import dvts
from common.families import RLHFlow
from common.prm import PRM, load_prm, split_steps
from harness.solve import Meter

QUESTION = (
    "Start with 12. Add 5, multiply by 2, subtract 9, add 30, divide by 5, add 17. "
    "What is the result?"
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pairs = ["bundled", "random"]
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--plain-up-to", type=int, default=64, help="of the random pair")
    parser.add_argument("--pairs", nargs="+", choices=pairs, default=pairs)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results/search.md")
    parser.add_argument("--against", metavar="FOLDER", help="another checkout, to compare with")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    if args.against:
        against(args)
        return

    lines = []
    goals = []
    for pair in args.pairs:
        models = pair_of(pair)
        meters = {"policy": Meter(models[0]), "prm": Meter(models[2].model)}
        repeat = args.repeat if pair == "bundled" else max(1, args.repeat // 3)
        for script in (beam, dvts):
            seconds = {}
            for n in args.n:
                ways = ["fast", "plain"]
                if pair == "random" and n > args.plain_up_to:
                    ways = ["fast"]
                case = script, question_of(pair), *models, meters, n
                runs = [{way: measure(way, *case) for way in ways} for _ in range(repeat)]
                trees = [run["tree"] for both in runs for run in both.values()]
                assert all(tree == trees[0] for tree in trees), f"{case[0]}, n = {n}: two trees"
                for way in ways:
                    row = median([both[way] for both in runs])
                    row["live"] = live_tensors(way, *case)
                    lines.append(line(pair, script.__name__, n, way, row))
                    print(lines[-1], flush=True)
                name = f"{pair}, {script.__name__}"
                if "plain" in ways:
                    ratios = [both["plain"]["cpu"] / both["fast"]["cpu"] for both in runs]
                    goals.append(f"{name}, n = {n}: plain / fast = {spread(ratios)} in CPU seconds")
                seconds[n] = statistics.median(both["fast"]["cpu"] for both in runs)
            if 64 in seconds and 256 in seconds:
                ratio = seconds[256] / seconds[64]
                goals.append(f"{name}: n = 256 costs {ratio:.2f} times what n = 64 costs")
    head = (
        f"# What the caches save\n\n{command_and_commit()}; {args.threads} thread(s). Medians of "
        f"{args.repeat} runs of the bundled pair, {max(1, args.repeat // 3)} of the random one.\n"
        "Other programs ran on the machine's two cores meanwhile: compare the ways of a case, not "
        "the seconds of this page with another's.\n\n"
    )
    goals = "\n".join(f"- {goal}" for goal in goals)
    args.out.write_text(head + HEADER + "\n" + "\n".join(lines) + "\n\n" + goals + "\n")


def command_and_commit() -> str:
    """What made a page of figures, in its own words: `python tests/...` at commit ..."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    words = " ".join([os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
    return f"`python {words}` at commit {commit}"


def median(runs):
    keys = [key for key in runs[0] if key != "tree"]
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def spread(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


HEADER = (
    "| pair | search | n | way | CPU s | s | tokens | tokens/s | policy positions a token "
    "| PRM positions a token | live tensors, MB | memory, MB |\n" + "|---" * 12 + "|"
)


def line(pair, script, n, way, r):
    cells = [pair, script, n, way, f"{r['cpu']:.2f}", f"{r['wall']:.2f}", f"{r['tokens']:,.0f}"]
    cells += [f"{r['tokens'] / r['wall']:,.0f}", f"{r['policy'] / r['tokens']:.3f}"]
    cells += [f"{r['prm'] / r['tokens']:.2f}", f"{r['live'] / 2**20:,.0f}"]
    cells.append(f"{r['memory'] / 2**20:,.0f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def measure(way, script, question, policy, tokenizer, prm, meters, n):
    """One search, and what it took. tree: the tokens found, and the scores in thousandths, which
    both ways must share."""
    search = script.beam_search if script is beam else script.dvts
    sampled = []
    settings = {"n": n, "temperature": 1.0, "max_new_tokens": 400}
    settings["on_step"] = lambda depth, nodes: sampled.extend(len(node.tokens) for node in nodes)
    ours = script.prefill, script.sample_steps
    if way == "plain":
        script.prefill = plain_prefill
        script.sample_steps = plain_steps
        prm = PlainPRM(prm)
    for meter in meters.values():
        meter.take()
    with Memory() as memory:
        wall = time.perf_counter()
        cpu = time.process_time()
        [solutions] = search(
            policy, tokenizer, prm, [question], [torch.Generator().manual_seed(0)], **settings
        )
        wall = time.perf_counter() - wall
        cpu = time.process_time() - cpu
    script.prefill, script.sample_steps = ours
    tree = [(one.tokens, [round(score, 3) for score in one.scores]) for one in solutions]
    positions = {name: meter.take()[0] for name, meter in meters.items()}
    return {
        "tree": sorted(tree),
        "wall": wall,
        "cpu": cpu,
        "tokens": sum(sampled),
        "memory": memory.grown,
        **positions,
    }


def live_tensors(way, script, question, policy, tokenizer, prm, meters, n):
    """The most bytes that all tensors held, looked at at every 16th forward."""
    most = [0]
    calls = [0]

    def look(*_):
        calls[0] += 1
        if calls[0] % 16 == 0:
            sizes = {}
            for thing in gc.get_objects():
                if type(thing) in (torch.Tensor, torch.nn.Parameter):
                    storage = thing.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
            most[0] = max(most[0], sum(sizes.values()))

    bases = policy.base_model, prm.model.base_model
    hooks = [base.register_forward_hook(look) for base in bases]
    measure(way, script, question, policy, tokenizer, prm, meters, n)
    for hook in hooks:
        hook.remove()
    return most[0]


class Memory:
    """The most that the process grew by, looked at 50 times a second."""

    def resident(self):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self):
        self.start = self.resident()
        self.grown = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.02):
            self.grown = max(self.grown, self.resident() - self.start)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


# --- the plain way --------------------------------------------------------------------------------


def plain_prefill(policy, tokenizer, problems, system, max_new_tokens, thinking=False):
    prompts = [beam.encode_prompt(tokenizer, text, system, thinking) for text in problems]
    return [
        beam.Node(None, i, max_new_tokens, tokens=prompt, text=text)
        for i, (prompt, text) in enumerate(zip(prompts, problems))
    ]


def plain_steps(policy, tokenizer, parents, uniforms, to_the_end, *, separator, temperature, top_p):
    """As beam.sample_steps(), with stock generate() on whole texts."""
    texts = [[token for node in one.path() for token in node.tokens] for one in parents]
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    ended = beam.step_end(tokenizer, None if to_the_end else separator)
    stop = StepEnded(policy, longest, [one.tokens_left for one in parents], ended)
    new = policy.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=max(one.tokens_left for one in parents),
        logits_processor=LogitsProcessorList([Draw(uniforms, longest, temperature, top_p)]),
        stopping_criteria=StoppingCriteriaList([stop]),
    )[:, longest:]
    children = []
    for parent, tokens, length in zip(parents, new.tolist(), stop.lengths):
        child = beam.Node(
            parent, parent.problem, parent.tokens_left - length, tokens=tokens[:length]
        )
        child.finished = child.tokens[-1] in policy.generation_config.eos_token_id
        beam.read_text(tokenizer, child, separator)
        children.append(child)
    return children


class Draw(LogitsProcessor):
    """Leaves only the token that sample() draws."""

    def __init__(self, uniforms, start, temperature, top_p):
        self.uniforms = uniforms
        self.start = start
        self.sampling = temperature, top_p

    def __call__(self, ids, logits):
        token = beam.sample(logits, self.uniforms[:, ids.shape[1] - self.start], *self.sampling)
        return torch.full_like(logits, -torch.inf).scatter(1, token, 0.0)


class StepEnded(StoppingCriteria):
    """Tells generate() which rows are done, and keeps the length that they had."""

    def __init__(self, policy, start, left, ended):
        self.eos = policy.generation_config.eos_token_id
        self.start = start
        self.left = left
        self.ended = ended
        self.lengths = [0] * len(left)

    def __call__(self, ids, scores, **_):
        length = ids.shape[1] - self.start
        for row, new in enumerate(ids[:, self.start :].tolist()):
            if self.lengths[row] == 0:
                if new[-1] in self.eos or length >= self.left[row] or self.ended(new):
                    self.lengths[row] = length
        return torch.tensor([length > 0 for length in self.lengths], device=ids.device)


class PlainPRM:
    """As common.prm.PRM, but each call reads every dialogue from its beginning."""

    def __init__(self, prm):
        self.prm = prm

    def read_problems(self, roots):
        pass

    def score(self, children, separator):
        family = self.prm.family
        dialogues = []
        for child in children:
            root, *nodes = child.path()
            tokens = family.opening(root.text)
            number = 0
            for node in nodes:
                for step in split_steps(node, separator):
                    if step.strip():
                        number += 1
                        tokens = tokens + family.turn(step.strip(), number)
            assert number <= len(child.parent.all_scores()) + 1, "a step holds a separator"
            dialogues.append(tokens)
        # What is causal ignores pads behind.
        ids = pad_sequence([torch.tensor(tokens) for tokens in dialogues], batch_first=True)
        hidden = self.prm.model(ids, use_cache=False).last_hidden_state
        ends = torch.tensor([len(tokens) - 1 for tokens in dialogues])
        scores = family.score(hidden[torch.arange(len(ends)), ends].float()).tolist()
        for child, score in zip(children, scores):
            if child.text.strip():
                child.scores = [score]


# --- the pairs ------------------------------------------------------------------------------------


def pair_of(name):
    """(policy, tokenizer, prm)"""
    return bundled_pair() if name == "bundled" else random_pair(hidden=512, layers=8)


def question_of(name):
    return QUESTION if name == "bundled" else " ".join([QUESTION] * 5)


def bundled_pair():
    return *beam.load_policy(str(ROOT / "tiny/policy")), load_prm(str(ROOT / "tiny/prm"))


def random_pair(hidden, layers):
    """A policy and a PRM with random weights and the bundled tokenizer. 512 and 8: 26 million
    parameters each."""
    torch.manual_seed(0)
    _, tokenizer, prm = bundled_pair()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        intermediate_size=3 * hidden,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    policy = random_policy(config, tokenizer, of_step=32, of_text=250)
    judge = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval().model
    return policy, tokenizer, PRM(judge, tokenizer, random_family(prm, judge))


def random_policy(config, tokenizer, *, of_step, of_text, dtype=torch.float32):
    """Random weights with a vocabulary of len(tokenizer), and a head that ends steps and texts as
    end_bias() says."""
    policy = LlamaForCausalLM._from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    policy.lm_head = torch.nn.Linear(config.hidden_size, len(tokenizer), dtype=dtype)
    torch.nn.init.normal_(policy.lm_head.weight, std=0.02)
    bias = end_bias(tokenizer, len(tokenizer), of_step=of_step, of_text=of_text)
    with torch.no_grad():
        policy.lm_head.bias.copy_(bias)
    eos = [tokenizer.eos_token_id]
    policy.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=len(tokenizer) - 1)
    return policy


def end_bias(tokenizer, vocabulary, *, of_step, of_text):
    """[vocabulary], for logits that are all alike: one token in of_step ends a step, one in of_text
    the text."""
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer))]
    blank = [token for token, text in enumerate(texts) if "\n" in text or not text.strip()]
    plain = len(tokenizer) - len(blank)
    bias = torch.full((vocabulary,), -torch.inf)  # what the tokenizer has not is never written
    bias[: len(tokenizer)] = 0.0
    bias[blank] = -torch.inf  # there is no other way to end a step, and no step without text
    ends = [tokenizer.convert_tokens_to_ids("ĊĊ"), tokenizer.eos_token_id]
    bias[ends] = torch.tensor([plain / of_step, plain / of_text]).log()
    return bias


def random_family(prm, judge):
    """The bundled PRM's way of writing dialogues, with a random direction to score by in the place
    of its head's."""
    family = RLHFlow.__new__(RLHFlow)
    vars(family).update(vars(prm.family))
    size = judge.config.hidden_size
    direction = torch.randn(size, device=judge.device) / size**0.5
    family.score = lambda hidden: torch.sigmoid(hidden @ direction)
    return family


# --- against another checkout ---------------------------------------------------------------------

ONE_CASE = """
import json, sys
sys.path[:0] = [{folder!r}, {folder!r} + "/tests"]
import bench_search as bench, torch
torch.set_num_threads({threads})
policy, tokenizer, prm = bench.bundled_pair() if {pair!r} == "bundled" else bench.random_pair(512, 8)
question = bench.QUESTION if {pair!r} == "bundled" else " ".join([bench.QUESTION] * 5)
Meter = getattr(bench, "Meter", None) or bench.runner.Meter
meters = {{"policy": Meter(policy), "prm": Meter(prm.model)}}
script = getattr(bench, {script!r})
case = "fast", script, question, policy, tokenizer, prm, meters, {n}
run = bench.measure(*case)
del run["tree"]
print(json.dumps(run))
"""


def against(args):
    """Alternating runs in fresh processes; ratios this / that, with their spread."""
    print(f"{command_and_commit()}; {args.threads} thread(s), {args.repeat} runs each, in turn")
    print(
        "| pair | search | n | CPU s | policy positions a token | PRM positions a token | memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for pair in args.pairs:
        for script in ("beam", "dvts"):
            for n in args.n:
                runs = []
                for _ in range(args.repeat):
                    both = []
                    for folder in (str(ROOT), os.path.abspath(args.against)):
                        text = ONE_CASE.format(
                            folder=folder, threads=args.threads, pair=pair, script=script, n=n
                        )
                        done = subprocess.run(
                            [sys.executable, "-c", text],
                            cwd=folder,
                            capture_output=True,
                            text=True,
                            check=True,
                            env={**os.environ, "OMP_NUM_THREADS": str(args.threads)},
                        )
                        both.append(json.loads(done.stdout.splitlines()[-1]))
                    runs.append(both)
                cells = [pair, script, str(n)]
                cells.append(spread([this["cpu"] / that["cpu"] for this, that in runs]))
                for name in ("policy", "prm"):
                    this, that = runs[0]
                    here = this[name] / this["tokens"]
                    cells.append(f"{here:.3f}, was {that[name] / that['tokens']:.3f}")
                grown = [this["memory"] / max(1, that["memory"]) for this, that in runs]
                cells.append(spread(grown))
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
