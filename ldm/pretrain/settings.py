"""All settings of the training of a base, as the files configs/pretrain_*.yaml hold them."""

from __future__ import annotations

from dataclasses import dataclass, field

PATH = {"path": True}  # relative to the project as a default, to the user's folder on the command line
COMPOSITE, INSERTION = "composite", "insertion"


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
    """One training stage; `lr` is the peak rate.

    `minutes`: limit of wall time, over all resumed runs; the rate then depends on the time, and `steps` is
    only an upper limit. 0: no limit.
    `size`: the side of its pictures, 0 for the architecture's. A VAE with attention in its middle loses about
    3 dB at another size than it was trained at.
    """

    steps: int = 1000
    minutes: float = 0.0
    batch_size: int = 8
    lr: float = 1e-3
    size: int = 0
    perceptual: float = 0.15  # vae: weight of the perceptual distance
    anchored: float = 0.5  # vae: share of the training in which latents are held to mean colours
    reuse: int = 3  # unet: how often an encoded sample is used
    capacity: int = 4096  # unet: encoded samples in the buffer
    frozen_encoder: bool = False  # unet: the image encoder stays as it is, its outputs are buffered
    lr_own: float = 3e-3  # unet: of the tokens that every object of the pack learns
    ema: float = 0.998
    compile: bool = False
    workers: int = 1
    checkpoint_every: int = 200
    preview_every: int = 400


@dataclass(frozen=True)
class PretrainConfig:
    """All settings; `sizes`: the config whose architecture is trained; `export`: where the base is written.

    `init`: a finished base (checkpoints/mini) that the vae and the unet stage start from. A UNet fits
    only the VAE that it was trained on: after more training of the VAE, train the UNet again.
    `inner_from`: config of a finished base with another autoencoder. The unet stage starts from its
    conditioner and its inner UNet layers, and the encoder stage is skipped.
    `samples`: what the unet stage trains on, `composite` (`ldm.pretrain.composer`) or `insertion`: relit
    scenes, recoloured objects, holes (`ldm.pretrain.insertion_samples`).
    """

    sizes: str = field(default="configs/mini.yaml", metadata=PATH)
    logdir: str = field(default="logs/pretrain_mini", metadata=PATH)
    export: str = field(default="checkpoints/mini", metadata=PATH)
    init: str = field(default="", metadata=PATH)
    inner_from: str = field(default="", metadata=PATH)
    samples: str = field(default=COMPOSITE, metadata={"choices": (COMPOSITE, INSERTION)})
    precision: str = "bf16-mixed"
    seed: int = 0
    pack: PackSection = field(default_factory=PackSection)
    vae: StageSection = field(default_factory=StageSection)
    encoder: StageSection = field(default_factory=StageSection)
    unet: StageSection = field(default_factory=StageSection)
    matting: StageSection = field(default_factory=StageSection)
