"""What this project does on a GPU, in ten minutes: the same tokens, and how fast.

    python tests/bench_gpu.py                        # a CUDA GPU; writes results/gpu.md
    python tests/bench_gpu.py --shapes small --out /tmp/gpu.md    # a CPU: shows that it runs
    python tests/bench_gpu.py --shapes caches --parts sizes --ways plain --out results/caches.md

Parts, each with a table of its own; the page is written anew after each row:

- tokens: all seven searches with the bundled pair in float32, on the CPU and on the card, as they
  are and with CUDA graphs (fixed_shapes.py). Their solutions should be the same.
- sizes: DVTS with a 1B policy in bfloat16 and an 8B PRM in NF4, on a card that may take no more
  memory than a case names. As it is, with graphs, and compiled; and transformers' own generate().
- disk: the same pair as checkpoints on disk, 18.5 GB, loaded by dvts.py from the command line,
  which may take no more memory than a case names.
- whole: dvts.py with the bundled pair and, where --smollm2 names its folder, majority.py with it:
  20 problems from the command line, end to end.

Weights are random, of the shapes of Llama-3.2-1B and Llama-3.1-8B, so nothing is downloaded. The 8B
model is made and quantized layer by layer. Random text has no steps: a step ends after 10 to 110
tokens, 45 on average, as its first token tells; one token in 400 ends the text. The vocabulary is
what the bundled tokenizer has, but the heads have their true size, where the time goes.

With --shapes caches the models have the true layers, heads and head sizes, but next to no weights:
keys and values are of the true size, and a CPU can compute them. The peak is what the process grew
by. The PRM reads four rows at a time then, as on a card that is nearly full.

An iteration is a token for each row of a batch. ms an iteration: all of generate(), with what is
recorded. Share of the limit: the time in which the card reads the policy's weights once, over that
of an iteration; the card's bandwidth is measured first. Waits: how often the host waits for the
card in an iteration.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import bitsandbytes as bnb
import torch
import transformers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import checkpoints
import fixed_shapes
from bench_search import Memory, bundled_pair, command_and_commit, end_bias, random_family

import beam
import best_of_n
import dvts
import majority
import mcts
import particle
import rebase
from common.prm import PRM, load_prm
from harness.solve import Meter

SHAPES = {
    # hidden, layers, heads, kv heads, head_dim, intermediate, vocabulary, tied: of config.json
    "1B": (2048, 16, 32, 8, 64, 8192, 128256, True),
    "8B": (4096, 32, 32, 8, 128, 14336, 128256, False),
    "1B, caches": (64, 16, 32, 8, 64, 64, 1024, True),
    "8B, caches": (64, 32, 32, 8, 128, 64, 1024, False),
    "small": (128, 2, 4, 2, 32, 256, 1024, True),
    "small PRM": (128, 2, 4, 2, 32, 256, 1024, False),
}
PAIRS = {
    "true": ("1B", "8B"),
    "caches": ("1B, caches", "8B, caches"),
    "small": ("small", "small PRM"),
}
QUESTION = (
    "Start with 12. Add 5, multiply by 2, subtract 9, add 30, divide by 5, add 17. "
    "What is the result?"
)
SEARCHES = {
    majority: majority.sample_solutions,
    best_of_n: best_of_n.best_of_n,
    beam: beam.beam_search,
    dvts: dvts.dvts,
    rebase: rebase.rebase,
    particle: particle.particle_filter,
    mcts: mcts.mcts,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ["tokens", "sizes", "disk", "whole"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--shapes", choices=list(PAIRS), default="true")
    ways = ["plain", "graphs", "compiled"]
    parser.add_argument("--ways", nargs="+", choices=ways, default=ways)
    parser.add_argument("--cases", nargs="+", default=["64:12", "256:24"], help="n:GB of memory")
    parser.add_argument("--max-new-tokens", type=int, default=500)
    parser.add_argument("--limit", type=int, default=20, help="problems of the part `whole`")
    parser.add_argument("--smollm2", metavar="FOLDER", help="from python -m tiny.smollm2 FOLDER")
    parser.add_argument("--minutes", type=float, default=9.5, help="nothing is begun after these")
    parser.add_argument("--out", type=Path, default=ROOT / "results/gpu.md")
    args = parser.parse_args()
    logging.disable_progress_bar()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and args.shapes == "true":
        sys.exit("bench_gpu.py: no CUDA GPU here: add --shapes small to see it run on a CPU")
    if device.type == "cuda":
        fixed_shapes.Batch.record = staticmethod(fixed_shapes.cuda_graph)

    page = Page(args.out, args.minutes, device)
    if "tokens" in args.parts:
        same_tokens(page, device, min(300, args.max_new_tokens))
    if "sizes" in args.parts:
        true_sizes(page, device, args)
    if "disk" in args.parts:
        from_disk(page, device, args)
    if "whole" in args.parts:
        end_to_end(page, args)
    page.write("")


class Page:
    """The page of results, as far as there are any."""

    def __init__(self, path, minutes, device):
        self.path = path
        self.deadline = time.monotonic() + 60 * minutes
        name = "a CPU, where only counts say something"
        if device.type == "cuda":
            name = torch.cuda.get_device_name()
        versions = f"Python {platform.python_version()}, torch {torch.__version__}"
        self.text = (
            f"# On a GPU\n\n{command_and_commit()} on {name}.\n{versions}, transformers "
            f"{transformers.__version__}, bitsandbytes {bnb.__version__}.\n"
        )

    def write(self, line):
        print(line, flush=True)
        self.text += line + "\n"
        self.path.write_text(self.text)

    def table(self, title, columns):
        self.write(f"\n## {title}\n")
        self.row(columns)
        self.row(["---", *["---:"] * (len(columns) - 1)])

    def row(self, cells):
        self.write("| " + " | ".join(map(str, cells)) + " |")

    def time_is_up(self, what):
        """Says so, if it is."""
        if time.monotonic() > self.deadline:
            self.row([what, "left out: no time"])
            return True
        return False


def failed(error):
    return f"failed: {str(error).splitlines()[0]}"


def fix_shapes(script, on):
    """Let a script decode in fixed shapes, or as it does."""
    script.decode = fixed_shapes.decode if on else DECODE[script]


DECODE = {script: script.decode for script in SEARCHES}


# --- the same tokens ------------------------------------------------------------------------------


def same_tokens(page, device, max_new_tokens):
    """Searches with the bundled pair in float32: the CPU's solutions, and the card's."""
    columns = ["search", "solutions", "the same on the card", "with graphs", "scores differ by"]
    page.table("The same tokens", columns)
    pairs = []
    for place in (torch.device("cpu"), device):
        policy, tokenizer = beam.load_policy(
            ROOT / "tiny/policy", device=place, dtype=torch.float32
        )
        prm = load_prm(ROOT / "tiny/prm", device=place, dtype=torch.float32)
        pairs.append((policy, tokenizer, prm))
    for script in SEARCHES:
        if page.time_is_up(script.__name__):
            continue
        expected = solve(script, max_new_tokens, *pairs[0])
        same = []
        apart = []
        for graphs in (False, True):
            fix_shapes(script, graphs)
            try:
                found = solve(script, max_new_tokens, *pairs[1])
            except RuntimeError as error:  # of CUDA
                same.append(failed(error))
                continue
            equal = [one.tokens == other.tokens for one, other in zip(expected, found)]
            same.append(sum(equal))
            for one, other, is_equal in zip(expected, found, equal):
                if is_equal:
                    apart += [abs(a - b) for a, b in zip(one.scores, other.scores)]
        fix_shapes(script, False)
        page.row([script.__name__, len(expected), *same, f"{max(apart, default=0.0):.0e}"])


def solve(script, max_new_tokens, policy, tokenizer, prm):
    """Eight solutions of each of two problems, in a list."""
    given = [policy, tokenizer, prm, [QUESTION, "What is 8+5?"]]
    if script is majority:
        del given[2]
    solved = SEARCHES[script](*given, n=8, temperature=1.0, max_new_tokens=max_new_tokens)
    return [solution for solutions in solved for solution in solutions]


# --- the true sizes -------------------------------------------------------------------------------


def true_sizes(page, device, args):
    columns = ["way", "n", "GB allowed", "peak, GB", "s a problem", "tokens", "iterations"]
    columns += ["replayed", "ms an iteration", "share of the limit", "waits an iteration"]
    columns += ["PRM positions a token"]
    policy, tokenizer, prm = make_pair(args.shapes, device)
    if args.shapes == "caches":
        prm.model.rows_at_once = 4
    speed = bandwidth(device)
    limit = sum(p.nbytes for p in policy.parameters()) / speed  # seconds
    page.write(f"\nThe card copies {speed / 1e9:,.0f} GB/s, read and written together.")
    if args.shapes != "caches":
        stock(page, policy, tokenizer)
    page.table(f"DVTS at the sizes `{args.shapes}`", columns)
    bench = Bench(policy, tokenizer, prm, args.max_new_tokens, limit)
    for way in args.ways:
        if page.time_is_up(way):
            continue
        fix_shapes(dvts, way == "graphs")
        if way == "compiled":
            policy.base_model.forward = torch.compile(policy.base_model.forward, dynamic=True)
        try:
            waits = "-"
            if device.type == "cuda":  # this also warms up what is made when first used
                waits = f"{bench.waits():.1f}"
            for case in args.cases:
                if page.time_is_up(f"{way}, {case}"):
                    continue
                n, gigabytes = map(int, case.split(":"))
                page.row([way, n, gigabytes, *bench.run(n, gigabytes, waits)])
        except RuntimeError as error:  # of CUDA or the compiler: the other ways are still worth it
            page.row([way, failed(error)])
    fix_shapes(dvts, False)
    if "forward" in vars(policy.base_model):
        del policy.base_model.forward
    allow(device, None)


class Bench:
    """Runs DVTS, and counts what it does."""

    def __init__(self, policy, tokenizer, prm, max_new_tokens, limit):
        self.given = policy, tokenizer, prm, [" ".join([QUESTION] * 6)]
        self.device = policy.device
        self.max_new_tokens = max_new_tokens
        self.limit = limit  # seconds in which the policy's weights can be read
        self.prm_meter = Meter(prm.model)
        self.iterations = 0
        self.replayed = 0
        self.seconds = 0.0  # in generate()
        generate = policy.generate
        advance = fixed_shapes.Batch.advance

        def timed(*given, **kwargs):
            start = time.perf_counter()
            children = generate(*given, **kwargs)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - start
            return children

        def counted(_module, given, kwargs):
            ids = given[0] if given else kwargs["input_ids"]
            if dvts.decode is not fixed_shapes.decode:
                self.iterations += ids.shape[1] == 1

        def advancing(batch):
            self.iterations += 1
            self.replayed += batch.calls > 0
            return advance(batch)

        policy.generate = timed
        policy.register_forward_pre_hook(counted, with_kwargs=True)
        fixed_shapes.Batch.advance = advancing

    def search(self, n, max_new_tokens):
        """Returns how many tokens were written."""
        tokens = []

        def on_step(depth, children):
            tokens.extend(len(child.tokens) for child in children)
            print(f"step {depth}, {len(children)} rows", flush=True)

        settings = {"temperature": 1.0, "separator": is_whole_step, "on_step": on_step}
        dvts.dvts(*self.given, n=n, max_new_tokens=max_new_tokens, **settings)
        return sum(tokens)

    def run(self, n, gigabytes, waits):
        allow(self.device, gigabytes)
        self.iterations = self.replayed = self.seconds = 0
        self.prm_meter.take()
        start = time.perf_counter()
        with Memory() as memory:
            tokens = self.search(n, self.max_new_tokens)
        seconds = time.perf_counter() - start
        peak = memory.grown
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_reserved()
        each = self.seconds / self.iterations
        positions, _ = self.prm_meter.take()
        return [
            f"{peak / 1e9:.1f}",
            f"{seconds:.1f}",
            f"{tokens:,}",
            f"{self.iterations:,}",
            f"{self.replayed / self.iterations:.0%}",
            f"{1000 * each:.1f}",
            f"{self.limit / each:.1%}",
            waits,
            f"{positions / tokens:.2f}",
        ]

    def waits(self):
        """How often the host waits for the card in an iteration of a short search."""
        self.search(8, 60)
        self.iterations = 0
        policy, tokenizer, _, problems = self.given
        with torch.inference_mode(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            [root] = dvts.prefill(policy, tokenizer, problems, "", 60)
            parents = [root] * 64
            uniforms = dvts.random_numbers(parents, dvts.one_each(None, [root]), 60)
            sampling = {"separator": "\n\n", "temperature": 1.0, "top_p": 1.0}
            torch.cuda.set_sync_debug_mode("warn")
            dvts.sample_steps(policy, tokenizer, parents, uniforms, True, **sampling)
            torch.cuda.set_sync_debug_mode("default")
        waited = [one for one in caught if "synchroniz" in str(one.message)]
        return len(waited) / self.iterations


def is_whole_step(tokens):
    """Steps of 10 to 110 tokens, 45 on average: most are short, as real ones are."""
    return len(tokens) >= 10 + (7919 * tokens[0] % 11) ** 2


def allow(device, gigabytes):
    """Let torch take so much of the card's memory; None: all of it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        share = share_of(device, gigabytes) if gigabytes else 1.0
        torch.cuda.set_per_process_memory_fraction(share)
        torch.cuda.reset_peak_memory_stats()


def share_of(device, gigabytes):
    """Of the card's memory, at most all."""
    whole = torch.cuda.get_device_properties(device).total_memory
    return min(1.0, gigabytes * 1e9 / whole)


def bandwidth(device):
    """Bytes a second that are read and written when a large tensor is copied."""
    wide = torch.zeros(2**28 if device.type == "cuda" else 2**22, device=device)
    other = torch.zeros_like(wide)
    for times in (3, 20):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            other.copy_(wide)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return 2 * times * wide.nbytes / seconds


@torch.inference_mode()
def stock(page, policy, tokenizer):
    """generate() as it comes: 64 rows, none of which ends, of the same prompt."""
    tokens = 128
    prompt = beam.encode_prompt(tokenizer, " ".join([QUESTION] * 6), "")
    ids = torch.tensor([prompt] * 64, device=policy.device)
    settings = {"do_sample": True, "top_k": 0, "temperature": 1.0}
    settings |= {"max_new_tokens": tokens, "min_new_tokens": tokens}
    policy.generate(ids, **{**settings, "max_new_tokens": 4, "min_new_tokens": 4})
    start = time.perf_counter()
    policy.generate(ids, attention_mask=torch.ones_like(ids), **settings).tolist()
    each = 1000 * (time.perf_counter() - start) / tokens
    page.write(f"\ngenerate() of transformers, 64 rows, {tokens} tokens: {each:.1f} ms a token.")


# --- end to end -----------------------------------------------------------------------------------


def from_disk(page, device, args):
    """dvts.py with checkpoints of the true sizes, on a card with less memory than this one."""
    columns = ["command", "n", "GB allowed", "s, with loading", "what it printed"]
    page.table(f"From the command line, with the sizes `{args.shapes}`", columns)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for name, shape in zip(("policy", "prm"), PAIRS[args.shapes]):
            save_model(shape, device, f"{folder}/{name}", scores=name == "prm")
        print(f"saved in {time.perf_counter() - start:.0f} s", flush=True)
        models = ["--policy", f"{folder}/policy", "--prm", f"{folder}/prm", "--prm-4bit"]
        for case in args.cases:
            if page.time_is_up(case):
                continue
            n, gigabytes = map(int, case.split(":"))
            memory = {}
            if device.type == "cuda":
                share = share_of(device, gigabytes)
                memory["PYTORCH_CUDA_ALLOC_CONF"] = f"per_process_memory_fraction:{share:.4f}"
            command = ["dvts.py", *models, "--problems", "tiny/problems.jsonl", "--limit", "1"]
            command += ["--n", str(n), "--max-new-tokens", str(min(300, args.max_new_tokens))]
            command += ["--output", f"{folder}/{n}.jsonl"]
            seconds, told = run_command(command, **memory)
            page.row(["dvts.py", n, gigabytes, f"{seconds:.0f}", told])


def save_model(shape, device, folder, scores):
    """A checkpoint in bfloat16 of a policy, or of a PRM that answers by "+" or "-"."""
    model = make_model(shape, device, four_bit=False)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "tiny/policy")
    if scores:
        tokenizer = checkpoints.llama_tokenizer()
        checkpoints.answer_by(model, tokenizer.convert_tokens_to_ids(["+", "-"]))
        model.model.embed_tokens.weight.data[:, 0] = 20.0  # more than all layers add to the others
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)


def run_command(command, **environment):
    """(seconds, what it printed of all problems, or its error)."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        told = done.stderr.split("\n")[-3:]
    else:
        lines = done.stdout.split("\n")
        told = [line for line in lines if line.startswith(("all ", "  ", "peak memory"))]
        told = told[:3] + told[-1:]
    return seconds, "; ".join(" ".join(line.split()).strip(",") for line in told)


def end_to_end(page, args):
    page.table("From the command line", ["command", "s", "what it printed of all problems"])
    commands = [["dvts.py", "--n", "64"]]
    if args.smollm2:
        commands.append(["majority.py", "--n", "16", "--policy", args.smollm2])
        commands[-1] += ["--temperature", "0.6", "--max-new-tokens", "320"]
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(commands):
            if page.time_is_up(command[0]):
                continue
            command += ["--limit", str(args.limit)]
            seconds, told = run_command([*command, "--output", f"{folder}/{number}.jsonl"])
            page.row([f"`{' '.join(command)}`", f"{seconds:.0f}", told])


# --- models ---------------------------------------------------------------------------------------


def make_pair(shapes, device):
    _, tokenizer, prm = bundled_pair()
    torch.manual_seed(0)
    one, eight = PAIRS[shapes]
    policy = make_model(one, device, four_bit=False)
    judge = make_model(eight, device, four_bit=True).model
    bias = end_bias(tokenizer, policy.config.vocab_size, of_step=1e9, of_text=400)
    bias = bias.to(device, torch.bfloat16)  # now: a copy at each token would wait for the card
    policy.lm_head.register_forward_hook(lambda module, inputs, logits: 0.02 * logits + bias)
    policy.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id], pad_token_id=policy.config.vocab_size - 1
    )
    return policy, tokenizer, PRM(judge, tokenizer, random_family(prm, judge))


def make_model(shape, device, four_bit) -> LlamaForCausalLM:
    """Random bfloat16 weights on the device; with four_bit, all linear layers but the head in NF4,
    one layer at a time."""
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary, tied = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        tie_word_embeddings=tied,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    with device:
        rotary = type(model.model.rotary_emb)(
            config
        )  # its frequencies are no weights: they must be computed
    for block in [
        *model.model.layers,
        model.model.embed_tokens,
        model.model.norm,
        *([] if tied or four_bit else [model.lm_head]),
    ]:
        block.to_empty(device=device)
        for weight in block.parameters():
            torch.nn.init.ones_(weight) if weight.ndim == 1 else torch.nn.init.normal_(
                weight, std=0.02
            )
        if four_bit and block in list(model.model.layers):
            for parent in (block.self_attn, block.mlp):
                for name, linear in list(parent.named_children()):
                    if isinstance(linear, torch.nn.Linear):
                        setattr(parent, name, quantized(linear))
    model.model.rotary_emb = rotary
    if tied:  # to_empty() has parted them
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def quantized(linear: torch.nn.Linear) -> bnb.nn.Linear4bit:
    with torch.device("meta"):  # else the CPU would draw 7 billion numbers that nobody reads
        new = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
        )
    new.weight = bnb.nn.Params4bit(
        linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    return new.to(linear.weight.device)


if __name__ == "__main__":
    main()
