"""All settings of learning, extracting and inserting: dataclasses <= YAML <= flags and `section.key=value`.

Every setting is documented in its section; `--help` and errors are made from that.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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

DROPPED = ("train.mask_growth",)  # settings of earlier versions, which kept recipes may still have
COLLAGE = "collage"  # in an architecture of earlier versions: base.region_fill is composite
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
        source = kept_settings(source)
    return read_settings(source, overrides, schema)


def kept_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that came with a run or a result, also from earlier versions, as this one has them."""
    return {section: _present(section, values) for section, values in settings.items()}


def _present(section: str, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    values = {key: value for key, value in values.items() if f"{section}.{key}" not in DROPPED}
    architecture = values.get("architecture")
    if section == "base" and isinstance(architecture, Mapping) and COLLAGE in architecture:
        values["architecture"] = {key: value for key, value in architecture.items() if key != COLLAGE}
        values.setdefault("region_fill", "composite" if architecture[COLLAGE] else "grey")
    return values


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
    ) -> None:
        super().__init__(description, flags, config, schema, presets)

    def parse_config(
        self, argv: Sequence[str] | None = None, saved: Mapping[str, Any] | None = None
    ) -> tuple[argparse.Namespace, Any]:
        """As of any settings; `saved` may be from earlier versions."""
        return super().parse_config(argv, kept_settings(saved) if saved else None)
