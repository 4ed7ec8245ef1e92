"""A folder of results, or a manifest of another program's (.csv, .jsonl) => insertions that can be scored."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.batch.manifest import read_lines
from ldm.batch.results_log import FILE, recipe_in, rows
from ldm.batch.work_item import MaskedBackground
from ldm.data.boxes import parse_box
from ldm.data.files import path_of
from ldm.evaluation.benchmark import Site
from ldm.evaluation.results import Insertion, References, Results, references_in
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.roi import Roi
from ldm.models.weight_files import PICKLES
from ldm.objects.object_file import read_object_metadata

COLUMNS = (
    "result", "background", "mask", "box", "references",
    "object", "name", "method", "model", "truth", "object_mask", "seconds",
)  # fmt: skip
PATHS = ("result", "background", "mask", "references", "truth", "object_mask")
FACTS = ("seconds", "colour_offset")  # of inference's results


def collect(source: Path, references: Path | None = None, methods: Sequence[str] = ()) -> list[Insertion]:
    """All insertions of a folder or manifest; `references` replaces what each one names.

    Of the engine's results, those of `methods`, or of one method if its own folder is given.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder of results, and no manifest")
    if source.is_dir():
        found = _in_folder(source, references)
    else:
        lines = read_lines(source, COLUMNS)
        found = [_listed(values, where, source.parent, references) for where, values in lines]
    found = [x for x in found if not methods or x.method in methods]
    if not found:
        raise ValueError(f"{source}: holds no result of {', '.join(methods) or 'any method'}")
    [(name, count)] = Counter((x.method, x.name) for x in found).most_common(1)
    if count > 1:
        raise ValueError(f"{source}: two results of {' '.join(name).strip()}; give each a name of its own")
    if missing := [
        path for x in found for path in (x.result, x.site.masked.background) if not path.is_file()
    ]:
        files = f" ({len(missing)} such files)" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{source}: {missing[0]} is gone{files}; put it back, or take its line out")
    return found


def check_pairs(source: str, run: Sequence[Insertion], other: str, others: Sequence[Insertion]) -> None:
    """ValueError unless the other run is of one method and shares names with each method of this one."""
    methods = list(dict.fromkeys(x.method for x in others))
    if len(methods) > 1:
        raise ValueError(
            f"{other}: holds {len(methods)} methods ({', '.join(methods)}); compare with one of them: "
            f"--against {shlex.quote(f'{other}/{methods[0]}')}"
        )
    known = {x.name for x in others}
    for method in dict.fromkeys(x.method for x in run):
        names = [x.name for x in run if x.method == method]
        if not known & set(names):
            raise ValueError(
                f"{source} and {other} share no image ({names[0]} ... and {others[0].name} ...); "
                "results are paired by their names"
            )


def _in_folder(folder: Path, references: Path | None) -> list[Insertion]:
    file = folder / FILE
    if file.is_file():
        first = next(rows(file, ("file",)), {})
        return _of_engine(folder, references) if "method" in first else _of_inference(folder, references)
    siblings = _of_engine(folder.parent, references) if (folder.parent / FILE).is_file() else []
    if own := [x for x in siblings if x.method == folder.name]:  # the folder of one of the engine's methods
        return own
    raise FileNotFoundError(f"{folder}: no {FILE}; give a folder of results, or a manifest of them")


def _of_engine(folder: Path, references: Path | None) -> list[Insertion]:
    results, known = Results(folder), references_in(references) if references else None
    return [results.insertion(row, known) for row in results.rows]


def _of_inference(folder: Path, references: Path | None) -> list[Insertion]:
    """What inference.sh made; of a file that was made again the last line counts."""
    last = {row["file"]: row for row in rows(folder / FILE)}
    return [_inserted(folder / name, row, references) for name, row in last.items()]


def _inserted(file: Path, row: Mapping[str, Any], references: Path | None) -> Insertion:
    if "scene" in row:
        raise ValueError(f"{file}: is a scene of several objects; list its parts in a manifest")
    known = references_in(references) if references else _references(file, row)
    site = Site(
        name=Path(row["file"]).stem,
        object=row.get("pick") or Path(row.get("object", known.whole)).stem,
        masked=MaskedBackground(Path(row["background"]), _path(row, "mask"), tuple(row["box"])),
        rois=tuple(Roi(*region["roi"]) for region in row["regions"]),
    )
    return Insertion(
        site=site,
        references=known,
        result=file,
        model=row["base_fingerprint"],
        mask_options=MaskOptions(**recipe_in(file).get("settings", {}).get("mask", {})),
        facts={key: row[key] for key in FACTS if key in row},
    )


def _references(file: Path, row: Mapping[str, Any]) -> References:
    """The reference that was given, or the object's own; the pictures it was learnt from, if there."""
    reference, object_, pictures = (_path(row, key) for key in ("reference", "object", "pictures"))
    if pictures is None and object_ is not None and object_.is_file() and object_.suffix not in PICKLES:
        root = read_object_metadata(object_).recipe.get("data", {}).get("root", "")
        pictures = Path(root) if root and (Path(root) / "data").is_dir() else None
    found = references_in(pictures) if pictures else None
    whole = reference or (found.whole if found else object_)
    if whole is None:
        raise ValueError(f"{file}: its object has no reference picture; give --references FOLDER")
    return References(whole, found.views if found and object_ else ())


def _listed(values: Mapping[str, Any], where: str, root: Path, references: Path | None) -> Insertion:
    paths = {key: path_of(str(values[key]), root) for key in PATHS if key in values}
    if lacking := [key for key in ("result", "background") if key not in paths]:
        raise ValueError(f"{where}: no {lacking[0]}")
    if ("mask" in values) + ("box" in values) != 1:
        raise ValueError(f"{where}: expected one of mask and box")
    if references is None and "references" not in paths:
        raise ValueError(f"{where}: no references; name a picture or an object folder, or give --references")
    given = references or paths["references"]
    site = Site(
        name=str(values.get("name", paths["result"].stem)),
        object=str(values.get("object", given.stem)),
        masked=MaskedBackground(
            paths["background"],
            paths.get("mask"),
            parse_box(values["box"], where) if "box" in values else (),
        ),
        truth=paths.get("truth"),
        object_mask=paths.get("object_mask"),
    )
    return Insertion(
        site=site,
        references=references_in(given),
        result=paths["result"],
        method=str(values.get("method", "")),
        model=str(values.get("model", "unknown")),
        facts={"seconds": _number(values["seconds"], where)} if "seconds" in values else {},
    )


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: seconds {value!r}; expected a number") from error


def _path(row: Mapping[str, Any], key: str) -> Path | None:
    return Path(row[key]) if key in row else None
