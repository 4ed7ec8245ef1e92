"""What the scripts share: a user's mistake as one line, warnings as lines, flags and presets by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ldm.config.loader import OTHER_NAMES
from ldm.config.process import EXIT_CODES, MISTAKE, say
from ldm.data.text import suggestion

Presets = Mapping[str, Sequence[str]]  # name => `section.key=value` settings
ShortHelp = Mapping[str, Sequence[str]]  # heading => the flags below it


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit code 2; its help ends with the exit codes."""

    def __init__(self, **options: Any) -> None:
        raw: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": EXIT_CODES}
        super().__init__(**(raw | options))

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2; for an unknown flag the line names the nearest one."""
        options = [option for option in _options(self) if option.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        name = unknown[0].partition("=")[0].removeprefix("--").replace("-", "_") if unknown else ""
        hint = f"; {suggestion(f'--{OTHER_NAMES.get(name, name)}', options)}" if unknown else ""
        say(f"error: {message}{hint}")
        raise SystemExit(MISTAKE)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags of a parser and of its commands."""
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name before a message that does not have it."""
    try:
        yield
    except ValueError as error:
        raise error if str(file) in str(error) else ValueError(f"{file}: {error}") from error


TRAINING_HELP: ShortHelp = {
    "what is learnt": ("dataset-dir", "name", "resume"),
    "how long": ("max_steps", "batch_size"),
    "which weights, how fast": ("freeze_model", "few_shot", "lr"),
    "memory and speed": ("preset", "precision"),
    "settings of a whole run": ("config", "base", "logdir"),
}
LEAN = ("train.precision=bf16-mixed", "train.cached_samples=384")
TRAINING: Presets = {  # steps of the same 8 samples, by the GPU's memory at Paint-by-Example's size
    "8gb": (
        "train.batch_size=1",
        "train.accumulate_grad_batches=8",
        "train.gradient_checkpointing=true",
        *LEAN,
    ),
    "12gb": ("train.batch_size=2", "train.accumulate_grad_batches=4", *LEAN),
    "24gb": ("train.batch_size=8", "train.accumulate_grad_batches=1", *LEAN),
}
INFERENCE: Presets = {
    # no approximation: the paper's solver and steps in fp32
    "exact": (
        "sample.sampler=plms",
        "sample.steps=50",
        "sample.guidance_interval=0,1",
        "sample.deep_cache_interval=1",
        "sample.precision=fp32",
    ),
    # every approximation
    "fast": (
        "sample.sampler=unipc",
        "sample.steps=12",
        "sample.guidance_interval=0.1,1",
        "sample.deep_cache_interval=2",
        "sample.precision=bf16",
    ),
}

# flags of the scripts that learn and insert by a recipe and measure it
RECIPE_FLAGS = {
    "base": "base.path",
    "max_steps": "train.max_steps",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "guidance_scale": "sample.guidance_scale",
    "init_noise_sigma": "sample.init_noise_sigma",
    "strength": "sample.strength",
    "contact_shadow": "sample.contact_shadow",
    "detail_transfer": "sample.detail_transfer",
    "guidance_from": "sample.guidance_from",
    "seed": "sample.seed",
    "blend": "insert.blend",
    "keep_scene": "insert.keep_scene",
    "paste_margin": "insert.paste_margin",
}

# flags of the scripts that insert
INSERTION_FLAGS = {
    "base": "base.path",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "guidance_scale": "sample.guidance_scale",
    "n_samples": "sample.n_samples",
    "best_of": "sample.best_of",
    "seed": "sample.seed",
    "object_scale": "sample.object_scale",
    "reference_view": "sample.reference_view",
    "init_noise_sigma": "sample.init_noise_sigma",
    "strength": "sample.strength",
    "contact_shadow": "sample.contact_shadow",
    "detail_transfer": "sample.detail_transfer",
    "guidance_from": "sample.guidance_from",
    "guidance_interval": "sample.guidance_interval",
    "deep_cache_interval": "sample.deep_cache_interval",
    "precision": "sample.precision",
    "compile": "sample.compile",
    "second_pass": "sample.second_pass",
    "roi_factor": "insert.roi_factor",
    "context_px": "insert.context_px",
    "zoom": "insert.zoom",
    "blend": "insert.blend",
    "feather": "insert.feather",
    "reach": "insert.reach",
    "keep_scene": "insert.keep_scene",
    "paste_margin": "insert.paste_margin",
    "max_seam": "insert.max_seam",
    "outdir": "insert.outdir",
    "contact_sheet": "insert.contact_sheet",
    "batch_size": "insert.batch_size",
    "cache_mb": "insert.cache_mb",
    "mask_channel": "mask.channel",
    "threshold": "mask.threshold",
    "invert": "mask.invert",
    "fill_holes": "mask.fill_holes",
    "grow": "mask.grow",
}
