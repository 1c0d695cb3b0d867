"""The cached, batched decoding of beam.py (and of its copies) against plain decoding without any cache."""

import pytest
import torch

import beam
from common.chat import encode_prompt

PROBLEM = "Start with 12. Add 5, multiply by 2, subtract 9. What is the result?"


@torch.inference_mode()
def plain_step(policy, tokenizer, prefix, uniforms, left, temperature, *, to_the_end=False):
    """One row, nothing reused: the whole text goes through the model for each token. The stop test reads the text."""
    new = []
    while len(new) < left:
        logits = policy(torch.tensor([prefix + new])).logits[0, -1]
        if temperature == 0:
            new.append(int(logits.argmax()))
        else:
            cumulative = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
            new.append(int((cumulative <= float(uniforms[len(new)])).sum()))
        if new[-1] in policy.generation_config.eos_token_id or "\n\n" in tokenizer.decode(new) and not to_the_end:
            break
    return new


def test_cached_equals_uncached_over_ragged_steps_and_selections(pair):
    """Five steps with rows dropped, doubled and reordered in between: the same tokens, to the last one."""
    policy, tokenizer, _ = pair
    prompt, generator = encode_prompt(tokenizer, PROBLEM), torch.Generator().manual_seed(3)
    rows, texts, ragged = beam.prefill(policy, prompt), [[]], 0
    ends = beam.step_ends(tokenizer, policy)
    for index in [[0] * 6, [5, 0, 0, 3], [1, 3, 1, 2, 0], [4, 4, 2], [2, 0, 1, 1]]:
        rows, texts = beam.select(rows, index), [texts[i] for i in index]
        uniforms = torch.rand(len(index), 40, generator=generator)
        steps, rows = beam.sample_steps(policy, rows, uniforms, [40] * len(index), ends, temperature=1.3, top_p=1.0)
        for i, step in enumerate(steps):
            assert step == plain_step(policy, tokenizer, prompt + texts[i], uniforms[i], 40, 1.3)
        texts = [text + step for text, step in zip(texts, steps)]
        ragged += len(set(map(len, steps))) > 1
        # The invariant: the cache holds all of a row but its last token, and nothing else that can be attended to.
        assert rows.mask.sum(1).tolist() == [len(prompt) + len(text) - 1 for text in texts]
        assert rows.last[:, 0].tolist() == [text[-1] for text in texts]
    assert ragged >= 3, "the steps must differ in length, or this shows nothing"


def test_greedy_cached_equals_uncached_after_selection(pair):
    policy, tokenizer, _ = pair
    prompt, generator = encode_prompt(tokenizer, PROBLEM), torch.Generator().manual_seed(5)
    ends = beam.step_ends(tokenizer, policy)
    rows = beam.select(beam.prefill(policy, prompt), [0] * 4)
    first, rows = beam.sample_steps(policy, rows, torch.rand(4, 60, generator=generator), [60] * 4, ends, temperature=1.5, top_p=1.0)
    rows = beam.select(rows, [3, 1, 1])
    second, rows = beam.sample_steps(policy, rows, None, [60] * 3, beam.text_ends(policy), temperature=0.0, top_p=1.0)
    for i, step in zip([3, 1, 1], second):
        assert step == plain_step(policy, tokenizer, prompt + first[i], None, 60, 0.0, to_the_end=True)


def test_a_row_does_not_depend_on_the_rest_of_the_batch(pair):
    policy, tokenizer, _ = pair
    prompt, ends = encode_prompt(tokenizer, PROBLEM), beam.step_ends(tokenizer, policy)
    uniforms = torch.rand(7, 40, generator=torch.Generator().manual_seed(1))
    run = lambda u: beam.sample_steps(
        policy, beam.select(beam.prefill(policy, prompt), [0] * len(u)), u, [40] * len(u), ends, temperature=1.3, top_p=0.9
    )[0]
    together = run(uniforms)
    assert [run(uniforms[i:i + 1])[0] for i in range(7)] == together and run(uniforms[2:5]) == together[2:5]


def test_select_closes_holes():
    """Hand-made cache, slot values telling which token they are: 10 r + t for token t of row r."""
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 1]])
    values = torch.tensor([[0, 1, -1, 2, -1], [-1, 10, 11, 12, 13], [20, -1, -1, -1, 21]]).float()
    cache = beam.DynamicCache()
    cache.update(values[:, None, :, None], values[:, None, :, None], 0)
    rows = beam.select(beam.Rows(cache, mask, torch.tensor([[3], [14], [22]])), [2, 0, 0])
    assert rows.mask.tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]] and rows.last[:, 0].tolist() == [22, 3, 3]
    keys = rows.cache.layers[0].keys[:, 0, :, 0]
    assert keys[0, 1:].tolist() == [20, 21] and keys[1:].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_separator_in_two_halves_ends_a_step(pair):
    policy, tokenizer, _ = pair
    one, two, a = (tokenizer.convert_tokens_to_ids(token) for token in ["Ċ", "ĊĊ", "a"])
    eos, ends = tokenizer.eos_token_id, beam.step_ends(tokenizer, policy)
    texts = torch.tensor([  # the token in front is the last of the step before, and counts for nothing
        [a, a, one, one, a], [one, one, a, one, a], [a, a, two, a, a], [a, eos, a, a, a], [one, a, a, a, a],
    ])
    stop = beam.StopAt(ends, [4, 4, 4, 4, 2], "cpu")
    for length in range(1, 5):
        stop(texts[:, :1 + length], None)
    assert stop.length.tolist() == [3, 4, 2, 1, 2]


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_the_distribution_sampled_is_softmax_over_temperature_in_the_nucleus(top_p):
    """An even grid of 200,001 uniforms instead of chance: the frequencies are the probabilities, to a grid step."""
    logits = torch.tensor([1.0, 3.0, -2.0, 2.5, 0.0, 2.0])
    probs = torch.softmax(logits.double() / 0.8, -1)
    if top_p == 0.7:  # 3.0 alone has .49 and with 2.5 it has .75: these two are the smallest set with 0.7
        assert probs[1] < 0.7 < probs[1] + probs[3]
        probs = torch.where((logits == 3.0) | (logits == 2.5), probs, 0) / (probs[1] + probs[3])
    grid = torch.arange(200_001)[:, None] / 200_001
    sampler = beam.InverseTransformSampling(grid, 0.8, top_p)
    drawn = sampler(torch.zeros(len(grid), 1, dtype=torch.long), logits.expand(len(grid), -1)).argmax(-1)
    frequency = torch.bincount(drawn, minlength=6) / len(grid)
    assert frequency == pytest.approx(probs.float(), abs=1e-5)


def test_extreme_uniforms_never_draw_an_impossible_token():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]]).expand(3, -1)
    uniforms = torch.tensor([[0.0], [1 - 2**-24], [0.5]])
    drawn = beam.InverseTransformSampling(uniforms, 1.0, 1.0)(torch.zeros(3, 1), logits).argmax(-1)
    assert drawn.tolist() == [1, 3, 3]


def test_what_the_checkpoint_recommends_does_not_leak_in(pair, tmp_path):
    """generation_config.json with top-k, top-p and a repetition penalty, as Llama and Qwen publish: same samples."""
    policy, tokenizer, _ = pair
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 0.6, "top_k": 2, "top_p": 0.5, "repetition_penalty": 1.5, "min_new_tokens": 30,'
        ' "eos_token_id": [4, 1], "pad_token_id": 5}'
    )
    other, _ = beam.load_policy(str(tmp_path), four_bit=False, device=torch.device("cpu"))
    assert other.generation_config.eos_token_id == [4, 1]
    prompt, uniforms = encode_prompt(tokenizer, PROBLEM), torch.rand(8, 60, generator=torch.Generator().manual_seed(0))
    texts = [
        beam.sample_steps(model, beam.select(beam.prefill(model, prompt), [0] * 8), uniforms, [60] * 8, beam.text_ends(model),
                          temperature=1.2, top_p=1.0)[0]
        for model in (policy, other)
    ]
    assert texts[0] == texts[1]


def test_a_prompt_longer_than_the_context_is_named(pair):
    policy, tokenizer, _ = pair
    with pytest.raises(ValueError, match="2100 tokens, the policy takes 2048"):
        beam.prefill(policy, [7] * 2100)
