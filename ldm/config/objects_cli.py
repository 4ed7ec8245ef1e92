"""The command line of object files: commands and flags, the base, the files to write, and what is printed."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from ldm.config.cli import OneLineParser
from ldm.config.loader import ROOT, rooted
from ldm.config.schema import Config, load_config
from ldm.data.files import check_folder, overwritten, path_of, sweep
from ldm.data.text import numbers_of
from ldm.models.base import Base, base_fingerprint, load_base
from ldm.models.checkpoint import check_replaceable, read_metadata, read_shapes
from ldm.objects import baked
from ldm.objects.compress import Losses
from ldm.objects.convert import SUFFIX
from ldm.objects.delta import UP, check_fits, load
from ldm.objects.object_file import CONTEXT, read_object_metadata

MEGABYTE = 2**20
OBJECT_SUFFIX = ".safetensors"
FILE, FOLDER = "file", "file; with several objects, a folder"  # what --out names
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


def parser(description: str) -> OneLineParser:
    """The parser of all commands; `args.command` is the name of the given one."""
    p = OneLineParser(description=description)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add_flags) in COMMANDS.items():
        add_flags(commands.add_parser(name, help=text, description=text, allow_abbrev=False))
    return p


def config_of(args: argparse.Namespace) -> Config:
    """The settings file of the base; --base overrides its path."""
    return load_config(args.config, [f"base.path={args.base}"] if args.base else [])


def open_base(args: argparse.Namespace) -> tuple[Base, str]:
    """The base of the config, and its fingerprint."""
    base = config_of(args).base
    loaded = load_base(Path(base.path), base.architecture, f"the base of {args.config}")
    return loaded, base_fingerprint(loaded)


def open_optional_base(args: argparse.Namespace) -> tuple[Base | None, str]:
    """The same, or (None, "") with --no-base."""
    return (None, "") if args.no_base else open_base(args)


def finite(text: str) -> float:
    """A number of the command line; neither nan nor inf."""
    try:
        [number] = numbers_of([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return number


def _info(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--json", action="store_true", help="print a JSON list with one entry for each file")


def _verify(c: ArgumentParser) -> None:
    _add_files(c)
    _add_base(c, optional=True)


def _bake(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--reference", type=path_of, metavar="PICTURE", help="reference [the object's own]")
    c.add_argument("--object_scale", type=finite, default=1.0, metavar="X",
                   help="factor of the learnt weight change [1]")  # fmt: skip
    c.add_argument("--guidance_from", "--guidance-from", choices=["object", "base"],
                   help="weights of the unconditional prediction [the config's]")  # fmt: skip
    c.add_argument("--reference_view", type=int, metavar="N",
                   help="few-shot picture whose token is used; 0: all, -1: nearest [config's]")  # fmt: skip
    _add_out(c, FOLDER)
    _add_base(c)


def _compress(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--energy", type=float, required=True, metavar="X",
                   help="share of its energy that each matrix keeps, like 0.99")  # fmt: skip
    _add_out(c, FOLDER)
    _add_base(c, optional=True)


def _merge(c: ArgumentParser) -> None:
    _add_files(c)
    _add_out(c, FILE)
    _add_base(c)


def _convert(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--to", required=True, choices=list(SUFFIX), help="format to write; any of them is read")
    c.add_argument("--dtype", choices=["fp16", "fp32"], default="fp32",
                   help="for --to object; fp16: differences, fp32: tuned values [fp32]")  # fmt: skip
    c.add_argument("--dataset-dir", "--dataset_dir", type=path_of, metavar="FOLDER",
                   help="the object folder: few-shot tokens of a .ckpt need its pictures")  # fmt: skip
    _add_out(c, FOLDER)
    _add_base(c)


def _add_files(c: ArgumentParser) -> None:
    c.add_argument("files", nargs="+", type=path_of, metavar="FILE", help="object file")


def _add_out(c: ArgumentParser, what: str) -> None:
    c.add_argument("--out", type=path_of, required=True, metavar="PATH", help=f"{what} to write")


def _add_base(c: ArgumentParser, *, optional: bool = False) -> None:
    c.add_argument("--config", type=path_of, default=Path(rooted("configs/mini.yaml", ROOT)), metavar="YAML",
                   help="settings file of the base [configs/mini.yaml]")  # fmt: skip
    c.add_argument("--base", metavar="PATH", help="base checkpoint [the config's]")
    if optional:
        c.add_argument("--no-base", action="store_true", help="check the file alone, without a base")


COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None]]] = {  # name => what it does, its flags
    "info": ("show what files are and how they were made", _info),
    "verify": ("check that files are complete and fit the base", _verify),
    "bake": ("fold an object and its reference into constants: small, needs no CLIP", _bake),
    "compress": ("smaller files by truncated SVD, with the loss of every weight", _compress),
    "merge": ("merge several crossattn-kv objects into one set of K/V weights", _merge),
    "convert": ("convert to and from the paper's .ckpt and diffusers' state dicts", _convert),
}


def outputs(files: Sequence[Path], out: Path, suffix: str = OBJECT_SUFFIX) -> list[Path]:
    """The file to write for each input: `out` itself, or a file of the input's name in the folder `out`.

    Raises ValueError if an input would be overwritten, or two outputs would have the same name.
    """
    if len(files) == 1 and out.suffix and not out.is_dir():
        return [output(out, files, suffix)]
    targets = [out / (file.stem + suffix) for file in files]
    if len(set(targets)) < len(targets):
        raise ValueError(
            f"two of the files have the same name, both would be written to {out}; convert them separately"
        )
    refuse_inputs(targets, files)
    return targets


def output(out: Path, files: Sequence[Path], suffix: str = OBJECT_SUFFIX) -> Path:
    """The one file to write for all inputs; raises as `outputs`."""
    if out.suffix != suffix or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a {suffix} file")
    refuse_inputs([out], files)
    return out


def refuse_inputs(targets: Sequence[Path], files: Sequence[Path]) -> None:
    """ValueError if an input would be overwritten, or a parent folder of an output is a file."""
    if lost := overwritten(targets, files):
        raise ValueError(f"--out would overwrite the input {lost}; give another name")
    for target in targets:
        check_replaceable(target)
        sweep(target.parent)
        check_folder(target.parent, f"--out {target}")


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
        **vars(metadata),
        "tensors": len(shapes),
        "low_rank": sum(key.startswith(UP) for key in shapes),
        "numbers": dict(dtypes),
        "objects": sorted(key.removeprefix(CONTEXT) for key in shapes if key.startswith(CONTEXT)),
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
        "bytes": f"{f['bytes'] / MEGABYTE:.2f} MB ({f['bytes']:,} bytes)",
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
        f"to {record['energy']:.2%} energy"
        if "energy" in record
        else f"to {record['size'] / MEGABYTE:.2f} MB"
    )
    return f"{goal}, relative error {record['error']:.2%}"


def _parent(parent: Mapping[str, str]) -> str:
    facts = [parent.get("sha256", "")[:12], parent.get("author", ""), parent.get("licence", "")]
    return f"{parent.get('name', '?')} ({', '.join(fact for fact in facts if fact)})"


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
