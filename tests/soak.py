"""Long random runs of all seven scripts on the bundled pair, each made twice: once unbroken, and
once killed and begun again until it is done. Do the files agree, does memory stay level, does
anything fail?

    python tests/soak.py                           # 500 problems; at most half an hour on two cores
    python tests/soak.py --problems 40 --rounds 10   # some minutes

Problems, flags and moments are drawn at random. The unbroken runs of a script are calls of its
main() in one process, so that models are loaded anew and result files begun each time: what an old
run leaves behind would show. The broken ones are forks of it, some of them two processes that share
the problems, from one folder or another. They get a kill -9 or a Ctrl-C. Beside that, two runs are
started together on one file, again and again: one must run, and the other say so.

Writes results/soak.md; a failure ends in exit code 1. Reads memory as Linux with glibc tells it.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import json
import multiprocessing
import os
import platform
import random
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from importlib import import_module, metadata
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCRIPTS = [
    "majority.py",
    "best_of_n.py",
    "beam.py",
    "dvts.py",
    "rebase.py",
    "particle.py",
    "mcts.py",
]
TREES = SCRIPTS[2:]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--problems", type=int, default=500, help="over all scripts (default: 500)")
    add("--rounds", type=int, default=200, help="two runs at a time on one file (default: 200)")
    add("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    begun = time.time()
    each = -(-args.problems // len(SCRIPTS))
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, maxtasksperchild=1) as pool:  # a fresh process for each script
        race = pool.apply_async(two_at_a_time, (args.rounds, args.seed))
        waiting = [pool.apply_async(soak, (script, each, args.seed)) for script in SCRIPTS]
        soaked = dict(zip(SCRIPTS, [one.get() for one in waiting]))
        rounds = race.get()
    (ROOT / "results/soak.md").write_text(report(soaked, rounds, args, time.time() - begun))
    print((ROOT / "results/soak.md").read_text())
    return int(any(one["faults"] for one in soaked.values()) or bool(rounds["faults"]))


# --- runs -----------------------------------------------------------------------------------------


def soak(script, problems, seed):
    """What became of the runs of one script."""
    draw = random.Random(f"{script} {seed}")
    module = import_module(script.removesuffix(".py"))
    tqdm.set_lock(threading.RLock())  # the default one outlives a process that is killed
    lines = (ROOT / "tiny/problems.jsonl").read_text().splitlines(keepends=True)
    known = {"problems": 0, "n": [], "memory": [], "faults": [], "counts": Counter()}
    begun = time.time()
    while known["problems"] < problems:
        count = min(draw.randint(1, 8), problems - known["problems"])
        flags = random_flags(script, draw)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "elsewhere").mkdir()
            (folder / "problems.jsonl").write_text("".join(draw.sample(lines, count)))
            unbroken = [*models(script), "--problems", f"{folder}/problems.jsonl", *flags]
            start = time.time()
            code, shown = call(module, [*unbroken, "--output", f"{folder}/unbroken.jsonl"])
            seconds = time.time() - start
            broken = break_off(module, unbroken, folder, seconds, draw, known["counts"])
            wrong = differences(folder, count)
            if code != 0 or broken is not None or wrong:
                told = f"{code} {shown[-500:] if code else ''} {broken or ''} {wrong}"
                known["faults"].append(f"{script} {shlex.join(flags)}: {told}")
        known["problems"] += count
        known["n"].append(int(flags[1]))
        known["memory"].append(held())
        done = f"{script} {known['problems']}/{problems}, n = {flags[1]}"
        print(
            f"{done}, {known['memory'][-1]:.0f} MiB, {time.time() - begun:.0f} s", file=sys.stderr
        )
    known["minutes"] = (time.time() - begun) / 60
    known["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return known


def models(script):
    prm = ["--prm", f"{ROOT}/tiny/prm"] * (script != "majority.py")
    return ["--policy", f"{ROOT}/tiny/policy", *prm]


def random_flags(script, draw):
    """n between 1 and 64, small ones more often; of the other flags mostly the defaults."""
    flags = ["--n", round(2 ** draw.uniform(0, 6)), "--seed", draw.randrange(1000)]
    flags += ["--temperature", draw.choice([0, 0.8, 0.8, 1.5]), "--top-p", draw.choice([1, 1, 0.9])]
    flags += ["--max-new-tokens", draw.choice([2048, 2048, 1, 40])]
    if draw.random() < 0.5:
        flags += ["--batch-problems", draw.choice([1, 2, 3, 100])]
    if script != "majority.py":
        flags += ["--reduction", draw.choice(["last", "min", "mean", "prod"])]
        flags += ["--keep-tree"] * (draw.random() < 0.3)
    if script in TREES:
        flags += ["--max-steps", draw.choice([40, 40, 1, 3])]
    if script in ("beam.py", "dvts.py"):
        flags += ["--beam-width", draw.choice([4, 4, 1, 3, 100])]
        flags += ["--lookahead", draw.choice([0, 0, 0, 1])]
    if script == "particle.py":
        flags += ["--weight-temperature", draw.choice([1, 1, 0.1, 10])]
        flags += ["--resampling", draw.choice(["systematic", "multinomial"])]
    if script == "mcts.py":
        flags += ["--width", draw.choice([4, 4, 1, 3])]
        flags += ["--exploration", draw.choice([1, 1, 0, 0.1])]
    return list(map(str, flags))


def call(module, command):
    """(exit code, what it printed) of main() in this process."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = module.main(command)
        except SystemExit as stop:
            code = stop.code
        except Exception as error:
            code = repr(error)
    return code, shown.getvalue()


def break_off(module, command, folder, seconds, draw, counts):
    """Make the same run with up to four kills. Returns what went wrong, or None."""
    for kills_left in range(draw.randint(0, 4), -1, -1):
        here = draw.choice([folder, folder / "elsewhere"])
        output = os.path.relpath(folder / "broken.jsonl", here)
        world = draw.choice([1, 1, 2])
        processes = launch(module, [*command, "--output", output], here, world)
        counts["runs of two processes" if world == 2 else "runs of one process"] += 1
        if not kills_left:
            break
        time.sleep(draw.uniform(0, 1.2 * seconds / world + 0.3))
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
        for process in draw.sample(processes, world):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        for process in processes:
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            counts[{0: "done before", -9: "killed", 130: "stopped"}.get(code, "failed")] += 1
            if code not in (0, -9, 130):
                return f"exit code {code} after signal {number}: {said(here)}"
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    return f"exit codes {codes}: {said(here)}" if any(codes) else None


def launch(module, command, folder, world=1):
    """Process ids of forks that run main()."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        process = os.fork()
        if process:
            processes.append(process)
            continue
        code = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            log = os.open(f"said{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = open(1, "w", closefd=False)
            sys.stderr = open(2, "w", closefd=False, buffering=1)
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            from harness import cli, results, solve, table, terminal  # as begun with this RANK

            for room in (cli, results, solve, table, terminal, sys.modules["harness.models"]):
                vars(room).update({"RANK": rank, "WORLD": world})
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
            code = module.main(command)
            sys.stdout.flush()
        except SystemExit as stop:
            code = stop.code
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return processes


def said(folder):
    return " ".join(path.read_text()[-300:] for path in sorted(folder.glob("said*.log")))


def rows_of(path):
    """Header and rows of a result file, without times."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.get("usage", {}).pop("seconds", None)
    return lines


def differences(folder, count):
    """What is not as it should be, in words; '' if all is."""
    try:
        unbroken, broken = rows_of(folder / "unbroken.jsonl"), rows_of(folder / "broken.jsonl")
    except (OSError, ValueError) as error:
        return repr(error)
    found = []
    if len(unbroken) != count + 1:
        found.append(f"{len(unbroken) - 1} of {count} rows")
    found += [f"{one['id']}: {one['error']}" for one in unbroken[1:] if "error" in one]
    if unbroken != broken:
        same = [a == b for a, b in zip(unbroken, broken)]
        found.append(f"the files differ: lines {len(unbroken)}, {len(broken)}, equal {same}")
    known = {"problems.jsonl", "unbroken.jsonl", "broken.jsonl", "elsewhere", "a", "b"}
    left = {path.name for path in folder.iterdir()} - known
    left = sorted(name for name in left if not name.startswith("said"))
    if left:
        found.append(f"left over: {left}")
    return "; ".join(found)


def held():
    """MiB in memory when the allocator has given back what nobody uses: a leak shows here."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- two runs on one file -------------------------------------------------------------------------


def two_at_a_time(rounds, seed):
    """Of two runs started together one must run, and the other say so and exit with 2."""
    draw = random.Random(seed)
    module = import_module("majority")
    tqdm.set_lock(threading.RLock())
    known = {"outcomes": Counter(), "faults": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        lines = (ROOT / "tiny/problems.jsonl").read_text().splitlines(keepends=True)
        (folder / "problems.jsonl").write_text("".join(lines[:6]))
        command = [*models("majority.py"), "--problems", f"{folder}/problems.jsonl", "--n", "4"]
        command += ["--batch-problems", "1", "--output", f"{folder}/broken.jsonl"]
        call(module, [*command[:-1], f"{folder}/unbroken.jsonl"])
        whole = (folder / "unbroken.jsonl").read_bytes()
        for number in range(1, rounds + 1):
            output = folder / "broken.jsonl"
            extra = []
            if draw.random() < 0.5:  # a file that was begun
                output.write_bytes(whole[: draw.randrange(len(whole))])
                extra = draw.choice([[], ["--overwrite"]])
            processes = []
            for side in ("a", "b"):
                (folder / side).mkdir(exist_ok=True)
                processes += launch(module, [*command, *extra], folder / side)
            codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in processes]
            told = [said(folder / side) for side in ("a", "b")]
            refused = [
                code == 2 and "being written by another run" in text
                for code, text in zip(codes, told)
            ]
            wrong = differences(folder, 6)
            if sorted(codes) == [0, 2] and any(refused):
                known["outcomes"]["one ran, the other said so"] += 1
            elif codes == [0, 0] and any("all was solved" in text for text in told):
                known["outcomes"]["one came when the other was done"] += 1
            else:
                wrong += f" exit codes {codes}: {told}"
            if wrong:
                known["faults"].append(f"round {number}, {extra}: {wrong}")
            output.unlink(missing_ok=True)
            if number % 20 == 0:
                print(f"two at a time: {number}/{rounds}", file=sys.stderr)
    return known


# --- the page -------------------------------------------------------------------------------------


def report(soaked, rounds, args, seconds):
    """The Markdown page."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    seed = f" --seed {args.seed}" * (args.seed != 0)
    command = f"python tests/soak.py --problems {args.problems} --rounds {args.rounds}{seed}"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    lines = [
        "# Long random runs",
        "",
        f"`{command}` at commit {commit}",
        f"(Python {platform.python_version()}, {versions}, {os.cpu_count()} CPU cores, {seconds / 60:.0f} minutes).",
        "",
        "Each run has 1 to 8 random problems, n between 1 and 64 and other flags drawn at random. It is made twice: unbroken,",
        "and broken off up to four times by kill -9 or Ctrl-C and begun again, by one process or by two, from one folder or",
        "another. Wrong is a run of which the two files differ in anything but seconds, which fails, or leaves other files.",
        "MiB are what the process of the unbroken runs holds after the first and after the last, and at its peak.",
        "",
        "| script | problems | runs | mean n | begun again | killed | Ctrl-C | wrong | minutes | held, first | held, last | peak |",
        "|---|" + "---:|" * 11,
    ]
    for script, one in soaked.items():
        counts = one["counts"]
        again = counts["runs of one process"] + counts["runs of two processes"] - len(one["n"])
        cells = [
            script,
            one["problems"],
            len(one["n"]),
            f"{sum(one['n']) / len(one['n']):.1f}",
            again,
        ]
        cells += [counts["killed"], counts["stopped"], len(one["faults"]), f"{one['minutes']:.1f}"]
        cells += [f"{one['memory'][0]:.0f}", f"{one['memory'][-1]:.0f}", f"{one['peak']:.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    outcomes = ", ".join(f"{count} times {what}" for what, count in rounds["outcomes"].items())
    lines += [
        "",
        f"Two runs started together on one file, {args.rounds} rounds: {outcomes or 'none'}.",
    ]
    faults = [fault for one in soaked.values() for fault in one["faults"]] + rounds["faults"]
    lines += ["", "Failures:", ""] * bool(faults)
    lines += [f"- `{' '.join(fault.split())}`" for fault in faults]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
