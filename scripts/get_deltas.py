"""Extract the object file, the learnt implicit parameters, from a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ldm.config.process import run, say, starting

with starting():
    import torch

    from ldm.config.build import object_images
    from ldm.config.cli import flags
    from ldm.config.objects_cli import output
    from ldm.config.parser import SettingsParser
    from ldm.config.schema import Config, load_config
    from ldm.config.training_sections import EXTRACTED_SUFFIX, ExtractSection
    from ldm.data.insertset import load_insertset
    from ldm.models.base import load_base
    from ldm.objects.convert import halved
    from ldm.objects.delta import Delta, save
    from ldm.objects.few_shot import FewShotLayer
    from ldm.objects.paper_file import is_paper_training, read_with_pictures, trim_training, write_paper_file
    from ldm.training.checkpoints import best_checkpoint, find_checkpoint, read_checkpoint, run_folder
    from ldm.training.run import object_of, prior_encoder_of

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
FLAGS = flags("extract", " ".join(ExtractSection.__dataclass_fields__))


def settings(argv: Sequence[str] | None) -> ExtractSection:
    """Command line => what to extract; without --config, the other settings are those of the run."""
    parser = SettingsParser(__doc__ or "", FLAGS, "", Config)
    args, config = parser.parse_config(argv)
    if not config.extract.path:
        raise ValueError("no run given; give its folder, like --path logs/rocket_bee")
    file = find_checkpoint(Path(config.extract.path))
    if args.config or is_paper_training(file):
        return config.extract
    own = read_checkpoint(file, mmap=True)["object"]["metadata"]["recipe"].get("extract", {})
    return parser.parse_config(argv, {"extract": own} if own else None)[1].extract


def from_paper(file: Path, e: ExtractSection) -> None:
    """A training checkpoint of the paper's code => its file of 146 tensors, or our object file."""
    out = Path(e.out) if e.out else file.with_name(f"{file.stem}_object{EXTRACTED_SUFFIX[e.format]}")
    output(out, [file], EXTRACTED_SUFFIX[e.format])
    if e.format == "ldm":
        trim_training(file, out)
        print(f"{out}: {out.stat().st_size / 2**20:.2f} MB, the 146 tensors of the paper's code")
        return
    if not e.dataset_dir:
        raise ValueError(f"{file} is of the paper's code; give the object's pictures: --dataset-dir FOLDER")
    own: Config = load_config(Path(e.base_config))
    base = load_base(Path(e.base or own.base.path), own.base.architecture, f"the base of {e.base_config}")
    delta = read_with_pictures(file, base, load_insertset(Path(e.dataset_dir)), object_images(own))
    delta = halved(delta, base) if e.dtype == "fp16" else delta
    delta = replace(delta, metadata=replace(delta.metadata, author=e.author, licence=e.licence))
    save(delta, out)
    report(out, delta)


def report(out: Path, delta: Delta, why: str = "") -> None:
    """Print what was written."""
    m = delta.metadata
    print(f"{out}: {out.stat().st_size / 2**20:.2f} MB")
    if why:
        print(f"the best checkpoint of the run, {why}; --which last takes the last one")
    print(f"step {m.step} of {m.freeze_model} on {m.architecture} ({m.base}), ", end="")
    print(f"{len(delta.weights)} tensors, {m.few_shot_count} few-shot tokens ({m.few_shot})")


def warn_of_pictures(layer: FewShotLayer) -> None:
    """Name the pictures to move away: the paper's code makes a token of each picture in the folder."""
    if layer.weights and layer.held_out:
        say(
            f"note: picture {layer.held_out} was held out of training; move data/{layer.held_out}.* and "
            f"bbox/{layer.held_out}.txt out of the folder that the paper's code reads with this file"
        )


def main(argv: Sequence[str] | None = None) -> None:
    e = settings(argv)
    best = best_checkpoint(Path(e.path)) if e.which == "best" else None
    file, why = best or (find_checkpoint(Path(e.path)), "")
    if is_paper_training(file):
        from_paper(file, e)
        return
    folder = run_folder(file)
    out = Path(e.out) if e.out else folder / (folder.resolve().name + EXTRACTED_SUFFIX[e.format])
    output(out, [file], EXTRACTED_SUFFIX[e.format])
    checkpoint = read_checkpoint(file, mmap=True)
    trained: Config = load_config(checkpoint["object"]["metadata"]["recipe"])
    base = load_base(Path(e.base or trained.base.path), trained.base.architecture)

    delta = object_of(checkpoint, base, torch.float32 if e.format == "ldm" else DTYPES[e.dtype])
    delta = replace(delta, metadata=replace(delta.metadata, author=e.author, licence=e.licence))
    if e.format == "ldm":
        layer = prior_encoder_of(checkpoint, base)
        write_paper_file(out, base, delta, layer)
        warn_of_pictures(layer)
    else:
        save(delta, out)
    report(out, delta, why)


if __name__ == "__main__":
    run(main)
