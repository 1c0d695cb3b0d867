"""Odd input, odd result files and odd surroundings: one line says what is wrong, and who is not."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from test_cli import in_process
from test_files import refused
from test_runner import folder, lines_with, start_anew, stub, unbroken, write_problems

from common import chat
from harness import cli, models, problems, results, solve, table, terminal, trace

__all__ = ["folder", "unbroken"]  # fixtures
SCRIPTS = [
    "majority.py",
    "best_of_n.py",
    "beam.py",
    "dvts.py",
    "rebase.py",
    "particle.py",
    "mcts.py",
]


# --- problems -------------------------------------------------------------------------------------

ODD = {
    "a list of pairs": '[["problem", "x"], ["answer", "7"]]',
    "NaN": '{"problem": "x", "answer": NaN}',
    "-Infinity": '{"problem": "x", "answer": -Infinity}',
    "NaN elsewhere": '{"problem": "x", "answer": "1", "weight": [NaN]}',
    "1e999": '{"problem": "x", "answer": 1e999}',
    "1e999 elsewhere": '{"problem": "x", "answer": "1", "weight": [-1e999]}',
    "a repeated key": '{"problem": "x", "answer": "7", "answer": "8"}',
    "a repeated key inside": '{"problem": "x", "answer": "7", "more": {"a": 1, "a": 1}}',
    "level NaN": '{"problem": "x", "answer": "7", "level": NaN}',
    "level true": '{"problem": "x", "answer": "7", "level": true}',
    "level of a list": '{"problem": "x", "answer": "7", "level": [1]}',
    "level of an object": '{"problem": "x", "answer": "7", "level": {"a": 1}}',
    "a line break in a level": '{"problem": "x", "answer": "7", "level": "a\\nb"}',
    "another line break in a level": '{"problem": "x", "answer": "7", "level": "a\\u2028b"}',
    "a line break in an id": '{"problem": "x", "answer": "7", "id": "a\\rb"}',
    "an id that is null": '{"problem": "x", "answer": "7", "id": null}',
    "an id of a list": '{"problem": "x", "answer": "7", "id": [1]}',
    "an id that is true": '{"problem": "x", "answer": "7", "id": true}',
    "a problem that is a number": '{"problem": 5, "answer": "7"}',
    "an answer that is true": '{"problem": "x", "answer": true}',
    "an answer of a list": '{"problem": "x", "answer": ["7"]}',
    "an endless number": '{"problem": "x", "answer": %s}' % ("9" * 5000),
    "half a character in a key": '{"problem": "x", "answer": "7", "\\ud800": 1}',
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_an_odd_line_is_refused_by_its_number(tmp_path, capsys, line):
    (tmp_path / "o.jsonl").write_text(lines_with(_37=line))
    with pytest.raises(SystemExit) as stop:
        problems.load(
            SimpleNamespace(problem=None, problems=str(tmp_path / "o.jsonl"), run_code=False)
        )
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    assert f"--problems {tmp_path / 'o.jsonl'}, line 37 " in err


# The columns that these sets have on the hub, and a row each.
GSM8K = {
    "question": "A shirt has 2 red buttons and half as many white ones. How many in all?",
    "answer": "It has 2/2=<<2/2=1>>1 white one.\nSo 2+1=<<2+1=3>>3 in all.\n#### 3",
}
AIME = {
    "id": 60,
    "problem": "Find $s$.",
    "solution": "It is $\\boxed{204}$.",
    "answer": "204",
    "url": "https://artofproblemsolving.com/",
    "year": "2024",
}
MATH = {
    "problem": "What is $1+1$?",
    "solution": "$1+1=\\boxed{2}$.",
    "answer": "2",
    "subject": "Algebra",
    "level": 3,
    "unique_id": "test/algebra/1.json",
}
SETS = {
    "openai/gsm8k": (
        {"main/test": GSM8K, "main/train": AIME, "socratic/test": MATH, "socratic/train": MATH},
        {"id": "1", "problem": GSM8K["question"], "answer": "3", "level": None},
    ),
    "HuggingFaceH4/aime_2024": (
        {"data/train": AIME},
        {"id": "60", "problem": "Find $s$.", "answer": "204", "level": None},
    ),
    "own/math": (
        {"data/test": MATH, "data/train": AIME},
        {"id": "test/algebra/1.json", "problem": "What is $1+1$?", "answer": "2", "level": 3},
    ),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """In the place of the hub: a folder, from which only what is asked for is copied."""
    import fnmatch

    def download(name, *, repo_type, allow_patterns):
        assert repo_type == "dataset"
        patterns = [allow_patterns] if isinstance(allow_patterns, str) else allow_patterns
        found = tmp_path / "cache" / name
        for path in (tmp_path / "hub" / name).rglob("*"):
            inside = str(path.relative_to(tmp_path / "hub" / name))
            if path.is_file() and any(fnmatch.fnmatch(inside, one) for one in patterns):
                (found / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, found / inside)
        return str(found)

    monkeypatch.setattr(models.huggingface_hub, "snapshot_download", download)
    return tmp_path / "hub"


def load(name):
    return problems.load(SimpleNamespace(problem=None, problems=str(name), run_code=False))


def write_parquet(path, records):
    pyarrow = pytest.importorskip("pyarrow", reason="needs `pip install datasets`")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("name", SETS)
def test_sets_as_they_are_on_the_hub_in_parquet(hub, name):
    pytest.importorskip("datasets", reason="needs `pip install datasets`")
    files, expected = SETS[name]
    for split, row in files.items():
        write_parquet(hub / name / f"{split}-00000-of-00001.parquet", [row])
    assert load(name) == [expected]
    (path,) = (hub / name).rglob(f"*{list(files)[0]}-*")
    assert load(path) == [expected]  # the file alone, named as it is
    assert not (hub.parent / "cache" / name / "socratic/train-00000-of-00001.parquet").exists()


def test_math_500_is_jsonl(hub):
    (hub / "HuggingFaceH4/MATH-500").mkdir(parents=True)
    (hub / "HuggingFaceH4/MATH-500/test.jsonl").write_text(json.dumps(MATH) + "\n")
    assert load("HuggingFaceH4/MATH-500") == [SETS["own/math"][1]]


def test_parquet_in_several_files_is_one_set(hub):
    pytest.importorskip("datasets", reason="needs `pip install datasets`")
    for i in range(3):
        row = MATH | {"unique_id": f"u{i}"}
        write_parquet(hub / f"own/set/data/test-0000{i}-of-00003.parquet", [row])
    assert [one["id"] for one in load("own/set")] == ["u0", "u1", "u2"]


def test_what_parquet_cannot_be(hub, tmp_path, capsys):
    pytest.importorskip("datasets", reason="needs `pip install datasets`")

    def told(name):
        with pytest.raises(SystemExit):
            load(name)
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    odd = write_parquet(tmp_path / "odd.parquet", [MATH, MATH | {"unique_id": "u", "answer": None}])
    assert f"--problems {odd}, row 2 has no text in its field answer" in told(odd)
    nan = write_parquet(tmp_path / "nan.parquet", [{"problem": "x", "answer": float("nan")}])
    assert f"--problems {nan}, row 1 has no text in its field answer" in told(nan)
    (tmp_path / "no.parquet").write_text("Dear diary")
    assert f"{tmp_path / 'no.parquet'} cannot be read as Parquet" in told(tmp_path / "no.parquet")
    for split in ("a", "b"):
        write_parquet(hub / f"own/two/data/{split}-0.parquet", [MATH])
    assert "--problems own/two has data/a, data/b: download" in told("own/two")
    (hub / "own/none").mkdir()
    (hub / "own/none/data.csv").touch()
    assert "has neither test.jsonl nor Parquet" in told("own/none")


def test_without_the_package_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "p.parquet").touch()
    with pytest.raises(SystemExit):
        load(tmp_path / "p.parquet")
    err = capsys.readouterr().err
    assert err.endswith("which needs another package: pip install datasets\n")
    assert err.count("\n") == 1


# --- result files ---------------------------------------------------------------------------------


def without(*keys):
    def change(row):
        *way, last = keys
        for key in way:
            row = row[key]
        del row[last]

    return change


def put(value, *keys):
    def change(row):
        *way, last = keys
        for key in way:
            row = row[key]
        row[last] = value

    return change


DAMAGE = {
    "no completions": without("completions"),
    "completions null": put(None, "completions"),
    "completions of text": put("abc", "completions"),
    "a completion of text": put("abc", "completions", 1),
    "no scores": without("completions", 0, "scores"),
    "a score of text": put("high", "completions", 0, "scores", 0),
    "a score NaN": put(float("nan"), "completions", 0, "scores", 0),
    "a score without end": put(float("inf"), "completions", 0, "scores", 0),
    "finished of text": put("yes", "completions", 0, "finished"),
    "an answer that is a number": put(3, "completions", 0, "answer"),
    "no text": without("completions", 0, "text"),
    "no predictions": without("predictions"),
    "predictions of a list": put([], "predictions"),
    "no prediction of a rule": without("predictions", "weighted"),
    "a prediction of a number": put(3, "predictions", "majority"),
    "correct null": put(None, "correct"),
    "correct of text": put("yes", "correct", "best"),
    "no usage": without("usage"),
    "usage null": put(None, "usage"),
    "no seconds": without("usage", "seconds"),
    "flops of text": put("many", "usage", "flops"),
    "flops beyond all floats": put(10**400, "usage", "flops"),
    "distinct null": put(None, "distinct"),
    "no problem": without("problem"),
    "a level of a list": put([1], "level"),
    "an id that is a number": put(4, "id"),
    "an error of a number": put(4, "error"),
    "no tree": put(7, "tree"),
    "a tree with a loop": put(0, "tree", 0, "parent"),
    "a tree with a parent that comes later": put(3, "tree", 1, "parent"),
    "a tree with a parent counted from behind": put(-1, "tree", 1, "parent"),
    "a step without scores": without("tree", 2, "scores"),
    "a completion at no node": put(99, "completions", 0, "node"),
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A result file with trees, of a real run."""
    path = tmp_path_factory.mktemp("trees") / "o.jsonl"
    flags = ["--n", "4", "--limit", "2", "--keep-tree", "--output", path]
    assert in_process("dvts.py", *flags) == 0
    return path


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_an_odd_row_is_called_damaged(trees, tmp_path, capsys, change):
    header, first, second = trees.read_text().splitlines()
    row = json.loads(second)
    change(row)
    path = tmp_path / "o.jsonl"
    path.write_text("\n".join([header, first, json.dumps(row)]) + "\n")
    with pytest.raises(SystemExit) as stop:
        trace.main([str(path)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    assert f"{path} is no result file, or a damaged one (line 3)" in err


def test_a_damaged_row_stops_a_run_before_it_begins(folder, unbroken):
    header, line, *lines = (folder / "unbroken.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(line)
    del row["usage"]
    (folder / "o.jsonl").write_text(header + json.dumps(row) + "\n" + "".join(lines))
    assert "damaged one (line 2)" in refused(folder, "--output", "o.jsonl")
    lines = [line.replace('"weighted": "', '"weighted": "7') for line in lines]  # of no vote
    (folder / "o.jsonl").write_text(header + "".join(lines))
    out, _ = stub(folder, "--output", "o.jsonl")
    assert "problems done" in out


@pytest.mark.parametrize(
    "text", ["", "7", "[]", '{"run": 7}', '{"run": {"reduction": ["last"]}}', "\xff", "[" * 9999]
)
def test_what_is_no_result_file_is_not_drawn(tmp_path, capsys, text):
    (tmp_path / "o.jsonl").write_text(text + "\n", encoding="latin-1")
    with pytest.raises(SystemExit) as stop:
        trace.main([str(tmp_path / "o.jsonl")])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


# --- the surroundings -----------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "2>&- >&- <&-"])
def test_streams_that_are_closed(folder, closed):
    """What a library prints there goes nowhere: not into the file that got the stream's number."""
    write_problems(folder, 3, {1: "NOISE"})
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh", sys.executable)
    process = start_anew(folder, "--output", "o.jsonl", launcher=shell)
    _, err = process.communicate()
    assert process.returncode == 0 and err == "noise\n" * ("2>" not in closed), err
    _, *rows = [json.loads(line) for line in (folder / "o.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["p0", "p1", "p2"]


def test_a_terminal_that_knows_few_letters(folder):
    write_problems(folder, 3, {i: "α" for i in range(3)})
    process = start_anew(folder, "--output", "α.jsonl", env={"PYTHONIOENCODING": "latin-1"})
    out, err = process.communicate()
    assert process.returncode == 0 and err == "", err
    assert "results in \\u03b1.jsonl" in out


@pytest.mark.parametrize(
    "module, name", [(models, "check"), (cli, "load_models"), (table, "table")]
)
def test_ctrl_c_at_any_time(folder, module, name):
    def pressed(*_):
        os.kill(os.getpid(), signal.SIGINT)

    def before():
        setattr(module, name, pressed)

    _, err = stub(folder, "--output", "o.jsonl", code=130, before=before)
    assert err == ""


PLACES = [
    ({"RANK": "abc"}, "RANK=abc"),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
    ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE=2.0"),
    ({"WORLD_SIZE": "0"}, "not below WORLD_SIZE=0"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is in the environment, and RANK is not"),
    ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK=5 in the environment is not below WORLD_SIZE=2"),
    ({"RANK": "1"}, "RANK=1 in the environment is not below WORLD_SIZE=1"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not"),
    ({"RANK": "0", "LOCAL_RANK": "x"}, "LOCAL_RANK=x"),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "b"}, "MASTER_PORT=b"),
]


@pytest.mark.parametrize("env, words", PLACES, ids=[str(env) for env, _ in PLACES])
def test_places_that_no_launcher_gives(env, words, monkeypatch, capsys):
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(SystemExit) as stop:
        terminal.place()
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and words in err
    assert "torchrun" in err


def test_the_place_is_looked_at_when_a_script_begins(folder):
    process = start_anew(folder, env={"RANK": "abc"})
    _, err = process.communicate()
    assert process.returncode == 2 and err.startswith("stub.py: error: RANK=abc")
    assert err.count("\n") == 1


def test_processes_that_cannot_be_reached(folder):
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "host.invalid", "MASTER_PORT": "99999"}
    _, err = stub(folder, "--output", "o.jsonl", env=env, code=2)
    assert "not to be reached at host.invalid:99999" in err and "Traceback" not in err


# --- whose fault it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--problem", "--system"])
def test_text_that_is_no_utf_8(folder, flag):
    err = refused(folder, flag, "caf\udce9")
    assert f"{flag} is not text in UTF-8: 'caf\\udce9'" in err and "--policy" not in err


def test_no_folder_for_temporary_files(folder):
    before = lambda: setattr(tempfile, "tempdir", "/no/such/folder")
    err = refused(folder, "--problem", "what?", before=before)
    assert "no temporary file can be made (No such file or directory)" in err and "TMPDIR" in err


@pytest.mark.parametrize("number, help", [(errno.EMFILE, "ulimit -n"), (errno.EACCES, "mend")])
def test_a_model_is_not_to_blame_for_the_system(capsys, number, help):
    with pytest.raises(SystemExit), models.loading("--prm", str(ROOT / "tiny/prm")):
        raise OSError(number, os.strerror(number), "some/file")
    err = capsys.readouterr().err
    assert f"({os.strerror(number)}: some/file)" in err and help in err
    assert "download" not in err and "name another" not in err


def test_problems_that_may_not_be_read(folder):
    def failing(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    err = refused(folder, before=lambda: setattr(problems, "open", failing))
    assert "cannot be read (Permission denied): " in err and "JSONL" not in err


# --- the command that goes on ---------------------------------------------------------------------

GIVEN = [
    ["--limit", "1_0"],
    ["--limit=3", "--output", "a --limit 5.jsonl"],
    ['--output=a\' "$HOME" --overwrite.jsonl', "--limit", "2", "--overwrite"],
    ["--system", "first\nsecond\t!", "--limit", "1"],
    ["--system", "\x1b[31mred é", "--limit", "1"],
    ["--system=-x", "--seed", "-5", "--limit", "0_1"],
    ["--no-prm-4bit", "--keep-tree", "--temperature", "1e-5", "--limit", "4"],
    ["--n", "4", "--limit", "12"],
    ["--reduction", "min"],
]


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_the_command_that_goes_on_is_right_for_all_that_was_given(given, monkeypatch):
    """A shell takes it apart into what parses to the same, but for the limit."""

    def parsed(words):
        parser = cli.Parser(search, "")
        parser.add("--n", cli.positive_int, "")
        parser.add("--temperature", cli.non_negative_float, "")
        args = vars(parser.parse_args(words))
        args.pop("given")
        return args

    def search(prm, *, n=64, temperature=0.8, system="x"):
        pass

    monkeypatch.setattr(sys, "argv", ["my scripts/x.py", *given])
    parser = cli.Parser(search, "")
    parser.add("--n", cli.positive_int, "")
    parser.add("--temperature", cli.non_negative_float, "")
    args = parser.parse_args(given)
    wanted = min(args.limit or 12, 12)
    for solved in (wanted, wanted - 1):
        text = terminal.printable(table.command(args, wanted, 12, solved))
        shell = ["bash", "-c", f"set -- {text}; printf '%s\\0' \"$@\""]
        words = subprocess.run(shell, capture_output=True).stdout.decode().split("\0")[:-1]
        assert words[:2] == ["python", "my scripts/x.py"]
        limit = min(2 * wanted, 12) if solved == wanted else args.limit
        assert parsed(words[2:]) == parsed(given) | {"limit": limit, "overwrite": False}
        if "\n" not in text and "$'" not in text:
            assert shlex.split(text) == words


# --- signs of life --------------------------------------------------------------------------------


def test_long_checks_have_a_bar(monkeypatch, folder, unbroken):
    seen = {}

    def bar(items, desc, **_):
        seen[desc.split()[0] + " " + desc.split()[-1]] = len(items)
        return items

    monkeypatch.setattr(models, "bar", bar)
    monkeypatch.setattr(results, "bar", bar)
    monkeypatch.chdir(folder)
    asked = problems.load(SimpleNamespace(problem=None, problems="problems.jsonl", run_code=False))
    args = SimpleNamespace(policy="p", system="x", thinking=False)
    vars(args).update(prm="r", prm_family=None, allow_pickle=False)
    models.check(args, asked)
    results.read("unbroken.jsonl")
    assert seen == {"checking prompts": 12, "checking answers": 12, "reading unbroken.jsonl": 12}


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_more_solutions_than_memory_holds_are_refused(script, tmp_path, capsys):
    flags = ["--n", "1000000000", "--limit", "1", "--output", tmp_path / "o.jsonl"]
    assert in_process(script, *flags) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--n 1000000000 takes at least" in err and "would fit" in err
    assert not (tmp_path / "o.jsonl").exists()
    flags[0:2] = ["--max-new-tokens", "1000000000"]
    assert in_process(script, *flags) == 2
    err = capsys.readouterr().err
    assert "--max-new-tokens 1000000000 is more than the context" in err and "2048 at most" in err


def test_more_children_than_memory_holds_are_refused(tmp_path, capsys):
    """Of MCTS: the other searches have no more children than n."""
    flags = ["--n", "4", "--width", "1000000000", "--limit", "1", "--output", tmp_path / "o.jsonl"]
    assert in_process("mcts.py", *flags) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--width 1000000000 takes at least" in err
    width = int(err.split("--width ")[2].split()[0])
    assert 4 < width < 1000000000 and f"--width {width} would fit" in err
    assert not (tmp_path / "o.jsonl").exists()


def memory_args(n, **changes):
    given = {"n": n, "batch_problems": 1, "limit": None, "max_new_tokens": 2048, "system": "x"}
    return SimpleNamespace(**given | changes, policy="p", stop_at=None)


def test_what_is_proposed_fits_and_what_may_fit_is_taken(pair, monkeypatch, capsys):
    policy, tokenizer, prm = pair
    asked = [{"problem": f"Evaluate $1+{i}$."} for i in range(4)]
    monkeypatch.setattr(solve, "free_memory", lambda: 8 << 30)
    given = (policy, tokenizer, prm, asked)

    def proposed(args):
        with pytest.raises(SystemExit):
            solve.check_memory(args, *given)
        err = capsys.readouterr().err
        assert "8.0 GiB are free" in err
        return int(err.split("--n ")[2].split()[0]), err

    n, _ = proposed(memory_args(10**7))
    per_token = solve.key_value_bytes(policy) + solve.key_value_bytes(prm.model)
    assert 0.7 * (8 << 30) < n * (2048 * per_token + 8 * 2048) < 8 << 30
    solve.check_memory(memory_args(n), *given)
    solve.check_memory(memory_args(2 * n), *given)  # solutions may be short
    prompt = len(chat.encode_prompt(tokenizer, asked[0]["problem"], "x"))
    row = prompt * solve.key_value_bytes(policy) + 4 * policy.config.vocab_size + 8 * 2048
    solve.check_memory(memory_args((8 << 30) // row), *given)
    proposed(memory_args((8 << 30) // row + 1))
    side_by_side, err = proposed(memory_args(10**7, batch_problems=9))
    assert abs(4 * side_by_side - n) <= 4 and "fewer than 4 --batch-problems" in err
    cuda = SimpleNamespace(config=policy.config, dtype=policy.dtype, device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 << 30, 80 << 30))
    given = (cuda, *given[1:])
    solve.check_memory(memory_args(400_000), *given)  # in batches
    on_a_gpu, _ = proposed(memory_args(10**7))
    assert 0.7 * (4 << 30) < on_a_gpu * 2048 * per_token < 4 << 30


def test_keys_and_values_are_those_of_the_cache(pair):
    """Of a model whose heads are grouped, too."""
    from test_runner import llama
    from transformers import DynamicCache

    for model in (pair[0], llama(), llama().to(torch.bfloat16)):
        cache = DynamicCache()
        model(torch.zeros(1, 3, dtype=torch.long), past_key_values=cache)
        size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert solve.key_value_bytes(model) == size / 3


# --- a mixture of experts -------------------------------------------------------------------------


def mixture(kind, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        vocab_size=32,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        **changes,
    )
    # One product after the other: torch does not count those of kernels that make all at once.
    eager = {"experts_implementation": "eager", "attn_implementation": "eager"}
    return AutoModelForCausalLM.from_config(config, **eager).eval()


MIXTURES = {
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3_moe": {
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 96,
        "head_dim": 16,
    },
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_of_a_mixture_the_experts_that_work_are_counted(kind):
    """As torch counts the products of matrices that one forward makes."""
    from torch.utils.flop_counter import FlopCounterMode

    model = mixture(kind, **MIXTURES[kind])
    meter = solve.Meter(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model(torch.arange(16)[None] % 32)
    positions, flops = meter.take()
    assert positions == 16
    table = 2 * 16 * model.get_input_embeddings().weight.numel()  # no product is made with it
    assert flops - table == pytest.approx(counted.get_total_flops(), rel=0.01)
    assert meter.parameters < 0.6 * model.num_parameters()
