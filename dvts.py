"""DVTS, diverse verifier tree search: beam search in N/M subtrees that never compete.

Each of the N/M subtrees holds one partial solution. The policy writes M next steps for it, a
process reward model (PRM) scores them, and the best of the M is continued, until that best one is
at the end of its text. Beam search (beam.py) compares all N steps with each other, so that at large
N everything may soon descend from one favourite, right or wrong. Here every subtree goes its own
way, and a vote over their answers has different opinions to count. Only chance makes subtrees
differ: they may begin alike, but none can take over. And none goes back: where all M steps are
wrong, a wrong one is continued.

    question ─┬─ subtree 1 ─┬─ 0.9 ─┬─ 0.3          N = 4 steps at each depth,
              │             └─ 0.2  └─ 0.8 ─ ...    M = 2 in each of N/M = 2 subtrees,
              └─ subtree 2 ─┬─ 0.4                  and the best of each M is continued
                            └─ 0.5 ─┬─ 0.1
                                    └─ 0.6 ─ ...

The same tree is the KV cache. A step is a Node, which owns the keys and values of its own tokens
and points at its parent. What siblings have in common is stored once, and copied to their rows
while they are written. To continue a step M times is to name its Node M times. What the search lets
go of is freed by Python.

A subtree is over when its best step ends the text. It returns that solution, and those of its
siblings that finished too. Siblings that did not finish have no vote (the authors' code returns
them as well). Nor has a solution that was finished while a better step went on: it was turned down
like any other. Equal solutions are samples like all others. Where all siblings were cut by a limit,
they are returned, marked as cut.

With lookahead=1 a step is judged by the one that follows it greedily, as the authors' configuration
has it. By default there is none: what is written ahead costs about as much again.

Beeching, Tunstall, Rush 2024, "Scaling test-time compute with open models"
(https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).

    python dvts.py --n 64                   # a problem set: a table of accuracy and cost
    python dvts.py --n 64 --problem "Start with 12. Add 5, multiply by 2. What is the result?"
"""

import math
import sys
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    DynamicCache,
    DynamicLayer,
    GenerationConfig,
)

from common.chat import MATH_PROMPT, encode_prompt, end_of_turn
from common.loading import load_model
from common.prm import in_batches

# --- the search -----------------------------------------------------------------------------------


# Copied from beam.py
def last(scores):
    return scores[-1]


@torch.inference_mode()
def dvts(
    policy,
    tokenizer,
    prm,
    problems,  # list of str, solved side by side
    generators=None,  # a torch.Generator for each problem; None: seeded 0, 1, 2, ...
    *,
    n=64,  # steps sampled at each depth, solutions returned at most
    beam_width=4,  # M, the steps to choose from in a subtree; n // M subtrees share n (see share)
    max_steps=40,  # the last step goes to the end of text
    lookahead=0,  # judge a step by what it leads to in so many greedy steps
    temperature=0.8,
    top_p=1.0,
    max_new_tokens=2048,  # in a whole solution
    reduce=last,  # the scores of all steps so far -> what the search goes by
    system=MATH_PROMPT,
    thinking=False,  # let it think first, if its chat template has a switch for that
    separator="\n\n",  # what ends a step: a string, or a function (see step_end)
    on_step=None,  # on_step(depth, children) is called after each step
):
    """Returns for each problem a list of Solutions, at most n.

    policy and tokenizer: from load_policy(). prm: from common.prm.load_prm(), or a Scorer.
    """
    sampling = {"separator": separator, "temperature": temperature, "top_p": top_p}
    roots = prefill(policy, tokenizer, problems, system, max_new_tokens, thinking)
    generators = one_each(generators, roots)
    prm.read_problems(roots)
    widths = share(n, beam_width)
    subtrees = [Subtree(i, width, root) for root in roots for i, width in enumerate(widths)]
    solutions = [[] for _ in problems]

    for depth in range(1, max_steps + 1):
        # 1. The policy writes M next steps for each subtree.
        parents = [subtree.best for subtree in subtrees for _ in range(subtree.width)]
        uniforms = random_numbers(parents, generators, max_new_tokens)
        to_the_end = depth == max_steps
        children = sample_steps(policy, tokenizer, parents, uniforms, to_the_end, **sampling)

        # 2. The PRM scores them: child.scores, and of these the value that the search goes by.
        prm.score(children, separator)
        set_values(children, reduce)
        if lookahead and not to_the_end:
            look_ahead(policy, tokenizer, prm, children, lookahead, separator, reduce)
        if on_step:
            on_step(depth, children)

        # 3. In each subtree the best of the M goes on. If it is at its end, so is the subtree.
        for subtree in subtrees:
            siblings = children[: subtree.width]  # children are in the order of their parents
            children = children[subtree.width :]
            subtree.best = best_first(siblings)[0]
            if subtree.best.ended:
                for one in siblings:  # if a cut one is the best, all are cut, see best_first
                    if one.finished or subtree.best.cut:
                        solutions[one.problem].append(solution(tokenizer, one, subtree.index))
        subtrees = [subtree for subtree in subtrees if not subtree.best.ended]
        if not subtrees:
            break
    return solutions


@dataclass
class Subtree:
    index: int  # among those of its problem
    width: int  # the steps to choose from: M; more if M does not divide n, fewer if n < M
    best: "Node"  # the solution so far; at first the root


# Copied from beam.py
def best_first(nodes):
    """Nodes in order: those cut by a limit last, then by value; equal ones as they were sampled."""
    values = evened([node.value for node in nodes])
    ranks = [(not node.cut, value) for node, value in zip(nodes, values)]
    order = sorted(range(len(nodes)), key=lambda i: ranks[i], reverse=True)
    return [nodes[i] for i in order]


# Copied from beam.py
def evened(values):
    """The values, but those within 1e-6 of the next larger one are made equal to it.

    A PRM's scores differ by about 1e-7 with what else is in its batch. That must decide nothing.
    """
    even = list(values)
    order = sorted(range(len(values)), key=lambda i: values[i], reverse=True)
    for above, below in zip(order, order[1:]):
        if values[above] - values[below] < 1e-6:
            even[below] = even[above]
    return even


# Copied from beam.py
def share(n, beam_width):
    """n split over n // M parts, at least one, as equally as can be."""
    if n < 1 or beam_width < 1:
        raise ValueError(f"n is {n} and beam_width {beam_width}: both must be at least 1")
    parts = max(1, n // beam_width)
    return [n // parts + (part < n % parts) for part in range(parts)]


# Copied from beam.py
def one_each(generators, roots):
    """The generators; by default one for each root, seeded 0, 1, 2, ..."""
    if generators is None:
        return [torch.Generator().manual_seed(seed) for seed in range(len(roots))]
    many = len(roots)
    given = generators if isinstance(generators, list | tuple) else []
    if len(given) != many or not all(isinstance(one, torch.Generator) for one in given):
        raise ValueError(f"generators must be a list with a torch.Generator for {many} problems")
    return given


# Copied from beam.py
def look_ahead(policy, tokenizer, prm, children, depth, separator, reduce):
    """Give children the values that they have depth greedy steps later (Snell et al., 5.2)."""
    tips = list(children)  # how far each has been written
    ahead = [[] for _ in children]  # the scores beyond each child
    sampling = {"separator": separator, "temperature": 0.0, "top_p": 1.0}
    for _ in range(depth):
        going_on = [i for i, tip in enumerate(tips) if not tip.ended]
        if not going_on:
            break
        parents = [tips[i] for i in going_on]
        longest = max(parent.tokens_left for parent in parents)
        uniforms = torch.zeros(len(parents), longest)  # greedy: none is drawn by
        beyond = sample_steps(policy, tokenizer, parents, uniforms, False, **sampling)
        prm.score(beyond, separator)
        for i, tip in zip(going_on, beyond):
            tips[i] = tip
            ahead[i] += tip.scores
    for child, scores in zip(children, ahead):
        if scores:
            child.value = worth(child.all_scores() + scores, reduce)


# Copied from beam.py
def set_values(children, reduce):
    """Set what the search goes by: the scores of all steps up to each child, made one number."""
    for child in children:
        child.value = worth(child.all_scores(), reduce)
        if not child.scores and not child.finished:
            # A blank step: with its parent's value it would often win. The mere end of a text is
            # no step, and is worth what the scores before it are.
            child.value = -math.inf


# Copied from beam.py
def worth(scores, reduce):
    """Without a score, or with one that is NaN, a solution is worth -inf."""
    if not scores or not all(map(math.isfinite, scores)):
        return -math.inf
    return reduce(scores)


# --- the tree -------------------------------------------------------------------------------------


# Copied from beam.py
@dataclass(eq=False)
class Node:
    """A step of a solution, or all that is left of it if that was written to the end. The steps
    before it are its parent's.

    A node does not know its children: when a search drops it, nothing holds its keys and values.
    """

    parent: "Node | None"  # None: this is a root, a problem and its prompt
    problem: int  # which of the problems that are solved side by side
    tokens_left: int  # how many may still follow
    number: int = 0  # counts the steps written for this problem, from 1; a root has 0
    tokens: list[int] = field(default_factory=list)  # the policy's own: never tokenized again
    text: str = ""  # of a root: the problem
    finished: bool = False  # the policy has ended the text
    scores: list[float] = field(default_factory=list)  # one for each step in text that is not blank
    value: float = 0.0  # what the search goes by
    kv: torch.Tensor | None = None  # what the policy has cached of it, see below
    prm_kv: torch.Tensor | None = None  # what the PRM has cached of it
    # Its last tokens, if they begin the next step and are in that one's text already: see step_end
    begun: list[int] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)  # its text in steps, if a function says where
    written: int = 0  # of a root: how many steps were written for this problem, look_ahead's too

    @property
    def cut(self):
        """Ended by a limit."""
        return self.tokens_left == 0 and not self.finished

    @property
    def ended(self):
        return self.finished or self.tokens_left == 0

    def path(self):
        """The nodes from the root to this one."""
        before = self.parent.path() if self.parent else []
        return [*before, self]

    def all_scores(self):
        """Those of all steps up to this one."""
        return [score for node in self.path() for score in node.scores]


# Copied from beam.py
@dataclass
class Solution:
    """What is left of a path when its search is over: no keys and values."""

    text: str
    tokens: list[int]
    scores: list[float]  # the PRM's, one for each step that is not blank
    value: float  # what the search went by
    finished: bool  # False: it was cut by a limit
    path: list[int]  # the numbers of its nodes, which count the steps as they were sampled
    subtree: int | None = None  # of DVTS: which one it is from


# Copied from beam.py
def solution(tokenizer, node, subtree=None):
    _, *steps = node.path()
    tokens = [token for step in steps for token in step.tokens]
    return Solution(
        text=tokenizer.decode(tokens, skip_special_tokens=True),
        tokens=tokens,
        scores=node.all_scores(),
        value=node.value,
        finished=node.finished,
        path=[step.number for step in steps],
        subtree=subtree,
    )


# --- the policy and its KV cache, the same in all scripts -----------------------------------------

# A text's newest token is what the policy is fed next. Only then are there keys and values of it.
# So a cache is one token behind its text:
#
#     root, the prompt    p1 p2 p3 p4      root.kv: p1 p2 p3
#     its child           a1 a2 a3         child.kv: p4 a1 a2      as many as it has tokens
#     and the next step   b1 b2            next.kv: a3 b1
#
# What is cached of a token depends on its place in the text (position_ids), not on its column in a
# batch. So it can be cut out of one cache and laid out in another, behind other padding.
#
# kv: [2 (keys, values), layers, kv_heads, tokens, head_dim]; None where a text is at its end.
# Shapes: R rows of a batch, T tokens in the cache, V vocabulary.

ROOM = 32  # tokens that a cache can take in before it is copied to a larger place
BLOCK = 128  # of the vocabulary: sums within it are of single precision


# Copied from beam.py
def prefill(policy, tokenizer, problems, system, max_new_tokens, thinking=False):
    """Read each prompt once. Returns the roots, one for each problem.

    Raises ValueError if a prompt fills the policy's context, problems is no list of texts, or
    max_new_tokens is below 1.
    """
    texts = isinstance(problems, list | tuple) and all(isinstance(one, str) for one in problems)
    if not texts or not problems:
        raise ValueError(f"problems must be a list of texts, at least one, not {problems!r:.80}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it must be at least 1")
    context = getattr(policy.config, "max_position_embeddings", None) or math.inf
    roots = []
    for i, problem in enumerate(problems):
        prompt = encode_prompt(tokenizer, problem, system, thinking)
        tokens_left = min(max_new_tokens, context - len(prompt))
        if len(prompt) >= context:
            raise ValueError(f"a prompt of {len(prompt)} tokens fills the context of {context}")
        cache = DynamicCache()
        ids = torch.tensor([prompt[:-1]], device=policy.device)
        policy.base_model(ids, past_key_values=cache, use_cache=True)  # without the head: no logits
        kv = cut_out(cache, 0, 0, len(prompt) - 1)
        roots.append(Node(None, i, tokens_left, tokens=prompt, text=problem, kv=kv))
    return roots


# Copied from beam.py
def random_numbers(parents, generators, max_new_tokens):
    """[R, max_new_tokens]: one number for each token that a child of each of parents may have.

    They are drawn beforehand. So a row writes the same whatever else is in its batch.
    """
    if not parents:
        raise ValueError("there is nothing to continue: n must be at least 1")
    rows = [torch.rand(max_new_tokens, generator=generators[node.problem]) for node in parents]
    return torch.stack(rows)


# Copied from beam.py
def sample_steps(
    policy, tokenizer, parents, uniforms, to_the_end, *, separator, temperature, top_p, watch=None
):
    """Write one next step for each of parents, which may repeat. Returns the R children.

    uniforms: [R, tokens], from random_numbers(). to_the_end: go on to the end of text. watch: if
    given, watch(children, logits) sees of each token the distribution that it is drawn from. Raises
    ValueError if a parent is at its end, the temperature below 0, or top_p not in (0, 1].
    """
    if any(parent.ended for parent in parents):
        raise ValueError("a parent is at the end of its text, and has no next step")
    if not temperature >= 0:  # nor NaN
        raise ValueError(f"a temperature of {temperature}: it must be 0, which is greedy, or more")
    if not 0 < top_p <= 1:
        raise ValueError(f"a top_p of {top_p}: it must be above 0, and at most 1")
    is_whole_step = step_end(tokenizer, None if to_the_end else separator)

    def write(rows):  # where memory runs out, in_batches() calls it again for fewer rows
        batch = [parents[row] for row in rows]
        children = [Node(parent, parent.problem, parent.tokens_left) for parent in batch]
        newest = [[parent.tokens[-1]] for parent in batch]
        cache, attention_mask = lay_out(batch)
        return policy.generate(
            torch.tensor(newest, device=policy.device),
            attention_mask=pad(attention_mask, (0, 1), value=1),
            max_new_tokens=max(parent.tokens_left for parent in batch),
            custom_generate=decode,
            kv_cache=cache,
            children=children,
            uniforms=uniforms[rows].to(policy.device),
            is_whole_step=is_whole_step,
            temperature=temperature,
            top_p=top_p,
            watch=watch,
        )

    children = in_batches(policy, write, list(range(len(parents))))
    for child in children:
        root = child.path()[0]
        root.written += 1
        child.number = root.written
        read_text(tokenizer, child, separator)
    return children


# Copied from beam.py
def decode(
    model,
    token,  # [R, 1], the newest of each row
    *,
    kv_cache,  # of T tokens
    children,  # R Nodes to write into
    uniforms,  # [R, tokens]
    is_whole_step,
    temperature,
    top_p,
    watch,
    **model_kwargs,  # generate()'s own. What is named above, generate() hands through unread
):
    """The loop that generate() runs for us. Unlike its own, a row leaves when its step is whole.

    Returns children.
    """
    start = kv_cache.get_seq_length()
    attention_mask = model_kwargs["attention_mask"]  # [R, T + 1]
    if attention_mask is None:  # generate() drops a mask that hides nothing
        attention_mask = token.new_ones(len(children), start + 1)
    eos = model.generation_config.eos_token_id
    writing = children  # those in the batch, a row each
    written = 0  # tokens, by each row of the batch

    while writing:
        # 1. Feed the newest token of each row, and draw the next.
        logits = model(
            token,
            attention_mask=attention_mask,
            position_ids=attention_mask.sum(1, keepdim=True) - 1,  # [R, 1]; padding is not counted
            past_key_values=kv_cache,
        ).logits[:, -1]  # [R, V]
        if watch:
            watch(writing, logits)
        token = sample(logits, uniforms[:, written], temperature, top_p)  # [R, 1]
        written += 1

        # 2. A row stays until its text has ended or its step is whole. A whole step takes along its
        #    keys and values: what was cached since the start.
        stay = []
        for row, (child, new) in enumerate(zip(writing, token[:, 0].tolist())):
            if new < 0:
                raise ValueError("the policy's logits are not finite: its weights may be damaged")
            child.tokens.append(new)
            child.tokens_left -= 1
            child.finished = new in eos
            if child.ended:
                continue
            whole = is_whole_step(child.parent.begun + child.tokens)  # or -k, see step_end()
            if not whole:
                stay.append(row)
                continue
            child.kv = cut_out(kv_cache, row, start, start + written)
            if whole < 0:
                child.begun = child.tokens[whole:]

        # 3. The others leave the batch.
        if len(stay) < len(writing):
            writing = [writing[row] for row in stay]
            rows = torch.tensor(stay, dtype=torch.long, device=token.device)
            token = token[rows]
            uniforms = uniforms[rows]
            attention_mask = attention_mask[rows]
            kv_cache.batch_select_indices(rows)

        # 4. There is one token more to be seen.
        attention_mask = pad(attention_mask, (0, 1), value=1)
    return children


# Copied from beam.py
def sample(logits, uniforms, temperature, top_p):
    """The token at which a row's number falls in softmax(logits / temperature), cut to the top-p
    nucleus. logits: [R, V], uniforms: [R] -> [R, 1], -1 where logits are NaN or infinite."""
    largest, token = logits.max(-1, keepdim=True)
    if temperature > 0:
        least = 1e-30  # below, single precision has 0
        weights = torch.exp((logits.float() - largest) / max(temperature, least))
        if top_p < 1:
            ranked, order = weights.sort(descending=True)
            # The token that crosses top_p is inside, and so is one that reaches it exactly.
            last_inside = place_of(ranked, math.nextafter(top_p, 0))
            outside = torch.arange(logits.shape[1], device=logits.device) > last_inside
            weights = weights.scatter(1, order, ranked.masked_fill(outside, 0))
        token = place_of(weights, uniforms[:, None])
    return token.masked_fill(~largest.isfinite(), -1)


# Copied from beam.py
def place_of(weights, fraction):
    """Where a fraction of their sum is reached when weights are laid end to end: [R, V] -> [R, 1].

    A running sum over 128k weights in single precision is off, and may even fall. In double
    precision it is slow on a consumer GPU. So blocks are summed up first, then one block's weights.
    """
    V = weights.shape[1]
    blocks = pad(weights, (0, -V % BLOCK)).unflatten(1, (-1, BLOCK))  # [R, blocks, BLOCK]
    upto = pad(blocks.sum(-1).double().cumsum(-1), (1, 0))  # [R, 1 + blocks]
    goal = fraction * upto[:, -1:]
    block = (upto[:, 1:] <= goal).sum(-1, keepdim=True)
    before, after = upto.gather(1, block), upto.gather(1, block + 1)
    inside = blocks.take_along_dim(block[:, :, None], 1)[:, 0].double().cumsum(-1)  # [R, BLOCK]
    # In double precision a block's sum is a little more or less than after - before.
    passed = inside <= (goal - before) / (after - before) * inside[:, -1:]
    return (block * BLOCK + passed.sum(-1, keepdim=True)).clamp(max=V - 1)


# Copied from beam.py
def lay_out(nodes):
    """A cache with a row for each of R nodes: the keys and values of its path, padded on the left.

    Returns the cache, T tokens long, and its attention_mask [R, T].
    """
    # Each path is put together once, however often its node is named.
    distinct = list(dict.fromkeys(nodes))
    paths = [[step.kv for step in node.path()] for node in distinct]
    lengths = [sum(kv.shape[3] for kv in path) for path in paths]
    T = max(lengths)
    _, layers, kv_heads, _, head_dim = paths[0][0].shape
    laid = paths[0][0].new_zeros(2, layers, len(distinct), kv_heads, T + ROOM, head_dim)
    for i, path in enumerate(paths):
        torch.cat(path, dim=3, out=laid[:, :, i, :, T - lengths[i] : T])

    # Then it is copied to each row that it is for, since rows are written to from here on.
    rows = torch.tensor([distinct.index(node) for node in nodes], device=laid.device)  # [R]
    keys, values = laid
    cache = Cache(layers=[RoomyLayer(keys[i, rows], values[i, rows], T) for i in range(layers)])
    padding = T - torch.tensor(lengths, device=laid.device)[rows, None]  # [R, 1]
    attention_mask = torch.arange(T, device=laid.device) >= padding  # [R, T]
    return cache, attention_mask.long()


# Copied from beam.py
def cut_out(cache, row, start, end):
    """A copy of what a cache has in one row: [2, layers, kv_heads, end - start, head_dim]."""
    keys = [layer.keys[row, :, start:end] for layer in cache.layers]
    values = [layer.values[row, :, start:end] for layer in cache.layers]
    return torch.stack(keys + values).unflatten(0, (2, -1))


# Copied from beam.py
class RoomyLayer(DynamicLayer):
    """A layer with room for more tokens. A DynamicLayer copies all that it holds for each one."""

    def __init__(self, keys, values, length):
        super().__init__()
        self.keys = keys  # [R, kv_heads, length and room, head_dim]
        self.values = values
        self.length = length
        self.is_initialized = True

    def get_seq_length(self):
        return self.length

    def update(self, keys, values, *args, **kwargs):
        """Take in a token, [R, kv_heads, 1, head_dim]. Returns all, [R, kv_heads, T, head_dim]."""
        if self.length == self.keys.shape[2]:
            self.keys = pad(self.keys, (0, 0, 0, ROOM))
            self.values = pad(self.values, (0, 0, 0, ROOM))
        # narrow(), for torch.compile would make a graph anew for each index.
        self.keys.narrow(2, self.length, 1).copy_(keys)
        self.values.narrow(2, self.length, 1).copy_(values)
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


# --- where a step ends, and its text --------------------------------------------------------------


# Copied from beam.py
def step_end(tokenizer, separator):
    """A function of a step's tokens: have they become a whole step? None: they never do.

    It returns True or False; or -k, if they became one k tokens ago and the last k already begin
    the next step, such as "Step 2:". A separator that is a function says the same.
    """
    if separator is None:
        return lambda tokens: False
    if callable(separator):
        return lambda tokens: checked(separator(tokens), len(tokens))
    # A string may be part of one token, or span several: as many as it has bytes, at most.
    most = len(separator.encode())

    @lru_cache(2**16)  # the same few tokens come again and again, and to decode them takes time
    def found(*tail):
        return separator in tokenizer.decode(list(tail), skip_special_tokens=True)

    return lambda tokens: found(*tokens[-most:])


# Copied from beam.py
def checked(whole, length):
    """What a function said of so many tokens. Raises ValueError if it says nothing."""
    if whole in (True, False) or isinstance(whole, int) and -length < whole < 0:
        return whole
    raise ValueError(
        f"the separator returned {whole!r} of a step of {length} tokens: give True, False or "
        "-k, with k below that number (no step is empty): see step_end"
    )


# Copied from beam.py
def read_text(tokenizer, child, separator):
    """Set child.text, and child.steps if the separator is a function: of a child that was written
    to the end of its text they are several.

    All of the solution is decoded: a step by itself could lose a space at its beginning.
    """
    _, *before, _ = child.path()
    tokens = [token for node in before for token in node.tokens] + child.tokens
    known = sum(len(node.text) for node in before)
    end = len(tokens) - len(child.begun)
    child.text = tokenizer.decode(tokens[:end], skip_special_tokens=True)[known:]
    if not callable(separator):
        return
    is_whole_step = step_end(tokenizer, separator)
    start = len(tokens) - len(child.tokens) - len(child.parent.begun)
    for position in range(start + 1, end + 1):
        whole = position == end or is_whole_step(tokens[start:position])
        if whole:
            start = position + whole if whole < 0 else position  # at -k: k tokens back
            text = tokenizer.decode(tokens[:start], skip_special_tokens=True)
            child.steps.append(text[known:])
            known = len(text)


# --- loading --------------------------------------------------------------------------------------


# Copied from beam.py
def load_policy(folder, *, four_bit=False, device="cpu", dtype=None):
    """The model that writes, and its tokenizer, from a local folder.

    dtype: by default bfloat16 on a GPU, float32 on a CPU; with four_bit NF4 on either. Code that
    comes with a checkpoint is never run. Raises ValueError if it names no token that ends a text,
    or one that it does not have, or if its weights are not whole (see load_model()).
    """
    policy = load_model(AutoModelForCausalLM, folder, four_bit=four_bit, device=device, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    eos = {end_of_turn(tokenizer)}  # what the chat template writes behind an answer
    for named_by in (policy.generation_config, policy.config, tokenizer):
        ids = getattr(named_by, "eos_token_id", None)
        eos.update(ids if isinstance(ids, list) else [ids])
    eos.discard(None)
    if not eos:
        raise ValueError("it names no token that ends a text")
    if max(eos) >= policy.get_input_embeddings().num_embeddings:
        raise ValueError(f"a text ends at token {max(eos)}, which it does not have")
    # What a checkpoint recommends (top-k 50, a repetition penalty) would bend our sampling.
    policy.generation_config = GenerationConfig(eos_token_id=sorted(eos), pad_token_id=max(eos))
    return policy, tokenizer


# --- the command line -----------------------------------------------------------------------------


def main(argv=None):
    from harness import cli  # flags, models and problems in; results, a table and pictures out

    parser = cli.Parser(
        dvts,
        "DVTS: N/M independent subtrees, in each the PRM picks the best of M next steps.",
    )
    parser.add("--n", cli.positive_int, "steps sampled at each depth; solutions returned at most")
    parser.add(
        "--beam-width", cli.positive_int, "M, next steps to choose from in a subtree; n/M subtrees"
    )
    parser.add("--max-steps", cli.positive_int, "depth at most; the last step ends the text")
    parser.add("--lookahead", cli.non_negative_int, "judge a step by N greedy steps beyond it")
    parser.add("--temperature", cli.non_negative_float, "of sampling; 0 is greedy")
    parser.add("--top-p", cli.probability, "sample among the likeliest tokens of this share")
    parser.add("--max-new-tokens", cli.positive_int, "longest solution, in tokens")
    return cli.run(parser.parse_args(argv), dvts, load_policy)


if __name__ == "__main__":
    sys.exit(main())
