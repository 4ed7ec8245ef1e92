"""Count the modules of `ldm` that a module needs: `python -m tests.count_modules ldm.insertion.session`.

Imports are read from the source; nothing is run. An import at the top of a module always counts, one inside
a function counts if that function is used: imported by name, or called by a used function of its module.
What only type checkers see is left out, and so are `__init__.py` files, which hold a docstring. `--list`
names the modules. `--lines` counts all of `ldm` but the studio: modules, lines, and lines of code, which are
those without blank ones, comments and docstrings.
"""

from __future__ import annotations

import argparse
import ast
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
SPACE = {"COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER", "ENCODING"}  # kinds of tokens
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


def code_lines(file: Path) -> int:
    """The lines of a file without blank ones, comments and docstrings."""
    with file.open("rb") as source:
        tokens = [x for x in tokenize.tokenize(source.readline) if tokenize.tok_name[x.type] not in SPACE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, (ast.Module, *DEFINITIONS)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def size() -> tuple[int, int, int]:
    """Modules, lines and lines of code of `ldm` without the studio."""
    files = [file for file in (ROOT / "ldm").rglob("*.py") if "studio" not in file.parts]
    modules = [file for file in files if file.name != "__init__.py"]
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in files)
    return len(modules), lines, sum(map(code_lines, files))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="like ldm.insertion.session")
    parser.add_argument("--list", action="store_true", help="name the modules, too")
    parser.add_argument("--lines", action="store_true", help="count the modules and lines of ldm, too")
    args = parser.parse_args()
    for module in args.modules:
        found = reached(module)
        print(f"{module}: {len(found)}")
        if args.list:
            print(*sorted(found), sep="\n")
    if args.lines:
        print("ldm without studio: {} modules, {} lines, {} of them code".format(*size()))
