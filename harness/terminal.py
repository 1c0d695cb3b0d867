"""What reaches the terminal. A fault is one line and exit code 2."""

import os
import sys

RANK = int(os.environ.get("RANK", 0))  # set by accelerate and torchrun
WORLD = int(os.environ.get("WORLD_SIZE", 1))


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


def note(message):
    """One line on stderr, once for all processes."""
    if RANK == 0:
        print(f"{script()}: note: {' '.join(printable(message).split())}", file=sys.stderr)


def say(text):
    """Print text on stdout at once. fail() where nobody takes it: a full disk, a closed pipe."""
    try:
        print(printable(text), flush=True)
    except OSError as error:
        # Or Python complains again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"stdout cannot be written ({error.strerror}): send it elsewhere and try again")
