"""What a decoding iteration asks of the machine, counted: kernels to launch, and waits of the host for the device.

    python tests/bench_decode.py          # writes results/decode.md; three minutes on a CPU

A GPU decodes a 1B model slower than its memory would allow, because the host cannot launch the kernels fast enough. Here
beam.sample_steps() writes steps of a model with random weights and the layers of Llama-3.2-1B (on a CPU narrower ones: that
changes the seconds, not the counts), as it is and with the model's forward compiled, which must give the same tokens.

A kernel is an operator that computes or moves something, or a loop that the compiler has fused; operators that only describe a
tensor anew are none. An iteration is one call of the model, a token for each row. Around the model are generate(), the
sampling, the test for ends, and what copies the cache in between.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import LlamaConfig

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench_search import bundled_pair, command_and_commit, random_policy

import beam

NO_KERNELS = set(
    "alias as_strided chunk contiguous detach empty empty_like empty_strided expand expand_as is_nonzero item lift_fresh narrow new_empty "
    "permute reshape resize_ result_type select slice split squeeze t to transpose unbind unsqueeze view view_as "
    "_local_scalar_dense _reshape_alias _unsafe_view".split()
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=400, help="tokens")
    parser.add_argument("--out", type=Path, default=ROOT / "results/decode.md")
    args = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    inductor.cpp.enable_kernel_profile = True  # or a fused loop on a CPU would not be seen
    policy, tokenizer = make_policy(args.layers, device)
    prompt = [5 + token % 900 for token in range(args.prompt)]
    uniforms = torch.rand(args.rows, 256, generator=torch.Generator().manual_seed(0))
    beam.encode_prompt = lambda *given, **kwargs: prompt

    @torch.inference_mode()
    def write():
        [root] = beam.prefill(policy, tokenizer, ["?"], "", 256)
        sampling = {"separator": "\n\n", "temperature": 1.0, "top_p": 1.0}
        parents = [root] * args.rows
        children = beam.sample_steps(policy, tokenizer, parents, uniforms, False, **sampling)
        return [child.tokens for child in children]

    steps, lines = write(), [line("as it is", policy, write)]
    print(lines[0], flush=True)
    start = time.perf_counter()
    policy.base_model.forward = torch.compile(policy.base_model.forward, dynamic=True)
    assert write() == steps, "the compiled model writes other tokens"
    compiling = time.perf_counter() - start
    lines.append(line("compiled", policy, write))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    print(lines[1], flush=True)

    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else "a CPU, one thread, narrow layers: the milliseconds say nothing of a GPU"
    )
    lengths = list(map(len, steps))
    args.out.write_text(
        f"# What a decoding iteration asks of the machine\n\n{command_and_commit()} on {where}.\n{args.rows} rows, {args.layers} layers, "
        f"a prompt of {args.prompt} tokens, steps of {min(lengths)} to {max(lengths)}.\n\n"
        "| the model's forward | kernels an iteration, in the model | around it | waits of the host | ms an iteration |\n|---|---:|---:|---:|---:|\n"
        + "\n".join(lines)
        + f"\n\nCompiling took {compiling:.0f} s: {graphs} graphs, {breaks} breaks in them. The tokens are the same.\n"
    )


def line(way, policy, write) -> str:
    forward, calls = policy.base_model.forward, []

    def seen(*inputs, **kwargs):
        calls.append(None)
        with record_function("the model"):
            return forward(*inputs, **kwargs)

    policy.base_model.forward = seen
    start = time.perf_counter()
    write()
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    seconds, iterations = time.perf_counter() - start, len(calls)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        write()
    policy.base_model.forward = forward
    events = profiler.events()
    kernels = Counter(within(event, "the model") for event in events if is_kernel(event))
    waits = sum(event.name == "aten::_local_scalar_dense" for event in events)
    return (
        f"| {way} | {kernels[True] / iterations:.0f} | {kernels[False] / iterations:.0f} | {waits / iterations:.1f} | "
        f"{1000 * seconds / iterations:.1f} |"
    )


def is_kernel(event) -> bool:
    fused = event.name.startswith(("cpp_fused", "triton_"))
    return (
        fused
        or computes(event.name)
        and not any(computes(child.name) for child in event.cpu_children)
    )


def computes(name) -> bool:
    return name.startswith("aten::") and name.removeprefix("aten::") not in NO_KERNELS


def within(event, name) -> bool:
    return event is not None and (event.name == name or within(event.cpu_parent, name))


def make_policy(layers, device):
    """Random weights. Its tokens are the bundled tokenizer's; a bias makes one in 40 the end of a step."""
    _, tokenizer, _ = bundled_pair()
    wide = device.type == "cuda"
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048 if wide else 128,
        num_hidden_layers=layers,
        num_attention_heads=32 if wide else 2,
        num_key_value_heads=8 if wide else 1,
        head_dim=64,
        intermediate_size=8192 if wide else 512,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    policy = random_policy(
        config, tokenizer, of_step=40, of_text=400, dtype=torch.bfloat16 if wide else torch.float32
    )
    return policy.to(device), tokenizer


if __name__ == "__main__":
    main()
