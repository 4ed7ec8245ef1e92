"""The command line of a script: flags made from the settings, and a user's mistake as one line."""

from __future__ import annotations

import argparse
import gc
import sys
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from ldm.config.command_forms import Published, translated, with_defaults
from ldm.config.loader import OTHER_NAMES, ROOT, place, read_settings
from ldm.data.text import suggestion

MISPLACED = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
Presets = Mapping[str, Sequence[str]]  # name => `section.key=value` settings
ShortHelp = Mapping[str, Sequence[str]]  # heading => the flags below it


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2; for an unknown flag the line names the nearest one."""
        options = [option for option in _options(self) if option.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        name = unknown[0].partition("=")[0].removeprefix("--").replace("-", "_") if unknown else ""
        hint = f"; {suggestion(f'--{OTHER_NAMES.get(name, name)}', options)}" if unknown else ""
        print(f"error: {message}{hint}", file=sys.stderr)
        raise SystemExit(2)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that shows one spelling of each flag."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        name = action.option_strings[-1] if action.dest == "help" else action.option_strings[0]
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{name.removeprefix('--')}"
        if action.nargs == "+":
            return f"{name} {action.metavar} ..."
        return name if action.nargs == 0 else f"{name} {self._format_args(action, action.dest.upper())}"


class HelpAll(argparse.Action):
    """`--help-all`: all flags, presets and settings."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        assert isinstance(parser, SettingsParser)
        print(parser.format_all(), end="")
        raise SystemExit(0)


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
        short_help: ShortHelp | None = None,
        more_help: str = "",
    ) -> None:
        """`flags`: a flag's name => the dotted setting that it gives; `config`: the default YAML file.

        `published`: flags of the published code; `gives_way`: see `command_forms`. `short_help`: the flags
        that `--help` shows, by heading, followed by `more_help`; without it `--help` shows all.
        """
        super().__init__(
            usage="%(prog)s [--flag value ...] [section.key=value ...]",
            description=description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.flags, self.schema, self.presets = flags, schema, presets or {}
        self.published, self.gives_way = published or {}, gives_way or {}
        self.short_help, self.more_help = short_help or {}, more_help
        self.add_argument("--help-all", action=HelpAll, nargs=0, help="show all flags, presets and settings")
        self.add_argument(
            "--config", default=place(config, ROOT), metavar="YAML", help=f"settings file [{config}]"
        )
        self.add_argument(
            "settings", nargs="*", metavar="section.key=value", help="settings that win over the file's"
        )
        if presets:
            self.add_argument(
                "--preset", choices=list(presets), metavar="NAME",
                help=f"several settings by one name: {', '.join(presets)}",
            )  # fmt: skip
        for flag, dotted in flags.items():
            self._add(flag, _field(schema, dotted), dotted)

    def _add(self, flag: str, f: Field, dotted: str) -> None:
        names = dict.fromkeys([f"--{flag}", f"--{flag.replace('_', '-')}", f"--{flag.replace('-', '_')}"])
        options: dict[str, Any] = {"dest": dotted, "help": f"{_help(f)} [{dotted}]".replace("%", "%%")}
        if isinstance(f.default, bool):
            self.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        else:
            metavar = {int: "N", float: "X", str: "NAME"}.get(type(f.default), "X,X")
            self.add_argument(*names, metavar="PATH" if f.metadata["path"] else metavar, **options)

    def format_help(self) -> str:
        """The help of `--help`: the flags that most people use, and where the others are."""
        if not self.short_help:
            return self.format_all()
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for heading, names in self.short_help.items():
            formatter.start_section(heading)
            formatter.add_arguments([self._option_string_actions[f"--{name}"] for name in names])
            formatter.end_section()
        sections = ", ".join(name for name, _ in _settings(self.schema))
        formatter.add_text(
            f"{self.more_help}Every setting can be given as section.key=value, like train.max_steps=400.\n"
            f"Sections: {sections}.\n--help-all lists all flags, presets and settings."
        )
        return formatter.format_help()

    def format_all(self) -> str:
        """The help of `--help-all`: all flags, presets and settings."""
        parts = [super().format_help()]
        if self.presets:
            parts.append("presets:\n" + "".join(f"  {k}: {' '.join(v)}\n" for k, v in self.presets.items()))
        for section, known in _settings(self.schema):
            lines = [textwrap.fill(f"{section}.{f.name}={f.default}: {_help(f)}", 110, initial_indent="  ",
                                   subsequent_indent="      ") for f in known]  # fmt: skip
            parts.append("\n".join([f"settings {section}.*:", *lines, ""]))
        return "\n".join(parts)

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


def _settings(schema: type) -> Iterator[tuple[str, list[Field]]]:
    """The sections and their settings."""
    types = get_type_hints(schema)
    for section in fields(schema):
        if is_dataclass(types[section.name]):
            yield section.name, [f for f in fields(types[section.name]) if "help" in f.metadata]


def _help(f: Field) -> str:
    """A setting's help and choices; those that the help names already are not repeated."""
    missing = [choice for choice in f.metadata["choices"] if choice not in f.metadata["help"]]
    return f.metadata["help"] + (f" ({', '.join(f.metadata['choices'])})" if missing else "")


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
