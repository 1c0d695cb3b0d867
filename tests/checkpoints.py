"""Tokenizers and random checkpoints built like the published ones, a thousand times smaller: what
the tests load.

What is true to life: architectures and names in config.json, names of the weights, the two ways to
shard them, special tokens, who adds a BOS, the structure of the chat templates,
generation_config.json. The vocabularies are a toy's.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
)

# Llama 3 writes BOS and trims whatever it is given; 3.2 asks the clock for the date where a program
# has one.
LLAMA_TEMPLATE = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

# Qwen 2.5 has no BOS, trims nothing, and speaks for a system that is silent.
QWEN_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nPlease reason step by step, and put your final answer within \\\\boxed{}.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != "system" or not loop.first %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def byte_level(special) -> Tokenizer:
    """Byte-level BPE as Llama 3 and Qwen have it: separators join what precedes them (".\n\n" is
    one), digits stay single.
    """
    merges = [
        ("Ċ", "Ċ"),
        (".", "ĊĊ"),
        ("$", "ĊĊ"),
        (":", "Ċ"),
        ("#", "#"),
        ("t", "e"),
        ("te", "p"),
        ("S", "tep"),
        ("Ġ", "Step"),
        ("Ġ", "+"),
    ]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [
        first + second for first, second in merges
    ]
    bpe = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return bpe


def llama_tokenizer() -> PreTrainedTokenizerFast:
    bpe = byte_level(
        [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
        ]
    )
    bos = bpe.token_to_id("<|begin_of_text|>")
    bpe.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA_TEMPLATE,
    )


def qwen_tokenizer(**tokens) -> PreTrainedTokenizerFast:
    bpe = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=QWEN_TEMPLATE,
        **tokens,
    )


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Sentencepiece's habits: a "▁" for a space and before whatever begins a string; bytes, such as
    the line break's, for the rest.
    """
    merges = [
        ("▁", "к"),
        ("▁к", "и"),
        ("▁", "+"),
        ("▁", "-"),
        ("▁", "a"),
        ("▁", "S"),
        ("t", "e"),
        ("S", "te"),
        ("Ste", "p"),
        ("▁", "Step"),
    ]
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *map(chr, range(33, 127)),
        "к",
        "и",
    ]
    pieces += [first + second for first, second in merges]
    bpe = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bpe.add_special_tokens(["<unk>", "<s>", "</s>"])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


SHAPE = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    initializer_range=0.15,
    tie_word_embeddings=False,
)  # wide, so that scores differ


def save(folder: Path, weights: dict, config, tokenizer, *, shards=1, pickled=False, **fields):
    """A checkpoint as the hub has it. fields: what config.json says besides."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **fields}))
    tokenizer.save_pretrained(folder)
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    names, index = sorted(weights), {}
    for shard in range(shards):
        file = (
            f"{stem}.{suffix}" if shards == 1 else f"{stem}-{shard + 1:05}-of-{shards:06}.{suffix}"
        )
        part = {name: weights[name].contiguous() for name in names[shard::shards]}
        torch.save(part, folder / file) if pickled else save_file(
            part, folder / file, metadata={"format": "pt"}
        )
        index |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / f"{stem}.{suffix}.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index})
        )


def answer_by(model, tags):
    """Make a random model answer by one of these tokens, as a PRM that scores by them does: one
    direction of the residual stream is always there, and the head dislikes all others along it."""
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        others = [i for i in range(len(model.lm_head.weight)) if i not in tags]
        model.lm_head.weight[others, 0] = -60.0
        model.lm_head.weight[tags, 0] = 0.0


def rlhflow(folder, writer=False, **options):
    """writer: a plain policy, which does not answer by "+" and "-"."""
    tokenizer = llama_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 8, **SHAPE))
    if not writer:
        answer_by(model, tokenizer.convert_tokens_to_ids(["+", "-"]))
    save(
        folder,
        model.state_dict(),
        model.config,
        tokenizer,
        **{"shards": 2, "architectures": ["LlamaForCausalLM"], **options},
    )


def math_shepherd(folder, **options):
    """A Mistral that says it is a Llama, in pickles, without a chat template (and, unlike here,
    without tokenizer.json).
    """
    tokenizer = mistral_tokenizer()
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE))
    answer_by(model, tokenizer.convert_tokens_to_ids(["▁+", "▁-"]))
    options = {"shards": 2, "pickled": True, "architectures": ["LlamaForCausalLM"], **options}
    save(folder, model.state_dict(), model.config, tokenizer, **options)


def skywork(folder, *, heads=True, **options):
    tokenizer = qwen_tokenizer(bos_token="<|endoftext|>")
    torch.manual_seed(2)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer) + 8, **SHAPE))
    head = (
        {"v_head.summary.weight": torch.randn(1, 64) / 8, "v_head.summary.bias": torch.randn(1)}
        if heads
        else {}
    )
    auto_map = {
        "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
        "AutoModel": "modeling_qwen2_rm.Qwen2ForPrmModel",
    }
    options = {
        "pickled": True,
        "architectures": ["Qwen2ForPrmModel"],
        "auto_map": auto_map,
        **options,
    }
    save(folder, {**model.state_dict(), **head}, model.config, tokenizer, **options)


def qwen_math(folder, *, tokenizer=None, **options):
    tokenizer = tokenizer or qwen_tokenizer()
    torch.manual_seed(3)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer) + 8, **SHAPE))
    head = {
        "score.0.weight": torch.randn(64, 64) / 8,
        "score.0.bias": torch.randn(64) / 8,
        "score.2.weight": torch.randn(2, 64) / 8,
        "score.2.bias": torch.randn(2) / 8,
    }
    trunk = {
        name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"
    }
    auto_map = {
        "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
    }
    save(
        folder,
        {**trunk, **head},
        model.config,
        tokenizer,
        **{
            "shards": 2,
            "architectures": ["Qwen2ForProcessRewardModel"],
            "auto_map": auto_map,
            **options,
        },
    )


def trl(folder, **options):
    """As PRMTrainer saves it."""
    tokenizer = qwen_tokenizer()
    torch.manual_seed(4)
    config = Qwen2Config(vocab_size=len(tokenizer) + 8, num_labels=2, **SHAPE)
    model = Qwen2ForTokenClassification(config)
    with torch.no_grad():
        model.score.weight.normal_(std=0.3)
    options = {"architectures": ["Qwen2ForTokenClassification"], **options}
    save(folder, model.state_dict(), config, tokenizer, **options)


BUILD = {
    "rlhflow": rlhflow,
    "math-shepherd": math_shepherd,
    "skywork": skywork,
    "qwen-math": qwen_math,
    "trl": trl,
}
