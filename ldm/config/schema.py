"""All settings, as frozen dataclasses with defaults and help texts: dataclass = YAML = command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ldm.config.loader import read_settings, setting
from ldm.config.training_sections import DataSection, ExtractSection, TrainSection
from ldm.models.architecture import LEGACY_DEFAULTS, Architecture


@dataclass(frozen=True)
class BaseSection:
    """The base model."""

    path: str = setting("checkpoints/mini", "base: a model.ckpt or a folder of safetensors", path=True)
    architecture: Architecture = field(default_factory=Architecture)
    region_fill: str = setting(
        "grey",
        "what the UNet sees in the region to fill: grey, as in Paint-by-Example; or composite: the scene "
        "with the object's cut-out pasted into it, for a base that was trained this way",
        ["grey", "composite"],
    )
    segmenter: str = setting(
        "matting",
        "how the composite cuts out an object without a silhouette: matting, the network "
        "matting.safetensors in the base's folder, or GrabCut if there is none; or grabcut",
        ["matting", "grabcut"],
    )


@dataclass(frozen=True)
class SampleSection:
    """Sampling."""

    sampler: str = setting("plms", "sampler", ["plms", "ddim", "dpm++", "unipc"])
    steps: int = setting(50, "sampling steps (the included base: always 1)", least=1)
    guidance_scale: float = setting(5.0, "classifier-free guidance scale; 1: no guidance", least=0)
    n_samples: int = setting(1, "results for each background, made in one batch", least=1)
    best_of: int = setting(1, "make so many results, keep the one with the best identity and seam", least=1)
    seed: int = setting(321, "seed of the noise; result i uses seed + i", least=0, most=2**63 - 1)
    object_scale: float = setting(1.0, "factor of the object's learnt weight change, as a LoRA scale")
    detail_transfer: float = setting(
        0.0,
        "copy detail finer than this from the reference and the scene, in pixels of a 512-px region, so that "
        "the model changes light and colour only (needs base.region_fill=composite); 0: off",
        least=0,
    )
    guidance_from: str = setting(
        "object",
        "weights of the unconditional prediction in guidance: with the object's change, as in the paper, or "
        "the base's own, which with base.region_fill=composite also draws what is around the object "
        "(object, base)",
        ["object", "base"],
    )
    reference_view: int = setting(
        0,
        "few-shot image, counted from 1, whose token alone is used, to choose the pose; 0: all tokens; -1: "
        "the image most like the reference, if the object file holds the images, else 0",
        least=-1,
    )
    guidance_interval: tuple[float, ...] = setting(
        (0.0, 1.0),
        "LOW,HIGH: noise levels, 0 to 1, that are guided; elsewhere the scale is 1, at half the cost",
        least=0,
        most=1,
    )
    deep_cache_interval: int = setting(
        1,
        "DeepCache interval: one of so many steps runs the whole UNet, the others its outer layers; 1: off",
        least=1,
    )
    precision: str = setting("fp32", "precision of the UNet; the rest is fp32", ["fp32", "bf16", "fp16"])
    compile: bool = setting(False, "run the UNet through torch.compile; worth it for many images")
    second_pass: float = setting(
        0.0,
        "denoising strength of a tiled second pass over regions larger than the model's; 0: none",
        least=0,
        most=1,
    )


@dataclass(frozen=True)
class InsertSection:
    """Placing."""

    roi_factor: float = setting(2.0, "side of the square region, as a multiple of the mask's longer side")
    context_px: int = setting(-1, "pixels of context around the mask, not roi_factor; -1: off", least=-1)
    zoom: float = setting(
        1.0, "largest enlargement of a small region; 1: a region is never smaller than the model's image"
    )
    blend: str = setting(
        "membrane",
        "how the seam is blended: paste, not at all; membrane; paper, as in the paper's code",
        ["paste", "membrane", "paper"],
    )
    feather: float = setting(
        -1.0,
        "width of the soft edge inside the mask, in pixels of a 512-px region; -1: the default of `blend`",
        least=-1,
    )
    reach: float = setting(
        -1.0,
        "how far inside the mask the colour offset at its edge is corrected, in pixels of a 512-px region; "
        "1000: everywhere; -1: the default of `blend`",
        least=-1,
    )
    keep_scene: bool = setting(
        False,
        "keep the scene inside the mask around the object, for masks that cover only background (needs "
        "base.region_fill=composite); without it everything inside the mask is generated",
    )
    max_seam: float = setting(0.0, "largest accepted seam ratio, else the exit code is 1; 0: any", least=0)
    outdir: str = setting("outputs", "folder of the results", path=True)
    contact_sheet: bool = setting(True, "write a contact sheet of the first results")
    batch_size: int = setting(8, "largest number of results in one batch", least=1)
    cache_mb: int = setting(1024, "MB of <outdir>/placements, the cache of a scene's placements", least=0)


@dataclass(frozen=True)
class MaskSection:
    """How masks are read: the settings are applied in this order."""

    channel: str = setting(
        "auto",
        "channel of a mask image that is read; background: the background's transparent part is the mask",
        ["auto", "luma", "alpha", "background"],
    )
    threshold: float = setting(
        0.5, "level, from black 0 to white 1, above which a pixel is masked", least=0, most=1
    )
    invert: bool = setting(False, "the mask is white where the background stays")
    fill_holes: bool = setting(False, "fill the holes that the mask encloses")
    grow: float = setting(0.0, "pixels to dilate the mask by; negative: erode")


# settings of earlier versions, which what they stored may still have
DROPPED = (
    "train.mask_growth",
    "sample.strength",
    "sample.init_noise_sigma",
    "sample.show_scene",
    "sample.contact_shadow",
)
COLLAGE = "collage"  # in an architecture of earlier versions: base.region_fill=composite


# training settings that `learning_settings` leaves out
NOT_LEARNING = (
    "name", "logdir", "resume", "freeze_model", "checkpoint_every", "keep_checkpoints", "preview_every",
    "validate_every", "hold_out", "patience",
)  # fmt: skip

# settings of data and train that a resumed run takes: place of its pictures, length, saving, memory, device
RESUMED = (
    "root", "workers", "resume", "max_steps", "batch_size", "accumulate_grad_batches", "cached_samples",
    "precision", "gradient_checkpointing", "devices", "accelerator", "checkpoint_every", "keep_checkpoints",
    "preview_every", "validate_every", "patience",
)  # fmt: skip
SAME_BASE = ("architecture", "region_fill", "segmenter")  # of base; its path may change


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
    """`read_settings`, whose `source` may also be settings that a run or a result of any version stored."""
    if isinstance(source, Mapping):
        source = migrated(source)
    return read_settings(source, overrides, schema)


def migrated(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Settings stored by a run or a result of any version => those of this version."""
    return {section: _migrated_section(section, values) for section, values in kept.items()}


def _migrated_section(section: str, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    kept = {key: value for key, value in values.items() if f"{section}.{key}" not in DROPPED}
    if section == "train" and (gamma := kept.pop("min_snr_gamma", None)) is not None:
        kept.setdefault("loss", "v" if gamma else "eps")
    if section == "base" and isinstance(kept.get("architecture"), Mapping):
        architecture = LEGACY_DEFAULTS | dict(kept["architecture"])
        if (composite := architecture.pop(COLLAGE, None)) is not None:
            kept.setdefault("region_fill", "composite" if composite else "grey")
        kept["architecture"] = architecture
    return kept


def check_resumed(own: Config, given: Config) -> None:
    """ValueError if a setting is given that a resumed run, whose own settings these are, does not take."""
    for section in ("base", "data", "train"):
        before, now = asdict(getattr(own, section)), asdict(getattr(given, section))
        names = SAME_BASE if section == "base" else [name for name in now if name not in RESUMED]
        for name in names:
            if now[name] != before[name] and (name, now[name]) != ("hold_out", "auto"):
                kept = f", {before[name]}" if before[name] != "" else ""
                raise ValueError(
                    f"{section}.{name}={now[name]}: a resumed run keeps its own{kept}; "
                    "leave it out, or start a new run"
                )


def learning_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what is learnt, except the freeze mode, by name."""
    training = {key: value for key, value in asdict(config.train).items() if key not in NOT_LEARNING}
    return training | {key: value for key, value in asdict(config.data).items() if key != "root"}
