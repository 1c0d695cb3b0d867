"""The result file: a header with what decided the run, then a line a problem. Nothing is lost.

A row is appended, and on the disk, when its problem is done. Other processes write part files
beside. At the end all are put together, in the order of the problems, and replace the file.
"""

import fcntl
import glob
import hashlib
import json
import os
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

import torch

from harness.terminal import fail

# What may differ from run to run on one file: it changes no answer.
FREE = (
    "limit",
    "output",
    "overwrite",
    "batch_problems",
    "allow_pickle",
    "trace",
    "keep_tree",
    "run_code",
    "device",
)


def identity(args):
    """What decides every answer, and so must be equal where a run goes on with a file."""
    return {key: value for key, value in vars(args).items() if key not in FREE}


def name_output(args):
    """Without --output: a name in runs/ that the run's identity decides."""
    if args.output is None:
        text = json.dumps(identity(args), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        stem = Path(args.script).stem
        args.output = f"runs/{stem}-n{args.n}-seed{args.seed}-{digest}.jsonl"


def header(args):
    """First line of a result file: the arguments, and what else explains the figures."""
    packages = ("torch", "transformers", "accelerate", "bitsandbytes")
    return identity(args) | {
        "commit": commit(),
        "versions": {name: metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
    }


def commit():
    """Of the project, if git knows it; else None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    folder = Path(__file__).parent
    try:
        git = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    except OSError:  # there is no git
        return None
    return git.stdout.strip() or None


def read(output):
    """(header, {id: row}) of a result file and of the part files of other processes.

    A line without its newline was cut off by a kill and does not count. A solved row beats a failed
    one. fail()s if it is something else, or damaged.
    """
    lines = []
    for path in [output, *glob.glob(f"{glob.escape(output)}.part[0-9]*")]:
        lines += Path(path).read_bytes().split(b"\n")[:-1]
    try:
        first = dict(json.loads(lines[0])["run"])
        rows = {}
        for line in lines[1:]:
            row = json.loads(line)
            known = rows.get(row["id"])
            if known is None or "error" in known:
                rows[row["id"]] = row
        return first, rows
    except (ValueError, IndexError, KeyError, TypeError):
        fail(
            f"--output {output} is no result file, or a damaged one, and stays as it is: "
            "name another --output"
        )


def check_output(args, problems):
    """(header, {id: row}) of what args.output holds already; (None, {}) if this run begins it.

    fail()s, and leaves all as it is, if it cannot be written, is no result file, or another run's.
    """
    output = args.output
    remedy = "name another --output"
    if os.path.exists(output) and not os.path.isfile(output):
        fail(f"--output {output} is not a plain file: {remedy}")
    folder = os.path.dirname(os.path.realpath(output))
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 20))  # a full disk shows here, before the work
        if not os.path.exists(output) or os.path.getsize(output) == 0:
            return None, {}
        with open(output, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(f"--output {output} is being written by another run: wait for it or {remedy}")
    except OSError as error:
        fail(f"--output {output} cannot be written ({error.strerror}): make room or {remedy}")

    first, rows = read(output)
    if args.overwrite:
        return None, {}
    differing = []
    for key, value in identity(args).items():
        if first.get(key) != value:
            differing.append(f"{key} {first.get(key)!r} there, {value!r} here")
    fields = ("problem", "answer", "tests")
    known = {one["id"]: [one.get(field) for field in fields] for one in problems}
    for key, row in rows.items():
        if known.get(key) != [row.get(field) for field in fields]:
            differing.append(f"another problem {key!r}")
            break
    if differing:
        fail(
            f"--output {output} is of another run ({'; '.join(differing)}): {remedy}, "
            "or drop it by --overwrite"
        )
    return first, rows


def append(file, *rows):
    """Write rows and return when they are on the disk."""
    for row in rows:
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def save(output, first, rows, problems):
    """Replace the file, rows in the order of problems. A kill leaves the old or the new one whole.

    Returns the open file, locked: by this check_output() knows that a run is alive.
    """
    target = os.path.realpath(output)
    file = open(f"{target}.new", "wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    wanted = [rows[problem["id"]] for problem in problems if problem["id"] in rows]
    append(file, {"run": first}, *wanted)
    os.replace(f"{target}.new", target)
    for part in glob.glob(f"{glob.escape(output)}.part[0-9]*"):
        os.remove(part)
    return file
