"""All settings of learning, extracting and inserting: dataclasses <= YAML <= flags and `section.key=value`.

Every setting is documented in its section; `--help` and errors are made from that.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ldm.config.command_forms import Published
from ldm.config.command_line import Presets, SettingsParser
from ldm.config.sections import (
    BaseSection,
    DataSection,
    ExtractSection,
    InsertSection,
    MaskSection,
    SampleSection,
    TrainSection,
)
from ldm.config.settings import read_settings
from ldm.models.architecture import EARLIER

DROPPED = ("train.mask_growth",)  # settings of earlier versions, which kept recipes may still have
# of the training settings, what another run of the same object may differ in
INCIDENTAL = (
    "name", "logdir", "resume", "freeze_model", "checkpoint_every", "keep", "preview_every", "judge_every",
    "hold_out", "patience",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """All settings of learning, extracting and inserting."""

    base: BaseSection = field(default_factory=BaseSection)
    data: DataSection = field(default_factory=DataSection)
    train: TrainSection = field(default_factory=TrainSection)
    sample: SampleSection = field(default_factory=SampleSection)
    insert: InsertSection = field(default_factory=InsertSection)
    mask: MaskSection = field(default_factory=MaskSection)
    extract: ExtractSection = field(default_factory=ExtractSection)


def load_config(
    source: Path | Mapping[str, Any] | None, overrides: Sequence[str] = (), schema: type = Config
) -> Any:
    """A YAML file (None: defaults) and `section.key=value` overrides => the schema, a frozen dataclass.

    `source` may also be the settings themselves, nested, as a run keeps them.
    Raises FileNotFoundError, or ValueError naming the key or value and what was expected.
    """
    if isinstance(source, Mapping):
        source = present(source)
    return read_settings(source, overrides, schema)


def present(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a run or a result of any version keeps, as this version has them."""
    return {section: _present(section, values) for section, values in kept.items()}


def _present(section: str, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    kept = {key: value for key, value in values.items() if f"{section}.{key}" not in DROPPED}
    if section == "base" and isinstance(kept.get("architecture"), Mapping):
        kept["architecture"] = EARLIER | dict(kept["architecture"])
    return kept


def how_to_learn(config: Config) -> dict[str, Any]:
    """The settings that decide what is learnt, but for the freeze mode, as keywords of `learn_object`."""
    training = {key: value for key, value in asdict(config.train).items() if key not in INCIDENTAL}
    return training | {key: value for key, value in asdict(config.data).items() if key != "root"}


class Parser(SettingsParser):
    """Flags made from `Config`, or from another schema."""

    def __init__(
        self,
        description: str,
        flags: Mapping[str, str],
        config: str,
        schema: type = Config,
        presets: Presets | None = None,
        published: Published | None = None,
        gives_way: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        super().__init__(description, flags, config, schema, presets, published, gives_way)

    def parse_config(
        self, argv: Sequence[str] | None = None, saved: Mapping[str, Any] | None = None
    ) -> tuple[Namespace, Any]:
        """Command line => its own arguments and the resolved settings; `saved`: see `present`."""
        return super().parse_config(argv, None if saved is None else present(saved))
