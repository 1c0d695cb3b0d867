"""What reaches the terminal. A fault is one line and exit code 2."""

import errno
import os
import sys

from tqdm import tqdm


def reopen_closed_streams():
    """A stream that was closed, as by `2>&-`, is None, and the next file that is opened gets its
    number: what a library prints would be written into it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def printable(text):
    """text with all control characters but newline and tab spelled out: what a model wrote must not
    steer a terminal."""
    safe = [
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    ]
    return "".join(safe)


def script():
    return os.path.basename(sys.argv[0])


def fail(message):
    """Print `script: error: message` as one line on stderr and raise SystemExit(2)."""
    print(f"{script()}: error: {' '.join(printable(message).split())}", file=sys.stderr)
    raise SystemExit(2)


def place():
    """(RANK, WORLD) of this process, as accelerate and torchrun set them; (0, 1) without them."""
    remedy = "start the processes by torchrun or accelerate launch, or unset it"
    given = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        text = os.environ.get(name)
        if text:
            given[name] = text
            if name != "MASTER_ADDR" and not text.isdecimal():
                fail(f"{name}={text} in the environment is no whole number: {remedy}")
    rank = int(given.get("RANK", 0))
    world = int(given.get("WORLD_SIZE", 1))
    if rank >= world:
        fail(f"RANK={rank} in the environment is not below WORLD_SIZE={world}: {remedy}")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if world > 1 and name not in given:
            fail(f"WORLD_SIZE={world} is in the environment, and {name} is not: {remedy}")
    return rank, world


reopen_closed_streams()
RANK, WORLD = place()


def note(message):
    """One line on stderr, once for all processes."""
    if RANK == 0:
        print(f"{script()}: note: {' '.join(printable(message).split())}", file=sys.stderr)


def say(text):
    """Print text on stdout at once. fail() where nobody takes it: a full disk, a closed pipe."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as error:
        # Or Python complains again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"stdout cannot be written ({error.strerror}): send it elsewhere and try again")


def bar(items=None, **options):
    """A progress bar of one process, which shows itself when it takes longer than a second."""
    mininterval = 0.2 if sys.stderr.isatty() else 60
    settings = {"disable": RANK > 0, "delay": 1, "mininterval": mininterval, "miniters": 0}
    return tqdm(items, dynamic_ncols=True, **settings, **options)


def cure(error):
    """What helps against an OSError that is not the file's fault; else None."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise `ulimit -n`"
    if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        return "take a disk whose files can be locked"
    return None
