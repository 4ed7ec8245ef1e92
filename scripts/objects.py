"""Object files: describe and check them (info, verify), make them smaller (bake, compress), merge several
(merge), convert to and from other formats (convert). `objects.py COMMAND --help` lists a command's flags.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ldm.config.process import explained, run, starting

with starting():
    from tqdm import tqdm

    from ldm.config.build import object_images
    from ldm.config.cli import naming
    from ldm.config.objects_cli import (
        config_of,
        facts,
        losses_table,
        open_base,
        open_optional_base,
        output,
        outputs,
        parser,
        readable,
        refuse_inputs,
        size_line,
        verify,
    )
    from ldm.data.insertset import load_insertset
    from ldm.merge.merge import merge, merge_input, merge_table
    from ldm.merge.merged_file import save_merged, verify_merged
    from ldm.models.base import base_state
    from ldm.models.weight_files import PICKLES
    from ldm.objects.baked import bake_delta
    from ldm.objects.baked import save as save_baked
    from ldm.objects.compress import compress
    from ldm.objects.convert import SUFFIX, conditioner_file, halved, read_any, write_any
    from ldm.objects.delta import check_fits, load, save
    from ldm.objects.object_file import made_from, parent_of, read_object_metadata
    from ldm.objects.paper_file import is_paper_training, trim_training


def for_each(files: Sequence[Path], show: Callable[[Path], None]) -> None:
    """`show` every file, with a line on stderr for those that are not right; then their exit code."""
    code = 0
    for file in tqdm(files, unit="file", disable=None if len(files) > 3 else True):
        try:
            with naming(file):
                show(file)
        except (ValueError, OSError) as error:
            line, worse = explained(error)
            code = max(code, worse)
            tqdm.write(line, sys.stderr)
    if code:
        raise SystemExit(code)


def info_command(args: argparse.Namespace) -> None:
    every: list[dict[str, Any]] = []
    try:
        for_each(args.files, lambda file: every.append(facts(file)))
    finally:
        if args.json:
            print(json.dumps(every, indent=2))
        elif every:
            tables = [readable(one) for one in every]
            print("\n\n".join("\n".join(f"{label:15} {text}" for label, text in table) for table in tables))


def verify_command(args: argparse.Namespace) -> None:
    base, fingerprint = open_optional_base(args)

    def check(file: Path) -> None:
        kind = read_object_metadata(file).kind
        (verify_merged if kind == "merged" else verify)(file, base, fingerprint)
        tqdm.write(f"ok: {file} ({kind})")

    for_each(args.files, check)


def bake_command(args: argparse.Namespace) -> None:
    targets = outputs(args.files, args.out)
    base, fingerprint = open_base(args)
    config = config_of(args)
    images, sampling = object_images(config), config.sample
    reference = None if args.reference is None else images.reference(args.reference)
    null = args.guidance_from or sampling.guidance_from
    view = sampling.reference_view if args.reference_view is None else args.reference_view
    for file, target in zip(tqdm(args.files, unit="object", disable=None), targets, strict=True):
        with naming(file):
            baked = bake_delta(
                base,
                load(file),
                images,
                reference,
                object_scale=args.object_scale,
                fingerprint=fingerprint,
                guidance_from=null,
                view=view,
            )
        save_baked(replace(baked, metadata=made_from(file, baked.metadata)), target)
        tqdm.write(size_line(target, file))


def compress_command(args: argparse.Namespace) -> None:
    targets = outputs(args.files, args.out)
    base, fingerprint = open_optional_base(args)
    state = None if base is None else base_state(base)
    bar = partial(tqdm, unit="matrix", leave=False, disable=None)
    for file, target in zip(args.files, targets, strict=True):
        with naming(file):
            delta = load(file)
            if base is not None:
                check_fits(base, delta, fingerprint)
            delta = replace(delta, metadata=made_from(file, delta.metadata))
            small, losses = compress(delta, args.energy, state, bar)
        save(small, target)
        print(*losses_table(losses), sep="\n")
        print(f"{size_line(target, file)}, relative error of all weights {losses.error:.3%}")


def merge_command(args: argparse.Namespace) -> None:
    target = output(args.out, args.files)
    base, fingerprint = open_base(args)
    images, inputs = object_images(config_of(args)), []
    for file in tqdm(args.files, unit="object", disable=None):
        with naming(file):
            delta = load(file)
            parent = parent_of(file, delta.metadata)
            inputs.append(merge_input(base, delta, file.stem, images, parent, fingerprint))
    merged, report = merge(inputs)
    save_merged(merged, target)
    dtype = str(next(iter(merged.weights.values())).dtype).removeprefix("torch.")
    print(*merge_table(report), f"{size_line(target)}, {len(inputs)} objects, {dtype}", sep="\n")


def convert_command(args: argparse.Namespace) -> None:
    targets = outputs(args.files, args.out, SUFFIX[args.to])
    if args.to == "diffusers":
        refuse_inputs([conditioner_file(target) for target in targets], args.files)
    base, _ = open_base(args)
    images = object_images(config_of(args))
    pictures = None if args.dataset_dir is None else load_insertset(args.dataset_dir)
    for file, target in zip(tqdm(args.files, unit="file", disable=None), targets, strict=True):
        with naming(file):
            if args.to == "ldm" and file.suffix in PICKLES and file.is_file() and is_paper_training(file):
                trim_training(file, target)
                tqdm.write(size_line(target))
                continue
            delta = read_any(file, base, images, pictures)
            if args.to == "object" and args.dtype == "fp16":
                delta = halved(delta, base)
            write_any(target, delta, args.to, base, pictures)
        tqdm.write(size_line(target))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "info": info_command,
    "verify": verify_command,
    "bake": bake_command,
    "compress": compress_command,
    "merge": merge_command,
    "convert": convert_command,
}


def main(argv: Sequence[str] | None = None) -> None:
    args = parser(__doc__ or "").parse_args(argv)
    COMMANDS[args.command](args)


if __name__ == "__main__":
    run(main)
