"""Reward models and policies as they are published, on small random checkpoints of the same layout
(checkpoints.py).
"""

import json
import math
import os
import shutil
import subprocess
import sys
from unittest import mock

import checkpoints
import pytest
import torch
from conftest import ROOT
from naive import full_score
from safetensors.torch import load_file, save_file
from test_prm import roots_of, scored
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    Qwen2ForCausalLM,
)
from transformers.utils import logging

import beam
from common import chat
from common.families import FAMILIES
from common.prm import load_prm
from harness import models

logging.disable_progress_bar()  # as choose() does
CPU = torch.device("cpu")
PROBLEM = "Start with 12. Add 5, multiply by 2. What is the result?"
STEPS = [
    "## Step 1: Add 5\n$12+5=17$\n\n",
    "Then we multiply:\n$17\\times2=34$\n\n",
    "## Step 3: Answer\nThe final answer is: $\\boxed{34}$.\n\n",
]
WRONG = ["## Step 1: Add 5\n$12+5=18$\n\n", "## Step 2: Double it\n\n", "Hence\n$\\boxed{36}$\n\n"]


# --- a plain second computation for each family: its published recipe, without a cache ------------


def weights(prm, prefix):
    files = sorted(checkpoints.Path(prm.model.name_or_path).glob("*model*"))
    shards = [
        load_file(file) if file.suffix == ".safetensors" else torch.load(file)
        for file in files
        if file.suffix != ".json"
    ]
    return {
        name.removeprefix(prefix): weight
        for shard in shards
        for name, weight in shard.items()
        if name.startswith(prefix)
    }


@torch.no_grad()
def plain_head(name, prm, hidden):
    """The head as published, from the weights on disk: hidden [..., h] -> scores [...]."""
    if name in ("rlhflow", "math-shepherd"):
        tags = prm.tokenizer.convert_tokens_to_ids(
            ["+", "-"] if name == "rlhflow" else ["▁+", "▁-"]
        )
        return (hidden @ weights(prm, "lm_head.")["weight"].T)[..., tags].softmax(-1)[..., 0]
    if name == "skywork":
        head = torch.nn.Linear(64, 1)
        head.load_state_dict(weights(prm, "v_head.summary."))
        return torch.sigmoid(head(hidden))[..., 0]
    if name == "trl":
        head = torch.nn.Linear(64, 2)
    else:
        head = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    head.load_state_dict(weights(prm, "score."))
    return head(hidden).softmax(-1)[..., 1]


@torch.no_grad()
def math_shepherd_score(prm, problem, steps):
    clean = [
        step.strip().replace("\n", " ").split(": ", 1)[-1]
        if step.startswith("## ")
        else step.strip().replace("\n", " ")
        for step in steps
    ]
    text = f"{problem} " + "\n".join(
        f"Step {number}: {step} ки" for number, step in enumerate(clean, 1)
    )
    ids = torch.tensor([prm.tokenizer(text).input_ids])
    logits = AutoModelForCausalLM.from_pretrained(prm.model.name_or_path)(ids).logits
    plus, minus, tag = prm.tokenizer.convert_tokens_to_ids(["▁+", "▁-", "▁ки"])
    return logits[..., [plus, minus]].softmax(-1)[..., 0][ids == tag].tolist()


@torch.no_grad()
def skywork_score(prm, problem, steps):
    ids, ends, newline = (
        prm.tokenizer(f"<|endoftext|>{problem}\n").input_ids,
        [],
        prm.tokenizer("\n").input_ids,
    )
    for step in steps:
        for line in step.strip().split("\n"):
            ids = ids + prm.tokenizer(line).input_ids + newline
        ends.append(len(ids) - 1)
    hidden = Qwen2ForCausalLM.from_pretrained(prm.model.name_or_path)(
        torch.tensor([ids]), output_hidden_states=True
    ).hidden_states[-1]
    return plain_head("skywork", prm, hidden)[0, ends].tolist()


@torch.no_grad()
def qwen_math_score(prm, problem, steps):
    answer = "<extra_0>".join(step.strip() for step in steps) + "<extra_0>"
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    conversation = [
        {"role": role, "content": text}
        for role, text in [("system", system), ("user", problem), ("assistant", answer)]
    ]
    ids = torch.tensor(
        [
            chat.encode(
                prm.tokenizer, prm.tokenizer.apply_chat_template(conversation, tokenize=False)
            )
        ]
    )
    return plain_head("qwen-math", prm, prm.model(ids).last_hidden_state)[
        ids == prm.tokenizer.convert_tokens_to_ids("<extra_0>")
    ].tolist()


@torch.no_grad()
def trl_score(prm, problem, steps):
    """By the class that PRMTrainer trains, over one text."""
    ids = prm.tokenizer(problem).input_ids
    ends = []
    for step in steps:
        ids = ids + prm.tokenizer(step.strip()).input_ids + prm.tokenizer("\n").input_ids
        ends.append(len(ids) - 1)
    model = AutoModelForTokenClassification.from_pretrained(prm.model.name_or_path)
    return model(torch.tensor([ids])).logits.softmax(-1)[0, ends, 1].tolist()


PLAIN = {
    "rlhflow": full_score,
    "math-shepherd": math_shepherd_score,
    "skywork": skywork_score,
    "qwen-math": qwen_math_score,
    "trl": trl_score,
}


@pytest.fixture(scope="module", params=list(checkpoints.BUILD))
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / request.param
    checkpoints.BUILD[request.param](folder)
    return request.param, folder


def test_step_by_step_equals_the_published_recipe(checkpoint):
    """Found by its config.json; two problems, children that branch and change places, and steps of
    several lines.
    """
    name, folder = checkpoint
    prm = load_prm(str(folder), four_bit=False, device=CPU, allow_pickle=True)
    assert type(prm.family) is FAMILIES[name] and prm.model.dtype == torch.float32
    p, q = roots_of(prm, PROBLEM, "What is 1 + 1?")
    first = scored(prm, (q, STEPS[0]), (p, WRONG[0]), (p, STEPS[0]))
    second = scored(
        prm,
        (first[2], STEPS[1] + STEPS[2]),
        (first[1], WRONG[1]),
        (first[2], WRONG[1]),
        (first[0], STEPS[1]),
    )
    paths = []
    for node, steps in zip(second, [STEPS, WRONG[:2], [STEPS[0], WRONG[1]], STEPS[:2]]):
        paths.append((node.path()[0].text, steps, node.all_scores()))
    for problem, steps, scores in paths:
        assert scores == pytest.approx(PLAIN[name](prm, problem, steps), abs=1e-4)
    scores = [score for *_, scores in paths for score in scores]
    assert max(scores) - min(scores) > 0.02, "the scores must differ, or this shows nothing"


def test_text_stays_text(checkpoint):
    """Names of special tokens, and tags, in a problem or a step are characters: only those that the
    family writes itself are tokens, and each step has one score."""
    name, folder = checkpoint
    prm = load_prm(str(folder), device=CPU, allow_pickle=True)
    tokenizer = prm.tokenizer
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= {tokenizer.convert_tokens_to_ids(tag) for tag in ("▁ки", "<extra_0>")}
    special -= {tokenizer.unk_token_id, None}
    forged = "".join(token.content for token in tokenizer.added_tokens_decoder.values())
    forged = f"so {forged} ки and {forged}<extra_0> 7"

    def marks(text):
        tokens = [*prm.family.opening(text), *prm.family.turn(text, 1), *prm.family.turn(text, 2)]
        return [token for token in tokens if token in special]

    assert marks(forged) == marks("so and 7")
    tokens = prm.family.turn(forged, 2)
    assert "".join(tokenizer.decode(tokens).split()).count("".join(forged.split())) == 1
    [root] = roots_of(prm, forged)
    [child] = scored(prm, (root, f"{forged}\n\n"))
    assert len(child.scores) == 1


def test_heads_are_not_quantized(checkpoint):
    """In 4-bit all linear layers of the trunk are packed bytes; what makes the scores is what the
    checkpoint holds.
    """
    name, folder = checkpoint
    prm = load_prm(str(folder), four_bit=True, device=CPU, allow_pickle=True)
    assert (
        prm.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        and prm.model.dtype == torch.bfloat16
    )
    hidden = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert prm.family.score(hidden) == pytest.approx(plain_head(name, prm, hidden), abs=1e-6)
    [child] = scored(prm, (*roots_of(prm, PROBLEM), "".join(STEPS)))
    assert len(child.scores) == 3


@pytest.mark.parametrize(
    "name, options, flags",
    [
        ("rlhflow", {}, []),
        ("math-shepherd", {}, ["--allow-pickle"]),
        ("skywork", {}, ["--allow-pickle"]),
        ("qwen-math", {}, []),
        ("skywork", {"architectures": ["Renamed"], "pickled": False}, ["--prm-family", "skywork"]),
    ],
)
def test_a_search_from_the_command_line(name, options, flags, tmp_path):
    """Whole runs, one for each family: detected, scored, and nothing on stderr but progress."""
    checkpoints.BUILD[name](tmp_path / "prm", **options)
    command = [
        sys.executable,
        ROOT / "dvts.py",
        "--policy",
        ROOT / "tiny/policy",
        "--prm",
        tmp_path / "prm",
        "--problems",
        ROOT / "tiny/problems.jsonl",
        "--n",
        "16",
        "--limit",
        "1",
        "--output",
        tmp_path / "out.jsonl",
        *flags,
    ]
    run = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert "lm_head" not in run.stderr and "Warning" not in run.stderr, run.stderr
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    scores = [score for completion in row["completions"] for score in completion["scores"]]
    assert scores and all(0 < score < 1 for score in scores) and len(set(scores)) > 2


# --- what is no PRM, or only half of one ----------------------------------------------------------


def told(capsys, folder, **options) -> str:
    """The one line that a user sees instead of a traceback."""
    with (
        pytest.raises(SystemExit) as stop,
        mock.patch.object(models, "model_folder"),
        models.loading("--prm", "mine"),
    ):
        load_prm(str(folder), four_bit=False, device=CPU, **{"allow_pickle": True, **options})
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1 and "--prm mine" in line, line
    return line


def without(tokenizer, token):
    """The tokenizer before `token` was added to it."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [added for added in state["added_tokens"] if added["content"] != token]
    return type(tokenizer)(
        tokenizer_object=checkpoints.Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
    )


def test_an_unknown_architecture_is_named(tmp_path, capsys):
    checkpoints.rlhflow(tmp_path, architectures=["Qwen2ForRewardModel"])
    line = told(capsys, tmp_path)
    assert (
        "Qwen2ForRewardModel" in line
        and "--prm-family" in line
        and all(name in line for name in FAMILIES)
    )
    prm = load_prm(
        str(tmp_path), family="rlhflow", four_bit=False, device=CPU
    )  # and the user may know better
    [child] = scored(prm, (*roots_of(prm, PROBLEM), STEPS[0]))
    assert child.scores == pytest.approx(full_score(prm, PROBLEM, STEPS[:1]), abs=1e-4)


def test_a_script_tells_in_one_line_what_is_wrong_with_a_prm(tmp_path):
    checkpoints.qwen_math(tmp_path, architectures=["Qwen2ForRewardModel"])
    command = [
        sys.executable,
        ROOT / "best_of_n.py",
        "--policy",
        ROOT / "tiny/policy",
        "--prm",
        tmp_path,
        "--problem",
        "1 + 1?",
    ]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (
        run.returncode == 2 and run.stderr.count("\n") == 1 and "Qwen2ForRewardModel" in run.stderr
    ), run.stderr


@pytest.mark.parametrize(
    "build, words",
    [
        (
            lambda folder: checkpoints.qwen_math(
                folder, tokenizer=without(checkpoints.qwen_tokenizer(), "<extra_0>")
            ),
            "'<extra_0>' as a single token",
        ),
        (lambda folder: checkpoints.skywork(folder, heads=False), "v_head.summary"),
        (
            lambda folder: checkpoints.rlhflow(folder, num_hidden_layers=3),
            "lacks the weights layers.2",
        ),
        (
            lambda folder: checkpoints.skywork(
                folder, architectures=["Qwen2ForProcessRewardModel"]
            ),
            "no place for its weights v_head.summary.bias",
        ),
        (
            lambda folder: checkpoints.rlhflow(folder, architectures=["MistralForCausalLM"]),
            "'ки' as a single token",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(tmp_path, capsys, build, words):
    build(tmp_path)
    assert words in told(capsys, tmp_path)


HEADS = {
    "policy": "lm_head.weight",
    "rlhflow": "lm_head.weight",
    "math-shepherd": "lm_head.weight",
    "skywork": "v_head.summary.weight",
    "qwen-math": "score.2.weight",
    "trl": "score.weight",
}


def take(name):
    return lambda weights: weights.pop(name)


def put(name, weight):
    return lambda weights: weights.update({name: weight})


def longer(name):
    return lambda weights: weights.update({name: torch.cat([weights[name]] * 2)})


def set_last(name, value):
    def change(weights):
        weights[name].view(-1)[-1] = value

    return change


def faults(head):
    """What is done to the weights and config.json, and the words that tell it."""
    norm, embed, down = "norm.weight", "embed_tokens.weight", "layers.1.mlp.down_proj.weight"
    for name in (norm, embed, down):
        yield take(f"model.{name}"), {}, [name]
        yield longer(f"model.{name}"), {}, [name, " are [", "config.json"]
        yield set_last(f"model.{name}", math.nan), {}, [f"model.{name} are NaN"]
    yield take(head), {}, [head.split(".")[0]]
    yield longer(head), {}, [head, "are ["]
    yield set_last(head, math.nan), {}, [f"{head} are NaN or infinite in part"]
    yield set_last(head, -math.inf), {}, [f"{head} are NaN or infinite in part"]
    for name in ("foo.bar", "model.extra.weight", "layers.0.x", "lm_head.bias", "\x1b[31m"):
        shown = name.replace("\x1b", "\\x1b")
        yield put(name, torch.zeros(3)), {}, [f"no place for its weights {shown}"]
    yield None, {"num_hidden_layers": 1}, ["layers"]
    yield None, {"num_hidden_layers": 3}, ["layers"]
    yield None, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["are quantized"]


@pytest.mark.parametrize("kind", HEADS)
def test_a_checkpoint_is_whole_or_refused_by_the_first_fault(tmp_path, kind, capfd):
    """The policy and each family: one line that names the weights, and nothing of a library's."""
    options = {"shards": 1, "pickled": False}
    if kind == "policy":
        checkpoints.rlhflow(tmp_path / "whole", writer=True, **options)
    else:
        checkpoints.BUILD[kind](tmp_path / "whole", **options)
    for change, fields, words in [*faults(HEADS[kind]), (None, {}, None)]:
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "model")
        if change:
            weights = load_file(tmp_path / "model/model.safetensors")
            change(weights)
            save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
        config = json.loads((tmp_path / "model/config.json").read_text())
        (tmp_path / "model/config.json").write_text(json.dumps(config | fields))
        fault = None
        models.model_folder.cache_clear()
        try:
            with models.loading("--model", str(tmp_path / "model")) as folder:
                load = beam.load_policy if kind == "policy" else load_prm
                load(folder, device=CPU)
        except SystemExit as stop:
            fault = stop.code
        said = capfd.readouterr()
        if words is None:
            assert (fault, said.out, said.err) == (None, "", "")
            continue
        assert fault == 2 and said.out == "" and said.err.count("\n") == 1, said
        assert all(word in said.err for word in words), (words, said.err)


def test_a_head_of_other_classes_is_refused(tmp_path, capsys):
    labels = {str(i): f"LABEL_{i}" for i in range(3)}
    checkpoints.trl(tmp_path / "three", id2label=labels, label2id={})
    assert "it has 3 classes, not wrong and right" in told(capsys, tmp_path / "three")


@pytest.mark.parametrize("model", ["policy", "prm"])
def test_what_transformers_would_pass_over_in_a_folder(tmp_path, model, capsys):
    """Weights beside the weights, and files that it would leave out without a word."""

    def refused(change, word, pickles=False):
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        shutil.copytree(ROOT / "tiny" / model, folder)
        change(folder)
        with pytest.raises(SystemExit) as stop:
            models.model_folder(str(folder), f"--{model}", pickles)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1 and word in err, err

    def torn(name):
        return lambda folder: (folder / name).write_text('{"eos_token_id": ')

    def fifo(folder):
        (folder / "model.safetensors").unlink()
        os.mkfifo(folder / "model.safetensors")

    refused(lambda folder: (folder / "pytorch_model.bin").touch(), "pytorch_model.bin beside")
    refused(lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter", True)
    refused(torn("generation_config.json"), "generation_config.json is no JSON")
    refused(torn("special_tokens_map.json"), "special_tokens_map.json is no JSON")
    refused(fifo, "model.safetensors is not a plain file")


def test_a_pickle_beside_safetensors_is_not_read(tmp_path):
    checkpoints.rlhflow(tmp_path / "model")
    (tmp_path / "model/pytorch_model.bin").write_text("no pickle")
    folder = models.model_folder(str(tmp_path / "model"), "--prm", True)
    load_prm(folder, device=CPU, allow_pickle=True)


def test_the_name_of_a_model_on_the_hub_is_no_folder():
    for load in (load_prm, beam.load_policy):
        with pytest.raises(ValueError, match="'meta/model' is no folder.*snapshot_download"):
            load("meta/model")
    with pytest.raises(ValueError, match="no family 'nosuch', but rlhflow, "):
        load_prm(ROOT / "tiny/prm", family="nosuch")


def test_a_model_that_writes_is_no_prm():
    with pytest.raises(ValueError, match='other words than "[+]" and "-": it is no reward model'):
        load_prm(ROOT / "tiny/policy", family="rlhflow")


def test_what_is_missing_to_read_a_sentencepiece_file_is_named(tmp_path, capsys, monkeypatch):
    """transformers itself would ask for tiktoken."""
    checkpoints.math_shepherd(tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    monkeypatch.setattr("common.prm.find_spec", lambda name: None)
    assert "pip install sentencepiece protobuf" in told(capsys, tmp_path)


@pytest.mark.parametrize("build", [checkpoints.qwen_math, checkpoints.skywork])
def test_code_that_comes_with_a_checkpoint_is_never_run(tmp_path, build):
    build(tmp_path)
    for file in ("configuration_qwen2_rm.py", "modeling_qwen2_rm.py"):
        (tmp_path / file).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load_prm(str(tmp_path), four_bit=False, device=CPU, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_pickles_are_read_only_if_the_user_says_so(tmp_path, capsys):
    """Math-Shepherd in .bin shards, as published: refused with the flag that would allow it; with
    it, the scores of a copy in safetensors, here one that says that it is a Mistral.
    """
    mistral = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 1024,
    }
    checkpoints.math_shepherd(tmp_path / "safe", pickled=False, **mistral)
    checkpoints.math_shepherd(tmp_path / "bin")
    with pytest.raises(SystemExit):
        models.model_folder(str(tmp_path / "bin"), "--prm", False)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "--allow-pickle" in line
    told(capsys, tmp_path / "bin", allow_pickle=False)  # nor does the loader itself read them
    folder = models.model_folder(str(tmp_path / "bin"), "--prm", True)
    scores = []
    for folder, allowed in [(folder, True), (str(tmp_path / "safe"), False)]:
        prm = load_prm(folder, four_bit=False, device=CPU, allow_pickle=allowed)
        [child] = scored(prm, (*roots_of(prm, PROBLEM), "".join(STEPS)))
        scores.append(child.scores)
    assert (
        type(prm.model).__name__ == "MistralModel"
        and prm.context == 1024
        and scores[0] == pytest.approx(scores[1], abs=1e-6)
    )


@pytest.mark.parametrize(
    "shards, file", [(1, "pytorch_model.bin"), (2, "pytorch_model-00002-of-000002.bin")]
)
def test_a_pickle_that_would_run_code_does_not_even_then(tmp_path, capsys, shards, file):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    checkpoints.math_shepherd(tmp_path / "prm", shards=shards)
    torch.save({"lm_head.weight": Evil()}, tmp_path / "prm" / file)
    torch.load(tmp_path / "prm" / file, weights_only=False)
    (tmp_path / "ran").unlink()  # so it does run where one is careless
    told(capsys, tmp_path / "prm")
    assert not (tmp_path / "ran").exists()


# --- policies as they are published ---------------------------------------------------------------

# generation_config.json of Llama-3.2-1B-Instruct and Qwen2.5-Math-1.5B-Instruct's sisters, but for
# the ids.
LLAMA = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
QWEN = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "repetition_penalty": 1.05,
}


@pytest.fixture(scope="module", params=["llama", "qwen"])
def policy(request, tmp_path_factory):
    """A random policy with several ids that end its text, and no pad token where the family has
    none.
    """
    folder = tmp_path_factory.mktemp("policy")
    if request.param == "llama":
        checkpoints.rlhflow(folder, writer=True)
        tokenizer, recommended, ends = (
            checkpoints.llama_tokenizer(),
            LLAMA,
            ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
        )
    else:
        checkpoints.skywork(folder, heads=False, pickled=False, architectures=["Qwen2ForCausalLM"])
        tokenizer, recommended, ends = (
            checkpoints.qwen_tokenizer(),
            QWEN,
            ["<|im_end|>", "<|endoftext|>"],
        )
    tokenizer.save_pretrained(folder)
    eos = tokenizer.convert_tokens_to_ids(ends)
    (folder / "generation_config.json").write_text(json.dumps({**recommended, "eos_token_id": eos}))
    return (*beam.load_policy(str(folder), four_bit=False, device=CPU), eos)


def root_of(monkeypatch, model, tokenizer, prompt, most):
    """A root whose prompt has these tokens."""
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(beam, "encode_prompt", lambda *_, **__: prompt)
        [root] = beam.prefill(model, tokenizer, ["?"], "", most)
    return root


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.7, 0.9)])
def test_sampling_follows_softmax_in_the_nucleus_and_nothing_else(
    policy, temperature, top_p, monkeypatch
):
    """Through generate() and the cache, on an even grid of uniforms in place of chance: a token has
    the frequencies of softmax(logits / T), cut to top-p and no further, whatever
    generation_config.json recommends.
    """
    model, tokenizer, _ = policy
    prompt = chat.encode_prompt(tokenizer, "1 + 1?", system="Solve it.")
    with torch.no_grad():
        logits = (
            model(torch.tensor([prompt + [token] for token in range(len(tokenizer))]))
            .logits[:, -1]
            .double()
        )
    first = int(
        logits.diagonal().argmax()
    )  # the token likeliest to be repeated: a penalty on that would show
    probs = torch.softmax(logits[first] / temperature, -1)
    nucleus = torch.zeros_like(probs)
    for token in probs.argsort(
        descending=True
    ).tolist():  # the smallest set of likeliest tokens that makes up top_p
        if nucleus.sum() < top_p:
            nucleus[token] = probs[token]
    n = 2000
    root = root_of(monkeypatch, model, tokenizer, prompt + [first], 1)
    with torch.inference_mode():
        children = beam.sample_steps(
            model,
            tokenizer,
            [root] * n,
            torch.arange(n)[:, None] / n,
            True,
            separator=None,
            temperature=temperature,
            top_p=top_p,
        )
    frequency = (
        torch.bincount(
            torch.tensor([child.tokens for child in children])[:, 0], minlength=len(probs)
        )
        / n
    )
    assert frequency == pytest.approx(nucleus / nucleus.sum(), abs=2 / n)
    assert (nucleus > 0).sum() > 50 and (top_p == 1) == bool((nucleus > 0).all()), (
        "top-k 50 or 20 would show"
    )


def test_each_of_several_ids_ends_a_text(policy, monkeypatch):
    model, tokenizer, eos = policy
    assert set(model.generation_config.eos_token_id) >= set(eos)
    prompt = chat.encode_prompt(tokenizer, PROBLEM, system="Solve it.")
    root = root_of(monkeypatch, model, tokenizer, prompt, 40)
    uniforms = torch.rand(400, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        children = beam.sample_steps(
            model,
            tokenizer,
            [root] * 400,
            uniforms,
            True,
            separator=None,
            temperature=2.0,
            top_p=1.0,
        )
    last = {child.tokens[-1] for child in children if child.finished}
    assert last == set(model.generation_config.eos_token_id)
    assert not any(set(child.tokens[:-1]) & last for child in children)


def test_the_gpu_benchmark_runs_on_a_cpu_with_small_shapes(tmp_path):
    """All of it but compiling, so that no minute on a card is lost."""
    out = tmp_path / "gpu.md"
    flags = "--shapes small --cases 8:12 --ways plain graphs --max-new-tokens 60 --limit 1 --out"
    command = [sys.executable, "tests/bench_gpu.py", *flags.split(), str(out)]
    run = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in out.read_text().split("\n")
        if line.startswith("| ")
    ]
    searches = [row for row in rows if row[0] in ("majority", "best_of_n", "beam", "dvts", "mcts")]
    assert len(searches) == 5
    assert all(0 < int(row[1]) == int(row[2]) == int(row[3]) for row in searches)
    plain, graphs = (row for row in rows if row[0] in ("plain", "graphs"))
    assert plain[5] == graphs[5] and int(plain[5]) > 100, "other tokens"
    assert plain[6] == graphs[6] and plain[7] == "0%" and graphs[7] > "50%"
    assert "| `dvts.py --n 64 --limit 1` |" in out.read_text()
    assert "ms a token" in out.read_text()
    assert "| dvts.py | 8 | 12 |" in out.read_text() and "error" not in out.read_text()


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_the_compiled_policy_writes_the_same(tmp_path):
    """bench_decode.py compares the tokens itself, and counts what is left to launch."""
    out = tmp_path / "decode.md"
    command = [
        sys.executable,
        "tests/bench_decode.py",
        "--rows",
        "4",
        "--layers",
        "1",
        "--prompt",
        "20",
        "--out",
        str(out),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = [
        int(line.split("|")[2])
        for line in out.read_text().split("\n")
        if line.startswith(("| as it is", "| compiled"))
    ]
    assert kernels[0] > 2 * kernels[1] > 0
    assert ", 0 breaks" in out.read_text()
