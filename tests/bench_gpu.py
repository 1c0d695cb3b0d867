"""DVTS at the true sizes on a GPU: a 1B policy and an 8B PRM in 4-bit, on a card held to 12 and to 24 GB.

    python tests/bench_gpu.py                        # a CUDA GPU; writes results/gpu.md
    python tests/bench_gpu.py --shapes caches --cases 64:12 --out results/caches.md   # a CPU: the memory of the caches
    python tests/bench_gpu.py --shapes small --out /tmp/gpu.md     # a CPU: shows that it runs, its figures mean nothing

Needs no download: the weights are random, of the shapes of Llama-3.2-1B and Llama-3.1-8B. The 8B model is made and
quantized layer by layer, so that it never needs more than one layer in bfloat16. What random weights write has no steps:
a bias on the policy's head ends them, one token in 40 a step and one in 400 the text, as solutions of MATH-500 have
about ten steps of forty tokens. The vocabulary is cut to what the bundled tokenizer has, but the heads keep their true
size, where all the time goes. On a GPU torch may take no more memory than a case names. With `--shapes caches` the models
have the true layers, heads and head sizes, but next to no weights: keys and values are of the true size, and a CPU can
compute them. What the process grew by then is what they take at most, to which the weights come: 2.5 and 4.5 GB. The PRM
reads four rows at a time then, as on a card that is nearly full; on a GPU it asks how much is free.

Share of the bandwidth limit: a decoding iteration must read all the policy's weights once, whatever the batch. Its share
is that time (bytes of weights / --bandwidth) over the measured time of an iteration.
"""

import argparse
import sys
import time
from pathlib import Path

import bitsandbytes as bnb
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench_search import Memory, bundled_pair, command_and_commit, end_bias, random_family

import dvts
from common.prm import PRM
from harness.solve import Meter

SHAPES = {  # hidden, layers, heads, kv heads, head_dim, intermediate, vocabulary, tied: of config.json on the hub
    "1B": (2048, 16, 32, 8, 64, 8192, 128256, True),
    "8B": (4096, 32, 32, 8, 128, 14336, 128256, False),
    "1B, caches": (64, 16, 32, 8, 64, 64, 1024, True),
    "8B, caches": (64, 32, 32, 8, 128, 64, 1024, False),
    "small": (128, 2, 4, 2, 32, 256, 1024, True),
}
QUESTION = " ".join(
    [
        "Start with 12. Add 5, multiply by 2, subtract 9, add 30, divide by 5, add 17. What is the result?"
    ]
    * 6
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", choices=["true", "caches", "small"], default="true")
    parser.add_argument(
        "--cases",
        nargs="+",
        default=["64:12", "256:24"],
        help="n:GB of memory, each (default: 64:12 256:24)",
    )
    parser.add_argument(
        "--bandwidth",
        type=float,
        default=4800,
        help="of the card's memory, GB/s (default: 4800, of an H200)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=1024)
    parser.add_argument(
        "--compile", action="store_true", help="compile the policy's forward before the first case"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results/gpu.md")
    args = parser.parse_args()
    logging.disable_progress_bar()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and args.shapes == "true":
        sys.exit(
            "bench_gpu.py: no CUDA GPU here: add --shapes caches or small to see it run on a CPU"
        )

    policy, tokenizer, prm = make_pair(args.shapes, device)
    if args.shapes == "caches":
        prm.model.rows_at_once = 4
    if args.compile:
        policy.base_model.forward = torch.compile(policy.base_model.forward, dynamic=True)
        dvts.dvts(policy, tokenizer, prm, [QUESTION], n=64, max_new_tokens=60)
    meters = {"policy": Meter(policy), "prm": Meter(prm.model)}
    iterations = Iterations(policy)
    lines = [
        "| n | memory allowed, GB | peak, GB | s | tokens | tokens/s | policy iterations | ms an iteration | share of the bandwidth limit "
        "| policy positions a token | PRM positions a token |",
        "|" + "---:|" * 11,
    ]
    for case in args.cases:
        n, gigabytes = map(int, case.split(":"))
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(
                min(1.0, gigabytes * 1e9 / torch.cuda.get_device_properties(0).total_memory)
            )
            torch.cuda.reset_peak_memory_stats()
        for meter in (iterations, *meters.values()):
            meter.take()
        start = time.perf_counter()
        with Memory() as memory:
            sampled = []

            def on_step(depth, children):
                sampled.extend(len(child.tokens) for child in children)
                print(f"step {depth}, {len(children)} rows", flush=True)

            dvts.dvts(
                policy,
                tokenizer,
                prm,
                [QUESTION],
                n=n,
                temperature=1.0,
                max_new_tokens=args.max_new_tokens,
                on_step=on_step,
            )
            tokens = sum(sampled)
        seconds, (count, in_policy) = time.perf_counter() - start, iterations.take()
        peak = (torch.cuda.max_memory_reserved() if device.type == "cuda" else memory.grown) / 1e9
        positions = {name: meter.take()[0] for name, meter in meters.items()}
        limit = sum(p.nbytes for p in policy.parameters()) / (args.bandwidth * 1e9)
        lines.append(
            f"| {n} | {gigabytes} | {peak:.1f} | {seconds:.1f} | {tokens:,} | {tokens / seconds:,.0f} | {count:,} | "
            f"{1000 * in_policy / count:.1f} | {limit * count / in_policy:.1%} | {positions['policy'] / tokens:.2f} | {positions['prm'] / tokens:.2f} |"
        )
        print(lines[-1], flush=True)
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else "a CPU: only the counts mean something"
    )
    where += ", and the peak, what the process grew by, to which the weights come" * (
        args.shapes == "caches"
    )
    args.out.write_text(
        f"# DVTS at the true sizes\n\n{command_and_commit()} on {where}. Random weights.\n\n"
        + "\n".join(lines)
        + "\n"
    )


class Iterations:
    """How often the policy decodes one token a row, and the seconds spent on it, with all that generate() does besides."""

    def __init__(self, policy):
        self.count = self.seconds = 0
        generate = policy.generate

        def timed(*given, **kwargs):
            start = time.perf_counter()
            children = generate(*given, **kwargs)
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - start
            return children

        def counted(_module, given, kwargs):
            self.count += (given[0] if given else kwargs["input_ids"]).shape[1] == 1

        policy.generate = timed
        policy.register_forward_pre_hook(counted, with_kwargs=True)

    def take(self):
        taken, self.count, self.seconds = (self.count, self.seconds), 0, 0.0
        return taken


# --- models -----------------------------------------------------------------------------------------------------------


def make_pair(shapes, device):
    _, tokenizer, prm = bundled_pair()
    torch.manual_seed(0)
    one, eight = {
        "true": ("1B", "8B"),
        "caches": ("1B, caches", "8B, caches"),
        "small": ("small", "small"),
    }[shapes]
    policy, judge = (
        make_model(one, device, four_bit=False),
        make_model(eight, device, four_bit=True).model,
    )
    bias = end_bias(tokenizer, policy.config.vocab_size, of_step=40, of_text=400)
    policy.lm_head.register_forward_hook(
        lambda module, inputs, logits: 0.02 * logits + bias.to(logits.device, logits.dtype)
    )
    policy.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id], pad_token_id=policy.config.vocab_size - 1
    )
    return policy, tokenizer, PRM(judge, tokenizer, random_family(prm, judge))


def make_model(shape, device, four_bit) -> LlamaForCausalLM:
    """Random bfloat16 weights on the device; with four_bit, all linear layers but the head in NF4, one layer at a time."""
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
