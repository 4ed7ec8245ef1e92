"""What the scripts' command lines share: errors in one line, flags and presets by name, default paths.

Beside a script's own flags `--default-NAME PATH` is understood, from the .sh files: the value of --NAME,
relative to the project, unless the command line gives another.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ldm.config.loader import OTHER_NAMES, ROOT, rooted
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
        """Print one line and exit with 2; for an unknown flag the line names ours, or the nearest one."""
        options = [option for option in _options(self) if option.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        names = [word.partition("=")[0].removeprefix("--").replace("-", "_") for word in unknown]
        published = [f"--{name}: here {PUBLISHED[name]}" for name in names if name in PUBLISHED]
        hint = f"; {'; '.join(published)}" if published else ""
        if unknown and not published:
            hint = f"; {suggestion(f'--{OTHER_NAMES.get(names[0], names[0])}', options)}"
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


def flags(section: str, names: str) -> dict[str, str]:
    """Flags that have the names of their settings."""
    return {name: f"{section}.{name}" for name in names.split()}


# flags of the scripts that learn and insert by a recipe and measure it
RECIPE_FLAGS = (
    {"base": "base.path"}
    | flags("train", "max_steps")
    | flags("sample", "sampler steps guidance_scale detail_transfer")
    | flags("sample", "guidance_from seed")
    | flags("insert", "blend keep_scene")
)

# flags of the scripts that insert
INSERTION_FLAGS = (
    {"base": "base.path"}
    | flags("sample", "sampler steps guidance_scale n_samples best_of seed object_scale reference_view")
    | flags("sample", "detail_transfer guidance_from")
    | flags("sample", "guidance_interval deep_cache_interval precision compile second_pass")
    | flags("insert", "roi_factor context_px zoom blend feather reach keep_scene max_seam")
    | flags("insert", "outdir contact_sheet batch_size cache_mb")
    | {"mask_channel": "mask.channel"}
    | flags("mask", "threshold invert fill_holes grow")
)

DEFAULT = "--default-"

# flags of the published code => ours, which an error then names
PUBLISHED = {
    "plms": "--sampler plms",
    "ddim_steps": "--steps",
    "ddim_eta": "--sampler (no solver adds noise)",
    "fixed_code": "--seed (for every background)",
    "n_iter": "--n_samples",
    "skip_grid": "--no-contact_sheet",
    "scale": "--guidance_scale",
    "delta_ckpt": "--object (train.sh: --resume RUN)",
    "ckpt": "--base (get_deltas.sh: --path RUN)",
    "image_path": "--example_img",
    "mask_path": "--mask",
    "reference_path": "--reference",
    "point_ROI": "--roi",
    "id_dir": "--dataset-dir",
    "list_dir": "--list",
    "gpu_id": "--device cuda:N (train.sh: --accelerator gpu --devices 'N,')",  # Lightning reads N as a count
    "gpus": "--device cuda:N (train.sh: --accelerator gpu --devices 'N,')",
    "H": "not needed (a region has the base's size)",
    "W": "not needed (a region has the base's size)",
}


def with_defaults(words: Sequence[str], gives_way: Mapping[str, Collection[str]]) -> list[str]:
    """`--default-NAME PATH` => `--NAME PATH`, in front; dropped if a flag is given to which it gives way.

    A default gives way to its own flag and to those of `gives_way`, which may also name settings, like
    `insert.outdir`. Its path is relative to the project.
    """
    defaults, own = _taken(words)
    given = set(_named(own))
    kept = {
        name: path for name, path in defaults.items() if given.isdisjoint({name, *gives_way.get(name, ())})
    }
    return [word for name, path in kept.items() for word in (f"--{name}", rooted(path, ROOT))] + own


def _taken(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The defaults by name, and all other words."""
    defaults, own, rest = {}, [], iter(words)
    for word in rest:
        if word.startswith(DEFAULT):
            defaults[word.removeprefix(DEFAULT)] = next(rest, "")
        else:
            own.append(word)
    return defaults, own


def _named(words: Sequence[str]) -> Iterator[str]:
    """The flags and `section.key` settings of a command line, flags with underscores."""
    for word in words:
        name, equals, _ = word.partition("=")
        if word.startswith("--"):
            yield name.removeprefix("--").replace("-", "_")
        elif equals:
            yield name
