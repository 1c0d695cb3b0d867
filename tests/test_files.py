"""Nothing is written over, removed, mixed up or done twice that the user did not mean.

The run from the outside, as in test_runner.py, whose stub it uses.
"""

import errno
import fcntl
import os
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
from conftest import ROOT
from test_cli import in_process
from test_runner import folder, ids, rows_of, start, stub, unbroken

from harness import cli, results, solve, trace

__all__ = ["folder", "unbroken"]  # fixtures


def refused(folder, *flags, **kwargs):
    """The line, of a run that must change no file."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    _, err = stub(folder, *flags, code=2, **kwargs)
    assert err.startswith("stub.py: error: ") and err.count("\n") == 1, err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return err


# --- what is not this run's -----------------------------------------------------------------------


@pytest.mark.parametrize("other", ["new.html", "./new.html", "empty/../new.html", "NEW.html"])
def test_output_and_trace_are_two_files_also_if_neither_is_there(folder, other):
    err = refused(folder, "--output", "new.html", "--trace", other)
    assert f"--output new.html and --trace {other} are one file" in err


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symlink", "hard link"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_two_paths_lead_to_one_file(folder, link, overwrite):
    (folder / "in").mkdir()
    shutil.move(folder / "problems.jsonl", folder / "in/p.html")
    stub(folder, "--problems", "in/p.html", "--output", "o.jsonl")
    link(folder / "in/p.html", folder / "p2.html")
    link(folder / "o.jsonl", folder / "o2.html")
    for flags in (
        ["--problems", "in/p.html", "--output", "in/p.html"],
        ["--problems", "in/p.html", "--output", "p2.html"],
        ["--problems", "in/p.html", "--trace", "p2.html", "--output", "new.jsonl"],
        ["--problems", "in/p.html", "--trace", "o2.html", "--output", "o.jsonl"],
    ):
        assert " are one file: name different ones" in refused(folder, *flags, *overwrite)


@pytest.mark.parametrize("path", ["nd/", "empty", "empty/..", "fifo", "/dev/null", ""])
def test_what_is_no_plain_file_is_refused_at_once(folder, path):
    os.mkfifo(folder / "fifo")
    for flag in ("--output", "--trace", "--problems"):
        if path or flag != "--problems":
            err = refused(folder, f"{flag}={path}")
            if flag == "--problems" and path == "nd/":
                assert "--problems nd/ is not here" in err
            else:
                assert f"{flag} {path} is not a plain file" in " ".join(err.split("  ")) or not path
    assert (folder / "fifo").is_fifo() and not (folder / "nd").exists()


@pytest.mark.parametrize("flag", ["--output", "--trace", "--problems"])
def test_a_home_that_the_shell_left_alone_is_refused(folder, flag):
    assert f"{flag}=~/x.html: the shell puts no home" in refused(folder, f"{flag}=~/x.html")
    assert not (folder / "~").exists()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("flag", ["--output", "--trace"])
def test_where_the_table_goes_is_no_output(folder, stream, flag):
    """`python dvts.py > x --output x` would lose the one or the other."""
    number = {"stdout": 1, "stderr": 2}[stream]
    for path in (f"/dev/{stream}", "x.html"):
        with open(folder / "x.html", "wb") as file:
            redirect = lambda: os.dup2(file.fileno(), number)
            _, told = stub(folder, flag, path, code=2, before=redirect)
        told += (folder / "x.html").read_text()
        assert told.count("\n") == 1 and f"{flag} {path} is where the table and the mess" in told


def test_a_page_of_something_else_is_not_replaced(folder):
    flags = ["--output", "o.jsonl", "--trace", "page.html"]
    for content in ("<p>Dear diary", ""):
        (folder / "page.html").write_text(content)
        assert "--trace page.html is there, and is no page of o.jsonl" in refused(folder, *flags)
    stub(folder, *flags, "--overwrite", "--limit", 2)
    page = (folder / "page.html").read_text()
    assert page.startswith("<!doctype html>") and page.count('"prediction"') == 2
    stub(folder, *flags, "--limit", 3)  # the same run goes on, and its page with it
    assert (folder / "page.html").read_text().count('"prediction"') == 3
    refused(folder, "--output", "p.jsonl", "--trace", "page.html")
    assert not list(folder.glob(".*"))


def test_a_page_that_came_meanwhile_is_not_replaced(folder):
    def diary():
        (folder / "page.html").write_text("Dear diary")

    work = solve.work
    hook = lambda: setattr(solve, "work", lambda *given: (work(*given), diary()))
    _, err = stub(folder, "--output", "o.jsonl", "--trace", "page.html", code=2, before=hook)
    assert "--trace page.html is there" in err and len(ids(folder / "o.jsonl")) == 12
    assert (folder / "page.html").read_text() == "Dear diary"


def test_a_page_drawn_later_replaces_nothing_else(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    stub(folder, "--output", "o.jsonl", "--keep-tree")
    os.link("o.jsonl", "o.html")
    (folder / "diary.html").write_text("Dear diary")
    before = (folder / "o.jsonl").read_bytes()
    for flags in ([], ["--overwrite"], ["--output", "diary.html"]):
        with pytest.raises(SystemExit):
            trace.main(["o.jsonl", *flags])
        assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "o.jsonl").read_bytes() == before == (folder / "o.html").read_bytes()
    assert trace.main(["o.jsonl", "--output", "diary.html", "--overwrite"]) == 0
    assert trace.main(["o.jsonl", "--output", "diary.html"]) == 0


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    page.chmod(0o640)
    with pytest.raises(InterruptedError), results.replacing(page) as file:
        file.write(b"ne")
        raise InterruptedError
    assert page.read_text() == "old" and os.listdir(tmp_path) == ["page.html"]
    with results.replacing(page) as file:
        file.write(b"new")
    assert page.read_text() == "new" and page.stat().st_mode & 0o777 == 0o640
    with pytest.MonkeyPatch.context() as killed, pytest.raises(InterruptedError):
        killed.setattr(os, "remove", lambda path: None)  # a kill leaves the new file
        with results.replacing(page) as file:
            file.write(b"what is left of it")
            raise InterruptedError
    assert len(os.listdir(tmp_path)) == 2
    with results.replacing(page) as file:
        file.write(b"newer")
    assert page.read_text() == "newer"
    assert os.listdir(tmp_path) == ["page.html"]


def test_files_of_others_with_names_like_ours_stay(folder, unbroken):
    """A part file is one by its header, not by its name."""
    header, *lines = (folder / "unbroken.jsonl").read_text().splitlines(keepends=True)
    diaries = {
        "o.jsonl.new": "my new one",
        "o.jsonl.part1": "first part of my diary\n",
        "o.jsonl.part2": "".join(lines),
        "o.jsonl.part3": header + "".join(lines),  # a copy of a result file is no part of it
        "o.jsonl.part4": "",
    }
    for name, text in diaries.items():
        (folder / name).write_text(text)
    (folder / "o.jsonl.part5").mkdir()
    for flags in ([], ["--overwrite"], ["--limit", 3]):
        stub(folder, "--output", "o.jsonl", *flags)
        for name, text in diaries.items():
            assert (folder / name).read_text() == text
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    _, err = stub(folder, "--output", "o.jsonl", env=env, code=2)
    assert "o.jsonl.part1 is in the way" in err and "first part" in diaries["o.jsonl.part1"]
    for name, text in diaries.items():
        assert (folder / name).read_text() == text


def test_part_files_of_a_run_that_is_dropped_go_with_it(folder, unbroken):
    header, *lines = (folder / "unbroken.jsonl").read_text().splitlines(keepends=True)
    (folder / "unbroken.jsonl.part1").write_text(header.replace("run", "part", 1) + lines[3])
    stub(folder, "--output", "unbroken.jsonl", "--overwrite", "--seed", 1, "--limit", 2)
    assert ids(folder / "unbroken.jsonl") == ["p0", "p1"] and not list(folder.glob("*.part*"))


def test_a_run_that_fails_early_leaves_no_file_and_takes_none(folder):
    def failing(*_):
        raise SystemExit(2)

    (folder / "mine.jsonl").touch()
    for name in ("new.jsonl", "mine.jsonl"):
        hook = lambda: setattr(cli, "load_models", failing)
        stub(folder, "--output", name, code=2, before=hook)
    assert (folder / "mine.jsonl").exists() and not (folder / "new.jsonl").exists()


# --- one run at a time ----------------------------------------------------------------------------


def args_for(path, **changes):
    given = {"output": str(path), "overwrite": False, "batch_problems": None, "n": 4}
    return SimpleNamespace(**given | changes)


def test_the_lock_is_held_from_the_first_look(folder):
    """Before there is a header, and so before another could take the file for its own."""
    with results.Output(args_for(folder / "o.jsonl"), []):
        assert (folder / "o.jsonl").read_bytes() == b""
        err = refused(folder, "--output", "o.jsonl")
        assert "is being written by another run: wait for it" in err
        refused(folder, "--output", "o.jsonl", "--overwrite")
    assert not (folder / "o.jsonl").exists()
    stub(folder, "--output", "o.jsonl")


def test_the_lock_is_held_while_the_file_is_replaced(folder, unbroken, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(results, "identity", lambda args: {})
    problems = [{key: row[key] for key in ("id", "problem", "answer")} for row in unbroken[1:]]
    replace = os.replace
    tried = []

    def look(*paths):
        for when in (lambda: None, lambda: replace(*paths)):
            when()
            with pytest.raises(BlockingIOError):
                results.lock("unbroken.jsonl")
            tried.append(when)

    with results.Output(args_for("unbroken.jsonl"), problems) as output:
        monkeypatch.setattr(os, "replace", look)
        output.sort(problems)
        with pytest.raises(BlockingIOError):
            results.lock("unbroken.jsonl")
    assert len(tried) == 2
    results.lock("unbroken.jsonl").close()


def test_who_locked_a_file_that_was_replaced_looks_again(tmp_path, monkeypatch):
    """Between its opening and its locking the other run came to its end."""
    path = tmp_path / "o.jsonl"
    path.write_text("old")
    flock = fcntl.flock
    replaced = []

    def late(*given):
        if len(replaced) < 2:
            path.unlink()
            if not replaced:
                path.write_text("new")
            replaced.append(True)
        flock(*given)

    monkeypatch.setattr(fcntl, "flock", late)
    with results.lock(path) as file:
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())
    assert len(replaced) == 2


def test_of_two_runs_started_together_one_runs(folder, unbroken):
    for _ in range(5):
        both = [start(folder, "--output", "o.jsonl", env={"PAUSE": "0.01"}) for _ in range(2)]
        said = [process.communicate()[1] for process in both]
        codes = [process.returncode for process in both]
        assert sorted(codes) in ([0, 2], [0, 0])  # or one came when the other was done
        for code, err in zip(codes, said):
            assert code == 0 or "is being written by another run" in err
        assert rows_of(folder / "o.jsonl") == unbroken
        (folder / "o.jsonl").unlink()


def test_a_disk_that_gives_no_file_twice_the_same_number(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with pytest.raises(OSError, match="No locks"):
        results.lock(tmp_path / "o.jsonl")


def test_a_kill_at_any_moment_leaves_a_file_that_can_go_on(folder, unbroken):
    """No lock outlives its run; a header that was cut off is written anew."""
    whole = (folder / "unbroken.jsonl").read_bytes()
    for size in (0, 9, whole.index(b"\n"), whole.index(b"\n") + 1):
        (folder / "o.jsonl").write_bytes(whole[:size])
        stub(folder, "--output", "o.jsonl")
        assert rows_of(folder / "o.jsonl") == unbroken
    process = start(folder, "--output", "p.jsonl", env={"PAUSE": "9"})
    while not (folder / "p.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stub(folder, "--output", "p.jsonl")
    assert rows_of(folder / "p.jsonl") == unbroken


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOLCK, "No locks available): take a disk whose files can be locked"),
        (errno.EOPNOTSUPP, "take a disk whose files can be locked"),
        (errno.EACCES, "cannot be written (Permission denied): name another --output\n"),
        (errno.EROFS, "cannot be written (Read-only file system): name another --output\n"),
        (errno.EMFILE, "cannot be written (Too many open files): raise `ulimit -n`"),
        (errno.ENOSPC, "cannot be written (No space left on device): make room or name another"),
    ],
)
def test_why_a_file_cannot_be_written_and_what_helps(folder, number, words):
    def failing(*_):
        raise OSError(number, os.strerror(number))

    err = refused(folder, "--output", "o.jsonl", before=lambda: setattr(results, "lock", failing))
    assert words in err
    _, err = stub(folder, code=2, before=lambda: setattr(results, "append", failing))
    if number in (errno.EACCES, errno.EMFILE):
        assert "make room" not in err and "then give this command again" in err


# --- what a run is --------------------------------------------------------------------------------


def test_other_weights_at_the_same_path_are_another_run(folder, unbroken):
    (folder / "p").unlink()
    shutil.copytree(ROOT / "tiny/policy", folder / "p")
    stub(folder, "--output", "unbroken.jsonl")  # the same in another place
    path = folder / "p/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    err = refused(folder, "--output", "unbroken.jsonl")
    assert "is of another run (policy_weights " in err and "prm_weights" not in err
    stub(folder, "--limit", 1)
    content[-1] ^= 1
    path.write_bytes(content)
    stub(folder, "--limit", 1)
    assert len(os.listdir(folder / "runs")) == 2


def test_a_fingerprint_sees_every_file_that_counts(tmp_path):
    folder = tmp_path / "snapshots/step-100"  # of a training, not of the hub
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("hello")
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(70 << 20)
    seen = {results.fingerprint(folder)}
    for place in (0, 33 << 20, (70 << 20) - 1):
        with open(folder / "model.safetensors", "r+b") as file:
            file.seek(place // (4 << 20) * (4 << 20))
            file.write(os.urandom(16))
        seen.add(results.fingerprint(folder))
    (folder / "config.json").write_text("[]")
    seen.add(results.fingerprint(folder))
    (folder / "chat_template.jinja").write_text("x")
    seen.add(results.fingerprint(folder))
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"\0")
    seen.add(results.fingerprint(folder))
    assert len(seen) == 7
    (folder / "README.md").write_text("hello again")
    assert results.fingerprint(folder) in seen


def test_of_a_model_of_the_hub_the_revision_counts(tmp_path):
    folder = tmp_path / "models--own--model/snapshots" / ("0123456789" * 4)
    folder.mkdir(parents=True)
    assert results.fingerprint(folder) == "0123456789" * 4


def test_a_run_goes_on_from_another_folder(folder, unbroken):
    """Where models, problems and output are is nobody's business, but what they are."""
    (folder / "unbroken.jsonl").write_text(
        "".join((folder / "unbroken.jsonl").read_text().splitlines(keepends=True)[:5])
    )
    inner = folder / "inner"
    inner.mkdir()
    for name in ("p", "r"):
        (inner / name).symlink_to(folder / name)
    flags = ["--problems", "../problems.jsonl", "--output", "../unbroken.jsonl"]
    _, err = stub(inner, *flags)
    assert err == "" and rows_of(folder / "unbroken.jsonl") == unbroken


def test_the_batch_size_that_was_taken_is_the_runs(tmp_path, monkeypatch, capsys):
    """It was decided by the memory that was free, and in bfloat16 decides completions."""
    flags = ["--n", "2", "--output", tmp_path / "o.jsonl"]
    monkeypatch.setattr(solve, "rows_side_by_side", lambda args: 8)
    assert in_process("majority.py", *flags, "--limit", "2") == 0
    assert rows_of(tmp_path / "o.jsonl")[0]["run"]["batch_problems"] == 4
    monkeypatch.setattr(solve, "rows_side_by_side", lambda args: 256)
    sizes = []
    cut = solve.batches_to_do
    monkeypatch.setattr(
        solve, "batches_to_do", lambda *given: sizes.append(given[0].batch_problems) or cut(*given)
    )
    assert in_process("majority.py", *flags, "--limit", "3") == 0 and sizes == [4]
    assert rows_of(tmp_path / "o.jsonl")[0]["run"]["batch_problems"] == 4
    assert in_process("majority.py", *flags, "--limit", "3", "--batch-problems", "5") == 2
    assert "batch_problems 4 there, 5 here" in capsys.readouterr().err
    header, *rows = (tmp_path / "o.jsonl").read_text().splitlines(keepends=True)
    odd = header.replace('"batch_problems": 4', '"batch_problems": "many"')
    (tmp_path / "o.jsonl").write_text(odd + "".join(rows))
    assert in_process("majority.py", *flags, "--limit", "3") == 2
    assert "batch_problems 'many' there, None here" in capsys.readouterr().err
