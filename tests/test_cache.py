"""Decoding with the tree's keys and values (beam.py and its copies) against reading anew."""

import re

import naive
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import pad
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicLayer,
    PreTrainedTokenizerFast,
)

import beam
import dvts
import majority
from common.chat import MATH_PROMPT
from common.prm import load_prm

PROBLEM = "Start with 12. Add 5, multiply by 2, subtract 9. What is the result?"
PROBLEMS = [PROBLEM, "Evaluate $8+5$."]  # of different length
HOT = {"separator": "\n\n", "temperature": 1.3, "top_p": 1.0}


def roots_of(policy, tokenizer, problems=PROBLEMS, most=200):
    with torch.inference_mode():
        return beam.prefill(policy, tokenizer, problems, MATH_PROMPT, most)


@torch.inference_mode()
def write(policy, tokenizer, parents, uniforms, to_the_end=False, **sampling):
    sampling = {**HOT, **sampling}
    return beam.sample_steps(policy, tokenizer, parents, uniforms, to_the_end, **sampling)


def tokens_of(nodes):
    return [node.tokens for node in nodes]


def test_cached_equals_uncached_over_ragged_steps_and_selections(pair):
    """Two prompts, five steps, with rows dropped, doubled and reordered in between: the same
    tokens, to the last one, and a node holds the keys and values of as many tokens as it has."""
    policy, tokenizer, _ = pair
    generator = torch.Generator().manual_seed(3)
    nodes = roots_of(policy, tokenizer)
    ragged = 0
    for index in [[0, 1, 0, 1, 0, 0], [5, 0, 0, 3], [1, 3, 1, 2, 0], [4, 4, 2], [2, 0, 1, 1]]:
        parents = [nodes[i] for i in index if not nodes[i].ended]
        uniforms = torch.rand(len(parents), 200, generator=generator)
        nodes = write(policy, tokenizer, parents, uniforms)
        plain = naive.sample_steps(policy, tokenizer, parents, uniforms, False, **HOT)
        assert tokens_of(nodes) == tokens_of(plain)
        assert [node.text for node in nodes] == [node.text for node in plain]
        ragged += len(set(map(len, tokens_of(nodes)))) > 1
        for node in nodes:
            assert node.tokens_left == node.parent.tokens_left - len(node.tokens)
            if node.ended:
                assert node.kv is None
            else:
                assert node.kv.shape[3] == len(node.tokens)
        nodes = nodes * 3  # enough to choose from
    assert ragged >= 3, "the steps must differ in length, or this shows nothing"


SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
}
WINDOW = {"sliding_window": 24}  # shorter than the prompts
POLICIES = {  # of each model type what its config needs to be small
    "qwen2": {},
    "qwen3": {},
    "smollm3": {},
    "phi3": {},
    "olmo2": {},
    "granite": {},
    "glm4": {},
    "exaone4": {},
    "gemma": {},
    "mistral": WINDOW,
    "olmo3": WINDOW,
    "mixtral": {"num_local_experts": 4},
    "gemma2": {**WINDOW, "query_pre_attn_scalar": 16},
    "gemma3_text": {
        **WINDOW,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gpt_oss": {**WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {},
    "bloom": {},  # its config has no max_position_embeddings: no limit
}


def random_policy(kind, tokenizer, folder):
    """A policy of random weights, saved and loaded as any other."""
    torch.manual_seed(0)
    sizes = {**SIZES, **POLICIES[kind], "vocab_size": len(tokenizer)}
    if kind != "bloom":
        sizes["max_position_embeddings"] = 128
    tokens = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **tokens))
    for weights in model.parameters():
        if weights.ndim > 1:
            # As made, the next token hardly depends on those before.
            torch.nn.init.normal_(weights, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    policy, _ = beam.load_policy(str(folder))
    return policy


@pytest.mark.parametrize("kind", POLICIES)
@torch.inference_mode()
def test_policies_of_many_kinds(pair, kind, tmp_path, monkeypatch):
    """Sliding windows, experts, soft caps, positions that are rotated, learned or a bias. Rows
    leave, are doubled, dropped and reordered, up to the end of the context. Each token is one that
    its number draws (within 1e-4: rounding) where nothing was cached.
    """
    tokenizer = pair[1]
    policy = random_policy(kind, tokenizer, tmp_path)
    assert hasattr(policy.config, "max_position_embeddings") == (kind != "bloom")
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(5, len(tokenizer), (n,), generator=generator) for n in (60, 37)]
    prompts = iter([prompt.tolist() for prompt in prompts])
    monkeypatch.setattr(beam, "encode_prompt", lambda *_, **__: next(prompts))
    most = 128 if kind != "bloom" else 60
    nodes = beam.prefill(policy, tokenizer, ["?", "?"], "", most)
    if kind != "bloom":
        assert [root.tokens_left for root in nodes] == [128 - 60, 128 - 37]
    while nodes:
        parents = [nodes[i] for i in torch.randint(len(nodes), (5,), generator=generator)]
        uniforms = torch.rand(5, 128, generator=generator)
        children = write(policy, tokenizer, parents, uniforms, temperature=1.0)
        for child, numbers in zip(children, uniforms):
            text = [token for node in child.path() for token in node.tokens]
            first = len(text) - len(child.tokens)
            logits = policy(torch.tensor([text])).logits[0, first - 1 : -1]
            upto = torch.softmax(logits.double(), -1).cumsum(-1)
            token = torch.tensor(child.tokens)[:, None]
            number = numbers[: len(token), None]
            assert (upto.gather(1, token) > number - 1e-4).all()
            assert (pad(upto, (1, 0)).gather(1, token) <= number + 1e-4).all()
        nodes = [child for child in children if not child.ended]


def test_greedy_cached_equals_uncached_after_selection(pair):
    policy, tokenizer, _ = pair
    roots = roots_of(policy, tokenizer, [PROBLEM])
    uniforms = torch.rand(4, 200, generator=torch.Generator().manual_seed(5))
    first = write(policy, tokenizer, roots * 4, uniforms, temperature=1.5)
    parents = [first[3], first[1], first[1]]
    given = policy, tokenizer, parents, torch.zeros(3, 200), True
    greedy = {"separator": "\n\n", "temperature": 0.0, "top_p": 1.0}
    second = write(*given, **greedy)
    assert tokens_of(second) == tokens_of(naive.sample_steps(*given, **greedy))


def test_a_row_does_not_depend_on_the_rest_of_the_batch(pair):
    policy, tokenizer, _ = pair
    uniforms = torch.rand(7, 200, generator=torch.Generator().manual_seed(1))

    def run(numbers):
        roots = roots_of(policy, tokenizer, [PROBLEM])
        return tokens_of(write(policy, tokenizer, roots * len(numbers), numbers, top_p=0.9))

    together = run(uniforms)
    assert [run(uniforms[i : i + 1])[0] for i in range(7)] == together
    assert run(uniforms[2:5]) == together[2:5]


def test_out_of_memory_halves_the_batch_and_changes_nothing(pair):
    """A GPU that holds two rows and no more: the same steps, and the size that worked is
    remembered."""
    policy, tokenizer, _ = pair
    uniforms = torch.rand(2, 7, 200, generator=torch.Generator().manual_seed(4))
    tried = []
    most = 2

    def memory(module, inputs, kwargs):
        if "input_ids" in kwargs:  # a decoding step, not the reading of the prompts
            tried.append(len(kwargs["input_ids"]))
            if tried[-1] > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def run():
        nodes = roots_of(policy, tokenizer)
        for index, numbers in zip([[0, 1, 0, 1, 1, 0, 0], [6, 4, 0, 0, 1, 2, 1]], uniforms):
            tried.clear()
            nodes = write(policy, tokenizer, [nodes[i] for i in index], numbers)
        return tokens_of(nodes)

    expected = run()
    hook = policy.model.register_forward_pre_hook(memory, with_kwargs=True)
    try:
        assert run() == expected
        assert policy.rows_at_once == 1  # 7, then 3, then 1
        assert max(tried) == 1  # no more attempts at more in the second step
        most = 0
        with pytest.raises(torch.cuda.OutOfMemoryError):
            run()
    finally:
        hook.remove()
        del policy.rows_at_once


def test_a_roomy_layer_holds_what_a_dynamic_one_does():
    """Also where it runs out of room."""
    start = torch.randn(2, 3, 4, 5, 8)  # keys and values of 5 tokens
    roomy = beam.RoomyLayer(*pad(start, (0, 0, 0, 2)), 5)
    dynamic = DynamicLayer()
    dynamic.update(*start)
    assert roomy.get_seq_length() == 5
    for token in torch.randn(beam.ROOM + 9, 2, 3, 4, 1, 8):
        for ours, theirs in zip(roomy.update(*token), dynamic.update(*token)):
            assert torch.equal(ours, theirs)
    assert roomy.get_seq_length() == dynamic.get_seq_length() == beam.ROOM + 14


def test_a_roomy_layer_copies_nothing_while_there_is_room():
    layer = beam.RoomyLayer(*torch.randn(2, 3, 4, 7, 8), 5)
    for token in torch.randn(2, 2, 3, 4, 1, 8):
        keys, values = layer.update(*token)
        assert keys.data_ptr() == layer.keys.data_ptr()
        assert values.data_ptr() == layer.values.data_ptr()


def test_a_path_is_laid_out_once_however_often_it_is_named():
    """Of three nodes in a row and one of another problem: keys 0, 1, 2 ... by token."""
    kv = torch.arange(9.0).view(1, 1, 1, 9, 1).expand(2, 3, 2, 9, 4)
    root = beam.Node(None, 0, 9, kv=kv[:, :, :, :4])
    child = beam.Node(root, 0, 9, kv=kv[:, :, :, 4:6])
    other = beam.Node(None, 1, 9, kv=kv[:, :, :, 6:9])
    cache, mask = beam.lay_out([child, other, child])
    assert mask.tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1], [1] * 6]
    for layer in cache.layers:
        for held in (layer.keys, layer.values):
            assert held.shape == (3, 2, 6 + beam.ROOM, 4)
            assert held[0, 1, :6, 2].tolist() == [0, 1, 2, 3, 4, 5]
            assert held[1, 0, 3:6, 0].tolist() == [6, 7, 8]
            assert torch.equal(held[2], held[0])
    assert beam.cut_out(cache, 1, 3, 6).equal(other.kv)


# --- where a step ends ----------------------------------------------------------------------------


def test_a_separator_ends_a_step_wherever_tokens_part_it(pair):
    tokenizer = pair[1]
    one, two, a = tokenizer.convert_tokens_to_ids(["Ċ", "ĊĊ", "a"])
    ended = beam.step_end(tokenizer, "\n\n")
    assert not any(map(ended, [[one], [a, one], [one, a], [one, a, one], [a, a, a]]))
    assert all(map(ended, [[two], [a, two], [one, one], [a, a, one, one]]))
    ended = beam.step_end(tokenizer, "a\na")  # over three tokens
    assert ended([two, a, one, a]) and not ended([a, one]) and not ended([a, a, one])
    assert not beam.step_end(tokenizer, None)([two, two])


def test_a_function_ends_a_step(pair):
    """Line by line: a step is what a function of its tokens says."""
    policy, tokenizer, _ = pair
    roots = roots_of(policy, tokenizer, [PROBLEM])
    uniforms = torch.rand(3, 200, generator=torch.Generator().manual_seed(5))

    def line(tokens):
        return tokenizer.decode(tokens).endswith("\n")

    nodes = write(policy, tokenizer, roots * 3, uniforms, separator=line)
    for node in nodes:
        assert node.text.endswith("\n") and node.text.count("\n") == 1
        assert node.steps == [node.text] and node.begun == []
    same = write(policy, tokenizer, roots * 3, uniforms, separator="\n")
    assert tokens_of(same) == tokens_of(nodes)


@pytest.mark.parametrize("said", [None, 1.5, 3, -1000, re.match("a", "a")])
@pytest.mark.parametrize("to_the_end", [False, True])
def test_a_function_that_says_nothing_is_an_error(pair, said, to_the_end):
    policy, tokenizer, _ = pair
    roots = roots_of(policy, tokenizer, [PROBLEM])
    greedy = {"separator": lambda tokens: said, "temperature": 0.0}
    with pytest.raises(ValueError, match="the separator returned"):
        write(policy, tokenizer, roots, torch.zeros(1, 200), to_the_end, **greedy)


def test_what_has_ended_has_no_next_step(pair):
    policy, tokenizer, _ = pair
    [root] = roots_of(policy, tokenizer, [PROBLEM])
    for ended in ({"tokens_left": 0}, {"tokens_left": 9, "finished": True}):
        parent = beam.Node(root, 0, tokens=[5], **ended)
        with pytest.raises(ValueError, match="at the end of its text"):
            write(policy, tokenizer, [root, parent], torch.zeros(2, 200))


@pytest.mark.parametrize("settings, named", [({"n": 0}, "n "), ({"max_new_tokens": 0}, "max_new")])
def test_nothing_to_write_is_an_error(pair, settings, named):
    with pytest.raises(ValueError, match=f"{named}.*must be at least 1"):
        beam.beam_search(*pair, [PROBLEM], **settings)
    with pytest.raises(ValueError, match=f"{named}.*must be at least 1"):
        majority.sample_solutions(*pair[:2], [PROBLEM], **settings)


@pytest.mark.parametrize("search", [beam.beam_search, dvts.dvts])
def test_a_beam_width_of_nothing_is_an_error(pair, search):
    with pytest.raises(ValueError, match="beam_width 0: both must be at least 1"):
        search(*pair, [PROBLEM], n=4, beam_width=0)


def test_a_folder_without_a_model_is_named(tmp_path):
    for load in (beam.load_policy, load_prm):
        with pytest.raises(ValueError, match="has no config.json"):
            load(tmp_path)


def test_a_step_can_begin_with_its_heading(pair):
    """A function that returns -k: the last k tokens already begin the next step. What is written
    is the same as with no steps at all, and texts begin where the headings do."""
    policy, tokenizer, _ = pair
    [root] = roots_of(policy, tokenizer, [PROBLEM])
    uniforms = torch.zeros(1, 200)

    def heading(tokens):
        text = tokenizer.decode(tokens)
        if not text.endswith("## Step") or text == "## Step":
            return False
        k = 1
        while not tokenizer.decode(tokens[-k:]).startswith("## Step"):
            k += 1
        return -k

    greedy = {"separator": heading, "temperature": 0.0}
    nodes = [root]
    while not nodes[-1].ended:
        nodes += write(policy, tokenizer, nodes[-1:], uniforms, **greedy)
    [whole] = write(policy, tokenizer, [root], uniforms, True, **greedy)
    assert [token for node in nodes[1:] for token in node.tokens] == whole.tokens
    assert len(nodes) > 3
    assert all(node.text.startswith("## Step ") for node in nodes[1:])
    assert "".join(node.text for node in nodes[1:]) == whole.text
    # Written at once, the function finds the same steps in it.
    assert whole.steps == [node.text for node in nodes[1:]]
    assert [node.steps for node in nodes[1:]] == [[node.text] for node in nodes[1:]]


def test_text_keeps_the_space_that_a_step_begins_with(pair):
    """A tokenizer like Llama 2's writes a space as part of the next word, and drops it where a text
    begins. In the middle of a solution it must not."""
    pieces = ["<unk>", "</s>", "▁", "def", "▁f", ":", "\n", "▁▁▁▁", "return", "▁1"]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    root = beam.Node(None, 0, 99, tokens=[0])
    first = beam.Node(root, 0, 99, tokens=[3, 4, 5, 6])
    second = beam.Node(first, 0, 99, tokens=[7, 8, 9, 1], finished=True)
    for node in (first, second):
        beam.read_text(tokenizer, node, "\n")
    assert first.text == "def f:\n" and second.text == "    return 1"
    assert beam.solution(tokenizer, second).text == "def f:\n    return 1"


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_the_distribution_sampled_is_softmax_over_temperature_in_the_nucleus(top_p):
    """An even grid of 200,001 numbers instead of chance: the frequencies are the probabilities, to
    a grid step."""
    logits = torch.tensor([1.0, 3.0, -2.0, 2.5, 0.0, 2.0])
    probs = torch.softmax(logits.double() / 0.8, -1)
    if top_p == 0.7:  # 3.0 alone has .49, with 2.5 it has .75: the smallest set with 0.7
        assert probs[1] < 0.7 < probs[1] + probs[3]
        inside = (logits == 3.0) | (logits == 2.5)
        probs = torch.where(inside, probs, 0) / (probs[1] + probs[3])
    grid = torch.arange(200_001) / 200_001
    drawn = beam.sample(logits.expand(len(grid), -1), grid, 0.8, top_p)[:, 0]
    frequency = torch.bincount(drawn, minlength=6) / len(grid)
    assert frequency == pytest.approx(probs.float(), abs=1e-5)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_blocks_draw_what_double_precision_draws(top_p):
    """Numbers within 1e-5 of a boundary between two tokens are left out: there they may differ."""
    for V in (100, 128, 1000):
        logits = 3 * torch.randn(V, generator=torch.Generator().manual_seed(V))
        probs = torch.softmax(logits.double() / 0.8, -1)
        ranked, order = probs.sort(descending=True)
        probs[order[ranked.cumsum(0) - ranked >= top_p]] = 0
        ends = probs.cumsum(0) / probs.sum()
        uniforms = torch.rand(5000, generator=torch.Generator().manual_seed(0))
        clear = (uniforms[:, None] - ends).abs().amin(1) > 1e-5
        expected = torch.searchsorted(ends, uniforms.double(), right=True)
        drawn = beam.sample(logits.expand(5000, -1), uniforms, 0.8, top_p)[:, 0]
        assert clear.sum() > 4000 and drawn[clear].equal(expected[clear])


def test_a_token_that_reaches_top_p_exactly_is_the_last_inside():
    logits = torch.tensor([[0.25, 0.5, 0.25]]).log().expand(3, -1)
    uniforms = torch.tensor([0.0, 0.5, 0.999])
    assert beam.sample(logits, uniforms, 1.0, 0.5)[:, 0].tolist() == [1, 1, 1]
    assert set(beam.sample(logits, uniforms, 1.0, 0.51)[:, 0].tolist()) in ({0, 1}, {1, 2})


def test_extreme_numbers_never_draw_an_impossible_token():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]]).expand(3, -1)
    uniforms = torch.tensor([0.0, 1 - 2**-24, 0.5])
    assert beam.sample(logits, uniforms, 1.0, 1.0)[:, 0].tolist() == [1, 3, 3]
    logits = torch.full((1, 300), -torch.inf)
    logits[0, 200] = 0.0
    assert beam.sample(logits.expand(3, -1), uniforms, 1.0, 1.0)[:, 0].tolist() == [200] * 3


def test_rows_whose_logits_are_not_finite_draw_no_token():
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [torch.inf, 0.0], [-torch.inf] * 2])
    for temperature in (0.0, 1.0):
        drawn = beam.sample(logits, torch.full((4,), 0.9), temperature, 1.0)
        assert drawn[:, 0].tolist() == [1, -1, -1, -1]


def test_what_the_checkpoint_recommends_does_not_leak_in(pair, tmp_path):
    """generation_config.json with top-k, top-p and a repetition penalty, as Llama and Qwen publish:
    the same samples."""
    policy, tokenizer, _ = pair
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 0.6, "top_k": 2, "top_p": 0.5,'
        ' "repetition_penalty": 1.5, "min_new_tokens": 30, "eos_token_id": [4, 1]}'
    )
    other, _ = beam.load_policy(str(tmp_path))
    uniforms = torch.rand(8, 200, generator=torch.Generator().manual_seed(0))
    texts = []
    for model in (policy, other):
        roots = roots_of(model, tokenizer, [PROBLEM])
        texts.append(tokens_of(write(model, tokenizer, roots * 8, uniforms, True)))
    assert texts[0] == texts[1]


def test_every_token_that_may_end_a_text_does(pair, tmp_path):
    """Those that generation_config, config and the tokenizer name, 0 among them."""
    policy, tokenizer, _ = pair
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    named = policy.config.eos_token_id
    assert f'"eos_token_id": {named}' in config
    changed = config.replace(f'"eos_token_id": {named}', '"eos_token_id": 0')
    (tmp_path / "config.json").write_text(changed)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7]}')
    other, _ = beam.load_policy(str(tmp_path))
    assert other.generation_config.eos_token_id == sorted({0, 7, tokenizer.eos_token_id})


def test_a_prompt_longer_than_the_context_is_named(pair):
    policy, tokenizer, _ = pair
    with pytest.raises(ValueError, match="fills the context of 2048"):
        roots_of(policy, tokenizer, ["1+" * 1100])


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-300])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_temperature_near_zero_is_greedy(temperature, top_p):
    logits = torch.tensor([[1.0, 0.5, 3.0, 2.999, -4.0]]).expand(9, -1)
    drawn = beam.sample(logits, torch.linspace(0, 0.999, 9), temperature, top_p)
    assert drawn[:, 0].tolist() == [2] * 9
