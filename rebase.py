"""REBASE, reward balanced search: the number of children a step gets grows with its reward.

The process reward model (PRM) scores all unfinished steps of one depth, and a softmax over these rewards shares out the
budget: step j is continued W_j = Round(B softmax(R / T_b)_j) times, rounded so that these sum to B. Good steps are explored
widely, fair ones a little, bad ones not at all. Beam search (beam.py) gives every survivor the same M and all others
nothing; here there is no M to choose, and a solution that ends takes its place out of the budget B of the depths below.

    question ─┬─ 0.9 ─┬─ ...        N = 4; softmax((0.9, 0.2, 0.7, 0.1) / 0.2) = (0.71, 0.02, 0.26, 0.01), times 4:
              │       ├─ ...        three children for the first, one for the third
              │       └─ ...
              ├─ 0.2
              ├─ 0.7 ─── ...
              └─ 0.1

Wu et al. 2024, "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference for LLM Problem-Solving",
section 3.2 (https://arxiv.org/abs/2408.00724). The balance temperature T_b runs from "all to the best" (T_b -> 0) to "the
same to each" (T_b large). The default is the 0.2 of the authors' configuration (their paper says 0.1): at 0.2 a step with
a reward 0.14 higher gets twice the children. The N leaves are N samples and N votes, equal ones included.

    python rebase.py --n 64                              # a problem set: a table of accuracy and cost
    python rebase.py --n 64 --problem "Start with 12. Add 5, multiply by 2. What is the result?"
"""

import sys

from common import inputs, runner


def parse_args(argv=None):
    parser = inputs.ArgumentParser(description="REBASE: continue each step in proportion to softmax(reward / T_b).")
    parser.add_argument("--n", type=inputs.positive_int, default=64, help="solutions returned; steps sampled at each depth, less those ended")
    parser.add_argument("--balance-temperature", type=inputs.positive_float, default=0.2, help="T_b: low favours the best step, high shares alike")
    parser.add_argument("--rounding", choices=["round", "ceil"], default="round", help="how shares become whole numbers: as in the paper, or in its authors' code")
    parser.add_argument("--max-steps", type=inputs.positive_int, default=40, help="depth at most; the last step runs to the end of text")
    parser.add_argument("--temperature", type=inputs.non_negative_float, default=0.8, help="of sampling; 0 is greedy")
    parser.add_argument("--top-p", type=inputs.probability, default=1.0, help="sample among the likeliest tokens that make up this share")
    parser.add_argument("--max-new-tokens", type=inputs.positive_int, default=2048, help="longest solution, in tokens")
    inputs.add_run_flags(parser, prm=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    args = parse_args()  # before the imports that take seconds: --help and a misspelt flag are answered at once

import math
from dataclasses import dataclass, field

import torch
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Cache, DynamicCache, DynamicLayer, GenerationConfig
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from common.chat import encode_prompt
from common.prm import load_prm


# --- the search -------------------------------------------------------------------------------------------------------

# Copied from beam.py
@dataclass(eq=False)
class Node:
    """A partial solution: the steps from the question to here."""

    problem: int  # of which of the problems being solved side by side
    row: int  # its index in what was last sampled: in prefixes, and among the PRM's children
    tokens: list[int] = field(default_factory=list)  # the policy's own: text is never tokenized again
    scores: list[float] = field(default_factory=list)  # the PRM's, one for each step
    value: float = 0.0  # what the search goes by: the scores reduced to one number
    finished: bool = False  # ended by the end of text
    cut: bool = False  # ended by a limit


@torch.inference_mode()
def rebase(policy, tokenizer, prm, problems, generators, *,
           n, balance_temperature, rounding, max_steps, temperature, top_p, max_new_tokens, reduce, on_step):
    """Solve problems side by side. Returns for each its n ended Nodes; and for each the number of tokens sampled.

    policy, tokenizer: from load_policy(); generators: a torch.Generator for each problem, so that what is solved beside it
    changes nothing; rounding: "round" or "ceil"; reduce(scores) -> reward; on_step(step, rows) is called before each step.
    """
    prompts = [encode_prompt(tokenizer, problem) for problem in problems]
    room = [min(max_new_tokens, policy.config.max_position_embeddings - len(prompt)) for prompt in prompts]
    prefixes, step_end, text_end = prefill(policy, prompts), step_ends(tokenizer, policy), text_ends(policy)
    prm.start(problems)
    frontiers = [[Node(problem=i, row=i)] for i in range(len(problems))]
    leaves, sampled = [[] for _ in problems], [0] * len(problems)

    for step in range(1, max_steps + 1):
        widths = [allocate(n - len(ended), [node.value for node in frontier], balance_temperature, rounding) if frontier else []
                  for frontier, ended in zip(frontiers, leaves)]
        parents = [node for nodes in zip(frontiers, widths) for node, width in zip(*nodes) for _ in range(width)]
        on_step(step, len(parents))
        rows = [parent.row for parent in parents]
        uniforms = torch.stack([torch.rand(max_new_tokens, generator=generators[parent.problem]) for parent in parents])
        left = [room[parent.problem] - len(parent.tokens) for parent in parents]
        ends = step_end if step < max_steps else text_end
        steps, prefixes = sample_steps(policy, prefixes, rows, uniforms, left, ends, temperature=temperature, top_p=top_p)
        scores = prm.score(rows, decode(tokenizer, steps))

        children = [grow(policy, reduce, row, *new) for row, new in enumerate(zip(parents, steps, scores, left))]
        frontiers = [[] for _ in problems]
        for child, tokens in zip(children, steps):
            sampled[child.problem] += len(tokens)
            (leaves if child.finished or child.cut else frontiers)[child.problem].append(child)
        if not any(frontiers):
            break
    return leaves, sampled


def allocate(budget: int, rewards: list[float], balance_temperature: float, rounding: str) -> list[int]:
    """Children of each node, whose sum is `budget`, from softmax(rewards / T_b).

    "round", the paper's: where the rounded shares miss the budget, the largest remainders are rounded up. "ceil", the authors'
    code: from the best node down, each gets the ceiling of its share of what is left, and the last go without.
    """
    rewards = torch.tensor(rewards if max(rewards) > -math.inf else [0.0] * len(rewards), dtype=torch.float64)  # all bad: all alike
    weights = ((rewards - rewards.max()) / balance_temperature).exp()  # the best is exp(0), so the sum is never 0
    if rounding == "round":
        shares = (budget * weights / weights.sum()).tolist()
        children = [math.floor(share) for share in shares]
        for node in sorted(range(len(shares)), key=lambda node: children[node] - shares[node])[:budget - sum(children)]:
            children[node] += 1
    else:
        children, order = [0] * len(rewards), weights.argsort(descending=True, stable=True)
        rest = weights[order].flip(0).cumsum(0).flip(0)  # what a node and all below it weigh together
        for node, weight, total in zip(order.tolist(), weights[order].tolist(), rest.tolist()):
            children[node] = min(budget, math.ceil(budget * weight / total)) if total else 0
            budget -= children[node]
    return children


# Copied from beam.py
def grow(policy, reduce, row, parent, tokens, scores, left) -> Node:
    """The child that continues `parent` by one step. left: how many tokens it could have had."""
    finished = tokens[-1] in policy.generation_config.eos_token_id
    cut = not finished and len(tokens) >= left
    child = Node(parent.problem, row, parent.tokens + tokens, parent.scores + scores, finished=finished, cut=cut)
    # A blank step has no score of its own. With its parent's it would often win, and the search would fill with blanks.
    child.value = worth(child.scores, reduce) if scores or finished else -math.inf
    return child


# Copied from beam.py
def worth(scores, reduce) -> float:
    """What a search goes by. A PRM that answers NaN must not win by it, and a text without a step is worth nothing."""
    return reduce(scores) if scores and all(map(math.isfinite, scores)) else -math.inf


# --- the policy and its KV cache, the same in all five scripts --------------------------------------------------------

# In comments on shapes: rows of the batch, V vocabulary, T slots of a text, S tokens read or written at once.
CHUNK = 16  # tokens per call of generate(), then rows that have ended leave: fewer make more calls, more make more padding


# Copied from beam.py
def load_policy(folder: str, *, four_bit: bool, device: torch.device):
    """The model that writes, and its tokenizer: bfloat16 on a GPU, float32 on a CPU, 4-bit NF4 on either if wanted."""
    dtype = torch.float32 if device.type == "cpu" and not four_bit else torch.bfloat16
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=nf4 if four_bit else None, device_map={"": device})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (eos := policy.generation_config.eos_token_id or tokenizer.eos_token_id) is None:
        raise ValueError("it names no token that ends a text")
    # What a checkpoint recommends (top-k 50, top-p 0.9, a repetition penalty) would quietly bend our sampling. Padding is never
    # attended to and never decoded: any id will do.
    policy.generation_config = GenerationConfig(eos_token_id=eos if isinstance(eos, list) else [eos], pad_token_id=policy.config.vocab_size - 1)
    return policy.eval(), tokenizer


# Copied from beam.py
@dataclass
class Prefixes:
    r"""Texts to go on from, as the policy's cache of them: all of each EXCEPT ITS LAST TOKEN, which generate() takes as its
    input. With all of them in the cache there would be nothing to feed, and generate() would go wrong without a word.

    The cache is a pool with a slot for each token that went through the policy, and a text is a row of slot numbers. Texts share
    the slots of what they have in common, and to drop, double or reorder them is to index a small table of integers.

        pool   0 1 2 3 4 5 6 7 8 9        two texts that begin with slots 0 to 4, a prompt:    . 0 1 2 3 4 5 6     (. is -1, no slot)
                                                                                               0 1 2 3 4 7 8 9
    """

    pool: list  # of each layer (keys, values), each [slots, heads, head_dim]
    slots: torch.Tensor  # [texts, T]: those of each text in order, behind as many -1 as make a rectangle
    last: torch.Tensor  # [texts, 1]: the last token of each
    at_once: int = 1 << 30  # how many may be written side by side; halved when the GPU's memory runs out


# Copied from beam.py
def prefill(policy, prompts: list[list[int]]) -> Prefixes:
    """Read each prompt once, with the base model: no logits are needed. Raises ValueError if one is too long for the policy."""
    longest, context = max(map(len, prompts)), policy.config.max_position_embeddings
    if longest >= context:
        raise ValueError(f"the prompt has {longest} tokens, the policy takes {context}: shorten it")
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=policy.device)
    real = torch.tensor([[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts], device=policy.device)
    cache, position = DynamicCache(), (real.cumsum(1) - 1).clamp(min=0)  # given no positions, the model would count the padding
    policy.base_model(ids[:, :-1], attention_mask=real[:, :-1].long(), position_ids=position[:, :-1], past_key_values=cache, use_cache=True)
    pool = [tuple(kv.transpose(1, 2)[real[:, :-1]] for kv in (layer.keys, layer.values)) for layer in cache.layers]
    return Prefixes(pool, number_slots(real[:, :-1]), ids[:, -1:])


# Copied from beam.py
def sample_steps(policy, prefixes: Prefixes, parents: list[int], uniforms, left: list[int], ends, *, temperature, top_p, keep=True):
    """One next step for each of `parents`, indices into prefixes, which may repeat. Returns (steps, prefixes with them).

    steps: tokens of each; uniforms: [parents, >= max(left)], the random numbers to draw them with; left: how many tokens
    each may have, at least 1 and within the context; ends: from step_ends() or text_ends(); keep: False if no text will
    be continued (prefixes: None).
    """
    parents, left, uniforms = torch.tensor(parents, device=policy.device), torch.tensor(left, device=policy.device), uniforms.to(policy.device)
    slots, last, at_once, steps, pools = prefixes.slots[parents], prefixes.last[parents], prefixes.at_once, [], []
    while len(steps) < len(parents):
        batch = slice(len(steps), len(steps) + at_once)
        try:
            new, pool = write(policy, prefixes.pool, slots[batch], last[batch], uniforms[batch], left[batch], ends, temperature, top_p, keep)
            steps, pools = steps + new, pools + [pool]
        except torch.cuda.OutOfMemoryError:
            if (at_once := min(at_once, len(parents) - len(steps)) // 2) == 0:
                raise
    if not keep:
        return steps, None
    used, renumbered = slots[slots >= 0].unique(return_inverse=True)  # slots that none of these texts uses are dropped
    length = torch.tensor([[len(step)] for step in steps], device=policy.device)
    own = number_slots(torch.arange(length.max(), device=policy.device) < length, first=len(used))
    pool = [tuple(torch.cat([old[used], *new]) for old, *new in zip(*layers)) for layers in zip(prefixes.pool, *pools)]
    slots, last = slots.masked_scatter(slots >= 0, renumbered), torch.tensor([step[-1:] for step in steps], device=policy.device)
    return steps, Prefixes(pool, squeeze(torch.cat([slots, own], 1)), last, at_once)


# Copied from beam.py
def write(policy, pool, slots, last, uniforms, left, ends, temperature, top_p, keep):
    """Go on with texts, rows of slots of the pool, each to the end of its step. Returns the tokens of each step and, with `keep`, a
    pool of what went through the policy for it, text by text: the text's old last token, and the step without its newest.

    generate() goes on until the slowest row has ended and feeds padding to all others: most of what it forwards where steps
    differ much in length. Here it writes CHUNK tokens at a time, and rows that have ended leave in between.
    """
    pool, steps = list(pool), [[] for _ in left]
    writing, written = torch.arange(len(left), device=left.device), 0  # texts not yet ended, and how many tokens each has so far
    kept, order = [], []  # keys and values of what was read, chunk by chunk, and of which text and token they are
    while True:
        slots = squeeze(slots)
        places = pad(slots, (0, CHUNK)).clamp(min=0)  # with room behind; where there is no slot, any will do
        pool = [lay_out(pool.pop(0), places) for _ in range(len(pool))]  # an old layer goes as the new one comes
        T, most, real = slots.shape[1], left[writing] - written, slots >= 0
        sampler, stop = InverseTransformSampling(uniforms[writing, written:], temperature, top_p), StopAt(ends, most, first=written == 0)
        chunk = policy.generate(
            last, attention_mask=torch.cat([real, torch.ones_like(last)], 1), past_key_values=Cache(layers=[Roomy(*layer, T) for layer in pool]),
            max_new_tokens=min(CHUNK, policy.config.max_position_embeddings - T),  # the pads of rows that have ended take positions too
            logits_processor=LogitsProcessorList([sampler]), stopping_criteria=StoppingCriteriaList([stop]),
        )[:, 1:]  # [rows, S]
        S, ended = chunk.shape[1], stop.length > 0
        length = torch.where(ended, stop.length, S)
        for i, tokens, end in zip(writing.tolist(), chunk.tolist(), length.tolist()):
            steps[i] += tokens[:end]
        if keep:  # written behind the T slots: the old last token and all new ones but the newest
            row, token = (torch.arange(S, device=left.device) < length[:, None]).nonzero(as_tuple=True)
            kept.append([tuple(kv[row, T + token] for kv in layer) for layer in pool])
            order.append(writing[row] * uniforms.shape[1] + written + token)  # to sort by: text by text, its tokens in order
        if ended.all():
            by_text = torch.cat(order).argsort() if keep else None
            return steps, [tuple(torch.cat(new)[by_text] for new in zip(*layer)) for layer in zip(*kept)]
        # Laid out, the texts are a pool in their turn, of T + CHUNK slots for each row: the rest goes on from there.
        slots = torch.arange(len(last) * (T + CHUNK), device=left.device).view(len(last), -1)[:, :T + S]
        slots = torch.where(pad(real, (0, S), value=True), slots, -1)[~ended]
        last, writing, written = chunk[~ended, -1:], writing[~ended], written + S


# Copied from beam.py
def lay_out(layer, places):
    """A batch of what is at these slots [rows, T] of a pool's layer (keys, values): each [rows, T, heads, head_dim]."""
    return [kv.flatten(0, -3).index_select(0, places.flatten()).unflatten(0, places.shape) for kv in layer]


# Copied from beam.py
def number_slots(real, first=0):
    """Numbers for what is True in real [texts, T], row by row from `first` on; -1 elsewhere."""
    return torch.where(real, real.flatten().cumsum(0).view_as(real) - 1 + first, -1)


# Copied from beam.py
def squeeze(slots):
    """Close the holes in each row: nothing attends to them, but they would fill the batch. A stable sort keeps a row's slots in order."""
    real = slots >= 0
    return slots.gather(1, real.long().argsort(dim=1, stable=True))[:, slots.shape[1] - int(real.sum(1).max()):]


# Copied from beam.py
class Roomy(DynamicLayer):
    """T slots of keys and values [rows, T + room, heads, head_dim]. A DynamicLayer has no room: each token makes it copy all it holds."""

    def __init__(self, keys, values, T):
        super().__init__()
        self.keys, self.values, self.T, self.is_initialized = keys.transpose(1, 2), values.transpose(1, 2), T, True

    def get_seq_length(self):
        return self.T

    def update(self, keys, values, *args, **kwargs):
        for held, new in zip((self.keys, self.values), (keys, values)):
            held.narrow(2, self.T, new.shape[2]).copy_(new)  # an error if there is no room, where [:, :, T:] = would say nothing
        self.T += keys.shape[2]
        return self.keys[:, :, :self.T], self.values[:, :, :self.T]


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
        mark = self.uniforms[:, ids.shape[1] - 1, None] * below[:, -1:]
        token = (below <= mark).sum(-1, keepdim=True).clamp(max=below.shape[1] - 1)
        return torch.full_like(logits, -torch.inf).scatter(1, token, 0.0)


# Copied from beam.py
class StopAt(StoppingCriteria):
    r"""Stops each row at the end of its step, of the text, or of what it has left; keeps the length it had by then.

    A set of token ids would miss a separator in two halves: ".\n" + "\n". generate()'s own stop_strings finds those but
    is built anew at each call, half a second with 128k tokens. Two look-ups in tables made once do the same.
    """

    def __init__(self, ends, left, *, first):
        self.ends, self.left = ends, left  # three tables [V] of bool; [rows]
        self.first = first  # the token in front belongs to the step before, and is no half of this one's end
        self.length = torch.zeros_like(left)  # [rows], 0 = still writing

    def __call__(self, ids, scores, **_):
        # ids: [rows, 1 + tokens so far], the one in front being the last that was there before
        length, (whole, first_half, second_half) = ids.shape[1] - 1, self.ends
        stopped = whole[ids[:, -1]] | (length >= self.left)
        if length > 1 or not self.first:
            stopped |= first_half[ids[:, -2]] & second_half[ids[:, -1]]
        self.length = torch.where((self.length == 0) & stopped, length, self.length)
        return stopped  # generate() itself remembers which rows had stopped before


# Copied from beam.py
def step_ends(tokenizer, policy):
    r"""Three tables over the vocabulary, each [V]: tokens that end a step ("\n\n" in them, or end of text); tokens that
    end in "\n"; tokens that begin with it. With 128k tokens they take half a second to make."""
    texts = tokenizer.batch_decode([[token] for token in range(min(len(tokenizer), policy.config.vocab_size))], skip_special_tokens=True)
    texts += [""] * (policy.config.vocab_size - len(texts))  # many models have more rows in their head than tokens
    table = lambda test: torch.tensor([test(text) for text in texts], device=policy.device)
    return table(lambda t: "\n\n" in t) | text_ends(policy)[0], table(lambda t: t.endswith("\n")), table(lambda t: t.startswith("\n"))


# Copied from beam.py
def text_ends(policy):
    """The tables of step_ends() if only the end of text counts."""
    none = torch.zeros(policy.config.vocab_size, dtype=torch.bool, device=policy.device)
    return none.index_fill(0, torch.tensor(policy.generation_config.eos_token_id, device=policy.device), True), none, none


# Copied from beam.py
def decode(tokenizer, texts: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(texts, skip_special_tokens=True)


# --- the run ----------------------------------------------------------------------------------------------------------

def main(args) -> int:
    problems = runner.prepare(args)
    with inputs.loading("--policy", args.policy) as folder:
        policy, tokenizer = load_policy(folder, four_bit=args.policy_4bit, device=inputs.device())
    with inputs.loading("--prm", args.prm, args.allow_pickle) as folder:
        prm = load_prm(folder, family=args.prm_family, four_bit=args.prm_4bit, device=policy.device, allow_pickle=args.allow_pickle)

    def solve(problems, generators, on_step):
        solutions, sampled = rebase(
            policy, tokenizer, prm, problems, generators, n=args.n, balance_temperature=args.balance_temperature,
            rounding=args.rounding, max_steps=args.max_steps, temperature=args.temperature, top_p=args.top_p,
            max_new_tokens=args.max_new_tokens, reduce=inputs.REDUCE[args.reduction], on_step=on_step)
        return [[dict(text=text, scores=node.scores, tokens=len(node.tokens), finished=node.finished, row=node.row)
                 for node, text in zip(nodes, decode(tokenizer, [node.tokens for node in nodes]))] for nodes in solutions], sampled

    return runner.run(args, problems, solve, policy, prm)


if __name__ == "__main__":
    sys.exit(main(args))
