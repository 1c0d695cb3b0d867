"""Which transformers will do: told at import, and told the same everywhere."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import common


def python(tmp_path, found, *command):
    """Run Python where this version of transformers is said to be installed."""
    folder = tmp_path / f"transformers-{found}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: transformers\nVersion: {found}\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)


def test_a_script_with_an_older_one_ends_in_one_line(tmp_path):
    run = python(tmp_path, "4.57.6", ROOT / "majority.py", "--n", "1")
    line = "transformers 4.57.6 will not do: pip install 'transformers>=5.5,<5.25'"
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"majority.py: error: {line}\n"


def test_a_library_with_an_older_one_raises(tmp_path):
    run = python(tmp_path, "5.4.0", "-c", "import common.grading")
    line = "transformers 5.4.0 will not do: pip install 'transformers>=5.5,<5.25'"
    assert run.returncode == 1 and run.stderr.endswith(f"\nImportError: {line}\n"), run.stderr


@pytest.mark.parametrize("found", ["5.5.0", "5.5.0.dev0", "5.10.4", "5.23.0", "5.23.1", "5.24.0"])
def test_those_in_the_range_will_do(found):
    common.check_transformers(found, ROOT / "dvts.py")


@pytest.mark.parametrize("found", ["4.57.6", "5.0.0rc1", "5.4.0", "5.25.0", "6.0.0"])
def test_those_outside_will_not(found):
    with pytest.raises(ImportError, match=re.escape(found)):
        common.check_transformers(found, "/elsewhere/mine.py")


def test_the_range_is_the_same_everywhere():
    oldest, too_new = (".".join(map(str, one)) for one in (common.OLDEST, common.TOO_NEW))
    assert f"\ntransformers>={oldest},<{too_new} " in (ROOT / "requirements.txt").read_text()
    [major, minor] = common.TOO_NEW
    for page in ("README.md", "docs/running.md"):
        words = f"any transformers from {oldest} to {major}.{minor - 1}"
        assert words in (ROOT / page).read_text().lower(), page
