"""Turn a training run into an object file: the implicit parameters that it has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ldm.config.command_line import run
from ldm.config.schema import Config, Parser, load_config
from ldm.config.sections import EXTRACTED_SUFFIX, ExtractSection
from ldm.models.base import load_base
from ldm.objects.delta import save
from ldm.objects.exchange import save_ldm_delta
from ldm.training.checkpoints import best_checkpoint, find_checkpoint, read_checkpoint, run_folder
from ldm.training.result import object_of, prior_encoder_of

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
FLAGS = {name: f"extract.{name}" for name in ExtractSection.__dataclass_fields__}


def settings(argv: Sequence[str] | None) -> ExtractSection:
    """Command line => what to extract; without --config, settings that it leaves open are the run's own."""
    parser = Parser(__doc__ or "", FLAGS, "", Config)
    args, config = parser.parse_config(argv)
    if not config.extract.path:
        raise ValueError("no run given; give its folder, like --path logs/rocket_bee")
    if args.config:
        return config.extract
    last = read_checkpoint(find_checkpoint(Path(config.extract.path)), mmap=True)
    kept = last["object"]["about"]["recipe"].get("extract", {})
    return parser.parse_config(argv, {"extract": kept} if kept else None)[1].extract


def main(argv: Sequence[str] | None = None) -> None:
    e = settings(argv)
    best = best_checkpoint(Path(e.path)) if e.which == "best" else None
    file, why = best or (find_checkpoint(Path(e.path)), "")
    checkpoint = read_checkpoint(file, mmap=True)
    trained: Config = load_config(checkpoint["object"]["about"]["recipe"])
    base = load_base(Path(e.base or trained.base.path), trained.base.architecture)

    delta = object_of(checkpoint, base, torch.float32 if e.format == "ldm" else DTYPES[e.dtype])
    delta = replace(delta, about=replace(delta.about, author=e.author, licence=e.licence))
    folder = run_folder(file)
    out = Path(e.out) if e.out else folder / (folder.resolve().name + EXTRACTED_SUFFIX[e.format])
    if e.format == "ldm":
        save_ldm_delta(out, base, delta, *prior_encoder_of(checkpoint, base))
    else:
        save(delta, out)

    about = delta.about
    print(f"{out}: {out.stat().st_size / 2**20:.2f} MB")
    if why:
        print(f"the best of this run, {why}; --which last takes the last")
    print(f"step {about.step} of {about.freeze_model} on {about.architecture} ({about.base}), ", end="")
    print(f"{len(delta.weights)} tensors, {about.few_shot_count} few-shot tokens ({about.few_shot})")


if __name__ == "__main__":
    run(main)
