"""Long random runs of all five scripts on the bundled pair: does memory stay level, and does anything fail?

    python tests/soak.py                  # 500 problems for each script; give it an hour or two
    python tests/soak.py --problems 20    # a few minutes

Each script has a process of its own, one after the other. There its main() is called again and again, on problems and
with flags drawn at random, so that models are loaded anew and result files begun each time, which would show what an old
run leaves behind. Writes results/soak.md; a failure ends in exit code 1. Reads memory as Linux with glibc tells it.
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
import subprocess
import sys
import tempfile
import time
from importlib import import_module, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SCRIPTS = ["majority.py", "best_of_n.py", "beam.py", "dvts.py", "rebase.py"]
TREES = SCRIPTS[2:]
POINTS = (0.1, 0.25, 0.5, 0.75, 1)  # of the problems, where memory is shown


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=500, help="for each script (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:  # a fresh process for each script
        soaked = {
            script: pool.apply(soak, (script, args.problems, args.seed)) for script in SCRIPTS
        }
    (ROOT / "results/soak.md").write_text(report(soaked, args))
    print((ROOT / "results/soak.md").read_text())
    return int(any(faults for _, _, faults in soaked.values()))


def soak(script, problems, seed):
    """Runs of one script: [(problems so far, n, MiB resident, seconds so far)], (MiB held after the first run, after the last,
    MiB resident at the peak), and what failed, as text."""
    draw, samples, first, faults, done, begun = (
        random.Random(f"{script} {seed}"),
        [],
        None,
        [],
        0,
        time.time(),
    )
    module = import_module(script.removesuffix(".py"))
    lines = (ROOT / "tiny/problems.jsonl").read_text().splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as folder:
        while done < problems:
            count = min(draw.randint(1, 8), problems - done)
            Path(folder, "problems.jsonl").write_text("".join(draw.sample(lines, count)))
            flags, output = random_flags(script, draw), Path(folder, f"{done}.jsonl")
            command = [
                *models(script),
                "--problems",
                f"{folder}/problems.jsonl",
                "--output",
                str(output),
                *map(str, flags),
            ]
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                try:
                    code = module.main(command)
                except (Exception, SystemExit) as error:
                    code = repr(error)
            rows = (
                [json.loads(line) for line in output.read_text().splitlines()[1:]]
                if output.exists()
                else []
            )
            wrong = [row["error"] for row in rows if "error" in row] + [
                f"{len(rows)} of {count} rows"
            ] * (len(rows) != count)
            if code != 0 or wrong:
                faults.append(
                    f"{script} {' '.join(map(str, flags))}: {code} {'; '.join(wrong)} {shown.getvalue()[-500:] if code else ''}"
                )
            done += count
            samples.append((done, flags[1], resident(), time.time() - begun))
            first = first or held()
            print(
                f"{script} {done}/{problems}, n = {flags[1]}, {samples[-1][2]:.0f} MiB, {samples[-1][3]:.0f} s",
                file=sys.stderr,
            )
    return (
        samples,
        (first, held(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
        faults,
    )


def models(script):
    return ["--policy", f"{ROOT}/tiny/policy"] + ["--prm", f"{ROOT}/tiny/prm"] * (
        script != "majority.py"
    )


def random_flags(script, draw):
    """n between 1 and 64, small ones more often; of the other flags mostly the defaults."""
    flags = [
        "--n",
        round(2 ** draw.uniform(0, 6)),
        "--seed",
        draw.randrange(1000),
        "--temperature",
        draw.choice([0, 0.8, 0.8, 1.5]),
    ]
    flags += [
        "--max-new-tokens",
        draw.choice([2048, 2048, 1, 40]),
        "--top-p",
        draw.choice([1, 1, 0.9]),
    ]
    if script != "majority.py":
        flags += ["--reduction", draw.choice(["last", "min", "prod"])]
    if script in TREES:
        flags += ["--max-steps", draw.choice([40, 40, 1, 3])]
    if script in ("beam.py", "dvts.py"):
        flags += ["--beam-width", draw.choice([4, 4, 1, 3, 100])]
    return flags


def resident():
    """MiB of this process in memory now, which is also what the allocator keeps for later."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def held():
    """MiB in memory when the allocator has given back what nobody uses: a leak shows here."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


def report(soaked, args):
    """The Markdown page."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = [
        "# Long random runs",
        "",
        f"`python tests/soak.py --problems {args.problems}{f' --seed {args.seed}' * (args.seed != 0)}` at commit {commit.stdout.strip()}",
        f"(Python {platform.python_version()}, torch {metadata.version('torch')}, transformers {metadata.version('transformers')}, {os.cpu_count()} CPU cores).",
        "Each script in a process of its own, its main() called on 1 to 8 random problems at a time, with n between 1 and 64",
        "and other flags drawn at random, until all problems are done. MiB resident when a share of them was done; and held, that",
        "is, without what was freed but kept by the allocator, after the first run and after the last.",
        "",
        "| script | problems | runs | mean n | failed | minutes | "
        + " | ".join(f"{point:.0%}" for point in POINTS)
        + " | peak | held, first | held, last |",
        "|---|" + "---:|" * (8 + len(POINTS)),
    ]
    for script, (samples, (first, last, peak), faults) in soaked.items():
        done, n, memory, seconds = zip(*samples)
        at = [
            next(mib for when, mib in zip(done, memory) if when >= point * done[-1])
            for point in POINTS
        ]
        lines.append(
            f"| {script} | {done[-1]} | {len(samples)} | {sum(n) / len(n):.1f} | {len(faults)} | {seconds[-1] / 60:.1f} | "
            + " | ".join(f"{mib:.0f}" for mib in at)
            + f" | {peak:.0f} | {first:.0f} | {last:.0f} |"
        )
    lines += ["", "Failures:", ""] * any(faults for _, _, faults in soaked.values())
    lines += [
        f"- `{' '.join(fault.split())}`" for _, _, faults in soaked.values() for fault in faults
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
