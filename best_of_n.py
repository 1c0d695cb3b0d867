"""Best-of-N: sample N solutions, score them with a process reward model (PRM), take the best.

Two ways to take it. Vanilla (`best` in the table) is the solution with the highest score. Weighted adds up the scores
of all solutions with the same answer and takes the answer with the highest sum: a majority vote in which each voter
counts as much as the PRM trusts it. It keeps what is good in voting, that no single mistaken score decides, and beats
plain majority (majority.py) if the PRM knows more than the frequencies do.

    question ─┬─ ... 46   0.8        N = 4
              ├─ ... 41   0.9        best: 41
              ├─ ... 46   0.7        weighted: 46, with 1.5 against 0.9
              └─ ... 12   0.1

Lightman et al. 2023, "Let's Verify Step by Step" (https://arxiv.org/abs/2305.20050); Li et al. 2023, "Making Language
Models Better Reasoners with Step-Aware Verifier" (https://arxiv.org/abs/2206.02336) for the weighted vote.

A solution's step scores become one by --reduction: the last step's (as in the blog post and code behind dvts.py), the
least, or the product (as Lightman et al. do).

    python best_of_n.py --n 64                              # a problem set: a table of accuracy and cost
    python best_of_n.py --n 64 --problem "What is 7 * 8?"   # one question
"""

import sys

from common import runner


def parse_args(argv=None):
    parser = runner.ArgumentParser(description="Best-of-N: sample N solutions, a PRM picks the best, or weighs the vote.")
    parser.add_argument("--n", type=runner.positive_int, default=64, help="solutions to sample")
    parser.add_argument("--temperature", type=runner.non_negative_float, default=0.8, help="of sampling; 0 is greedy")
    parser.add_argument("--top-p", type=runner.probability, default=1.0, help="sample among the likeliest tokens that make up this share")
    parser.add_argument("--max-new-tokens", type=runner.positive_int, default=2048, help="longest solution, in tokens")
    runner.add_run_flags(parser, prm=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    args = parse_args()  # before the imports that take seconds: --help and a misspelt flag are answered at once

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DynamicCache, GenerationConfig
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from common.chat import encode_prompt
from common.prm import load_prm

# In comments on shapes: rows of the batch, V vocabulary, T slots of the cache, S tokens of the longest solution.


# --- the search -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def best_of_n(policy, tokenizer, prm, problem, generator, *, n, temperature, top_p, max_new_tokens, on_step):
    """Sample n solutions and score every step of each. Returns their tokens, and their scores (one list each)."""
    on_step(1, n)
    solutions = sample_solutions(
        policy, tokenizer, problem, generator, n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens
    )
    prm.start([problem])
    return solutions, prm.score([0] * n, decode(tokenizer, solutions), keep=False)


# Copied from majority.py
@torch.inference_mode()
def sample_solutions(policy, tokenizer, problem, generator, *, n, temperature, top_p, max_new_tokens) -> list[list[int]]:
    """The tokens of n solutions, each to the end of text or cut at a limit. policy, tokenizer: from load_policy()."""
    rows = select(prefill(policy, encode_prompt(tokenizer, problem)), [0] * n)
    room = min(max_new_tokens, policy.config.max_position_embeddings - rows.mask.shape[1] - 1)
    uniforms = torch.rand(n, room, generator=generator)
    solutions, _ = sample_steps(policy, rows, uniforms, [room] * n, text_ends(policy), temperature=temperature, top_p=top_p)
    return solutions


# --- the policy and its KV cache --------------------------------------------------------------------------------------


# Copied from beam.py
def load_policy(folder: str, *, four_bit: bool, device: torch.device):
    """The model that writes, and its tokenizer: bfloat16 on a GPU, float32 on a CPU, 4-bit NF4 on either if wanted."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    policy = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32 if device.type == "cpu" and not four_bit else torch.bfloat16,
        quantization_config=nf4 if four_bit else None, device_map={"": device}, attn_implementation="sdpa",
    )
    # What a checkpoint recommends (top-k 50, top-p 0.9, a repetition penalty) would quietly bend our sampling.
    eos = policy.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    # Padding is never attended to and never decoded: any id will do that no text ends with, or generate() would warn.
    policy.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=policy.config.vocab_size - 1)
    return policy.eval(), AutoTokenizer.from_pretrained(folder)


# Copied from beam.py
@dataclass
class Rows:
    r"""A batch of unfinished texts in the policy's cache.

    The cache holds every token of a row EXCEPT THE LAST, which generate() takes as its input: with all of them in the
    cache there would be nothing to feed, and generate() would go wrong without a word. Texts differ in length but slots
    are a rectangle, so the mask says which slots are a row's own. select() and sample_steps() change the cache in place and
    return the Rows to go on with; those they were given are spent.

        mask  0 0 1 1 1 1 1    last  .
              1 1 1 1 1 1 1          so
              0 1 1 1 1 1 1          \n\n
    """

    cache: DynamicCache  # in each layer keys and values [rows, kv heads, T, head_dim]
    mask: torch.Tensor  # [rows, T]: 1 where a row has a token
    last: torch.Tensor  # [rows, 1]: the token that is not in the cache yet


# Copied from beam.py
def prefill(policy, prompt: list[int]) -> Rows:
    """Read the prompt once, at batch 1, however many completions it will get. Raises ValueError if it is too long."""
    if len(prompt) >= policy.config.max_position_embeddings:
        raise ValueError(f"the prompt has {len(prompt)} tokens, the policy takes {policy.config.max_position_embeddings}: shorten it")
    ids = torch.tensor([prompt], device=policy.device)
    cache = DynamicCache()
    policy.base_model(ids[:, :-1], past_key_values=cache, use_cache=True)  # not policy(...): its logits are not needed
    return Rows(cache, torch.ones_like(ids[:, :-1]), ids[:, -1:])


# Copied from beam.py
def select(rows: Rows, index: list[int]) -> Rows:
    """New row i is old row index[i]. One gather drops, copies and reorders rows, and closes the holes in them.

    Holes: the rows that end a step early are padded until the slowest has ended its own. Those slots are never attended
    to, but would fill the cache. A stable sort of the mask moves them to the left, where the row's tokens stay in order.
    """
    index = torch.tensor(index, device=rows.mask.device)
    mask = rows.mask[index]
    slots = mask.argsort(dim=1, stable=True)[:, -int(mask.sum(1).max()):]  # [rows, T]
    for layer in rows.cache.layers:
        layer.keys, layer.values = (
            kv.transpose(1, 2)[index[:, None], slots].transpose(1, 2) for kv in (layer.keys, layer.values)
        )
    return Rows(rows.cache, mask.gather(1, slots), rows.last[index])


# Copied from beam.py
def sample_steps(policy, rows: Rows, uniforms, left: list[int], ends, *, temperature, top_p) -> tuple[list[list[int]], Rows]:
    """Let every row write on to the end of its step. Returns its new tokens, and the rows that have them in the cache.

    uniforms: [rows, >= max(left)], the random numbers to draw tokens with; left: how many tokens each row may still get,
    at least 1; ends: from step_ends() or text_ends().
    """
    stop = StopAt(ends, left, policy.device)
    sampler = InverseTransformSampling(uniforms, temperature, top_p)
    texts = policy.generate(
        rows.last, attention_mask=torch.cat([rows.mask, torch.ones_like(rows.last)], 1), past_key_values=rows.cache,
        max_new_tokens=max(left), logits_processor=LogitsProcessorList([sampler]), stopping_criteria=StoppingCriteriaList([stop]),
    )
    new = texts[:, 1:]  # [rows, S], padded behind a row's end
    # The cache grew by S slots: the old last token and all new ones but the newest. Row i owns the first length[i].
    own = torch.arange(new.shape[1], device=new.device) < stop.length[:, None]
    rows = Rows(rows.cache, torch.cat([rows.mask, own.long()], 1), new.gather(1, stop.length[:, None] - 1))
    return [tokens[:length] for tokens, length in zip(new.tolist(), stop.length.tolist())], rows


# Copied from beam.py
class InverseTransformSampling(LogitsProcessor):
    """Samples from softmax(logits / temperature), cut to the top-p nucleus, with random numbers drawn beforehand.

    generate() would draw from one global stream, where a row that leaves changes what all others write. Here the t-th
    new token of a row is where its own t-th number falls in the cumulative distribution, whatever the rest of the batch.
    """

    def __init__(self, uniforms, temperature, top_p):
        self.uniforms, self.temperature, self.top_p = uniforms, temperature, top_p  # uniforms: [rows, >= tokens to come]

    def __call__(self, ids, logits):
        # ids: [rows, 1 + tokens so far], logits: [rows, V] -> logits that leave argmax no choice
        if self.temperature == 0:
            return logits
        logits = logits.double()  # in single precision the sum over 128k tokens is off, and need not even rise
        probs = torch.softmax((logits - logits.amax(-1, keepdim=True)) / self.temperature, -1)
        if self.top_p < 1:
            ranked, order = probs.sort(descending=True)
            outside = ranked.cumsum(-1) - ranked >= self.top_p  # the token that crosses top_p is still inside
            probs = probs.scatter(1, order, ranked.masked_fill(outside, 0))
        below = probs.cumsum(-1)
        mark = self.uniforms[:, ids.shape[1] - 1, None].to(below.device) * below[:, -1:]
        token = (below <= mark).sum(-1, keepdim=True).clamp(max=below.shape[1] - 1)
        return torch.full_like(logits, -torch.inf).scatter(1, token, 0.0)


# Copied from beam.py
class StopAt(StoppingCriteria):
    r"""Stops each row at the end of its step, of the text, or of what it has left; keeps the length it had by then.

    A set of token ids would miss a separator in two halves: ".\n" + "\n". generate()'s own stop_strings finds those but
    is built anew at each call, half a second with 128k tokens. Two look-ups in tables made once do the same.
    """

    def __init__(self, ends, left, device):
        self.whole, self.first_half, self.second_half = ends  # each [V], bool
        self.left = torch.tensor(left, device=device)
        self.length = torch.zeros_like(self.left)  # [rows], 0 = still writing

    def __call__(self, ids, scores, **_):
        # ids: [rows, 1 + tokens so far]; the one in front belongs to the step before
        length = ids.shape[1] - 1
        stopped = self.whole[ids[:, -1]] | (length >= self.left)
        if length > 1:
            stopped |= self.first_half[ids[:, -2]] & self.second_half[ids[:, -1]]
        self.length = torch.where((self.length == 0) & stopped, length, self.length)
        return stopped  # generate() itself remembers which rows had stopped before


# Copied from beam.py
def text_ends(policy):
    """The tables of step_ends() if only the end of text counts."""
    none = torch.zeros(policy.config.vocab_size, dtype=torch.bool, device=policy.device)
    eos = torch.tensor(policy.generation_config.eos_token_id, device=policy.device)
    return none.index_fill(0, eos, True), none, none


# Copied from beam.py
def decode(tokenizer, texts: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(texts, skip_special_tokens=True)


# --- the run ----------------------------------------------------------------------------------------------------------


def main(args) -> int:
    runner.choose_models(args)
    device = runner.device()
    policy_folder, prm_folder = runner.model_folder(args.policy, "--policy"), runner.model_folder(args.prm, "--prm", args.allow_pickle)
    policy, tokenizer = load_policy(policy_folder, four_bit=args.policy_4bit, device=device)
    with runner.loading("--prm", args.prm):
        prm = load_prm(prm_folder, family=args.prm_family, four_bit=args.prm_4bit, device=device, allow_pickle=args.allow_pickle)

    def solve(problem, generator, on_step):
        solutions, scores = best_of_n(
            policy, tokenizer, prm, problem, generator, n=args.n, temperature=args.temperature, top_p=args.top_p,
            max_new_tokens=args.max_new_tokens, on_step=on_step,
        )
        return [
            dict(text=text, scores=steps, tokens=len(tokens), finished=tokens[-1] in policy.generation_config.eos_token_id)
            for text, steps, tokens in zip(decode(tokenizer, solutions), scores, solutions)
        ], sum(map(len, solutions))

    return runner.run(args, solve, {"policy": runner.Meter(policy), "prm": runner.Meter(prm.model)})


if __name__ == "__main__":
    sys.exit(main(args))
