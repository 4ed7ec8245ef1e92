"""Object files: what they are (info, verify), smaller (bake, compress), several in one (merge), one between
two (interpolate), in other programs' formats (convert). `objects.py COMMAND --help` lists a command's flags.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.command_line import OneLineParser
from ldm.config import Config, load_config, run
from ldm.data.image import SUFFIXES
from ldm.data.insertset import load_insertset
from ldm.data.pairs import few_shot_crops, reference_image
from ldm.models.base import Base, base_fingerprint, house_state, load_base
from ldm.objects.baked import bake
from ldm.objects.baked import save as save_baked
from ldm.objects.compose import interpolate
from ldm.objects.compress import Losses, compress
from ldm.objects.delta import Delta, apply, check_fits, load, save
from ldm.objects.diffusers_format import beside
from ldm.objects.effect import effect, reference_of
from ldm.objects.file import parent_of
from ldm.objects.formats import SUFFIX, halved, read_any, write_any
from ldm.objects.info import facts, readable, verify
from ldm.objects.merge import member, merge, second_moment
from ldm.objects.merged import save_merged

MEGABYTE = 2**20


def parser() -> OneLineParser:
    p = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    c = add(commands, info_command, "info", "what files say about themselves")
    c.add_argument("files", nargs="+", type=Path)
    c.add_argument("--json", action="store_true", help="a JSON list, one entry a file")

    c = add(commands, verify_command, "verify", "check whole files, and that they fit the base")
    c.add_argument("files", nargs="+", type=Path)
    add_base(c, optional=True)

    c = add(commands, bake_command, "bake", "an object and its reference as constants: small, needs no CLIP")
    c.add_argument("files", nargs="+", type=Path)
    c.add_argument("--reference", type=Path, metavar="PICTURE", help="in place of the object's own")
    c.add_argument("--strength", type=float, default=1.0, help="of the object's learnt change [1]")
    add_out(c, "file; with several objects, a folder")
    add_base(c)

    c = add(commands, compress_command, "compress", "smaller files, by truncated SVD; tells what it loses")
    c.add_argument("files", nargs="+", type=Path)
    goal = c.add_mutually_exclusive_group(required=True)
    goal.add_argument("--energy", type=float, help="share of its energy that every matrix keeps, like 0.99")
    goal.add_argument("--size", type=float, metavar="MB", help="size of the file at most")
    add_out(c, "file; with several objects, a folder")
    add_base(c, optional=True)

    c = add(commands, merge_command, "merge", "several crossattn-kv objects in one set of K/V weights")
    c.add_argument("files", nargs="+", type=Path)
    c.add_argument("--weighted", nargs="+", type=Path, default=[], metavar="PICTURES",
                   help="pictures or folders: change least what the base does with their like")  # fmt: skip
    add_out(c, "file")
    add_base(c)

    c = add(commands, interpolate_command, "interpolate", "an object between two")
    c.add_argument("first", type=Path, metavar="FIRST")
    c.add_argument("second", type=Path, metavar="SECOND")
    c.add_argument("--share", type=float, required=True, help="0: all of the first, 1: all of the second")
    add_out(c, "file")
    add_base(c)

    c = add(commands, convert_command, "convert", "to and from the paper's .ckpt and diffusers' state dicts")
    c.add_argument("files", nargs="+", type=Path)
    c.add_argument("--to", required=True, choices=list(SUFFIX), help="format to write; from: any of these")
    c.add_argument("--dtype", choices=["fp16", "fp32"], default="fp32",
                   help="of --to object; fp16: differences, fp32: as read [fp32]")  # fmt: skip
    c.add_argument("--dataset-dir", "--dataset_dir", type=Path, metavar="FOLDER",
                   help="the object's InsertSet folder: few-shot tokens of a .ckpt need it")  # fmt: skip
    c.add_argument("--few_shot_features", "--few-shot-features", default="raw", choices=["raw", "clip"],
                   help="what CLIP sees for that .ckpt [raw, as in the paper's code]")  # fmt: skip
    add_out(c, "file; with several objects, a folder")
    add_base(c)
    return p


def add(
    commands: argparse._SubParsersAction, command: Callable[[argparse.Namespace], None], name: str, text: str
) -> argparse.ArgumentParser:
    c = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    c.set_defaults(run=command)
    return c


def add_out(c: argparse.ArgumentParser, what: str) -> None:
    c.add_argument("--out", type=Path, required=True, help=f"{what} to write; never one of those read")


def add_base(c: argparse.ArgumentParser, *, optional: bool = False) -> None:
    c.add_argument("--config", type=Path, default=Path("configs/mini.yaml"), metavar="YAML",
                   help="settings file of the base [configs/mini.yaml]")  # fmt: skip
    c.add_argument("--base", metavar="PATH", help="base checkpoint, in place of the config's")
    if optional:
        c.add_argument("--no-base", action="store_true", help="look at the file alone, without any base")


def info_command(args: argparse.Namespace) -> None:
    every = [facts(file) for file in args.files]
    if args.json:
        print(json.dumps(every, indent=2))
    else:
        tables = [readable(each) for each in every]
        print("\n\n".join("\n".join(f"{label:15} {text}" for label, text in table) for table in tables))


def verify_command(args: argparse.Namespace) -> None:
    base, fingerprint = (None, "") if args.no_base else open_base(args)
    bad = 0
    for file in tqdm(args.files, unit="file", disable=None if len(args.files) > 3 else True):
        try:
            with naming(file):
                tqdm.write(f"ok: {file} ({verify(file, base, fingerprint)})")
        except (ValueError, OSError) as error:
            bad += 1
            tqdm.write(f"error: {error}", sys.stderr)
    if bad:
        raise SystemExit(2)


def bake_command(args: argparse.Namespace) -> None:
    targets = planned(args.files, args.out)
    base, fingerprint = open_base(args)
    for file, target in zip(tqdm(args.files, unit="object", disable=None), targets, strict=True):
        with naming(file):
            delta = loaded(file, base, fingerprint)
            size = base.architecture.reference_size
            reference = reference_image(args.reference, size) if args.reference else reference_of(delta)
            about = replace(delta.about, parents=[parent_of(file, delta.about)])
            with apply(base, delta, args.strength, fingerprint):
                save_baked(bake(base, about, reference), target)
        before, after = (path.stat().st_size / MEGABYTE for path in (file, target))
        tqdm.write(f"{target}: {after:.2f} MB of {before:.2f}")


def compress_command(args: argparse.Namespace) -> None:
    targets = planned(args.files, args.out)
    base, fingerprint = (None, "") if args.no_base else open_base(args)
    state = None if base is None else house_state(base)
    size = None if args.size is None else int(args.size * MEGABYTE)
    bar = partial(tqdm, unit="matrix", leave=False, disable=None)
    for file, target in zip(args.files, targets, strict=True):
        delta = loaded(file, base, fingerprint)
        # before compressing: it counts for the size
        delta = replace(delta, about=replace(delta.about, parents=[parent_of(file, delta.about)]))
        with naming(file):
            small, losses = compress(delta, energy=args.energy, size=size, base_state=state, progress=bar)
        save(small, target)
        print_losses(losses)
        if base is not None and delta.reference is not None:
            e = effect(base, delta, small, fingerprint=fingerprint)
            print(
                f"effect with its reference: context {e.context:.3%}, K, V {e.mean:.3%}, worst {e.worst:.3%}"
            )
        before, after = (path.stat().st_size / MEGABYTE for path in (file, target))
        print(f"{target}: {after:.2f} MB of {before:.2f}, relative error of all weights {losses.error:.3%}")


def merge_command(args: argparse.Namespace) -> None:
    target = single(args.out, args.files)
    base, fingerprint = open_base(args)
    moment = second_moment(contexts_of(base, args.weighted)) if args.weighted else None
    members = []
    for file in tqdm(args.files, unit="object", disable=None):
        delta = loaded(file, base, fingerprint)
        with naming(file):
            members.append(member(base, delta, file.stem, parent_of(file, delta.about), fingerprint))
    merged, report = merge(members, moment)
    save_merged(merged, target)
    print(f"{'relative error of':30} {'its K and V':>12} {'its change':>12}")
    for name, residual in report.residual.items():
        print(f"{name:30} {residual:12.2e} {report.lost[name]:12.2e}")
    print(f"{report.rank} of {report.tokens} tokens are independent")
    print(f"the weights change {report.growth:.2f} times as much as for the object that changes them most")
    dtype = str(next(iter(merged.weights.values())).dtype).removeprefix("torch.")
    print(f"{target}: {target.stat().st_size / MEGABYTE:.2f} MB, {len(members)} objects, {dtype}")


def interpolate_command(args: argparse.Namespace) -> None:
    files = [args.first, args.second]
    target = single(args.out, files)
    base, fingerprint = open_base(args)
    a, b = (loaded(file, base, fingerprint) for file in files)
    parents = [parent_of(file, delta.about) for file, delta in zip(files, (a, b), strict=True)]
    save(interpolate(a, b, args.share, parents, house_state(base)), target)
    print(f"{target}: {target.stat().st_size / MEGABYTE:.2f} MB")


def convert_command(args: argparse.Namespace) -> None:
    targets = planned(args.files, args.out, SUFFIX[args.to])
    if args.to == "diffusers":
        refuse_inputs([beside(target) for target in targets], args.files)
    base, _ = open_base(args)
    crops = None
    if args.dataset_dir is not None:
        crops = few_shot_crops(load_insertset(args.dataset_dir), base.architecture.reference_size)
    for file, target in zip(tqdm(args.files, unit="file", disable=None), targets, strict=True):
        with naming(file):
            delta = read_any(file, base, crops, args.few_shot_features)
            if args.to == "object" and args.dtype == "fp16":
                delta = halved(delta, base)
            write_any(target, delta, args.to, base, crops, args.few_shot_features)
        tqdm.write(f"{target}: {target.stat().st_size / MEGABYTE:.2f} MB")


def open_base(args: argparse.Namespace) -> tuple[Base, str]:
    """The base of the config, and its fingerprint."""
    config: Config = load_config(args.config, [f"base.path={args.base}"] if args.base else [])
    base = load_base(Path(config.base.path), config.base.architecture, f"the base of {args.config}")
    return base, base_fingerprint(base)


def loaded(file: Path, base: Base | None, fingerprint: str) -> Delta:
    """An object that fits the base."""
    delta = load(file)
    if base is not None:
        with naming(file):
            check_fits(base, delta, fingerprint)
    return delta


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name before a message that does not have it."""
    try:
        yield
    except ValueError as error:
        raise error if str(file) in str(error) else ValueError(f"{file}: {error}") from error


@torch.no_grad()
def contexts_of(base: Base, paths: Sequence[Path]) -> Tensor:
    """Context tokens [n,d] that the base makes of pictures, and its unconditional one."""
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]}: no such picture or folder")
    pictures = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    pictures = [file for file in pictures if file in paths or file.suffix.lower() in SUFFIXES]
    if not pictures:
        raise ValueError(
            f"{paths[0]} holds no pictures ({', '.join(SUFFIXES)}); give pictures, or folders of them"
        )
    size = base.architecture.reference_size
    rows = [base.context(reference_image(f, size))[0] for f in tqdm(pictures, unit="picture", disable=None)]
    return torch.cat([*rows, base.conditioner.learnable_vector[0]])


def planned(files: Sequence[Path], out: Path, suffix: str = ".safetensors") -> list[Path]:
    """Where each file's result goes: `out` itself, or into the folder `out`."""
    if len(files) == 1 and out.suffix and not out.is_dir():
        return [single(out, files, suffix)]
    targets = [out / (file.stem + suffix) for file in files]
    if len(set(targets)) < len(targets):
        raise ValueError(
            f"two of the files have one name, both would become a file in {out}; convert them apart"
        )
    refuse_inputs(targets, files)
    return targets


def single(out: Path, files: Sequence[Path], suffix: str = ".safetensors") -> Path:
    """The one file to write."""
    if out.suffix != suffix or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a {suffix} file")
    refuse_inputs([out], files)
    return out


def refuse_inputs(targets: Sequence[Path], files: Sequence[Path]) -> None:
    """ValueError if a file that is read would be overwritten, or a file stands where a folder must be."""
    inputs = {file.resolve() for file in files}
    if clash := [target for target in targets if target.resolve() in inputs]:
        raise ValueError(f"--out would overwrite {clash[0]}, which is read; give another name")
    for target in targets:
        there = next(parent for parent in target.absolute().parents if parent.exists())
        if not there.is_dir():
            raise ValueError(f"--out {target}: {there} is a file, not a folder; give another name")


def print_losses(losses: Losses) -> None:
    """A table of what every weight lost; weights that lost nothing are counted."""
    changed = [each for each in losses.layers if each.rank is not None or each.error]
    print(f"{'weight':86} {'shape':>12} {'rank':>5} {'error':>8}")
    for each in changed:
        shape, rank = "x".join(map(str, each.shape)), "whole" if each.rank is None else str(each.rank)
        print(f"{each.name:86} {shape:>12} {rank:>5} {each.error:8.2%}")
    print(f"{len(losses.layers) - len(changed)} weights lost nothing")


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    run(main)
