"""The scripts as a user meets them: real command lines."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = ["majority.py", "best_of_n.py", "beam.py", "dvts.py", "rebase.py"]
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(script, *flags, cwd=ROOT):
    return subprocess.run([sys.executable, str(ROOT / script), *map(str, flags)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, **NOWHERE, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("flags, words", [
    (["--frobnicate"], ["--frobnicate"]),
    (["--n", "0"], ["--n", "'0'"]),
    (["--n", "many"], ["--n", "'many'"]),
    (["--beam-width", "0"], ["--beam-width", "'0'"]),
    (["--temperature", "-1"], ["--temperature", "'-1'"]),
    (["--temperature", "nan"], ["--temperature", "'nan'"]),
    (["--top-p", "0"], ["--top-p", "'0'"]),
    (["--max-steps", "0"], ["--max-steps", "'0'"]),
    (["--reduction", "mean"], ["--reduction", "'mean'", "last"]),
    (["--policy", "no/such/folder"], ["--policy", "no/such/folder", "folder"]),
    (["--prm", "tests"], ["--prm", "tests", "config.json"]),
    (["--policy", "some-owner/some-model"], ["--policy", "some-owner/some-model", "online", "local folder"]),
    (["--problems", "missing.jsonl"], ["--problems", "missing.jsonl"]),
    (["--output", "tests"], ["--output", "tests"]),
])
def test_bad_input_is_one_line_and_exit_code_2(flags, words):
    result = run("dvts.py", "--limit", "1", *flags)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.returncode == 2 and len(lines) == 1, result.stderr
    assert lines[0].startswith("dvts.py: error: ") and all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_result_file(script, tmp_path):
    """Every script writes what the README says: a header, a line a problem, usage, and nothing that is unfinished unmarked."""
    output = tmp_path / "out.jsonl"
    result = run(script, "--n", "8", "--limit", "3", "--output", output)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("tiny/policy") and "majority" in result.stdout and str(output) in result.stdout
    header, *rows = map(json.loads, output.read_text().splitlines())
    assert header["run"]["script"] == script and header["run"]["n"] == 8 and len(rows) == 3
    scored = script != "majority.py"
    for row in rows:
        assert {"id", "problem", "answer", "level", "completions", "predictions", "correct", "usage"} <= set(row)
        assert set(row["predictions"]) == set(row["correct"]) == ({"majority", "best", "weighted"} if scored else {"majority"})
        assert 1 <= len(row["completions"]) <= 8 and row["finished"] == sum(c["finished"] for c in row["completions"])
        for completion in row["completions"]:
            steps = [step for step in completion["text"].split("\n\n") if step.strip()]
            assert len(completion["scores"]) == (len(steps) if scored else 0)
            assert completion["finished"] or completion["tokens"] >= 100
        usage = row["usage"]
        assert usage["policy_tokens"] >= usage["generated_tokens"] >= max(c["tokens"] for c in row["completions"])
        assert (usage["prm_tokens"] > 0) == scored and usage["flops"] > 0
    again = run(script, "--n", "8", "--limit", "3", "--output", output)  # all is done: nothing is run again
    assert again.returncode == 0 and [json.loads(line) for line in output.read_text().splitlines()][1:] == rows


def test_greedy_is_the_baseline(tmp_path):
    result = run("majority.py", "--n", "1", "--temperature", "0", "--limit", "4", "--output", tmp_path / "a.jsonl")
    assert result.returncode == 0, result.stderr
    run("majority.py", "--n", "3", "--temperature", "0", "--limit", "4", "--seed", "5", "--output", tmp_path / "b.jsonl")
    one, three = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()][1:] for name in ("a.jsonl", "b.jsonl"))
    for a, b in zip(one, three):
        assert [a["completions"][0]["text"]] * 3 == [completion["text"] for completion in b["completions"]]


def test_one_question():
    result = run("dvts.py", "--n", "8", "--problem", "Start with 12. Add 5, multiply by 2. What is the result?")
    assert result.returncode == 0, result.stderr
    assert "Answer: 34" in result.stdout and "## Step 1: Add 5" in result.stdout


def test_both_models_in_4_bit_on_a_cpu(tmp_path):
    output = tmp_path / "out.jsonl"
    result = run("dvts.py", "--n", "8", "--limit", "2", "--policy-4bit", "--prm-4bit", "--output", output)
    assert result.returncode == 0, result.stderr
    header, *rows = map(json.loads, output.read_text().splitlines())
    assert header["run"]["policy_4bit"] and header["run"]["prm_4bit"] and len(rows) == 2
    assert all(row["completions"] and "error" not in row for row in rows)


def test_limits_and_order_never_change_an_answer(tmp_path):
    """The same problem alone, among others and in another order has the same completions."""
    lines = (ROOT / "tiny/problems.jsonl").read_text().splitlines()[:3]
    (tmp_path / "reversed.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    (tmp_path / "one.jsonl").write_text(lines[1] + "\n")
    rows = []
    for problems in (ROOT / "tiny/problems.jsonl", tmp_path / "reversed.jsonl", tmp_path / "one.jsonl"):
        output = tmp_path / f"{len(rows)}.jsonl"
        assert run("rebase.py", "--n", "8", "--limit", "3", "--problems", problems, "--output", output).returncode == 0
        rows.append({row["id"]: row["completions"] for row in map(json.loads, output.read_text().splitlines()[1:])})
    assert rows[0] == rows[1] and rows[2]["tiny-001"] == rows[0]["tiny-001"]
