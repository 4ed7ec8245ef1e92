"""Settings => objects: the one place that puts the core and the packages beside it together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.config.schema import Config
from ldm.insertion.blend import Blend, blend_named

if TYPE_CHECKING:
    from ldm.data.insertset import InsertSet, Sample
    from ldm.data.object_crops import ObjectImages
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


def sampling_of(config: Config) -> Sampling:
    """How the settings say that latents are drawn."""
    from ldm.insertion.inpaint import Sampling

    s = config.sample
    return Sampling(
        sampler=s.sampler,
        steps=s.steps,
        guidance_scale=s.guidance_scale,
        init_noise_sigma=s.init_noise_sigma,
        guidance_interval=s.guidance_interval,
        guidance_from=s.guidance_from,
        reference_view=s.reference_view,
    )


def blend_of(config: Config) -> Blend:
    """How the settings say that a region is laid over its background."""
    i = config.insert
    return blend_named(i.blend, i.feather, i.reach)


def insert_options(config: Config) -> InsertOptions:
    """How the settings say that regions are inpainted and pasted."""
    from ldm.insertion.insert import InsertOptions

    s, options = config.sample, InsertOptions(sampling_of(config), blend_of(config))
    if s.second_pass and s.detail_transfer:
        raise ValueError(
            f"second_pass={s.second_pass:g} draws anew what own_detail={s.detail_transfer:g} keeps; set one to 0"
        )
    if s.deep_cache_interval > 1:
        from ldm.speed.deep_cache import DeepCache

        options = replace(options, predictor=partial(DeepCache, every=s.deep_cache_interval))
    if s.second_pass:
        from ldm.tiling.second_pass import TiledSecondPass

        options = replace(options, second_pass=TiledSecondPass(s.second_pass))
    return options


def object_images(config: Config) -> ObjectImages:
    """How the base is shown an object."""
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.cut_out_images import CutOutImages

        return CutOutImages()
    from ldm.data.object_crops import ObjectImages

    return ObjectImages(config.base.architecture.reference_size)


def make_fill(config: Config, **other: Any) -> MakeFill:
    """What objects fill regions with; `other` settings of compositing replace the config's."""
    s, i = config.sample, config.insert
    values = {
        "strength": s.strength,
        "contact_shadow": s.contact_shadow,
        "detail_transfer": s.detail_transfer,
        "paste_margin": i.paste_margin,
    }
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.region_fill import CompositeSettings, make_composite_fill

        return make_composite_fill(CompositeSettings(**values | other))
    from ldm.insertion.region_fill import grey_fill

    flags = {
        "begin": s.strength < 1,
        "shadow": s.contact_shadow,
        "own_detail": s.detail_transfer,
        "halo": i.paste_margin,
    }
    if unknown := [flag for flag, on in flags.items() if on]:
        raise ValueError(
            f"{', '.join(unknown)}: only a base that is shown a cut-out of the object can do this "
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
    """A session on a loaded base or painter."""
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
    """Load what these subjects need of the base: if all are baked, neither CLIP nor K and V."""
    from ldm.models.base import load_base, load_inpainting_model
    from ldm.models.runtime import prepare

    path, architecture = Path(config.base.path), config.base.architecture
    if all(_is_baked(source) for source in sources):
        model, fingerprint = load_inpainting_model(path, architecture, device=device)
        session = session_for(config, model, fingerprint, features)
    else:
        session = session_for(config, load_base(path, architecture, device=device), features=features)
    prepare(session.base, runtime_of(config))  # behind the fingerprint, which is that of the file's weights
    return session


def _is_baked(source: ObjectSource) -> bool:
    try:
        return source.kind() == "baked"
    except (ValueError, FileNotFoundError):
        return True  # it will be skipped or refused, and needs no model


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
