"""The cached, batched decoding of beam.py (and of its copies) against plain decoding without any cache."""

import weakref

import pytest
import torch
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModelForCausalLM, DynamicLayer

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


PROMPTS = [PROBLEM, "Evaluate $8+5$."]  # of different length


def cached_tokens(texts, i):
    """How many tokens of text i the cache holds."""
    return int((texts.slots[i] >= 0).sum())


def test_cached_equals_uncached_over_ragged_steps_and_selections(pair):
    """Two prompts, five steps with rows dropped, doubled and reordered in between: the same tokens, to the last one."""
    policy, tokenizer, _ = pair
    prompts, generator = [encode_prompt(tokenizer, problem) for problem in PROMPTS], torch.Generator().manual_seed(3)
    texts, plain, ragged, long = beam.prefill(policy, prompts), prompts, 0, 0
    ends = beam.step_ends(tokenizer, policy)
    for index in [[0, 1, 0, 1, 0, 0], [5, 0, 0, 3], [1, 3, 1, 2, 0], [4, 4, 2], [2, 0, 1, 1]]:
        plain, uniforms = [plain[i] for i in index], torch.rand(len(index), 40, generator=generator)
        steps, texts = beam.sample_steps(policy, texts, index, uniforms, [40] * len(index), ends, temperature=1.3, top_p=1.0)
        for i, step in enumerate(steps):
            assert step == plain_step(policy, tokenizer, plain[i], uniforms[i], 40, 1.3)
        plain = [text + step for text, step in zip(plain, steps)]
        ragged += len(set(map(len, steps))) > 1
        long += max(map(len, steps)) > beam.CHUNK > min(map(len, steps))
        # The invariant: the cache holds all of a text but its last token, and nothing else that can be attended to.
        assert [cached_tokens(texts, i) for i in range(len(index))] == [len(text) - 1 for text in plain]
        assert texts.last[:, 0].tolist() == [text[-1] for text in plain]
    assert ragged >= 3 and long >= 1, "the steps must differ in length, and some outlive others by a chunk, or this shows nothing"


SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=96)
POLICIES = {  # of each model type what its config needs to be small; windows are shorter than the prompts
    "qwen2": {}, "qwen3": {}, "smollm3": {}, "phi3": {}, "olmo2": {}, "granite": {}, "glm4": {}, "exaone4": {}, "gemma": {},
    "mistral": dict(sliding_window=24), "olmo3": dict(sliding_window=24), "mixtral": dict(num_local_experts=4),
    "gemma2": dict(sliding_window=24, query_pre_attn_scalar=16), "gemma3_text": dict(
        sliding_window=24, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"]),
    "qwen3_moe": dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "gpt_oss": dict(sliding_window=24, num_local_experts=4, num_experts_per_tok=2), "gpt2": {}, "bloom": {},
}


@pytest.mark.parametrize("kind", POLICIES)
@torch.inference_mode()
def test_policies_of_many_kinds(pair, kind, tmp_path):
    """Sliding windows, experts, soft caps, positions that are rotated, learned or a bias. Rows leave, are doubled, dropped and reordered,
    up to the end of the context; each token is one that its number draws (within 1e-4: rounding) where nothing was cached."""
    tokenizer, generator = pair[1], torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, **POLICIES[kind], vocab_size=len(tokenizer), max_position_embeddings=128,
                                  bos_token_id=None, eos_token_id=1, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.15)  # as made, the next token hardly depends on those before
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy, _ = beam.load_policy(str(tmp_path), four_bit=False, device=torch.device("cpu"))
    ends, plain = beam.step_ends(tokenizer, policy), [torch.randint(5, len(tokenizer), (length,), generator=generator).tolist() for length in (60, 37)]
    texts = beam.prefill(policy, plain)
    while going_on := [i for i, text in enumerate(plain) if len(text) < 128]:
        index = [going_on[i] for i in torch.randint(len(going_on), (5,), generator=generator)]
        plain = [plain[i] for i in index]
        left, uniforms = [128 - len(text) for text in plain], torch.rand(5, 128, generator=generator)
        steps, texts = beam.sample_steps(policy, texts, index, uniforms, left, ends, temperature=1.0, top_p=1.0)
        for text, step, numbers, most in zip(plain, steps, uniforms, left):
            upto = torch.softmax(policy(torch.tensor([text + step])).logits[0, len(text) - 1:-1].double(), -1).cumsum(-1)
            token, numbers = torch.tensor(step)[:, None], numbers[:len(step), None]
            assert len(step) <= most and (upto.gather(1, token) > numbers - 1e-4).all()
            assert (pad(upto, (1, 0)).gather(1, token) <= numbers + 1e-4).all()
        plain = [text + step for text, step in zip(plain, steps)]


def test_greedy_cached_equals_uncached_after_selection(pair):
    policy, tokenizer, _ = pair
    prompt, generator = encode_prompt(tokenizer, PROBLEM), torch.Generator().manual_seed(5)
    texts, ends, none = beam.prefill(policy, [prompt]), beam.step_ends(tokenizer, policy), torch.zeros(3, 60)
    uniforms = torch.rand(4, 60, generator=generator)
    first, texts = beam.sample_steps(policy, texts, [0] * 4, uniforms, [60] * 4, ends, temperature=1.5, top_p=1.0)
    second, _ = beam.sample_steps(policy, texts, [3, 1, 1], none, [60] * 3, beam.text_ends(policy), temperature=0.0, top_p=1.0)
    for i, step in zip([3, 1, 1], second):
        assert step == plain_step(policy, tokenizer, prompt + first[i], None, 60, 0.0, to_the_end=True)


def test_a_row_does_not_depend_on_the_rest_of_the_batch(pair):
    policy, tokenizer, _ = pair
    prompt, ends = encode_prompt(tokenizer, PROBLEM), beam.step_ends(tokenizer, policy)
    uniforms = torch.rand(7, 40, generator=torch.Generator().manual_seed(1))
    run = lambda u: beam.sample_steps(
        policy, beam.prefill(policy, [prompt]), [0] * len(u), u, [40] * len(u), ends, temperature=1.3, top_p=0.9
    )[0]
    together = run(uniforms)
    assert [run(uniforms[i:i + 1])[0] for i in range(7)] == together and run(uniforms[2:5]) == together[2:5]
    args = policy, beam.prefill(policy, [prompt]), [0] * 7, uniforms, [40] * 7, ends
    assert beam.sample_steps(*args, temperature=1.3, top_p=0.9, keep=False) == (together, None)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_row_does_not_depend_on_when_others_leave(pair, monkeypatch, chunk):
    """Whatever CHUNK is, two steps in a row are the same, and so is what the cache holds of them."""
    policy, tokenizer, _ = pair
    prompts, ends = [encode_prompt(tokenizer, problem) for problem in PROMPTS], beam.step_ends(tokenizer, policy)
    uniforms = torch.rand(2, 6, 40, generator=torch.Generator().manual_seed(2))

    def run():
        texts, found = beam.prefill(policy, prompts), []
        for index, numbers in zip([[0, 1, 0, 1, 1, 0], [5, 4, 0, 0, 1, 2]], uniforms):
            steps, texts = beam.sample_steps(policy, texts, index, numbers, [40] * 6, ends, temperature=1.3, top_p=1.0)
            found.append((steps, [cached_tokens(texts, i) for i in range(6)]))
        return found

    expected = run()
    monkeypatch.setattr(beam, "CHUNK", chunk)
    assert run() == expected


def test_out_of_memory_halves_the_batch_and_changes_nothing(pair):
    """A GPU that holds two rows and no more: the same steps, and the size that worked is remembered."""
    policy, tokenizer, _ = pair
    prompts, ends = [encode_prompt(tokenizer, problem) for problem in PROMPTS], beam.step_ends(tokenizer, policy)
    uniforms = torch.rand(2, 7, 40, generator=torch.Generator().manual_seed(4))
    tried, most = [], 2

    def memory(module, inputs, kwargs):
        if not inputs:  # a decoding step, not the reading of the prompts
            tried.append(len(kwargs["input_ids"]))
            if tried[-1] > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def run():
        texts, found = beam.prefill(policy, prompts), []
        for index, numbers in zip([[0, 1, 0, 1, 1, 0, 0], [6, 4, 0, 0, 1, 2, 1]], uniforms):
            tried.clear()
            steps, texts = beam.sample_steps(policy, texts, index, numbers, [40] * 7, ends, temperature=1.3, top_p=1.0)
            found.append((steps, [cached_tokens(texts, i) for i in range(7)]))
        return found

    expected = run()
    hook = policy.model.register_forward_pre_hook(memory, with_kwargs=True)
    try:
        assert run() == expected
        assert max(tried) == 1  # 7, then 3, then 1, and no more attempts at more in the second step
        most = 0
        with pytest.raises(torch.cuda.OutOfMemoryError):
            run()
    finally:
        hook.remove()


def test_slots_are_numbered_row_by_row():
    real = torch.tensor([[True, False, True], [False, False, False], [False, True, True]])
    assert beam.number_slots(real).tolist() == [[0, -1, 1], [-1, -1, -1], [-1, 2, 3]]
    assert beam.number_slots(real, first=7).tolist() == [[7, -1, 8], [-1, -1, -1], [-1, 9, 10]]


def test_squeeze_closes_holes_and_keeps_the_order():
    slots = torch.tensor([[5, -1, 3, -1, 9], [-1, 0, 7, 1, -1], [-1, -1, -1, 4, -1]])
    assert beam.squeeze(slots).tolist() == [[5, 3, 9], [0, 7, 1], [-1, -1, 4]]


def test_texts_are_laid_out_from_a_pool_or_from_a_batch():
    """A pool of 4 slots, 2 heads and head_dim 3; or a batch of 2 rows and 2 slots, which hold the same."""
    pool, places = torch.randn(4, 2, 3), torch.tensor([[1, 3, 0], [2, 0, 1], [0, 1, 2]])
    for kv in (pool, pool.view(2, 2, 2, 3)):
        keys, values = beam.lay_out((kv, kv + 1), places)
        assert keys.shape == (3, 3, 2, 3) and torch.equal(keys, pool[places]) and torch.equal(values, keys + 1)


def test_texts_share_what_they_have_in_common(pair):
    """The cache holds a prompt once, each step once, and nothing of the texts that were not continued."""
    policy, tokenizer, _ = pair
    prompts, ends = [encode_prompt(tokenizer, problem) for problem in PROMPTS], beam.step_ends(tokenizer, policy)
    texts = beam.prefill(policy, prompts)
    run = lambda index, texts: beam.sample_steps(policy, texts, index, torch.rand(6, 40), [40] * 6, ends, temperature=1.3, top_p=1.0)
    first, texts = run([0, 1, 0, 1, 0, 0], texts)
    assert {len(kv) for layer in texts.pool for kv in layer} == {sum(map(len, prompts)) - 2 + sum(map(len, first))}
    second, texts = run([2, 4, 2, 2, 4, 4], texts)  # only of the first prompt, from its second and third text
    assert {len(kv) for layer in texts.pool for kv in layer} == {len(prompts[0]) - 1 + len(first[2]) + len(first[4]) + sum(map(len, second))}


@torch.inference_mode()  # as every search
def test_the_old_layers_of_a_batch_go_as_the_new_ones_come(pair, monkeypatch):
    """While texts are laid out for the next CHUNK tokens, no more than one layer is there twice."""
    policy, tokenizer, _ = pair
    lay_out, layers, made, twice = beam.lay_out, policy.config.num_hidden_layers, [], []

    def watched(*inputs, **kwargs):
        keys, values = lay_out(*inputs, **kwargs)
        made.append(weakref.ref(keys))
        twice.append(sum(keys() is not None for keys in made) - layers)
        return keys, values

    monkeypatch.setattr(beam, "lay_out", watched)
    prefixes = beam.prefill(policy, [encode_prompt(tokenizer, PROBLEM)])
    beam.sample_steps(policy, prefixes, [0] * 4, torch.rand(4, 60), [60] * 4, beam.text_ends(policy), temperature=1.0, top_p=1.0)
    assert len(twice) > 3 * layers and max(twice) == 1


def test_a_roomy_layer_holds_what_a_dynamic_one_does_and_copies_nothing():
    kv, new = torch.randn(2, 3, 4, 7, 8), torch.randn(2, 2, 3, 4, 1, 8)  # keys and values with 5 slots and room for 2; two tokens
    roomy, dynamic = beam.Roomy(*kv.transpose(2, 3).clone(), T=5), DynamicLayer()
    dynamic.update(*kv[:, :, :, :5])
    assert roomy.get_seq_length() == 5
    for token in new:
        for ours, theirs, whole in zip(roomy.update(*token), dynamic.update(*token), (roomy.keys, roomy.values)):
            assert torch.equal(ours, theirs) and ours.data_ptr() == whole.data_ptr()
    assert roomy.get_seq_length() == 7
    with pytest.raises(RuntimeError):  # it is full
        roomy.update(*new[0])


def test_a_separator_in_two_halves_ends_a_step(pair):
    policy, tokenizer, _ = pair
    one, two, a = (tokenizer.convert_tokens_to_ids(token) for token in ["Ċ", "ĊĊ", "a"])
    eos, ends = tokenizer.eos_token_id, beam.step_ends(tokenizer, policy)
    texts = torch.tensor([  # the token in front is the last of the step before, and counts for nothing
        [a, a, one, one, a], [one, one, a, one, a], [a, a, two, a, a], [a, eos, a, a, a], [one, a, a, a, a],
    ])
    left = torch.tensor([4, 4, 4, 4, 2])
    stop = beam.StopAt(ends, left, first=True)
    for length in range(1, 5):
        stop(texts[:, :1 + length], None)
    assert stop.length.tolist() == [3, 4, 2, 1, 2]
    stop = beam.StopAt(ends, left, first=False)  # but here it is the one before in the same step
    stop(texts[:, :2], None)
    assert stop.length.tolist() == [0, 1, 0, 1, 0]


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
        beam.sample_steps(model, beam.prefill(model, [prompt]), [0] * 8, uniforms, [60] * 8, beam.text_ends(model), temperature=1.2, top_p=1.0)[0]
        for model in (policy, other)
    ]
    assert texts[0] == texts[1]


def test_a_prompt_longer_than_the_context_is_named(pair):
    policy, tokenizer, _ = pair
    with pytest.raises(ValueError, match="2100 tokens, the policy takes 2048"):
        beam.prefill(policy, [[7] * 9, [7] * 2100])


def test_a_head_with_fewer_rows_than_the_tokenizer_has_tokens(pair):
    """As after a token was added for padding and the embedding left as it was."""
    class Small:
        config, generation_config, device = type("", (), {"vocab_size": len(pair[1]) - 3}), pair[0].generation_config, "cpu"

    assert [len(table) for table in beam.step_ends(pair[1], Small)] == [len(pair[1]) - 3] * 3
