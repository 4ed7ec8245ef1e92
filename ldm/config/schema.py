"""All settings of learning, extracting and inserting: dataclasses <= YAML <= flags and `section.key=value`.

Every setting is documented in its section; `--help` and errors are made from that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ldm.config.command_forms import Published
from ldm.config.command_line import Presets, SettingsParser
from ldm.config.sections import (
    BaseSection,
    DataSection,
    InsertSection,
    MaskSection,
    SampleSection,
    TrainSection,
)
from ldm.config.settings import read_settings

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


def load_config(
    source: Path | Mapping[str, Any] | None, overrides: Sequence[str] = (), schema: type = Config
) -> Any:
    """A YAML file (None: defaults) and `section.key=value` overrides => the schema, a frozen dataclass.

    `source` may also be the settings themselves, nested, as a run keeps them.
    Raises FileNotFoundError, or ValueError naming the key or value and what was expected.
    """
    if isinstance(source, Mapping):
        source = {section: _present(section, values) for section, values in source.items()}
    return read_settings(source, overrides, schema)


def _present(section: str, values: Any) -> Any:
    """A section of kept settings without those that are no more: old runs and results are still read."""
    if not isinstance(values, Mapping):
        return values
    return {key: value for key, value in values.items() if f"{section}.{key}" not in DROPPED}


def how_to_learn(config: Config) -> dict[str, Any]:
    """The settings that decide what is learnt, but for the freeze mode, as keywords of `learn_object`."""
    training = {key: value for key, value in asdict(config.train).items() if key not in INCIDENTAL}
    return training | {"augment": config.data.augment, "workers": config.data.workers}


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
