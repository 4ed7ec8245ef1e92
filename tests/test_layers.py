"""Imports go one way, the core knows nothing beside it: read from the source, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LDM = ROOT / "ldm"
FILES = sorted(LDM.rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
# Packages that import only those before theirs; those of one level do not import each other.
CORE = (("data",), ("models",), ("objects",), ("insertion", "training"))
BESIDE = (
    ("features",),
    ("compositing", "speed", "tiling", "batch", "merge"),
    ("scenes", "prepare"),
    ("evaluation", "pretrain"),
    ("validation",),
)
TOP = (("config",), ("api", "studio"))
LEVELS = {package: i for i, level in enumerate([*CORE, *BESIDE, *TOP]) for package in level}
OUTSIDE = {"benchmarks", "scripts", "tests"}  # never imported by ldm
BORROWED = {"diffusers", "transformers"}
AT_MOST = 9  # files that import them
IMPORTS = (ast.Import, ast.ImportFrom)


def name_of(file: Path) -> str:
    """ldm/data/image.py => data.image, ldm/data/__init__.py => data."""
    return ".".join(file.relative_to(LDM).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported, inside functions too; `from a import b` counts as a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(importer: str, imported: str) -> bool:
    """Whether the module ldm.<importer> may import <imported>."""
    if imported.split(".")[0] in OUTSIDE:
        return False
    if not imported.startswith("ldm."):
        return True
    here, there = importer.split(".")[0], imported.split(".")[1]
    return there in (here, "__version__") or LEVELS[there] < LEVELS[here]


def violations(name: str, source: str) -> list[str]:
    """What a module of this name imports and may not."""
    return [imported for imported in imports(ast.parse(source)) if not allowed(name, imported)]


def packages(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.split(".")[0] for name in imports(ast.parse(file.read_text()))}


def prints(file: Path) -> bool:
    """Whether a file prints, or writes to the terminal."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return "print" in names or bool(attributes & {"stdout", "stderr"})


def test_every_package_has_its_level() -> None:
    there = {path.name for path in LDM.iterdir() if (path / "__init__.py").is_file()}
    assert there == set(LEVELS) - {"api"}  # a module
    assert BENCHMARKS


@pytest.mark.parametrize("file", [file for file in FILES if file != LDM / "__init__.py"], ids=name_of)
def test_imports_go_one_way(file: Path) -> None:
    assert violations(name_of(file), file.read_text()) == []


@pytest.mark.parametrize("level", CORE)
def test_the_core_is_below_everything_beside_it(level: tuple[str, ...]) -> None:
    beside = [package for group in BESIDE for package in group]
    for package in level:
        assert not any(allowed(f"{package}.x", f"ldm.{other}.y") for other in [*beside, "config"])


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_benchmarks_stand_on_what_they_measure(file: Path) -> None:
    """They import neither scripts nor tests, nor models other than through ldm."""
    assert not packages(file) & {"scripts", "tests", *BORROWED}


@pytest.mark.parametrize(
    "name, source, bad",
    [
        ("data.pairs", "from ldm.models.base import Base", True),
        ("models.base", "import ldm.objects.delta", True),
        ("models.base", "def f():\n    from ldm.objects import delta", True),
        ("objects.compress", "from ldm.merge.merged_file import load_merged", True),
        ("training.finetune", "from ldm.insertion.roi import Roi", True),
        ("training.finetune", "from ldm.validation.callback import Validation", True),
        ("insertion.insert", "from ldm.training.finetune import FineTune", True),
        ("insertion.insert", "from ldm.config.schema import Config", True),
        ("insertion.insert", "from ldm import evaluation", True),
        ("insertion.insert", "from ldm.compositing.composite import composite_over", True),
        ("insertion.insert", "from ldm.models.base import Base\nfrom ldm.insertion.roi import Roi", False),
        ("insertion.insert", "from ldm import __version__", False),
        ("insertion.insert", "from benchmarks.measure import measure", True),
        ("evaluation.run", "def f():\n    import benchmarks", True),
        ("evaluation.run", "from scripts.train import main", True),
        ("compositing.composite_fill", "from ldm.insertion.region import RegionFill", False),
        ("compositing.composite_fill", "from ldm.merge.merge import merge", True),
        ("batch.runner", "from ldm.scenes.runner import run_placements", True),
        ("scenes.runner", "from ldm.batch.work_item import WorkItem", False),
        ("speed.deep_cache", "from ldm.config.schema import Config", True),
        ("validation.validator", "from ldm.evaluation.metrics import psnr", False),
        ("evaluation.report", "from ldm.validation.score import ValidationScore", True),
        ("evaluation.bench", "from ldm.insertion.roi import Roi\nimport torch", False),
        ("config.build", "from ldm.evaluation.bench import Bench", False),
    ],
)
def test_a_planted_import_is_seen(name: str, source: str, bad: bool) -> None:
    assert bool(violations(name, source)) == bad


def test_few_files_know_the_borrowed_models() -> None:
    known = {name_of(file) for file in FILES if packages(file) & BORROWED}
    assert {name.split(".")[0] for name in known} <= {"models", "training", "features", "pretrain"}
    assert 0 < len(known) <= AT_MOST, known


def test_few_packages_know_lightning() -> None:
    known = {name_of(file).split(".")[0] for file in FILES if "pytorch_lightning" in packages(file)}
    assert known <= {"training", "validation", "pretrain"} and "training" in known


def test_torchvision_is_never_imported_at_the_top() -> None:
    """Next to a CPU-only torch it breaks `import transformers`; an extra may import it in a function."""
    for file in FILES:
        at_top = [node for node in ast.parse(file.read_text()).body if isinstance(node, IMPORTS)]
        assert not any(name.startswith("torchvision") for node in at_top for name in imports(node)), file


def test_ldm_never_prints() -> None:
    """Scripts do, and the module that reports failures for them."""
    assert {name_of(file) for file in FILES if prints(file)} == {"config.process"}
