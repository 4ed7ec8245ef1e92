"""The command line of a script that has settings: flags made from them, short and long help."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, NoReturn, get_type_hints

from ldm.config.cli import OneLineParser, Presets, ShortHelp, with_defaults
from ldm.config.loader import ROOT, rooted
from ldm.config.schema import Config, load_config
from ldm.data.files import path_of


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
        parser.short_help = {}
        parser.print_help()
        parser.exit()


class SettingsParser(OneLineParser):
    """Flags made from the settings; both `--dataset-dir` and `--dataset_dir` are understood."""

    def __init__(
        self,
        description: str,
        flags: Mapping[str, str],
        config: str,
        schema: type = Config,
        presets: Presets | None = None,
        gives_way: Mapping[str, Collection[str]] | None = None,
        short_help: ShortHelp | None = None,
        more_help: str = "",
    ) -> None:
        """`flags`: a flag's name => the dotted setting that it gives; `config`: the default YAML file.

        `gives_way`: see `with_defaults`. `short_help`: the flags that `--help` shows, by heading, followed by
        `more_help`; without it `--help` shows all.
        """
        super().__init__(
            usage="%(prog)s [--flag value ...] [section.key=value ...]",
            description=description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.flags, self.schema, self.presets = flags, schema, presets or {}
        self.gives_way, self.short_help, self.more_help = gives_way or {}, short_help or {}, more_help
        self.add_argument("--help-all", action=HelpAll, nargs=0, help="show all flags, presets and settings")
        self.add_argument("--config", default=rooted(config, ROOT), metavar="YAML",
                          help=f"settings file [{config or 'the settings of the run'}]")  # fmt: skip
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
            metavar = {int: "N", float: "X", str: "NAME"}.get(type(f.default), "LOW,HIGH")
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
            f"{self.more_help}[In brackets]: the flag's setting, or its default.\n"
            "Every setting can be given as section.key=value, like train.max_steps=400.\n"
            f"Sections: {sections}.\n--help-all lists all flags, presets and settings."
        )
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def format_all(self) -> str:
        """The help of `--help-all`: all flags, presets and settings."""
        parts = [super().format_help()]
        if self.presets:
            parts.append("presets:\n" + "".join(f"  {k}: {' '.join(v)}\n" for k, v in self.presets.items()))
        for section, known in _settings(self.schema):
            lines = [textwrap.fill(f"{section}.{f.name}={_default(f)}: {_help(f)}", 110, initial_indent="  ",
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
        own = {flag: (dotted, *self.gives_way.get(flag, ())) for flag, dotted in self.flags.items()}
        words = with_defaults(sys.argv[1:] if argv is None else argv, {**self.gives_way, **own})
        args = self.parse_intermixed_args([word for word in words if not self._is_setting(word)])
        settings = [word for word in words if self._is_setting(word)]
        given = [
            f"{dotted}={getattr(args, dotted)}"
            for dotted in self.flags.values()
            if getattr(args, dotted) is not None
        ]
        preset = self.presets[args.preset] if self.presets and args.preset else ()
        path = path_of(args.config) if args.config else None
        return args, load_config(saved or path, [*preset, *settings, *args.settings, *given], self.schema)


def _field(schema: type, dotted: str) -> Field:
    section, _, key = dotted.partition(".")
    return {f.name: f for f in fields(get_type_hints(schema)[section])}[key]


def _settings(schema: type) -> Iterator[tuple[str, list[Field]]]:
    """The sections and their settings."""
    types = get_type_hints(schema)
    for section in fields(schema):
        if is_dataclass(types[section.name]):
            yield section.name, [f for f in fields(types[section.name]) if "help" in f.metadata]


def _default(f: Field) -> str:
    """A setting's default as it is written on the command line."""
    return ",".join(f"{value:g}" for value in f.default) if isinstance(f.default, tuple) else str(f.default)


def _help(f: Field) -> str:
    """A setting's help and choices; those that the help names already are not repeated."""
    missing = [choice for choice in f.metadata["choices"] if choice not in f.metadata["help"]]
    return f.metadata["help"] + (f" ({', '.join(f.metadata['choices'])})" if missing else "")
