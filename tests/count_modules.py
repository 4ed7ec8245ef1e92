"""Count the modules of `ldm` that a module needs: `python -m tests.count_modules ldm.insertion.session`.

Imports are read from the source; nothing is run. An import at the top of a module always counts, one inside
a function counts if that function is used: imported by name, or called by a used function of its module.
What only type checkers see is left out, and so are `__init__.py` files, which hold a docstring. `--list`
names the modules.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
Use = tuple[str, str]  # a module and a name in it; "": what runs when it is imported


def file_of(module: str) -> Path:
    """ldm.data.image => ldm/data/image.py, which may not exist."""
    return ROOT / f"{module.replace('.', '/')}.py"


@cache
def parts(module: str) -> dict[str, list[ast.stmt]]:
    """Name of each function and class of a module => its statement; "" => all other statements."""
    out: dict[str, list[ast.stmt]] = {"": []}
    for node in ast.parse(file_of(module).read_text("utf-8")).body:
        out.setdefault(node.name if isinstance(node, DEFINITIONS) else "", []).append(node)
    return out


def nodes(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes below, but for what only type checkers see."""
    for node in statements:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from nodes(node.orelse)
        else:
            yield node
            yield from nodes(ast.iter_child_nodes(node))


def uses(module: str, name: str) -> Iterator[Use]:
    """What a part of a module uses: parts of its own module, and names that it imports."""
    known = parts(module)
    for node in nodes(known.get(name, [])):
        if isinstance(node, ast.Name) and node.id in known:
            yield module, node.id
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module or "", ""
                yield node.module or "", alias.name
                yield f"{node.module}.{alias.name}", ""


def reached(module: str) -> set[str]:
    """The modules of `ldm` that are imported when `module`, like scripts.inference, does all it can do."""
    seen: set[Use] = set()
    waiting = [(module, name) for name in parts(module)]
    while waiting:
        use = waiting.pop()
        if use not in seen and file_of(use[0]).is_file():
            seen.add(use)
            waiting += uses(*use)
    return {name for name, _ in seen if name.startswith("ldm.")}


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
