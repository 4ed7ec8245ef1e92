"""Settings => what inserts an object: here the core and the packages beside it are joined."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ldm.batch.results_log import CUT_OUT_NETWORK
from ldm.config.schema import Config
from ldm.data.files import file_digest

if TYPE_CHECKING:
    from ldm.compositing.cut_out import Segmenter
    from ldm.data.object_crops import ObjectImages
    from ldm.insertion.blend import Blend
    from ldm.insertion.inpaint import Sampling
    from ldm.insertion.insert import InsertOptions
    from ldm.insertion.object_source import ObjectSource
    from ldm.insertion.region import MakeFill
    from ldm.insertion.roi import CropContext
    from ldm.insertion.session import Session
    from ldm.models.runtime import Runtime


T = TypeVar("T")
COMPOSITE = "composite"  # base.region_fill of a base that is shown a cut-out of the object


# settings that do not change pixels, or that each work item has itself
NOT_PIXELS = {
    "sample": ("n_samples", "best_of", "seed", "object_scale"),
    "insert": ("outdir", "contact_sheet", "max_seam", "batch_size", "cache_mb"),
}
# others that do not say how a region is inpainted and pasted
NOT_REGION = {"sample": ("compile",), "insert": ("roi_factor", "context_px", "zoom")}


def insert_settings(config: Config) -> dict[str, Any]:
    """How regions are inpainted and pasted, as dotted settings."""
    return {
        f"{section}.{key}": value
        for section, elsewhere in NOT_REGION.items()
        for key, value in asdict(getattr(config, section)).items()
        if key not in (*elsewhere, *NOT_PIXELS[section])
    }


def base_settings(config: Config) -> dict[str, Any]:
    """What determines pixels of how a base is used, beside its weights, as dotted settings."""
    base = asdict(config.base)
    del base["path"]
    return {f"base.{key}": value for key, value in base.items()}


def with_settings(config: Config, changes: Mapping[str, Any]) -> Config:
    """The settings with others, dotted."""
    for dotted, value in changes.items():
        section, _, key = dotted.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{key: value})})
    return config


def from_sections(kind: type[T], *sections: Any, **others: Any) -> T:
    """A dataclass of the core whose fields are read, by their names, from sections of the settings.

    `others` are fields that no section has, or that replace a section's.
    """
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in others:
            section = next((s for s in sections if hasattr(s, f.name)), None)
            assert section is not None, f"no section has {kind.__name__}.{f.name}"
            others[f.name] = getattr(section, f.name)
    return kind(**others)


def takes_one_step(config: Config) -> bool:
    """Whether the base is shown the object in its region and was trained to change that in one step."""
    return config.base.region_fill == COMPOSITE and config.base.architecture.prediction == "change"


def sampling_of(config: Config) -> Sampling:
    """The sampler's options; a base that changes what it is shown takes one step, whatever is set."""
    from ldm.insertion.inpaint import Sampling

    sampling = from_sections(Sampling, config.sample)
    if not takes_one_step(config):
        return sampling
    if sampling.steps > 1:
        warnings.warn(
            f"sample.steps={sampling.steps}: not used, this base changes what it is shown in one step",
            stacklevel=2,
        )
    return replace(sampling, steps=1)


def crop_context_of(config: Config) -> CropContext:
    """How much of the scene a region shows around the mask."""
    from ldm.insertion.roi import CropContext

    return from_sections(CropContext, config.insert, model_side=config.base.architecture.image_size)


def blend_of(config: Config) -> Blend:
    """How an inpainted region is blended into its background."""
    from ldm.insertion.blend import blend_named

    i = config.insert
    return blend_named(i.blend, i.feather, i.reach)


def insert_options(config: Config) -> InsertOptions:
    """How regions are inpainted and pasted."""
    from ldm.insertion.insert import InsertOptions

    s, options = config.sample, InsertOptions(sampling_of(config), blend_of(config))
    if s.second_pass and s.detail_transfer:
        raise ValueError(
            f"second_pass={s.second_pass:g} would replace the detail that detail_transfer="
            f"{s.detail_transfer:g} copies; set one of them to 0"
        )
    if s.second_pass and takes_one_step(config):
        raise ValueError(
            f"second_pass={s.second_pass:g}: this base changes what it is shown in one step; set it to 0"
        )
    if s.deep_cache_interval > 1:
        from ldm.speed.deep_cache import DeepCache

        options = replace(options, predictor=lambda model, _: DeepCache(model, s.deep_cache_interval))
    if s.second_pass:
        from ldm.tiling.second_pass import TiledSecondPass

        options = replace(options, second_pass=TiledSecondPass(s.second_pass))
    return options


def object_images(config: Config) -> ObjectImages:
    """The images of an object that this kind of base needs."""
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.object_cut_outs import CutOutImages

        return CutOutImages(segmenter=_segmenter(config))
    from ldm.data.object_crops import ObjectImages

    return ObjectImages(config.base.architecture.reference_size)


def _segmenter(config: Config) -> Segmenter | None:
    """The base's matting network; None, GrabCut, if that is asked for or, with a warning, there is none."""
    from ldm.compositing.matting import FILE, Matting

    file = _segmenter_file(config)
    if file is None and config.base.segmenter == "matting":
        warnings.warn(
            f"{Path(config.base.path) / FILE}: no such file; objects without a silhouette are cut out by "
            "GrabCut, which fails more often; put the file there, or give base.segmenter=grabcut",
            stacklevel=2,
        )
    return None if file is None else Matting(file)


def _segmenter_file(config: Config) -> Path | None:
    from ldm.compositing.matting import FILE

    file = Path(config.base.path) / FILE
    return file if config.base.segmenter == "matting" and file.is_file() else None


def segmenter_digest(config: Config) -> dict[str, str]:
    """The hash of the network that cuts out objects, if one does: the base's fingerprint leaves it out."""
    file = _segmenter_file(config) if config.base.region_fill == COMPOSITE else None
    return {} if file is None else {CUT_OUT_NETWORK: file_digest(file)}


def needs_composite(*settings: str) -> ValueError:
    """The error for settings that only a base of composites has."""
    return ValueError(
        f"{', '.join(settings)}: needs a base that is shown a cut-out of the object "
        f"(base.region_fill={COMPOSITE}); leave it out"
    )


def make_fill(config: Config, **other: Any) -> MakeFill:
    """What the base is shown in the region to fill; `other` settings of compositing replace the config's."""
    s, i = config.sample, config.insert
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.composite_fill import CompositeSettings, make_composite_fill

        return make_composite_fill(from_sections(CompositeSettings, s, i, **other))
    from ldm.insertion.region import grey_fill

    given = {
        "detail_transfer": s.detail_transfer,
        "keep_scene": i.keep_scene,
    }
    if unknown := [flag for flag, on in given.items() if on]:
        raise needs_composite(*unknown)
    return grey_fill


def inside_the_mask(config: Config) -> str:
    """What becomes of the scene inside the mask, in a line for the user."""
    if config.insert.keep_scene:
        return "inside the mask the scene around the object is kept (keep_scene)"
    if config.base.region_fill == COMPOSITE:
        return "everything inside the mask is replaced; --keep_scene keeps the scene around the object"
    return "everything inside the mask is replaced"


def runtime_of(config: Config, device: str) -> Runtime:
    """How the base runs on a device."""
    from ldm.models.runtime import Runtime
    from ldm.speed.onednn_packing import pack_weights

    precision = usable_precision(config.sample.precision, device, "fp32")
    return Runtime(precision, config.sample.compile, pack_weights)


def session_for(config: Config, base: Any, fingerprint: str = "") -> Session:
    """A session on a loaded base or inpainting model."""
    from ldm.insertion.session import Session
    from ldm.merge.merged_file import open_merged

    return Session(
        base,
        insert_options(config),
        images=object_images(config),
        make_fill=make_fill(config),
        loaders={"merged": open_merged},
        fingerprint=fingerprint,
    )


def open_session(config: Config, sources: Iterable[ObjectSource], device: str) -> Session:
    """Load the parts of the base that these objects need: if all are baked, neither CLIP nor K and V."""
    from ldm.models.base import load_base, load_inpainting_model
    from ldm.models.runtime import prepare

    path, architecture = Path(config.base.path), config.base.architecture
    if all(_is_baked(source) for source in sources):
        model, fingerprint = load_inpainting_model(path, architecture, device=device)
        session = session_for(config, model, fingerprint)
    else:
        session = session_for(config, load_base(path, architecture, device=device))
    prepare(session.base, runtime_of(config, device))  # after the fingerprint, which is of the file's weights
    return session


def _is_baked(source: ObjectSource) -> bool:
    try:
        return source.kind() == "baked"
    except (ValueError, FileNotFoundError):
        return True  # the run skips or refuses it later, without a model


def bf16_works(device: str) -> bool:
    """Whether this kind of device (cpu, cuda ...) computes in bf16; on a CPU without it torch emulates it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    if device != "cpu":
        return True
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


def usable_precision(asked: str, device: str, full: str) -> str:
    """The precision to run in: `asked`; or `full`, with a warning, if the device has no bf16."""
    if not asked.startswith("bf16") or bf16_works(device):
        return asked
    warnings.warn(
        f"precision {asked} runs as {full}: this {device} has no bf16 instructions, and emulating them is "
        "about 100 times slower",
        stacklevel=2,
    )
    return full
