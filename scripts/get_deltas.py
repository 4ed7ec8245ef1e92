"""Turn a training run into an object file: the implicit parameters that it has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ldm.config.command_forms import PUBLISHED_EXTRACTION
from ldm.config.command_line import run
from ldm.config.schema import Config, Parser, load_config
from ldm.config.settings import setting
from ldm.models.base import load_base
from ldm.objects.delta import save
from ldm.objects.exchange import save_ldm_delta
from ldm.training.checkpoints import best_checkpoint, find_checkpoint, read_checkpoint, run_folder
from ldm.training.result import object_of, prior_encoder_of

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
SUFFIXES = {"safetensors": ".safetensors", "ldm": ".ckpt"}


@dataclass(frozen=True)
class ExtractSection:
    """What to extract, and as what."""

    path: str = setting("", "run folder, or a checkpoint file", path=True)
    which: str = setting(
        "best", "of a run folder: the best checkpoint, the last one if the run was not judged; or the last",
        ["best", "last"],
    )  # fmt: skip
    out: str = setting("", "file to write; default: <run>/<name of the run>.safetensors or .ckpt", path=True)
    format: str = setting("safetensors", "our object file, or the .ckpt of the paper's code", list(SUFFIXES))
    dtype: str = setting(
        "fp16", "fp16: differences; fp32: the tuned values, exact, twice the size", list(DTYPES)
    )
    author: str = setting("", "who made the object; kept in the file")
    licence: str = setting("", "what others may do with it; kept in the file")
    base: str = setting("", "base checkpoint, if it is no longer where the run has it from", path=True)


@dataclass(frozen=True)
class ExtractConfig:
    """All settings of extracting."""

    extract: ExtractSection = field(default_factory=ExtractSection)


def main(argv: Sequence[str] | None = None) -> None:
    flags = {name: f"extract.{name}" for name in ExtractSection.__dataclass_fields__}
    parser = Parser(__doc__ or "", flags, "", ExtractConfig, published=PUBLISHED_EXTRACTION)
    _, config = parser.parse_config(argv)
    e: ExtractSection = config.extract
    if not e.path:
        raise ValueError("no run given; give its folder, like --path logs/rocket_bee")
    best = best_checkpoint(Path(e.path)) if e.which == "best" else None
    file, why = best or (find_checkpoint(Path(e.path)), "")
    checkpoint = read_checkpoint(file)
    trained: Config = load_config(checkpoint["object"]["about"]["recipe"])
    base = load_base(Path(e.base or trained.base.path), trained.base.architecture)

    delta = object_of(checkpoint, base, torch.float32 if e.format == "ldm" else DTYPES[e.dtype])
    delta = replace(delta, about=replace(delta.about, author=e.author, licence=e.licence))
    folder = run_folder(file)
    out = Path(e.out) if e.out else folder / (folder.resolve().name + SUFFIXES[e.format])
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
