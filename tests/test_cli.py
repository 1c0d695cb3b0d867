"""The scripts as a user meets them: real command lines."""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from common.families import FAMILIES
from harness import cli

SCRIPTS = [
    "majority.py",
    "best_of_n.py",
    "beam.py",
    "dvts.py",
    "rebase.py",
    "particle.py",
    "mcts.py",
]
NOWHERE = {
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONUNBUFFERED": "",
}  # as a user has it: unset, stdout fails once more when Python exits


def start(script, *flags, launcher=(sys.executable,), cwd=ROOT, **kwargs):
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | kwargs
    return subprocess.Popen(
        [*launcher, str(ROOT / script), *map(str, flags)],
        cwd=cwd,
        env={**os.environ, **NOWHERE, "OMP_NUM_THREADS": "1"},
        **kwargs,
    )


def run(*args, **kwargs):
    process = start(*args, **kwargs)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def in_process(script, *flags):
    """Exit code of the same command, with the bundled models, without a process of its own, which
    would take seconds.
    """
    given = ["--policy", ROOT / "tiny/policy", "--problems", ROOT / "tiny/problems.jsonl"]
    given += ["--prm", ROOT / "tiny/prm"] * (script != "majority.py")
    module = import_module(script.removesuffix(".py"))
    try:
        return module.main([*map(str, given), *map(str, flags)])
    except SystemExit as stop:
        return stop.code


def rows_of(path):
    """Header and rows as they stand in a result file, without times."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for line in lines:
        line.get("usage", {}).pop("seconds", None)
    return lines


# --- what is refused ------------------------------------------------------------------------------


def copy_model(name, to, without=(), **changes):
    """A copy of a bundled model's folder, with changes of its config and without some files."""
    shutil.copytree(ROOT / "tiny" / name, to, ignore=lambda *_: without)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


def cut(file, share=0.5):
    """Keep the first half of a file, as a download that was broken off does."""
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def problem_file(path, **lines):
    """40 problems, one a line, of which some lines, counted from 1, are replaced."""
    text = [
        json.dumps({"problem": f"Evaluate $1+{i}$.", "answer": str(i + 1), "id": i})
        for i in range(1, 41)
    ]
    for number, line in lines.items():
        text[int(number.removeprefix("line")) - 1] = line
    path.write_text("\n".join(text) + "\n")


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of everything that can be wrong with what a user gives."""
    folder = tmp_path_factory.mktemp("bad")
    problem_file(folder / "torn.jsonl", line37='{"problem": "What is 1')
    problem_file(folder / "array.jsonl", line37="[1, 2]")
    problem_file(folder / "deep.jsonl", line37="[" * 100_000)
    problem_file(folder / "half.jsonl", line37='{"problem": "\\ud800", "answer": "1"}')
    problem_file(folder / "twice.jsonl", line37='{"problem": "What?", "answer": "1", "id": 7}')
    problem_file(folder / "unanswered.jsonl", line37='{"problem": "What?"}')
    problem_file(
        folder / "gsm8k.jsonl", line37='{"question": "What?", "answer": "Long thoughts. #### "}'
    )
    problem_file(
        folder / "hollow.jsonl", line2='{"problem": "What?", "answer": "$\\\\boxed{}$", "id": "h"}'
    )
    problem_file(
        folder / "long.jsonl",
        line2=json.dumps({"problem": "one and " * 2000, "answer": "1", "id": "endless"}),
    )
    (folder / "empty.jsonl").touch()
    (folder / "diary.txt").write_text("Dear diary,\n")
    (folder / "other.jsonl").write_text('{"run": {"script": "majority.py", "n": 3}}\n')
    copy_model("prm", folder / "scorer")  # names that do not tell
    copy_model("policy", folder / "writer")
    copy_model("policy", folder / "base", without=["chat_template.jinja"])
    copy_model("policy", folder / "template")
    (folder / "template/chat_template.jinja").write_text("{% for %}")
    copy_model("prm", folder / "head", architectures=["LlamaForSequenceClassification"])
    AutoConfig.for_model(
        "lfm2", layer_types=["conv", "full_attention"], num_hidden_layers=2
    ).save_pretrained(copy_model("policy", folder / "conv"))
    AutoConfig.for_model("falcon_h1").save_pretrained(copy_model("policy", folder / "mamba"))
    copy_model("policy", folder / "shardless", without=["model.safetensors"])
    copy_model("policy", folder / "template_loses", without=["chat_template.jinja"])
    (folder / "template_loses/chat_template.jinja").write_text("{{ bos_token }}Hello")
    copy_model("policy", folder / "fewer", vocab_size=100)
    copy_model("policy", folder / "beyond", eos_token_id=100_000)
    (folder / "beyond/generation_config.json").write_text('{"eos_token_id": 100000}')
    copy_model("prm", folder / "short_prm", max_position_embeddings=8)
    copy_model("prm", folder / "prm_few", vocab_size=100)
    copy_model("prm", folder / "prm_template", without=["chat_template.jinja"])
    (folder / "prm_template/chat_template.jinja").write_text("{{ bos_token }}Hello")
    copy_model("policy", folder / "deeper", num_hidden_layers=5)
    copy_model("policy", folder / "shallower", num_hidden_layers=3)
    copy_model("prm", folder / "shallow_prm", num_hidden_layers=3)
    broken_model(
        "policy", folder / "nan", lambda weights: weights["model.norm.weight"].fill_(math.nan)
    )
    for model, name in (("policy", "huge"), ("prm", "huge_prm")):
        large = torch.full([AutoConfig.from_pretrained(ROOT / "tiny" / model).hidden_size], 3e38)
        set_norm = lambda weights, large=large: weights.update({"model.norm.weight": large})
        broken_model(model, folder / name, set_norm)
    latent = AutoConfig.for_model(
        "deepseek_v3",
        vocab_size=576,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        q_lora_rank=8,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=16,
        eos_token_id=1,
    )
    AutoModelForCausalLM.from_config(latent).save_pretrained(
        copy_model("policy", folder / "latent")
    )
    for name, file in [
        ("weights", "model.safetensors"),
        ("vocabulary", "tokenizer.json"),
        ("settings", "config.json"),
    ]:
        cut(copy_model("policy", folder / name) / file)
    return folder


REFUSED = [
    ("dvts.py", "--frobnicate", ["--frobnicate"]),
    ("dvts.py", "--n 0", ["--n", "'0'", "at least 1"]),
    ("dvts.py", "--n many", ["--n", "'many'"]),
    ("beam.py", "--beam-width 0", ["--beam-width", "'0'", "at least 1"]),
    ("rebase.py", "--temperature -1", ["--temperature", "'-1'", "at least 0"]),
    ("dvts.py", "--temperature nan", ["--temperature", "'nan'"]),
    ("dvts.py", "--top-p 0", ["--top-p", "'0'"]),
    ("dvts.py", "--max-steps 0", ["--max-steps", "'0'"]),
    ("dvts.py", "--reduction median", ["--reduction", "'median'", "last", "mean"]),
    (
        "majority.py",
        "--policy some-owner/some-model",
        ["--policy some-owner/some-model", "online", "local folder"],
    ),
    (
        "best_of_n.py",
        "--policy {bad}/scorer --prm {bad}/writer",
        ["--policy {bad}/scorer", '"+" or "-"', "swap --policy and --prm"],
    ),
    (
        "rebase.py",
        "--policy {bad}/base",
        ["--policy {bad}/base", "no chat template", "instruction-tuned"],
    ),
    (
        "majority.py",
        "--policy {bad}/weights",
        ["--policy {bad}/weights", "cannot be loaded", "download"],
    ),
    ("majority.py", "--problems {bad}/empty.jsonl", ["{bad}/empty.jsonl is empty", "write"]),
    ("beam.py", "--problem {bad}/torn.jsonl", ["is a file", "give it to --problems"]),
    ("beam.py", "--system {bad}/torn.jsonl", ["is a file", 'write --system "$(cat {bad}/torn']),
    (
        "best_of_n.py",
        "--problems {bad}/torn.jsonl",
        ["{bad}/torn.jsonl, line 37 is no JSON object", "mend or delete"],
    ),
    (
        "beam.py",
        "--problems {bad}/twice.jsonl",
        ["{bad}/twice.jsonl, line 37 has the id '7' of line 7", "differ"],
    ),
    (
        "dvts.py",
        "--problems {bad}/unanswered.jsonl",
        ["{bad}/unanswered.jsonl, line 37", "field answer", "add it"],
    ),
    (
        "rebase.py",
        "--problems {bad}/hollow.jsonl",
        ["problem 'h'", "nothing in it", r"boxed{{}}", "write"],
    ),
    (
        "rebase.py",
        "--problems {bad}/long.jsonl",
        ["problem 'endless'", "tokens", "fewer than 2048", "shorten or delete it"],
    ),
    ("majority.py", "--output {bad}", ["--output {bad} is not a plain file", "name another"]),
    (
        "majority.py",
        "--output /proc/no/out.jsonl",
        ["--output /proc/no/out.jsonl", "cannot be written", "name another"],
    ),
    (
        "majority.py",
        "--output {bad}/other.jsonl",
        ["--output {bad}/other.jsonl is of another run (", "n 3 there, 64 here", "--overwrite"],
    ),
    ("majority.py", "--policy {bad}/template_loses", ["template_loses", "loses the question"]),
    ("majority.py", "--policy {bad}/fewer", ["--policy {bad}/fewer", "tokens", "100"]),
    ("majority.py", "--policy {bad}/beyond", ["--policy {bad}/beyond", "token 100000"]),
    ("majority.py", "--thinking", ["tiny/policy", "no switch for --thinking"]),
    ("majority.py", "--device mps", ["--device mps"]),
    ("dvts.py", "--prm {bad}/short_prm", ["too long", "--prm {bad}/short_prm", "fewer than 8"]),
    ("dvts.py", "--prm {bad}/prm_few", ["--prm {bad}/prm_few", "tokens", "100"]),
    ("dvts.py", "--prm {bad}/prm_template", ["--prm {bad}/prm_template", "loses the question"]),
    ("dvts.py", "--prm {bad}/writer", ["--prm {bad}/writer", "no reward model"]),
    (
        "majority.py",
        "--policy {bad}/deeper",
        ["--policy {bad}/deeper", "lacks the weights model.layers.4", "config.json"],
    ),
    (
        "dvts.py",
        "--policy {bad}/shallower",
        ["--policy {bad}/shallower", "no place for its weights model.layers.3", "config.json"],
    ),
    (
        "beam.py",
        "--prm {bad}/shallow_prm",
        ["--prm {bad}/shallow_prm", "no place", "layers.3", "config.json"],
    ),
    ("majority.py", "--policy {bad}/nan", ["{bad}/nan: its weights model.norm.weight are NaN"]),
    ("majority.py", "--policy {bad}/huge", ["--policy {bad}/huge computes NaN", "damaged"]),
    ("beam.py", "--prm {bad}/huge_prm", ["--prm {bad}/huge_prm: it computes NaN", "damaged"]),
    (
        "majority.py",
        "--policy {bad}/latent",
        ["--policy {bad}/latent", "keys and values of several shapes", "name another"],
    ),
    ("majority.py", "--policy no/such/folder", ["--policy no/such/folder", "folder"]),
    ("best_of_n.py", "--prm tests", ["--prm tests", "config.json"]),
    (
        "beam.py",
        "--policy {bad}/writer --prm {bad}/base/../writer",
        ["both {bad}/writer", "one that scores"],
    ),
    (
        "dvts.py",
        "--policy {bad}/head --prm {bad}/writer",
        ["{bad}/head", "LlamaForSequenceClassification", "--prm"],
    ),
    (
        "best_of_n.py",
        "--policy {bad}/conv",
        ["--policy {bad}/conv", "layers without attention", "name another"],
    ),
    (
        "rebase.py",
        "--policy {bad}/mamba",
        ["--policy {bad}/mamba", "layers without attention", "name another"],
    ),
    (
        "majority.py",
        "--policy {bad}/template",
        ["--policy {bad}/template", "TemplateSyntaxError", "name another"],
    ),
    (
        "best_of_n.py",
        "--prm {bad}/vocabulary",
        ["--prm {bad}/vocabulary", "is no JSON", "download"],
    ),
    (
        "beam.py",
        "--policy {bad}/settings",
        ["--policy {bad}/settings", "is no JSON", "download"],
    ),
    (
        "dvts.py",
        "--policy {bad}/shardless",
        ["--policy {bad}/shardless", "*.safetensors", "whole model"],
    ),
    ("majority.py", "--problems missing.jsonl", ["--problems missing.jsonl", "spelling"]),
    (
        "majority.py",
        "--problems {bad}/array.jsonl",
        ["{bad}/array.jsonl, line 37", "mend or delete"],
    ),
    ("majority.py", "--problems {bad}/deep.jsonl", ["{bad}/deep.jsonl, line 37", "mend or delete"]),
    ("majority.py", "--problems {bad}/half.jsonl", ["{bad}/half.jsonl, line 37", "mend or delete"]),
    (
        "majority.py",
        "--problems {bad}/gsm8k.jsonl",
        ["{bad}/gsm8k.jsonl, line 37", "field answer", "write text or a number"],
    ),
    ("majority.py", "--output /dev/full", ["--output /dev/full", "name another"]),
    ("dvts.py", "--lookahead -1", ["--lookahead", "'-1'", "at least 0"]),
    ("particle.py", "--weight-temperature 0", ["--weight-temperature", "'0'", "above 0"]),
    ("particle.py", "--resampling stratified", ["--resampling", "'stratified'", "multinomial"]),
    ("mcts.py", "--width 0", ["--width", "'0'", "at least 1"]),
    ("mcts.py", "--exploration inf", ["--exploration", "'inf'", "at least 0"]),
    (
        "majority.py",
        "--output {bad}/diary.txt --overwrite",
        ["--output {bad}/diary.txt is no result file", "name another"],
    ),
]
AS_A_COMMAND = {  # the others are refused in this process: to start another takes seconds
    "--frobnicate",
    "--policy some-owner/some-model",
    "--policy {bad}/scorer --prm {bad}/writer",
    "--policy {bad}/weights",
    "--problem {bad}/torn.jsonl",
    "--problems {bad}/torn.jsonl",
    "--output {bad}/other.jsonl",
}


def assert_refused(script, code, err, words):
    assert code == 2 and err.startswith(f"{script}: error: "), err
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert all(word in err for word in words), (words, err)


@pytest.mark.parametrize("script, flags, words", REFUSED, ids=[flags for _, flags, _ in REFUSED])
def test_bad_input_is_one_line_and_exit_code_2(
    bad, tmp_path, script, flags, words, monkeypatch, capsys
):
    """It names the value and the remedy, and no file is made or changed."""
    before = {path: path.read_bytes() for path in bad.rglob("*") if path.is_file()}
    command = [
        "--limit",
        "2",
        *([] if "--output" in flags else ["--output", f"{tmp_path}/out.jsonl"]),
        *flags.split(),
    ]
    command = [flag.format(bad=bad) for flag in command]
    if flags in AS_A_COMMAND:
        result = run(script, *command)
        code, err = result.returncode, result.stderr
    else:
        monkeypatch.setattr(sys, "argv", [script, *command])
        monkeypatch.chdir(ROOT)
        code, err = in_process(script, *command), capsys.readouterr().err
    assert_refused(script, code, err, [word.format(bad=bad) for word in words])
    assert before == {path: path.read_bytes() for path in bad.rglob("*") if path.is_file()}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["short_prm", "prm_few", "prm_template"])
def test_a_prm_is_checked_before_any_weights_load(bad, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "load_models", lambda *_: pytest.fail("weights are loaded"))
    output = tmp_path / "out.jsonl"
    flags = ["--prm", bad / name, "--limit", "2", "--output", output]
    assert in_process("dvts.py", *flags) == 2
    assert f"--prm {bad / name}" in capsys.readouterr().err


def test_a_full_disk(tmp_path):
    flags = ["--n", "2", "--limit", "2", "--output", tmp_path / "out.jsonl"]
    result = run(
        "majority.py",
        *flags,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19)),
    )
    words = [f"--output {tmp_path}/out.jsonl cannot be written (File too large)", "make room"]
    assert_refused("majority.py", result.returncode, result.stderr, words)
    with open("/dev/full", "w") as full:
        result = run("majority.py", *flags, stdout=full)
    words = ["stdout cannot be written (No space left on device)", "try again"]
    assert_refused("majority.py", result.returncode, result.stderr, words)


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_result_file(script, tmp_path, capsys):
    """Every script writes what the README says: a header, a line a problem, usage, and nothing that
    is unfinished unmarked.
    """
    output = tmp_path / "out.jsonl"
    flags = ["--n", "8", "--limit", "3", "--output", output]
    assert in_process(script, *flags) == 0
    stdout = capsys.readouterr().out
    assert "tiny/policy" in stdout and "majority" in stdout and str(output) in stdout
    header, *rows = map(json.loads, output.read_text().splitlines())
    assert header["run"]["script"] == script and header["run"]["n"] == 8 and len(rows) == 3
    scored = script != "majority.py"
    in_subtrees = "class Subtree" in (ROOT / script).read_text()
    for row in rows:
        assert {
            "id",
            "problem",
            "answer",
            "level",
            "completions",
            "predictions",
            "correct",
            "usage",
        } <= set(row)
        assert (
            set(row["predictions"])
            == set(row["correct"])
            == ({"majority", "best", "weighted"} if scored else {"majority"})
        )
        assert 1 <= len(row["completions"]) <= 8 and row["finished"] == sum(
            c["finished"] for c in row["completions"]
        )
        assert row["distinct"] == len({completion["text"] for completion in row["completions"]})
        for completion in row["completions"]:
            assert ("subtree" in completion) == in_subtrees and "node" not in completion
            assert (
                completion["path"] == sorted(set(completion["path"])) and completion["path"][0] >= 1
            )
            steps = [step for step in completion["text"].split("\n\n") if step.strip()]
            assert len(completion["scores"]) == (len(steps) if scored else 0)
            assert completion["finished"] or completion["tokens"] >= 100
        usage = row["usage"]
        assert (
            usage["policy_tokens"]
            >= usage["generated_tokens"]
            >= max(c["tokens"] for c in row["completions"])
        )
        assert (usage["prm_tokens"] > 0) == scored and usage["flops"] > 0
    assert in_process(script, *flags) == 0  # all is done: nothing is run again
    assert [json.loads(line) for line in output.read_text().splitlines()][1:] == rows


def test_greedy_is_the_baseline(tmp_path):
    greedy = ["majority.py", "--temperature", "0", "--limit", "4"]
    assert in_process(*greedy, "--n", "1", "--output", tmp_path / "a.jsonl") == 0
    assert in_process(*greedy, "--n", "3", "--seed", "5", "--output", tmp_path / "b.jsonl") == 0
    one, three = (rows_of(tmp_path / name)[1:] for name in ("a.jsonl", "b.jsonl"))
    for a, b in zip(one, three):
        assert [a["completions"][0]["text"]] * 3 == [
            completion["text"] for completion in b["completions"]
        ]


def test_one_question():
    result = run(
        "dvts.py",
        "--n",
        "8",
        "--problem",
        "Start with 12. Add 5, multiply by 2. What is the result?",
    )
    assert result.returncode == 0, result.stderr
    assert "Answer: 34" in result.stdout and "## Step 1: Add 5" in result.stdout


def test_both_models_in_4_bit_on_a_cpu(tmp_path):
    output = tmp_path / "out.jsonl"
    result = run(
        "dvts.py", "--n", "8", "--limit", "2", "--policy-4bit", "--prm-4bit", "--output", output
    )
    assert result.returncode == 0, result.stderr
    header, *rows = map(json.loads, output.read_text().splitlines())
    assert header["run"]["policy_4bit"] and header["run"]["prm_4bit"] and len(rows) == 2
    assert all(row["completions"] and "error" not in row for row in rows)


def test_limits_order_and_batches_never_change_an_answer(tmp_path):
    """The same problem alone, among others and in another order has the same completions; the same
    command, the same file.
    """
    lines = (ROOT / "tiny/problems.jsonl").read_text().splitlines()[:3]
    (tmp_path / "reversed.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    (tmp_path / "one.jsonl").write_text(lines[1] + "\n")
    rows, tiny = [], ROOT / "tiny/problems.jsonl"
    for problems, size in [
        (tiny, 3),
        (tmp_path / "reversed.jsonl", 2),
        (tmp_path / "one.jsonl", 3),
        (tiny, 1),
        (tiny, 3),
    ]:
        output = tmp_path / f"{len(rows)}.jsonl"
        command = [
            "--n",
            "8",
            "--limit",
            "3",
            "--batch-problems",
            size,
            "--problems",
            problems,
            "--output",
            output,
        ]
        assert in_process("rebase.py", *command) == 0
        rows.append({row["id"]: row["completions"] for row in rows_of(output)[1:]})
    for other in rows[1:]:
        for (
            key,
            completions,
        ) in other.items():  # scores come from sums of floats, whose order a batch may change
            for here, there in zip(completions, rows[0][key], strict=True):
                assert here["scores"] == pytest.approx(there["scores"], abs=1e-5)
                close = {"scores": 0, "value": 0}
                assert here | close == there | close
    assert rows_of(tmp_path / "0.jsonl") == rows_of(tmp_path / "4.jsonl")


def test_kill_9_and_two_processes_write_the_file_of_one_unbroken_run(tmp_path):
    # One at a time: where a kill parts a batch, scores are rounded otherwise, and costs shared.
    command = ["dvts.py", "--n", "8", "--limit", "16", "--batch-problems", "1"]
    command += ["--problems", tmp_path / "problems.jsonl"]
    shutil.copy(ROOT / "tiny/problems.jsonl", tmp_path)
    output, torchrun = (
        tmp_path / "broken.jsonl",
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--"],
    )
    process = start(*command, "--output", output)
    while (
        not output.exists() or output.read_bytes().count(b"\n") < 4
    ):  # the header and three problems
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = output.read_bytes()
    kept = before[: before.rindex(b"\n") + 1].splitlines()
    assert 4 <= len(kept) < 17
    resumed = run(*command, "--output", output, launcher=torchrun)
    assert resumed.returncode == 0 and "16 of 16 problems done" in resumed.stdout, resumed.stderr
    assert (
        output.read_bytes().splitlines()[: len(kept)] == kept
    )  # times and all: they were not run again
    assert in_process(*command, "--output", tmp_path / "unbroken.jsonl") == 0
    assert rows_of(output)[1:] == rows_of(tmp_path / "unbroken.jsonl")[1:]


# --- models that misbehave ------------------------------------------------------------------------


def broken_model(name, to, change):
    """A bundled model's folder whose weights `change` has altered."""
    weights = load_file(copy_model(name, to) / "model.safetensors")
    change(weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "token", [5, 575, "a", "\n\n"], ids=["padding", "generate's padding", "a letter", "blank steps"]
)
def test_a_policy_that_never_ends_is_ended_by_the_limits(script, token, tmp_path, pair):
    written, token = (
        token,
        token
        if isinstance(token, int)
        else pair[1].convert_tokens_to_ids(pair[1].tokenize(token))[0],
    )

    def always_the_token(weights):
        for name, weight in weights.items():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()  # nothing is added to the embedding,
            elif "norm" in name:
                weight.fill_(1)
        weights["model.embed_tokens.weight"].fill_(
            0.5
        )  # and of all embeddings, which are the head too,
        weights["model.embed_tokens.weight"][token] = 1  # this one has twice the logit

    policy = broken_model("policy", tmp_path / "endless", always_the_token)
    steps = ["--max-steps", "3"] * (script not in ("majority.py", "best_of_n.py"))
    output = tmp_path / "out.jsonl"
    assert (
        in_process(
            script,
            "--policy",
            policy,
            "--n",
            "4",
            "--max-new-tokens",
            "30",
            "--limit",
            "1",
            "--output",
            output,
            *steps,
        )
        == 0
    )
    row = rows_of(output)[1]
    assert (
        row["finished"] == 0
        and set(row["predictions"].values()) == {None}
        and not any(row["correct"].values())
    )
    assert isinstance(written, int) or all(
        set(c["text"]) == set(written) for c in row["completions"]
    )
    assert 1 <= len(row["completions"]) <= 4 and all(
        1 <= c["tokens"] <= 30 and not c["finished"] for c in row["completions"]
    )


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_scores_that_are_no_numbers_never_win_and_are_reported(
    script, tmp_path, capsys, monkeypatch
):
    def read_head(family, model, folder):
        family.score = lambda hidden: hidden[:, 0] * math.nan

    monkeypatch.setattr(FAMILIES["rlhflow"], "read_head", read_head)
    monkeypatch.setattr("common.prm.check_scores", lambda *_: None)
    output = tmp_path / "out.jsonl"
    assert in_process(script, "--n", "4", "--limit", "2", "--output", output) == 0
    rows = rows_of(output)[1:]
    scores = [
        score for row in rows for completion in row["completions"] for score in completion["scores"]
    ]
    assert scores and set(scores) == {None}
    assert all(row["predictions"]["best"] is row["predictions"]["weighted"] is None for row in rows)
    assert (
        f"{sum(len(row['completions']) for row in rows)} solutions had NaN or infinite scores"
        in capsys.readouterr().out
    )


# --- what is new in the rows ----------------------------------------------------------------------


def test_a_prompt_of_ones_own(tmp_path):
    """--system reaches the policy, and is in the run's identity."""
    flags = ["--n", "1", "--limit", "1", "--temperature", "0", "--max-new-tokens", "30"]
    outputs = []
    for system in ("", "Be brief."):
        outputs.append(tmp_path / f"{len(outputs)}.jsonl")
        given = ["--system", system] if system else []
        assert in_process("majority.py", *flags, *given, "--output", outputs[-1]) == 0
    (run, row), (other_run, other_row) = map(rows_of, outputs)
    assert other_run["run"]["system"] == "Be brief." and run["run"]["system"].startswith("Solve")
    assert row["usage"]["policy_tokens"] != other_row["usage"]["policy_tokens"]
    assert in_process("majority.py", *flags, "--output", outputs[1]) == 2


def test_half_of_the_subtrees_are_a_run_at_half_the_n(tmp_path):
    """N of a DVTS run can be made smaller from its file: subtrees never see each other."""
    output = tmp_path / "out.jsonl"
    assert (
        in_process("dvts.py", "--n", "16", "--limit", "3", "--output", output, "--keep-tree") == 0
    )
    for row in rows_of(output)[1:]:
        of_subtree = {}
        for completion in row["completions"]:
            of_subtree.setdefault(completion["subtree"], []).append(completion)
        assert set(of_subtree) <= {0, 1, 2, 3}
        first = [
            [i for i, node in enumerate(row["tree"]) if node["parent"] is None][4 * k : 4 * k + 4]
            for k in range(4)
        ]
        for subtree, completions in of_subtree.items():
            assert all(completion["path"][0] - 1 in first[subtree] for completion in completions)


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_the_tree_in_a_row(script, tmp_path):
    """Every step sampled, parents before children; a completion is the way to its node."""
    output = tmp_path / "out.jsonl"
    assert in_process(script, "--n", "8", "--limit", "2", "--output", output, "--keep-tree") == 0
    text = output.read_text()
    assert "NaN" not in text and "Infinity" not in text
    for row in rows_of(output)[1:]:
        tree = row["tree"]
        assert all(set(node) == {"parent", "text", "tokens", "scores", "value"} for node in tree)
        assert all(node["parent"] is None or node["parent"] < i for i, node in enumerate(tree))
        assert sum(node["tokens"] for node in tree) == row["usage"]["generated_tokens"]
        for completion in row["completions"]:
            way = []
            place = completion["node"]
            while place is not None:
                way.insert(0, tree[place])
                place = tree[place]["parent"]
            assert "".join(node["text"] for node in way) == completion["text"]
            assert [score for node in way for score in node["scores"]] == completion["scores"]
            assert way[-1]["value"] == completion["value"] and len(way) == len(completion["path"])
    assert (
        in_process(script, "--n", "8", "--limit", "2", "--output", output) == 0
    )  # the same run, without


@pytest.mark.parametrize("model", ["policy", "prm"])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_code_of_a_checkpoint_never_runs_and_nothing_is_asked(model, file, tmp_path):
    folder = copy_model(model, tmp_path / "evil")
    settings = json.loads((folder / file).read_text())
    auto_map = {
        "AutoTokenizer": ["evil.T", "evil.T"],
        "AutoConfig": "evil.C",
        "AutoModel": "evil.M",
    }
    settings |= {"auto_map": auto_map | {"AutoModelForCausalLM": "evil.M"}}
    settings |= {"tokenizer_class": "T"} if "tokenizer" in file else {"model_type": "evil"}
    (folder / file).write_text(json.dumps(settings))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\n")
    result = subprocess.run(
        [sys.executable, ROOT / "dvts.py", "--n", "1", "--limit", "1", f"--{model}", folder],
        input="y\n" * 9,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **NOWHERE},
    )
    assert not (tmp_path / "ran").exists()
    assert_refused(
        "dvts.py", result.returncode, result.stderr, [f"--{model} {folder}", "never run"]
    )
    assert "?" not in result.stdout
