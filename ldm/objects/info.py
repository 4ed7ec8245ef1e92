"""Describe and check object files, as text or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ldm.models.base import Base
from ldm.models.checkpoint import read_metadata, read_shapes
from ldm.objects import baked
from ldm.objects.compress import Losses
from ldm.objects.delta import UP, check_fits, load
from ldm.objects.object_file import CONTEXT, read_object_metadata

LABELS = {  # of the table, in this order
    "kind": "kind",
    "version": "format version",
    "base": "base",
    "freeze_model": "freeze_model",
    "few_shot": "few-shot part",
    "step": "trained steps",
    "bytes": "size",
    "tensors": "tensors",
    "compressed": "compressed",
    "objects": "objects",
    "date": "made",
    "author": "author",
    "licence": "licence",
    "parents": "made from",
}


def facts(path: Path) -> dict[str, Any]:
    """A file's metadata and tensor counts as JSON values, without reading its tensors.

    Raises FileNotFoundError, or ValueError in one line if it is no object file, damaged or too new.
    """
    metadata, shapes = read_object_metadata(path), read_shapes(path)
    dtypes = Counter[str]()
    for dtype, shape in shapes.values():
        dtypes[dtype] += prod(shape)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "version": int(read_metadata(path)["version"]),
        **{key: getattr(metadata, key) for key in metadata.__dataclass_fields__ if key != "preview"},
        "tensors": len(shapes),
        "low_rank": sum(key.startswith(UP) for key in shapes),
        "numbers": dict(dtypes),
        "objects": sorted(key.removeprefix(CONTEXT) for key in shapes if key.startswith(CONTEXT)),
        "preview": bool(metadata.preview),
    }


def readable(f: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts => (label, text) rows of a table; empty values are left out."""
    numbers = ", ".join(f"{count:,} {dtype}" for dtype, count in f["numbers"].items())
    low_rank = f", {f['low_rank']} matrices of low rank" if f["low_rank"] else ""
    few_shot = f"{f['few_shot_count']} tokens ({f['few_shot']})" if f["few_shot_count"] else f["few_shot"]
    texts = dict(f) | {
        "base": f"{f['base']} ({f['architecture']})",
        "few_shot": "" if f["objects"] else few_shot,
        "step": f["step"] or "",
        "bytes": f"{f['bytes'] / 2**20:.2f} MB ({f['bytes']:,} bytes)",
        "tensors": f"{f['tensors']} ({numbers}){low_rank}",
        "compressed": "; ".join(map(_compression, f["recipe"].get("compressed", []))),
        "objects": ", ".join(f["objects"]),
        "parents": ", ".join(_parent(parent) for parent in f["parents"]),
    }
    return [("file", f["file"])] + [(label, str(texts[key])) for key, label in LABELS.items() if texts[key]]


def verify(path: Path, base: Base | None = None, fingerprint: str = "") -> None:
    """Read a whole object file, delta or baked, and check it against a base if one is given.

    `fingerprint`: the base's. Raises FileNotFoundError or ValueError in one line.
    """
    if read_object_metadata(path).kind == "delta":
        delta = load(path)
        if base is not None:
            check_fits(base, delta, fingerprint)
    else:
        baked_object = baked.load(path)
        if base is not None:
            baked.check_fits(baked_object, base, fingerprint)


def _compression(record: Mapping[str, Any]) -> str:
    goal = (
        f"to {record['energy']:.2%} energy" if "energy" in record else f"to {record['size'] / 2**20:.2f} MB"
    )
    return f"{goal}, relative error {record['error']:.2%}"


def _parent(parent: Mapping[str, str]) -> str:
    facts = [parent.get("sha256", "")[:12], parent.get("author", ""), parent.get("licence", "")]
    return f"{parent.get('name', '?')} ({', '.join(fact for fact in facts if fact)})"


MEGABYTE = 2**20


def losses_table(losses: Losses) -> list[str]:
    """A line for every weight with an error; the others are counted."""
    changed = [each for each in losses.layers if each.rank is not None or each.error]
    lines = [f"{'weight':86} {'shape':>12} {'rank':>5} {'error':>8}"]
    for each in changed:
        shape, rank = "x".join(map(str, each.shape)), "whole" if each.rank is None else str(each.rank)
        lines.append(f"{each.name:86} {shape:>12} {rank:>5} {each.error:8.2%}")
    return [*lines, f"{len(losses.layers) - len(changed)} weights are unchanged"]


def size_line(target: Path, source: Path | None = None) -> str:
    """A written file's size, and the size of its source."""
    before = "" if source is None else f" of {source.stat().st_size / MEGABYTE:.2f}"
    return f"{target}: {target.stat().st_size / MEGABYTE:.2f} MB{before}"
