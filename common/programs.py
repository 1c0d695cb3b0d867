"""Unit tests as the verifier: is a program right? It is run, and the tests say so.

A program is what stands in a completion's last Python block that defines something.
passes(program, tests) runs both in a process of its own. The program counts as right if the tests
raise nothing.

**This is no jail.** It keeps honest mistakes from doing harm: endless loops, memory without end,
output without end, forgotten children. On Linux (x86-64 and ARM) a program may start no process
and no thread, kill nobody, and open no socket. But it can read and write what its user can, and a
program that is written to deceive these very lines can do so. Run what a model wrote in a
container, or on a machine that holds nothing of value.

The tests decide in the same interpreter in which the program ran. So they have their own names and
their own builtins, and what modules define is put back as it was: a program that replaces len() or
the tests' helpers changes nothing for them. The verdict is a random word that the process sends
back at the end. os._exit(0), or printing "passed", sends nothing.

Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374), section
2.3; Brown et al. 2024, "Large Language Monkeys" (arXiv 2407.21787).
"""

import ast
import builtins
import ctypes
import errno
import gc
import importlib
import json
import os
import platform
import re
import resource
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import ModuleType

CPU_SECONDS = 5
WALL_SECONDS = 60  # a loaded machine is slow; the limit that counts is the one above
MEMORY = 1 << 30  # bytes of address space
FILE = 1 << 20  # bytes of one file

# System calls that a program is refused, by machine, from the kernel's tables: what makes processes
# and threads (clone, fork, vfork, clone3), what signals or steers others (kill, tkill, tgkill,
# rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, prlimit64, ptrace, process_vm_writev), and
# what opens sockets (socket, io_uring_setup).
REFUSED = {
    "x86_64": (
        0xC000003E,
        [56, 57, 58, 435, 62, 200, 234, 129, 297, 424, 302, 101, 311, 41, 425],
    ),
    "aarch64": (0xC00000B7, [220, 435, 129, 130, 131, 138, 240, 424, 261, 117, 271, 198, 425]),
}

BLOCK = re.compile(
    r"^([ \t]*)```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE
)
DEFINITION = re.compile(r"^[ \t]*(async def|def|class)\b", re.MULTILINE)


def extract_program(text):
    """The last Python block of a completion that defines a function or a class; else the last one.

    So a call that shows how to use it is not taken for the program. Blocks that name no language
    will do where none names Python. A block that was cut off, without its closing fence, is one
    too: its tests will tell. Small models often answer with bare code: a completion without any
    block is taken whole. None if there are blocks of other languages only, or nothing at all.
    """
    blocks = BLOCK.findall(text)
    for wanted in (("python", "py", "python3"), ("",)):
        found = [(indent, code) for indent, name, code in blocks if name.lower() in wanted]
        if found:
            defining = [block for block in found if DEFINITION.search(block[1])]
            indent, code = (defining or found)[-1]
            return re.sub(f"^{indent}", "", code, flags=re.MULTILINE)  # of a block in a list
    return None if blocks or not text.strip() else text


def assert_nothing(tests):
    """Do they test nothing? HumanEval's `test` is of this kind, without a line `check(name)` behind
    it, and so is what only compares, or what only a main module runs. Raises SyntaxError if they
    are no Python."""
    statements = ast.parse(tests).body
    idle = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    for statement in statements:
        value = statement.value if isinstance(statement, ast.Expr) else None
        said = isinstance(value, ast.Constant | ast.Compare)  # "text"; f() == 2 without assert
        guarded = isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
        if not (said or guarded or isinstance(statement, idle | ast.Pass)):
            return False
    return True


def passes(
    program,
    tests,
    setup="",
    entry_point=None,
    *,
    cpu_seconds=CPU_SECONDS,
    wall_seconds=WALL_SECONDS,
    memory=MEMORY,
):
    """True if `tests`, run after `program`, raise nothing.

    setup: Python that both need, such as imports and helpers. Each gets its own copy.
    entry_point: the one name that the tests take from the program. None: all that it defines, but
    for names of builtins and of setup. Raises SyntaxError if the tests are no Python, ValueError
    if they are a list, or assert nothing: any program would pass.
    """
    if not isinstance(tests, str):
        raise ValueError(f'the tests are {tests!r:.60}: give one text, "\\n".join(tests)')
    if assert_nothing(tests):
        raise ValueError("the tests assert nothing: they must call what the program defines")
    word = secrets.token_hex(16)
    job = {
        "program": program,
        "tests": tests,
        "setup": setup,
        "entry_point": entry_point,
        "word": word,
        "cpu_seconds": cpu_seconds,
        "memory": memory,
    }
    folder = tempfile.mkdtemp()
    verdict, answer = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-s", "-P", os.path.abspath(__file__), str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            # Libraries of linear algebra would start threads, which are refused.
            env={
                "HOME": folder,
                "PYTHONHASHSEED": "0",
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
            pass_fds=[answer],
            start_new_session=True,
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                child.communicate(json.dumps(job).encode(), timeout=wall_seconds)
        finally:
            kill_session(child)
        os.set_blocking(verdict, False)  # should a stray child hold the other end
        with suppress(BlockingIOError):
            return os.read(verdict, len(word) + 1) == word.encode()
        return False
    finally:
        os.close(verdict)
        os.close(answer)
        # shutil.rmtree() gives up on folders that are nested a thousand deep.
        subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL)


def kill_session(child):
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def uncontained():
    """What programs can do here that they should not, as words for a warning; [] is best.

    Raises RuntimeError if not even a right program passes.
    """
    if not passes("import collections, math, re\ndef two():\n    return 2", "assert two() == 2"):
        raise RuntimeError("a process for a program cannot be started here, or cannot load Python")
    probes = {
        "start processes": "import os\nif os.fork() == 0:\n    os._exit(0)",
        "open sockets": "import socket\nsocket.socket()",
    }
    return [what for what, probe in probes.items() if passes(probe, "assert True")]


# --- in the process of the program ----------------------------------------------------------------


def child(answer):
    """Read a job from stdin, run it, and write its word to the file descriptor `answer`."""
    job = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    give_up_rights(job["cpu_seconds"], job["memory"])
    write, leave = os.write, os._exit  # before the program can replace them
    word = job["word"].encode()
    try:
        run(job)
    except BaseException:  # of any kind: SystemExit and KeyboardInterrupt are no pass either
        leave(1)
    write(answer, word)
    leave(0)


def give_up_rights(cpu_seconds, memory):
    """From here on: limits, and the system calls in REFUSED fail."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: FILE,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for name, limit in limits.items():
        with suppress(OSError, ValueError):  # macOS knows no limit on address space
            resource.setrlimit(name, (limit, limit))
    if sys.platform == "linux" and platform.machine() in REFUSED:
        refuse_calls(*REFUSED[platform.machine()])


def refuse_calls(architecture, calls):
    """Install a seccomp filter (a BPF program, linux/seccomp.h): `calls` fail with EPERM.

    Where the kernel has none nothing happens, and uncontained() tells.
    """

    def instruction(code, value, if_true=0, if_false=0):
        return struct.pack("HBBI", code, if_true, if_false, value)

    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    program = [
        instruction(load, 4),  # the architecture of the call
        instruction(equal, architecture, if_true=1),
        instruction(answer, refuse),
        instruction(load, 0),  # the number of the call
        instruction(at_least, 0x40000000, if_false=1),  # x86-64 numbers them twice
        instruction(answer, refuse),
    ]
    for call in calls:
        program.append(instruction(equal, call, if_false=1))
        program.append(instruction(answer, refuse))
    program.append(instruction(answer, allow))
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    die_with_parent, no_new_privileges, set_seccomp, filter_mode = 1, 38, 22, 2  # linux/prctl.h
    libc = ctypes.CDLL(None)
    libc.prctl(die_with_parent, signal.SIGKILL, 0, 0, 0)
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    libc.prctl(set_seccomp, filter_mode, header, 0, 0)


def run(job):
    """Raises whatever the program or the tests raise."""
    their_builtins = vars(builtins)
    own_builtins = dict(their_builtins)
    setup = compile(job["setup"], "<setup>", "exec")
    tests = compile(job["tests"], "<tests>", "exec")
    load_imports(job["setup"] + "\n" + job["tests"])
    modules = {}
    for name, module in sys.modules.items():
        if isinstance(module, ModuleType):
            modules[name] = module, dict(vars(module))

    program = ModuleType("program")
    sys.modules["program"] = program  # dataclasses and pickle look it up
    theirs = vars(program)
    exec(setup, theirs)
    exec(compile(job["program"], "<program>", "exec"), theirs)

    their_builtins.update(own_builtins)  # first of all: what follows uses them
    sys.settrace(None)
    sys.setprofile(None)
    gc.callbacks.clear()
    for name, (module, content) in modules.items():
        sys.modules[name] = module
        now = vars(module)
        now.update(content)
        for added in now.keys() - content.keys():
            if not isinstance(now[added], ModuleType):  # it may have imported a part of a package
                del now[added]

    ours = {"__name__": "tests", "__builtins__": own_builtins}
    exec(setup, ours)
    if job["entry_point"] is not None:
        ours[job["entry_point"]] = theirs[job["entry_point"]]
    else:
        for name, value in theirs.items():
            if name not in own_builtins and name not in ours:
                ours[name] = value
    exec(tests, ours)


def load_imports(source):
    """Import what the tests will, so that the program cannot change it for them."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            with suppress(ImportError):  # the tests themselves will say so
                importlib.import_module(name)


if __name__ == "__main__":
    child(int(sys.argv[1]))
