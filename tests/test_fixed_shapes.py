"""Decoding in fixed shapes (fixed_shapes.py) against beam.decode(), called and replayed."""

import fixed_shapes
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import StaticLayer

import beam
from common.chat import MATH_PROMPT

if not hasattr(StaticLayer(1), "cumulative_length"):
    pytest.skip("this transformers has another StaticLayer", allow_module_level=True)

PROBLEMS = ["Start with 12. Add 5, multiply by 2, subtract 9. What is the result?", "What is 8+5?"]
HOT = {"separator": "\n\n", "temperature": 1.3, "top_p": 0.95}
WAITS = {"item", "_local_scalar_dense", "is_nonzero", "nonzero", "equal"}  # of the host


class Record(TorchDispatchMode):
    """On a CPU what a CUDA graph is: operators with the tensors and the numbers that they had. To
    record changes nothing. A replay does them again, from and to the same places in memory."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.before = []  # (a tensor that an operator wrote into, what it had been)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert function.overloadpacket.__name__ not in WAITS, f"the host waits: {function}"
        if function._schema.is_mutable:
            self.before.append((args[0], args[0].clone()))
        out = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, out))
        return out

    def undo(self):
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    def replay(self):
        for function, args, kwargs, out in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tensors_in(out), tensors_in(again)):
                old.copy_(new)


def tensors_in(out):
    several = out if isinstance(out, tuple | list) else [out]
    return [one for one in several if isinstance(one, torch.Tensor)]


@pytest.fixture
def replays(monkeypatch):
    """Small shapes, recorded. Counts records and replays."""
    counts = {"records": 0, "replays": 0}

    def record(step):
        graph = Record()
        with graph:
            step()
        graph.undo()
        counts["records"] += 1

        def replay():
            counts["replays"] += 1
            graph.replay()

        return replay

    monkeypatch.setattr(fixed_shapes.Batch, "record", staticmethod(record))
    monkeypatch.setattr(fixed_shapes, "SLOTS", 12)
    monkeypatch.setattr(fixed_shapes, "ALIGNED", 4)
    return counts


@torch.inference_mode()
def steps_of(pair, decode, monkeypatch):
    """Three steps of two problems, rows doubled and dropped in between, and what was watched."""
    policy, tokenizer, _ = pair
    monkeypatch.setattr(beam, "decode", decode)
    generator = torch.Generator().manual_seed(3)
    nodes = beam.prefill(policy, tokenizer, PROBLEMS, MATH_PROMPT, 90)
    steps = []
    seen = []

    def watch(children, logits):
        seen.extend(zip(map(id, children), logits.clone()))

    for index, to_the_end in (
        [[0, 1, 0, 1, 0, 0, 1], False],
        [[5, 0, 0, 3], False],
        [[1, 2], True],
    ):
        parents = [nodes[i] for i in index if not nodes[i].ended]
        uniforms = torch.rand(len(parents), 90, generator=generator)
        given = policy, tokenizer, parents, uniforms, to_the_end
        nodes = beam.sample_steps(*given, **HOT, watch=watch)
        steps += nodes
        nodes = nodes * 3
    watched = [torch.stack([one for who, one in seen if who == id(node)]) for node in steps]
    return steps, watched


def test_replayed_from_a_record_it_writes_what_beam_does(pair, replays, monkeypatch):
    theirs, their_logits = steps_of(pair, beam.decode, monkeypatch)
    ours, our_logits = steps_of(pair, fixed_shapes.decode, monkeypatch)
    assert [node.tokens for node in ours] == [node.tokens for node in theirs]
    assert [node.finished for node in ours] == [node.finished for node in theirs]
    for one, other in zip(ours, theirs):
        assert (one.kv is None) == (other.kv is None)
        if one.kv is not None:
            assert torch.allclose(one.kv, other.kv, atol=1e-4)
    for one, other in zip(our_logits, their_logits):
        assert torch.allclose(one, other, atol=1e-3)
    assert len(set(map(len, [node.tokens for node in ours]))) > 2, "rows must leave one by one"
    assert replays["replays"] > 3 * replays["records"] > 9


def test_without_a_record_it_writes_the_same(pair, monkeypatch):
    theirs, _ = steps_of(pair, beam.decode, monkeypatch)
    ours, _ = steps_of(pair, fixed_shapes.decode, monkeypatch)
    assert [node.tokens for node in ours] == [node.tokens for node in theirs]


def test_a_step_that_looks_at_a_value_cannot_be_recorded(pair, replays, monkeypatch):
    """A CUDA graph could not be, either: transformers looks whether a mask hides anything, unless
    the layers say that they may be compiled."""
    monkeypatch.setattr(StaticLayer, "is_compileable", False)
    with pytest.raises(AssertionError, match="the host waits"):
        steps_of(pair, fixed_shapes.decode, monkeypatch)
