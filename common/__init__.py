"""What a search needs besides itself. Importing it looks whether this transformers will do."""

import sys
import warnings
from importlib import metadata
from pathlib import Path

OLDEST = (5, 5)  # before, a cache has other kinds of layers, or generate() wants the whole text
TOO_NEW = (5, 25)  # not tried


def check_transformers(found, main_file):
    """Refuse a version of transformers that will not do: SystemExit(2) in a script of this project,
    ImportError elsewhere. One line says what to install."""
    if OLDEST <= tuple(map(int, found.split(".")[:2])) < TOO_NEW:
        return
    line = f"transformers {found} will not do: pip install 'transformers>=5.5,<5.25'"
    if Path(__file__).resolve().parent.parent not in Path(main_file).resolve().parents:
        raise ImportError(line)
    print(f"{Path(main_file).name}: error: {line}", file=sys.stderr)
    raise SystemExit(2)


# From 5.24 on past_key_values is also called cache. The old name does in all that we allow.
warnings.filterwarnings("ignore", message="`past_key_values` is deprecated", category=FutureWarning)

try:
    found = metadata.version("transformers")
except metadata.PackageNotFoundError:
    pass  # grading answers needs none
else:
    check_transformers(found, getattr(sys.modules["__main__"], "__file__", None) or "/")
