"""The result file: a header with what decided the run, then a line a problem. Nothing is lost.

A row is appended, and on the disk, when its problem is done. Other processes write part files
beside. At the end all are put together, in the order of the problems, and replace the file.
"""

import errno
import fcntl
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import torch

from harness.terminal import WORLD, bar, cure, fail

# --- what a run is --------------------------------------------------------------------------------

# What may differ from run to run on one file: it changes no answer. Of models and problems the
# content counts, wherever it is: see fingerprint() and Output.compare().
FREE = (
    "limit",
    "output",
    "overwrite",
    "allow_pickle",
    "trace",
    "keep_tree",
    "run_code",
    "device",
    "at_once",
    "policy",
    "prm",
    "problems",
    "given",
)


OF_A_MODEL = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")


def identity(args):
    """What decides every answer, and so must be equal where a run goes on with a file."""
    return {key: value for key, value in vars(args).items() if key not in FREE}


def fingerprint(folder):
    """What tells a model from others: the revision of the hub's, the sha256 of a local one's files.

    Of a file above 64 MB 64 KB in every 4 MB are read, a second's work for 16 GB: training changes
    all of a matrix.
    """
    folder = Path(os.path.realpath(folder))
    of_hub = folder.parent.parent.name.startswith("models--")
    if of_hub and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    digest = hashlib.sha256()
    stride = 4 << 20
    for path in sorted(folder.iterdir()):
        if path.suffix not in OF_A_MODEL:
            continue
        size = path.stat().st_size
        piece = stride if size <= 64 << 20 else 64 << 10
        digest.update(os.fsencode(path.name) + f" {size}\n".encode())
        with open(path, "rb") as file:
            for place in range(0, size, stride):
                file.seek(place)
                digest.update(file.read(piece))
    return digest.hexdigest()[:16]


def lasting(name):
    """A file or folder by its whole path; a hub id as it is."""
    return os.path.realpath(name) if name and os.path.exists(name) else name


def name_output(args):
    """Without --output: a name in runs/ that the run's identity and problems decide."""
    if args.output is None:
        text = json.dumps([identity(args), lasting(args.problems)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        stem = Path(args.script).stem
        args.output = f"runs/{stem}-n{args.n}-seed{args.seed}-{digest}.jsonl"


def header(args):
    """First line of a result file: the arguments, and what else explains the figures."""
    packages = ("torch", "transformers", "accelerate", "bitsandbytes")
    names = {key: lasting(vars(args).get(key)) for key in ("policy", "prm", "problems")}
    return names | {
        **identity(args),
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


# --- reading --------------------------------------------------------------------------------------

# What a row is: objects, lists, and the types of their values.
TEXT = (str,)
TEXT_OR_NOT = (str, type(None))
NUMBER = (int, float)
NUMBER_OR_NOT = (int, float, type(None))
PROBLEM = {"id": TEXT, "problem": TEXT, "answer": TEXT_OR_NOT}
COMPLETION = {
    "text": TEXT,
    "scores": [NUMBER_OR_NOT],
    "value": NUMBER_OR_NOT,
    "tokens": (int,),
    "finished": (bool,),
    "answer": TEXT_OR_NOT,
    "path": [(int,)],
}
SOLVED = PROBLEM | {
    "level": (str, int, float, type(None)),
    "finished": (int,),
    "distinct": (int,),
    "completions": [COMPLETION],
    "predictions": {},
    "correct": {},
    "usage": {
        "generated_tokens": (int,),
        "policy_tokens": (int,),
        "prm_tokens": (int,),
        "flops": NUMBER,
        "seconds": NUMBER,
    },
}
STEP = {
    "parent": (int, type(None)),
    "text": TEXT,
    "tokens": (int,),
    "scores": [NUMBER_OR_NOT],
    "value": NUMBER_OR_NOT,
}


def fits(value, shape):
    """Is value of this shape? An object may have more keys."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        return all(key in value and fits(value[key], inner) for key, inner in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(one, shape[0]) for one in value)
    return type(value) in shape and (type(value) not in NUMBER or abs(value) < 1e300)  # NaN is not


def is_whole(row, own):
    """Is it what a run writes: a problem that failed, or one solved? own: the search's own rule."""
    if "error" in row:
        return fits(row, PROBLEM | {"error": TEXT})
    if not fits(row, SOLVED):
        return False
    predictions = row["predictions"]
    if "tests" in row:
        own = "tests"
        if not fits(row, {"tests": TEXT, "completions": [{"passed": (bool,)}]}):
            return False
    if own not in predictions or not all(fits(one, TEXT_OR_NOT) for one in predictions.values()):
        return False
    if not all(fits(one, (bool,)) for one in row["correct"].values()):
        return False
    if "tree" not in row:
        return True
    if not fits(row, {"tree": [STEP], "completions": [{"node": (int,)}]}):
        return False
    for i, step in enumerate(row["tree"]):
        if step["parent"] is not None and not 0 <= step["parent"] < i:
            return False
    return all(0 <= one["node"] < len(row["tree"]) for one in row["completions"])


def whole_lines(path):
    """A line without its newline was cut off by a kill and does not count."""
    return Path(path).read_bytes().split(b"\n")[:-1]


def read(output):
    """(header, {id: row}) of a result file and of the part files of other processes.

    A solved row beats a failed one. fail()s if it is something else, or damaged.
    """
    lines = whole_lines(output)
    for part in parts(output):
        lines += whole_lines(part)[1:]
    number = 1
    try:
        first = dict(json.loads(lines[0])["run"])
        own = "weighted" if first.get("reduction") else first.get("weights") or "majority"
        rows = {}
        for line in bar(lines[1:], desc=f"reading {output}", leave=False):
            number += 1
            row = json.loads(line)
            if not is_whole(row, own):
                raise ValueError
            known = rows.get(row["id"])
            if known is None or "error" in known:
                rows[row["id"]] = row
        return first, rows
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        fail(
            f"--output {output} is no result file, or a damaged one (line {number}), and stays as "
            "it is: name another --output"
        )


def part_file(output, rank):
    return f"{output}.part{rank}"


def parts(output):
    """Its part files. What has the name of one, but not the header of this run, is left alone."""
    with open(output, "rb") as file:
        head = b'{"part": ' + file.readline().removeprefix(b'{"run": ')
    found = []
    for path in filter(os.path.isfile, glob.glob(part_file(glob.escape(output), "[0-9]*"))):
        with suppress(OSError), open(path, "rb") as file:
            if file.readline() == head:
                found.append(path)
    return found


# --- writing --------------------------------------------------------------------------------------


def append(file, *rows):
    """Write rows and return when they are on the disk."""
    for row in rows:
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def replacing(path):
    """A new file to write, which then takes the place of path. A kill leaves one of them, whole.

    The name of the new one is nobody else's: what a kill has left of it is used again.
    """
    target = os.path.realpath(path)
    name = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    new = os.path.join(os.path.dirname(target), f".{name}.new")
    file = open(new, "w+b")
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, new)
        os.replace(new, target)
    except BaseException:
        with suppress(OSError):
            os.remove(new)
            file.close()
        raise


def check_paths(args):
    """fail() where a file that is read or written is no plain one, or two of them are one."""
    named = {}
    for key in ("problems", "output", "trace"):
        path = vars(args).get(key)
        if path is None:
            continue
        flag = f"--{key}"
        if os.path.expanduser(path) != path:
            fail(f"{flag}={path}: the shell puts no home in the place of ~ there: {flag} {path}")
        if key == "problems" and not os.path.lexists(path):
            continue  # a hub id, or a file that problems.load() misses
        plain = os.path.isfile(path) or not os.path.exists(path)
        if key == "output" and path.endswith(".gz"):
            fail(
                f"{flag} {path}: results are not packed as they come: leave out .gz, pack it later"
            )
        if not plain or os.path.basename(path) in ("", ".", ".."):
            fail(f"{flag} {path} is not a plain file: name another {flag}")
        if os.path.exists(path) and any(is_open(stream, path) for stream in (1, 2)):
            fail(f"{flag} {path} is where the table and the messages go: name another {flag}")
        named[f"{flag} {path}"] = path
    for (flag, path), (other_flag, other) in itertools.combinations(named.items(), 2):
        same = os.path.realpath(path).casefold() == os.path.realpath(other).casefold()
        if os.path.exists(path) and os.path.exists(other):
            same = os.path.samefile(path, other)
        if same:
            fail(f"{flag} and {other_flag} are one file: name different ones")


def is_open(stream, path):
    """Does what the descriptor says go to the file at path?"""
    with suppress(OSError):  # it is closed
        return os.path.samestat(os.fstat(stream), os.stat(path))
    return False


def lock(path):
    """The file, made if it is missing, locked until it is closed: a run that is killed frees it.

    Output.sort() puts another file in its place, which is locked too. Who got the lock of the old
    one looks again. Raises BlockingIOError if another run has the lock.
    """
    for _ in range(100):
        file = open(path, "a+b")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):  # a run that failed has taken its empty file away
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


class Output:
    """The result file of a run, which alone has it from the first look to the last writing.

    header, rows: what the file holds; None and {} if this run begins it.
    """

    def __init__(self, args, problems):
        """fail()s, and leaves all as it is, if the file cannot be written, is none of results, or
        is another run's."""
        self.path = args.output
        self.header = None
        self.rows = {}
        folder = os.path.dirname(os.path.realpath(self.path))
        remedy = "name another --output"
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(1 << 20))  # a full disk shows here, before the work
            self.made = not os.path.exists(self.path)
            self.file = lock(self.path)
        except BlockingIOError:
            fail(f"--output {self.path} is being written by another run: wait for it or {remedy}")
        except OSError as error:
            advice = " or ".join(filter(None, [cure(error), remedy]))
            fail(f"--output {self.path} cannot be written ({error.strerror}): {advice}")
        self.file.seek(0)
        head = self.file.readline()
        cut = head.startswith(b'{"run": ') and not head.endswith(b"\n")  # by a kill
        if head and not cut:
            self.compare(args, problems, *read(self.path))

    def compare(self, args, problems, first, rows):
        """Take what the file holds, if it is this run's. What is not given is taken from there."""
        if args.overwrite:
            return
        taken = first.get("batch_problems")
        if args.batch_problems is None and type(taken) is int and taken > 0:
            args.batch_problems = taken
        differing = []
        for key, value in identity(args).items():
            if first.get(key) != value:
                differing.append(f"{key} {first.get(key)!r:.60} there, {value!r:.60} here")
        fields = ("problem", "answer", "tests")
        known = {one["id"]: [one.get(field) for field in fields] for one in problems}
        for key, row in rows.items():
            if key not in known:
                differing.append(f"it has a problem {key!r}, which --problems has not")
                break
            for field, value in zip(fields, known[key]):
                if row.get(field) != value:
                    differing.append(f"problem {key!r} differs in its {field}")
            if differing:
                break
        if differing:
            fail(
                f"--output {self.path} is of another run ({'; '.join(differing)}): name another "
                "--output, or drop it by --overwrite"
            )
        self.header = first
        self.rows = rows

    def begin(self, header):
        """Make the file ready to take rows. Its header is the one that it has, or this one."""
        left = {part: whole_lines(part)[1:] for part in parts(self.path)}
        for rank in range(1, WORLD):
            path = part_file(self.path, rank)
            if os.path.lexists(path) and path not in left:
                fail(f"{path} is in the way, and not of this run: move it or name another --output")
        if self.header is None:
            self.header = header
            self.file.truncate(0)
            append(self.file, {"run": header})
        else:
            self.file.truncate(sum(len(line) + 1 for line in whole_lines(self.path)))
            for lines in left.values():
                self.file.writelines(line + b"\n" for line in lines)
            append(self.file)
        for part in left:
            os.remove(part)

    def sort(self, problems):
        """Put the rows in the order of problems, those of part files too, each once."""
        first, rows = read(self.path)
        left = parts(self.path)
        with replacing(self.path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            append(file, {"run": first})
            append(file, *(rows[one["id"]] for one in problems if one["id"] in rows))
        self.file.close()
        self.file = file
        for part in left:
            os.remove(part)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(FileNotFoundError):
            if self.made and os.path.getsize(self.path) == 0:
                os.remove(self.path)
        self.file.close()
