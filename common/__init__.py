"""What a search needs besides itself. Importing it looks whether this transformers will do."""

import sys
from importlib import metadata
from pathlib import Path

OLDEST = (5, 5)  # before, a cache has other kinds of layers, or generate() wants the whole text
TOO_NEW = (5, 24)  # hands a decoding loop its cache under another name


def check_transformers(found, main_file):
    """Refuse a version of transformers that will not do: SystemExit(2) in a script of this project,
    ImportError elsewhere. One line says what to install."""
    if OLDEST <= tuple(map(int, found.split(".")[:2])) < TOO_NEW:
        return
    line = f"transformers {found} will not do: pip install 'transformers>=5.5,<5.24'"
    if Path(__file__).resolve().parent.parent not in Path(main_file).resolve().parents:
        raise ImportError(line)
    print(f"{Path(main_file).name}: error: {line}", file=sys.stderr)
    raise SystemExit(2)


try:
    found = metadata.version("transformers")
except metadata.PackageNotFoundError:
    pass  # grading answers needs none
else:
    check_transformers(found, getattr(sys.modules["__main__"], "__file__", None) or "/")
