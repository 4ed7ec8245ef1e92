"""The one-way flow of imports, and who may know what: read from the source, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LDM = Path(__file__).parents[1] / "ldm"
FILES = sorted(LDM.rglob("*.py"))
BENCHMARKS = sorted((LDM.parent / "benchmarks").rglob("*.py"))
STUDIES = ("learning_rates",)  # benchmarks that are scripts: they read settings and print
CORE = {"data": 0, "models": 1, "objects": 2, "training": 3, "insertion": 3}
BESIDE = {  # the core imports none of them
    **{"compositing": 4, "features": 4, "merge": 4, "speed": 4, "tiling": 4},
    **{"batch": 5, "scenes": 6, "validation": 6, "pretrain": 6, "evaluation": 7},
}
LAYERS = CORE | BESIDE | {"config": 8, "api": 9, "__init__": 10}
# imports that point upwards until a function moves to the package that it belongs to
TOLERATED = {("objects.info", "merge"), ("batch.replay", "scenes"), ("validation.validator", "evaluation")}
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


def upward(importer: str, imported: str) -> bool:
    """Whether ldm.<importer> may not import ldm.<imported>."""
    here, there = importer.split(".")[0], imported.split(".")[0]
    if there == here or not there or there == "__version__":
        return False
    return LAYERS[there] >= LAYERS[here]


def violations(name: str, source: str) -> list[str]:
    inside = [
        i.removeprefix("ldm").removeprefix(".")
        for i in imports(ast.parse(source))
        if i == "ldm" or i.startswith("ldm.")
    ]
    return [i for i in inside if upward(name, i) and (name, i.split(".")[0]) not in TOLERATED]


def packages(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.split(".")[0] for name in imports(ast.parse(file.read_text()))}


def prints(file: Path) -> bool:
    """Whether a file prints, or writes to the terminal."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return "print" in names or bool(attributes & {"stdout", "stderr"})


def test_there_is_something_to_check() -> None:
    assert {name_of(file).split(".")[0] for file in FILES} >= set(LAYERS) and BENCHMARKS


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_import_points_upwards(file: Path) -> None:
    assert violations(name_of(file), file.read_text()) == []


def test_no_more_is_tolerated_than_there_is() -> None:
    for name, package in TOLERATED:
        file = LDM / f"{name.replace('.', '/')}.py"
        assert file.is_file() and any(
            i.startswith(f"ldm.{package}") for i in imports(ast.parse(file.read_text()))
        )


@pytest.mark.parametrize(
    "file", [file for file in BENCHMARKS if file.stem not in STUDIES], ids=lambda file: file.stem
)
def test_benchmarks_stand_on_what_they_measure(file: Path) -> None:
    """They know neither the configuration nor how results are judged, and never print."""
    bad = ("ldm.config", "ldm.evaluation", "scripts")
    assert not [name for name in imports(ast.parse(file.read_text())) if name.startswith(bad)]
    assert not packages(file) & BORROWED and not prints(file)


def test_ldm_knows_nothing_outside_itself() -> None:
    for file in FILES:
        assert not packages(file) & {"benchmarks", "scripts", "tests"}, file


@pytest.mark.parametrize(
    "name, source, bad",
    [
        ("data.pack", "from ldm.models.base import Base", True),
        ("models.base", "import ldm.objects.delta", True),
        ("models.base", "def f():\n    from ldm.objects import delta", True),
        ("training.finetune", "from ldm.insertion.roi import Roi", True),
        ("insertion.insert", "from ldm.training.finetune import FineTune", True),
        ("insertion.insert", "from ldm.config.schema import Config", True),
        ("insertion.insert", "from ldm import evaluation", True),
        ("insertion.insert", "from ldm.models.base import Base\nfrom ldm.insertion.roi import Roi", False),
        ("insertion.insert", "from ldm.compositing.composite import composite", True),
        ("objects.merge", "from ldm.insertion.session import Session", True),
        ("objects.delta", "from ldm.speed.deep_cache import DeepCache", True),
        ("scenes.layout", "from ldm.evaluation.metrics import psnr", True),
        ("compositing.region_fill", "from ldm.insertion.region_fill import RegionFill", False),
        ("evaluation.fills", "from ldm.compositing.cut_out import cut_out", False),
        ("speed.deep_cache", "from ldm.config.schema import Config", True),
        ("evaluation.bench", "from ldm.insertion.roi import Roi\nimport torch", False),
        ("config.sections", "from ldm.models.architecture import Architecture", False),
    ],
)
def test_an_upward_import_is_seen(name: str, source: str, bad: bool) -> None:
    assert bool(violations(name, source)) == bad


def test_few_files_know_the_borrowed_models() -> None:
    known = {name_of(file) for file in FILES if packages(file) & BORROWED}
    assert {name.split(".")[0] for name in known} <= {"models", "features", "pretrain"}
    assert 0 < len(known) <= AT_MOST, known


def test_few_packages_know_lightning() -> None:
    known = {name_of(file).split(".")[0] for file in FILES if "pytorch_lightning" in packages(file)}
    assert known == {"training", "validation", "pretrain"}


def test_torchvision_is_never_imported_at_the_top() -> None:
    """Next to a CPU-only torch it breaks `import transformers`; an extra may import it in a function."""
    for file in FILES:
        at_top = [node for node in ast.parse(file.read_text()).body if isinstance(node, IMPORTS)]
        assert not any(name.startswith("torchvision") for node in at_top for name in imports(node)), file


def test_ldm_never_prints() -> None:
    """Scripts do, and the one module that speaks for them."""
    assert {name_of(file) for file in FILES if prints(file)} == {"config.cli"}
