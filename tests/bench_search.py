"""What the caches save: beam search and DVTS with them and without, on the same models, with the same random numbers.

    python tests/bench_search.py          # writes results/search.md; about 20 minutes on 2 CPU cores

The plain way reads everything anew for each step, as an implementation without cache reuse does: generate() gets whole
texts, left-padded, and pads rows that have ended until the slowest has; the PRM gets whole dialogues. Within one call of
generate() it has generate()'s own cache. Both ways must find the same tree, or this stops.

Two pairs: the bundled one, whose steps are all about equally long, and one of 26 million parameters a model with random
weights, whose head is biased so that one token in 32 ends a step and one in 250 the text: lengths differ as chance has it.
Its question is 200 tokens long, as a real prompt is with a tokenizer that has no token for all of Llama's math prompt.

CPU seconds are those of all threads. Each case runs --repeat times (the slow random pair a third as often), the ways in
turn; the table has the median, and the spread of the ratio. Positions are counted by hooks on the models, pads included. Memory is what the process
grew by, which is nothing where what an earlier case had left was enough: read it in the first rows of a pair.
"""

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessorList, StoppingCriteriaList
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import beam
import dvts
from common import inputs, runner
from common.prm import PRM, RLHFlow, load_prm, split_steps

CPU = torch.device("cpu")
QUESTION = "Start with 12. Add 5, multiply by 2, subtract 9, add 30, divide by 5, add 17. What is the result?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--plain-up-to", type=int, default=64, help="largest n at which the big pair goes the plain way")
    parser.add_argument("--pairs", nargs="+", choices=["bundled", "random"], default=["bundled", "random"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results/search.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()

    rows, goals = [], []
    for pair in args.pairs:
        policy, tokenizer, prm = bundled_pair() if pair == "bundled" else random_pair(hidden=512, layers=8)
        meters = {"policy": runner.Meter(policy), "prm": runner.Meter(prm.model)}
        question = QUESTION if pair == "bundled" else " ".join([QUESTION] * 5)
        for script in (beam, dvts):
            fast_seconds = {}
            for n in args.n:
                plain_too = pair == "bundled" or n <= args.plain_up_to
                runs = [[measure(way, script, question, policy, tokenizer, prm, meters, n) for way in ("fast", "plain")[:1 + plain_too]]
                        for _ in range(args.repeat if pair == "bundled" else max(1, args.repeat // 3))]
                trees = [run["tree"] for both in runs for run in both]
                assert all(tree == trees[0] for tree in trees), f"{script.__name__} at n = {n}: the two ways disagree"
                for way, of_way in zip(("fast", "plain"), zip(*runs)):
                    row = {key: statistics.median(run[key] for run in of_way) for key in of_way[0] if key != "tree"}
                    rows.append((pair, script.__name__, n, way, row))
                    print(line(rows[-1]), flush=True)
                ratios = [plain["cpu"] / fast["cpu"] for fast, plain in (both for both in runs if len(both) == 2)]
                if ratios:
                    goals.append(f"{pair}, {script.__name__}, n = {n}: plain / fast = {statistics.median(ratios):.1f} in CPU seconds "
                                 f"({min(ratios):.1f} to {max(ratios):.1f})")
                    print(goals[-1], flush=True)
                fast_seconds[n] = statistics.median(both[0]["cpu"] for both in runs)
            if 64 in fast_seconds and 256 in fast_seconds:
                goals.append(f"{pair}, {script.__name__}: n = 256 costs {fast_seconds[256] / fast_seconds[64]:.2f} times what n = 64 costs")
                print(goals[-1], flush=True)
    head = f"# What the caches save\n\n{command_and_commit()}; {args.threads} thread(s). Medians of {args.repeat} runs of the bundled pair, {max(1, args.repeat // 3)} of the random one.\n\n"
    args.out.write_text(head + HEADER + "\n" + "\n".join(map(line, rows)) + "\n\n" + "\n".join(f"- {goal}" for goal in goals) + "\n")


def command_and_commit() -> str:
    """What made a page of figures, in its own words: `python tests/...` at commit ..."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return f"`python {' '.join([os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])}` at commit {commit}"


HEADER = ("| pair | search | n | way | CPU s | s | tokens | tokens/s | policy positions a token | PRM positions a token | memory, MB |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|")


def line(row) -> str:
    pair, script, n, way, r = row
    return (f"| {pair} | {script} | {n} | {way} | {r['cpu']:.2f} | {r['wall']:.2f} | {r['tokens']:,.0f} | {r['tokens'] / r['wall']:,.0f} | "
            f"{r['policy'] / r['tokens']:.2f} | {r['prm'] / r['tokens']:.2f} | {r['memory'] / 2**20:,.0f} |")


def measure(way, script, question, policy, tokenizer, prm, meters, n) -> dict:
    """One search, and what it took. tree: the tokens found, and the scores in thousandths, which both ways must share."""
    search = script.beam_search if script is beam else script.dvts
    settings = dict(n=n, beam_width=4, max_steps=40, temperature=1.0, top_p=1.0, max_new_tokens=400,
                    reduce=inputs.REDUCE["last"], on_step=lambda step, rows: None, **({"lookahead": 0} if script is beam else {}))
    ours = script.prefill, script.sample_steps
    if way == "plain":
        script.prefill, script.sample_steps, prm = lambda policy, prompts: prompts, plain_steps, PlainPRM(prm)
    for meter in meters.values():
        meter.take()
    with Memory() as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        (nodes,), (sampled,) = search(policy, tokenizer, prm, [question], [torch.Generator().manual_seed(0)], **settings)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    script.prefill, script.sample_steps = ours
    tree = [(node.tokens, [round(score, 3) for score in node.scores]) for node in nodes]
    return dict(tree=sorted(tree), wall=wall, cpu=cpu, tokens=sampled, memory=memory.grown,
                **{name: meter.take()[0] for name, meter in meters.items()})


class Memory:
    """The most that the process grew by, looked at 50 times a second."""

    def resident(self):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self):
        self.start, self.grown, self.done = self.resident(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.02):
            self.grown = max(self.grown, self.resident() - self.start)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


# --- the plain way ----------------------------------------------------------------------------------------------------


def plain_steps(policy, texts, parents, uniforms, left, ends, *, temperature, top_p):
    """As beam.sample_steps(); texts is a list of all tokens of each."""
    rows = [texts[parent] for parent in parents]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    stop = beam.StopAt(ends, torch.tensor(left), first=True)
    sampler = beam.InverseTransformSampling(uniforms, temperature, top_p)
    tail = longest - 1  # beam.py's criterion and processor expect the last token of the prompt and what is new
    new = policy.generate(
        ids, attention_mask=mask, max_new_tokens=max(left),
        logits_processor=LogitsProcessorList([lambda ids, logits: sampler(ids[:, tail:], logits)]),
        stopping_criteria=StoppingCriteriaList([lambda ids, scores, **_: stop(ids[:, tail:], scores)]),
    )[:, longest:]
    steps = [tokens[:length] for tokens, length in zip(new.tolist(), stop.length.tolist())]
    return steps, [row + step for row, step in zip(rows, steps)]


class PlainPRM:
    """As common.prm.PRM, but each call reads every dialogue from its beginning."""

    def __init__(self, prm):
        self.prm = prm

    def start(self, problems):
        self.dialogues = [(self.prm.family.opening(problem), 0) for problem in problems]  # (tokens, steps)

    def score(self, parents, texts):
        dialogues, new = [], []
        for parent, text in zip(parents, texts):
            (tokens, turns), steps = self.dialogues[parent], split_steps(text)
            for number, step in enumerate(steps, turns + 1):
                tokens = tokens + self.prm.family.turn(step, number)
            dialogues.append((tokens, turns + len(steps)))
            new.append(len(steps))
        assert max(new) <= 1, "a step holds a separator"
        self.dialogues = dialogues
        ids = pad_sequence([torch.tensor(tokens) for tokens, _ in dialogues], batch_first=True)  # what is causal ignores pads behind
        hidden = self.prm.model(ids, use_cache=False).last_hidden_state
        ends = torch.tensor([len(tokens) - 1 for tokens, _ in dialogues])
        scores = self.prm.family.score(hidden[torch.arange(len(ends)), ends].float()).tolist()
        return [[score] * count for score, count in zip(scores, new)]


# --- the pairs --------------------------------------------------------------------------------------------------------


def bundled_pair():
    policy, tokenizer = beam.load_policy(str(ROOT / "tiny/policy"), four_bit=False, device=CPU)
    return policy, tokenizer, load_prm(str(ROOT / "tiny/prm"), four_bit=False, device=CPU)


def random_pair(hidden, layers):
    """A policy and a PRM with random weights and the bundled tokenizer. 512 and 8: 26 million parameters each."""
    torch.manual_seed(0)
    _, tokenizer, prm = bundled_pair()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128, intermediate_size=3 * hidden, max_position_embeddings=2048, tie_word_embeddings=False,
    )
    policy = random_policy(config, tokenizer, of_step=32, of_text=250)
    judge = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval().model
    return policy, tokenizer, PRM(judge, tokenizer, random_family(prm, judge))


def random_policy(config, tokenizer, *, of_step, of_text, dtype=torch.float32):
    """Random weights with a vocabulary of len(tokenizer), and a head that ends steps and texts as end_bias() says."""
    policy = LlamaForCausalLM._from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    policy.lm_head = torch.nn.Linear(config.hidden_size, len(tokenizer), dtype=dtype)
    torch.nn.init.normal_(policy.lm_head.weight, std=0.02)
    with torch.no_grad():
        policy.lm_head.bias.copy_(end_bias(tokenizer, len(tokenizer), of_step=of_step, of_text=of_text))
    policy.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id], pad_token_id=len(tokenizer) - 1)
    return policy


def end_bias(tokenizer, vocabulary, *, of_step, of_text):
    """[vocabulary], for logits that are all alike: one token in `of_step` ends a step, one in `of_text` the text."""
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer))]
    blank = [token for token, text in enumerate(texts) if "\n" in text or not text.strip()]
    plain = len(tokenizer) - len(blank)
    bias = torch.full((vocabulary,), -torch.inf)  # what the tokenizer has not is never written
    bias[:len(tokenizer)] = 0.0
    bias[blank] = -torch.inf  # there is no other way to end a step, and no step without text
    bias[tokenizer.convert_tokens_to_ids("ĊĊ")], bias[tokenizer.eos_token_id] = torch.tensor([plain / of_step, plain / of_text]).log().tolist()
    return bias


def random_family(prm, judge):
    """The bundled PRM's way of writing dialogues, with a random direction to score by in the place of its head's."""
    family = RLHFlow.__new__(RLHFlow)
    vars(family).update(vars(prm.family))
    direction = torch.randn(judge.config.hidden_size, device=judge.device) / judge.config.hidden_size ** 0.5
    family.score = lambda hidden: torch.sigmoid(hidden @ direction)
    return family


if __name__ == "__main__":
    main()
