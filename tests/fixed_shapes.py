"""Decoding in fixed shapes, so that a GPU can replay it as a CUDA graph.

A GPU waits for the host, which launches some 900 kernels for a token. A CUDA graph is recorded once
and launched as a whole. It does the same work at the same addresses each time, so no shape in it may
change. In beam.decode() one does with each token: the cache grows, and rows leave. decode() below
writes the same tokens and differs in two things:

- The cache has room for SLOTS tokens more from the start, and the model sees all of it. What is not
  written yet is ahead of each token, and causal attention never looks ahead.
- A row that has ended is fed on, unseen, until no more than one in SHRINK is still writing.

So a shape lasts for dozens of tokens. Its first token is fed as always, the second is recorded, and
all others are replayed. On trial: no script uses it. tests/bench_gpu.py measures it, and
tests/test_fixed_shapes.py replays records of it on a CPU.
"""

import torch
from torch.nn.functional import pad
from transformers import Cache, StaticLayer

import beam

SLOTS = 128  # tokens that a shape has room for, at least
ALIGNED = 16  # on a GPU attention would copy a mask of a length that is no multiple of this
SHRINK = 2  # a batch is made smaller when so small a part of its rows is still writing


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
    **model_kwargs,
):
    """As beam.decode(), in fixed shapes."""
    start = kv_cache.get_seq_length()
    attention_mask = model_kwargs["attention_mask"]  # [R, T + 1]
    if attention_mask is None:
        attention_mask = token.new_ones(len(children), start + 1)
    eos = model.generation_config.eos_token_id
    sampling = {"temperature": temperature, "top_p": top_p}
    layers = [with_slots(layer, start, slice(None)) for layer in kv_cache.layers]
    batch = Batch(model, layers, start, token, attention_mask, uniforms, 0, sampling)
    rows = list(children)  # None where a step has ended
    written = 0  # tokens, by each row

    while any(rows):
        # 1. Feed the newest token of each row, and draw the next.
        logits, token = batch.advance()  # [R, V], [R, 1]
        written += 1
        stay = [row for row, child in enumerate(rows) if child]
        if watch:
            watch([rows[row] for row in stay], logits[stay])

        # 2. Which rows stay?
        new_tokens = token[:, 0].tolist()
        for row in stay:
            child = rows[row]
            new = new_tokens[row]
            if new < 0:
                raise ValueError("the policy's logits are not finite: its weights may be damaged")
            child.tokens.append(new)
            child.tokens_left -= 1
            child.finished = new in eos
            whole = not child.ended and is_whole_step(child.parent.begun + child.tokens)
            if whole:
                child.kv = beam.cut_out(batch.cache, row, start, start + written)
                child.begun = child.tokens[whole:] if whole < 0 else []
            if whole or child.ended:
                rows[row] = None

        # 3. Few are left, or the slots are full: go on in another shape.
        stay = [row for row, child in enumerate(rows) if child]
        if stay and (len(stay) * SHRINK <= len(rows) or batch.is_full()):
            batch = batch.narrowed(stay)
            rows = [rows[row] for row in stay]
    return children


class Batch:
    """Rows that decode in one shape. All tensors keep their places in memory."""

    record = None  # a function that takes a step, and returns one that replays it; None: a call

    def __init__(self, model, layers, length, token, attention_mask, uniforms, written, sampling):
        """layers: with slots, and `length` tokens, of which attention_mask [R, length + 1] says
        what is seen."""
        self.model = model
        self.sampling = sampling
        self.length = length  # tokens in the cache
        self.written = written  # tokens since the step began
        self.token = token.clone()  # [R, 1]
        free = layers[0].max_cache_len - length
        self.attention_mask = pad(attention_mask, (0, free - 1), value=1)  # [R, length + free]
        self.position = attention_mask.sum(1, keepdim=True) - 1  # [R, 1]
        self.uniforms = uniforms
        self.column = torch.full((1,), written, device=token.device)  # of uniforms, the next
        self.cache = Cache(layers=layers)
        self.logits = None
        self.calls = 0
        self.replay = None

    def step(self):
        """Feed a token of each row, draw the next, and move on, all in place."""
        self.logits = self.model(
            self.token,
            attention_mask=self.attention_mask,
            position_ids=self.position,
            past_key_values=self.cache,
        ).logits[:, -1]
        number = self.uniforms.index_select(1, self.column)[:, 0]
        self.token.copy_(beam.sample(self.logits, number, **self.sampling))
        self.position.add_(1)
        self.column.add_(1)

    def advance(self):
        """Returns logits [R, V] and the tokens drawn from them [R, 1]."""
        if self.record and self.calls == 1:
            self.replay = self.record(self.step)
        if self.replay:
            self.replay()
        else:
            self.step()
        self.calls += 1
        self.length += 1
        self.written += 1
        return self.logits, self.token

    def is_full(self):
        return self.length == self.cache.layers[0].max_cache_len

    def narrowed(self, stay):
        """A new batch of some of the rows, with new slots."""
        self.replay = None  # a graph holds memory
        rows = torch.tensor(stay, device=self.token.device)
        attention_mask = pad(self.attention_mask, (0, 1), value=1)[rows, : self.length + 1]
        tensors = self.token[rows], attention_mask, self.uniforms[rows]
        layers = [with_slots(layer, self.length, rows) for layer in self.cache.layers]
        return Batch(self.model, layers, self.length, *tensors, self.written, self.sampling)


def with_slots(layer, length, rows):
    """`length` tokens of some rows of a layer, and free places behind. The old layer is emptied,
    so that no more than one is there twice."""
    keys, values = layer.keys[rows, :, :length], layer.values[rows, :, :length]
    layer.keys = layer.values = None
    whole = length + SLOTS
    fixed = StaticLayer(whole + -whole % ALIGNED)
    fixed.lazy_initialization(keys, values)
    fixed.keys[:, :, :length] = keys
    fixed.values[:, :, :length] = values
    fixed.cumulative_length.fill_(length)
    return fixed


def cuda_graph(step):
    """A record of a step, whose like has been called before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
