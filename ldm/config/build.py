"""Settings => objects: the one place that puts the core and the packages beside it together."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ldm.config.schema import Config

if TYPE_CHECKING:
    from ldm.data.insertset import InsertSet, Sample
    from ldm.data.object_crops import ObjectImages
    from ldm.evaluation.judges import Judges
    from ldm.insertion.blend import Blend
    from ldm.insertion.crop_plan import CropContext
    from ldm.insertion.inpaint import Sampling
    from ldm.insertion.insert import InsertOptions
    from ldm.insertion.object_source import ObjectSource
    from ldm.insertion.region_fill import MakeFill
    from ldm.insertion.session import Session
    from ldm.models.base import Base
    from ldm.models.runtime import Runtime
    from ldm.training.checkpoints import Checkpoints
    from ldm.training.encoded_samples import Shown
    from ldm.training.finetune import FineTune
    from ldm.validation.callback import Validation, ValidationPlan
    from ldm.validation.regions import RegionFiller


T = TypeVar("T")
COMPOSITE = "composite"  # base.region_fill of a base that is shown a cut-out of the object


# settings of these sections that do not say how a region is inpainted and pasted
ELSEWHERE = {
    "sample": ("n_samples", "best_of", "seed", "object_scale", "compile"),
    "insert": (
        *("roi_factor", "context_px", "zoom"),
        *("max_seam", "outdir", "contact_sheet", "batch_size", "cache_mb"),
    ),
}


def insert_settings(config: Config) -> dict[str, Any]:
    """How regions are inpainted and pasted, as dotted settings."""
    return {
        f"{section}.{key}": value
        for section, elsewhere in ELSEWHERE.items()
        for key, value in asdict(getattr(config, section)).items()
        if key not in elsewhere
    }


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
            others[f.name] = getattr(next(s for s in sections if hasattr(s, f.name)), f.name)
    return kind(**others)


def sampling_of(config: Config) -> Sampling:
    """The sampler's options."""
    from ldm.insertion.inpaint import Sampling

    return from_sections(Sampling, config.sample)


def crop_context_of(config: Config) -> CropContext:
    """How much of the scene a region shows around the mask."""
    from ldm.insertion.crop_plan import CropContext

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
    if s.deep_cache_interval > 1:
        from ldm.speed.deep_cache import DeepCache

        options = replace(options, predictor=partial(DeepCache, every=s.deep_cache_interval))
    if s.second_pass:
        from ldm.tiling.second_pass import TiledSecondPass

        options = replace(options, second_pass=TiledSecondPass(s.second_pass))
    return options


def object_images(config: Config) -> ObjectImages:
    """The images of an object that this kind of base needs."""
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.cut_out_images import CutOutImages

        return CutOutImages()
    from ldm.data.object_crops import ObjectImages

    return ObjectImages(config.base.architecture.reference_size)


def make_fill(config: Config, **other: Any) -> MakeFill:
    """What the base is shown in the region to fill; `other` settings of compositing replace the config's."""
    s, i = config.sample, config.insert
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.region_fill import CompositeSettings, make_composite_fill

        return make_composite_fill(from_sections(CompositeSettings, s, i, **other))
    from ldm.insertion.region_fill import grey_fill

    given = {
        "strength": s.strength < 1,
        "contact_shadow": s.contact_shadow,
        "detail_transfer": s.detail_transfer,
        "paste_margin": i.paste_margin,
    }
    if unknown := [flag for flag, on in given.items() if on]:
        raise ValueError(
            f"{', '.join(unknown)}: needs a base that is shown a cut-out of the object "
            f"(base.region_fill={COMPOSITE}); leave it out"
        )
    return grey_fill


def shown_in_training(config: Config) -> Shown:
    """What the holes of training samples show."""
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.region_fill import shown_in_training as composites

        return composites
    from ldm.training.encoded_samples import grey

    return grey


def runtime_of(config: Config) -> Runtime:
    """How the base runs on its machine."""
    from ldm.models.runtime import Runtime
    from ldm.speed.onednn_packing import pack_weights

    return Runtime(config.sample.precision, config.sample.compile, pack_weights)


def session_for(config: Config, base: Any, fingerprint: str = "", features: str = "raw") -> Session:
    """A session on a loaded base or inpainting model."""
    from ldm.insertion.session import Session
    from ldm.merge.merged_file import open_merged

    return Session(
        base,
        insert_options(config),
        images=object_images(config),
        make_fill=make_fill(config),
        openers={"merged": open_merged},
        features=features,
        fingerprint=fingerprint,
    )


def open_session(
    config: Config, sources: Iterable[ObjectSource], device: str, features: str = "raw"
) -> Session:
    """Load the parts of the base that these objects need: if all are baked, neither CLIP nor K and V."""
    from ldm.models.base import load_base, load_inpainting_model
    from ldm.models.runtime import prepare

    path, architecture = Path(config.base.path), config.base.architecture
    if all(_is_baked(source) for source in sources):
        model, fingerprint = load_inpainting_model(path, architecture, device=device)
        session = session_for(config, model, fingerprint, features)
    else:
        session = session_for(config, load_base(path, architecture, device=device), features=features)
    prepare(session.base, runtime_of(config))  # after the fingerprint, which is of the weights in the file
    return session


def _is_baked(source: ObjectSource) -> bool:
    try:
        return source.kind() == "baked"
    except (ValueError, FileNotFoundError):
        return True  # the run skips or refuses it later, without a model


def finetune_of(config: Config, base: Base, insertset: InsertSet) -> FineTune:
    """The base with its few-shot part, ready to be tuned."""
    from ldm.training.build import build_learner

    t = config.train
    rates = {
        "lr": t.lr,
        "lr_conditioner": t.lr_conditioner,
        "lr_tokens": t.lr_tokens,
        "lr_prior_encoder": t.lr_prior_encoder,
    }
    return build_learner(
        base,
        insertset,
        freeze_model=t.freeze_model,
        few_shot=t.few_shot,
        few_shot_features=t.few_shot_features,
        seed=t.seed,
        recipe=asdict(config),
        images=object_images(config),
        shown=shown_in_training(config),
        weight_decay=t.weight_decay,
        decayed=t.decayed,
        posterior=t.posterior,
        warmup_steps=t.warmup_steps,
        lr_final=t.lr_final,
        min_snr_gamma=t.min_snr_gamma,
        max_steps=t.max_steps,
        drop_context=t.drop_context,
        gradient_checkpointing=t.gradient_checkpointing,
        **rates,
    )


def validation_plan_of(config: Config, insertset: InsertSet) -> tuple[Config, ValidationPlan]:
    """How the run judges itself, and the settings that a resumed run has to have so that it does the same."""
    from ldm.validation.callback import plan_validation

    t = config.train
    plan = plan_validation(
        insertset, held_out=t.hold_out, every=t.validate_every, max_steps=t.max_steps,
        samples=t.batch_size * t.accumulate_grad_batches, guidance_scale=config.sample.guidance_scale,
    )  # fmt: skip
    return replace(config, train=replace(t, hold_out=plan.held_out, validate_every=plan.every)), plan


def region_filler_of(
    config: Config, base: Base, card: Mapping[str, Any], pictures: Sequence[Sample]
) -> RegionFiller:
    """What draws the object into these pictures; `base` is untouched, `card` tells of the object."""
    from ldm.data.image import from_bytes
    from ldm.objects.object_context import ObjectView, null_context
    from ldm.validation.regions import RegionFiller, place_of

    a, sampling, images = config.base.architecture, sampling_of(config), object_images(config)
    reference, crops = from_bytes(card["reference"][None]), from_bytes(card["crops"])
    tokens = 0 if config.train.few_shot == "none" else len(crops)
    view = sampling.reference_view if sampling.reference_view <= tokens else 0  # learning goes on without it
    known = crops if images.stored and tokens else None
    return RegionFiller(
        [place_of(picture, a.image_size, config.insert.roi_factor) for picture in pictures],
        ObjectView(*images.select(known, reference, view)),
        sampling, blend_of(config), config.sample.seed, null_context(base, sampling.guidance_from),
        make_fill(config, detail_transfer=0.0),
    )  # fmt: skip


def validation_for(
    config: Config,
    base: Base,
    card: Mapping[str, Any],
    plan: ValidationPlan,
    folder: Path,
    saving: Checkpoints,
) -> Validation | None:
    """The callback that asks the judge, if there is one."""
    from ldm.validation.callback import Validation
    from ldm.validation.validator import Validator, regions_of

    if plan.features is None:
        return None
    fill = region_filler_of(config, base, card, regions_of(plan.learnt, plan.held))
    trial = Validator(plan.learnt, plan.held, plan.features, fill)
    return Validation(trial, folder, plan.every, saving, config.train.patience)


def add_judging(p: argparse.ArgumentParser) -> None:
    """The flags; weights are looked for in their library's cache if no path is given."""
    from ldm.evaluation.metrics import METRICS, OFFLINE

    p.add_argument("--metrics", nargs="+", choices=METRICS, default=list(OFFLINE), metavar="NAME",
                   help=f"of {', '.join(METRICS)} [{' '.join(OFFLINE)}]")  # fmt: skip
    p.add_argument("--clip", type=Path, metavar="FOLDER", help="CLIP ViT-B/32, transformers' layout")
    p.add_argument("--dino", type=Path, metavar="FOLDER", help="DINOv2 ViT-g/14, transformers' layout")
    p.add_argument("--inception", type=Path, metavar="FILE", help="torch-fidelity's Inception weights")
    p.add_argument("--alexnet", type=Path, metavar="FILE", help="torchvision's AlexNet weights, for LPIPS")
    p.add_argument("--quality_model", "--quality-model", type=Path, metavar="FILE",
                   help="mixture of the quality score, of evaluate.py --fit_quality")  # fmt: skip
    p.add_argument("--device", help="cpu, cuda [auto]")


def judges_of(args: argparse.Namespace) -> Judges:
    """Load what the metrics need; FileNotFoundError names model, file and flag of what is missing."""
    from ldm.evaluation.judges import Weights, load_judges

    weights = Weights(args.clip, args.dino, args.inception, args.alexnet, args.quality_model)
    return load_judges(args.metrics, weights, args.device)
