"""The command line of object files: commands and flags, the base, and the files to write."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

from ldm.config.cli import OneLineParser
from ldm.config.loader import ROOT, place
from ldm.config.schema import Config, load_config
from ldm.data.files import check_folder, overwritten, path_of, sweep
from ldm.models.base import Base, base_fingerprint, load_base
from ldm.models.checkpoint import check_replaceable
from ldm.objects.convert import SUFFIX

FILE, FOLDER = "file", "file; with several objects, a folder"  # what --out names


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


def _info(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--json", action="store_true", help="print a JSON list with one entry for each file")


def _verify(c: ArgumentParser) -> None:
    _add_files(c)
    _add_base(c, optional=True)


def _bake(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--reference", type=path_of, metavar="PICTURE", help="reference [the object's own]")
    c.add_argument("--object_scale", type=float, default=1.0, help="factor of the learnt weight change [1]")
    c.add_argument("--guidance_from", "--guidance-from", choices=["object", "base"],
                   help="weights of the unconditional prediction [the config's]")  # fmt: skip
    c.add_argument("--reference_view", type=int, metavar="N",
                   help="few-shot picture whose token is used; 0: all, -1: nearest [config's]")  # fmt: skip
    _add_out(c, FOLDER)
    _add_base(c)


def _compress(c: ArgumentParser) -> None:
    _add_files(c)
    c.add_argument("--energy", type=float, required=True,
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
    c.add_argument("--few_shot_features", "--few-shot-features", default="raw", choices=["raw", "clip"],
                   help="CLIP's input for that .ckpt [raw, the paper's]")  # fmt: skip
    _add_out(c, FOLDER)
    _add_base(c)


def _add_files(c: ArgumentParser) -> None:
    c.add_argument("files", nargs="+", type=path_of)


def _add_out(c: ArgumentParser, what: str) -> None:
    c.add_argument("--out", type=path_of, required=True, help=f"{what} to write")


def _add_base(c: ArgumentParser, *, optional: bool = False) -> None:
    c.add_argument("--config", type=path_of, default=Path(place("configs/mini.yaml", ROOT)), metavar="YAML",
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


OBJECT_SUFFIX = ".safetensors"


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
