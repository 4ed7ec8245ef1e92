"""The command line of a script: flags made from the settings, and a user's mistake as one line."""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from ldm.config.command_forms import Published, translated, with_defaults
from ldm.config.loader import ROOT, place, read_settings
from ldm.data.text import suggestion

MISPLACED = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
Presets = Mapping[str, Sequence[str]]  # name => `section.key=value` settings


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One line and exit code 2; an unknown flag gets the nearest one."""
        options = [option for option in _options(self) if option.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        hint = f"; {suggestion(unknown[0].split('=')[0], options)}" if unknown else ""
        print(f"error: {message}{hint}", file=sys.stderr)
        raise SystemExit(2)


class SettingsParser(OneLineParser):
    """Flags made from the settings; both `--dataset-dir` and `--dataset_dir` are understood."""

    def __init__(
        self,
        description: str,
        flags: Mapping[str, str],
        config: str,
        schema: type,
        presets: Presets | None = None,
        published: Published | None = None,
        gives_way: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """`flags`: a flag's name => the dotted setting that it gives; `config`: the default YAML file.

        `published`: flags of the published code; `gives_way`: see `command_forms`.
        """
        super().__init__(
            description=description,
            epilog="Any setting can also be given as section.key=value, anywhere. Sections: "
            + _sections(schema),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.flags, self.schema, self.presets = flags, schema, presets or {}
        self.published, self.gives_way = published or {}, gives_way or {}
        self.add_argument(
            "--config", default=place(config, ROOT), metavar="YAML", help=f"settings file (default: {config})"
        )
        self.add_argument(
            "settings", nargs="*", metavar="section.key=value", help="settings that win over the file's"
        )
        if presets:
            said = "; ".join(f"{name}: {' '.join(settings)}" for name, settings in presets.items())
            self.add_argument(
                "--preset", choices=list(presets), help=f"settings that win over the file's only ({said})"
            )
        for flag, dotted in flags.items():
            self._add(flag, _field(schema, dotted), dotted)

    def _add(self, flag: str, f: Field, dotted: str) -> None:
        names = dict.fromkeys([f"--{flag}", f"--{flag.replace('_', '-')}", f"--{flag.replace('-', '_')}"])
        choices = f.metadata["choices"]
        text = f"{f.metadata['help']}{' (' + ', '.join(choices) + ')' if choices else ''} [{dotted}]"
        options: dict[str, Any] = {"dest": dotted, "help": text.replace("%", "%%")}
        if isinstance(f.default, bool):
            self.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        else:
            self.add_argument(*names, metavar=f.name.upper(), **options)

    def _is_setting(self, word: str) -> bool:
        """Whether it is `section.key=value`: a flag that takes several values would keep one behind them."""
        section, _, rest = word.partition(".")
        return "=" in rest and section in get_type_hints(self.schema)

    def parse_config(
        self, argv: Sequence[str] | None = None, saved: Mapping[str, Any] | None = None
    ) -> tuple[argparse.Namespace, Any]:
        """Command line => its own arguments and the resolved settings; `saved` ones replace the file's."""
        words = translated(sys.argv[1:] if argv is None else argv, self.published)
        words = with_defaults(words, self.gives_way)
        args = self.parse_intermixed_args([word for word in words if not self._is_setting(word)])
        settings = [word for word in words if self._is_setting(word)]
        given = [
            f"{dotted}={getattr(args, dotted)}"
            for dotted in self.flags.values()
            if getattr(args, dotted) is not None
        ]
        preset = self.presets[args.preset] if self.presets and args.preset else ()
        path = Path(args.config) if args.config else None
        return args, read_settings(saved or path, [*preset, *settings, *args.settings, *given], self.schema)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags of a parser and of its commands."""
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)


def _field(schema: type, dotted: str) -> Field:
    section, _, key = dotted.partition(".")
    return {f.name: f for f in fields(get_type_hints(schema)[section])}[key]


def _sections(schema: type) -> str:
    types = get_type_hints(schema)
    return "; ".join(
        f"{f.name} ({', '.join(g.name for g in fields(types[f.name]))})"
        for f in fields(schema)
        if is_dataclass(types[f.name])
    )


def say(line: str) -> None:
    """One line on stderr: what a user should know, and what results are not."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name before a message that does not have it."""
    try:
        yield
    except ValueError as error:
        raise error if str(file) in str(error) else ValueError(f"{file}: {error}") from error


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Show each warning as one line on stderr, once, without the line of code that gave it."""
    said = set()

    def show(message: Any, *_: Any, **__: Any) -> None:
        line = f"warning: {' '.join(str(message).split())}"
        if line not in said:
            say(line)
        said.add(line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """For heavy imports: what they make stays, so no garbage is looked for in it, now or ever.

    That would be a quarter of the imports' time, and as much again when the process ends.
    """
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if len(sys.modules) > known:
            gc.freeze()


def run(main: Callable[[], None]) -> None:
    """Run a script: a user's mistake becomes one line on stderr and exit code 2, an interruption 130."""
    try:
        main()
    except (ValueError, ModuleNotFoundError, *MISPLACED) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


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
