"""All settings of the training of a base, as the files configs/pretrain_*.yaml hold them."""

from __future__ import annotations

from dataclasses import dataclass, field

PATH = {"path": True}  # relative to the project as a default, to the user's folder on the command line


@dataclass(frozen=True)
class PackSection:
    """The file with all training pictures."""

    sources: str = field(default="pictures", metadata=PATH)
    file: str = field(default="cache/pack.zip", metadata=PATH)
    short_side: int = 256
    quality: int = 80
    held_out: int = 64  # photos that no stage trains on
    held_out_relit: int = 25  # one of this many relit scenes is held out as well


@dataclass(frozen=True)
class StageSection:
    """One training stage; `lr` is the peak rate, `size` the side of its pictures (0: the architecture's).

    `minutes`: limit of wall time over all resumed runs (0: none); the rate then depends on the time.
    """

    steps: int = 1000
    minutes: float = 0.0
    batch_size: int = 8
    lr: float = 1e-3
    size: int = 0
    reuse: int = 3  # unet: how often an encoded sample is used
    capacity: int = 4096  # unet: encoded samples in the buffer
    frozen_encoder: bool = False  # unet: the image encoder stays as it is, its outputs are buffered
    validated: int = 12  # unet: relit scenes, and holes in photos, of a validation; matting: its batch
    start_from: str = field(default="", metadata=PATH)  # matting: weights to go on from
    ema: float = 0.998
    workers: int = 1
    checkpoint_every: int = 200


@dataclass(frozen=True)
class PretrainConfig:
    """All settings; `sizes`: the config whose architecture is trained; `export`: where the base is written.

    `start_from`: config of a finished base; docs/pretraining.md says what each stage takes over from it.
    """

    sizes: str = field(default="configs/mini.yaml", metadata=PATH)
    logdir: str = field(default="logs/pretrain_mini", metadata=PATH)
    export: str = field(default="checkpoints/mini", metadata=PATH)
    start_from: str = field(default="configs/mini.yaml", metadata=PATH)
    precision: str = "bf16-mixed"
    seed: int = 0
    pack: PackSection = field(default_factory=PackSection)
    vae: StageSection = field(default_factory=StageSection)
    unet: StageSection = field(default_factory=StageSection)
    matting: StageSection = field(default_factory=StageSection)
