"""Count the modules of `ldm` that a module reaches by import: `python -m tests.count_modules
ldm.insertion.session`.

Imports are read from the source, those inside functions too, and nothing is run. What only type checkers see
is left out, and so are `__init__.py` files, which hold a docstring. `--list` names the modules.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def file_of(name: str) -> Path | None:
    """ldm.data.image => ldm/data/image.py; None: not a module of this project."""
    file = ROOT / f"{name.replace('.', '/')}.py"
    return file if file.is_file() else None


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is imported below a node when its code runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or ""
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from imports(other)
        else:
            yield from imports(child)


def reached(module: str) -> set[str]:
    """The modules of `ldm` that `module`, like scripts.inference, imports, and those that they import."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = file_of(name)
        if name in seen or file is None:
            continue
        seen.add(name)
        waiting += imports(ast.parse(file.read_text("utf-8")))
    return {name for name in seen if name.startswith("ldm.")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="like ldm.insertion.session")
    parser.add_argument("--list", action="store_true", help="name the modules, too")
    args = parser.parse_args()
    for module in args.modules:
        found = reached(module)
        print(f"{module}: {len(found)}")
        if args.list:
            print(*sorted(found), sep="\n")
