"""What the reproduction compares: a recipe with one thing after the other changed, and methods beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ldm.evaluation.claims import PAPER, claims_of
from ldm.evaluation.variants import Comparison, Series, Variant

KV, ALL = "crossattn-kv", "crossattn"
SHORT = {KV: "kv", ALL: "crossattn"}
TUNED = (  # few-shot part, what it is, what of the cross-attention trains
    ("none", "no few-shot tokens (as Custom Diffusion)", KV),
    ("linear", "`linear` few-shot tokens (the paper's layer, our recipe)", KV),
    ("tokens", "`tokens` (ours)", KV),
    ("linear", "`linear` few-shot tokens (the paper's layer, our recipe)", ALL),
    ("tokens", "`tokens` (ours)", ALL),
)
IMAGES, SCALES = (1, 3, 5), (1.0, 2.5, 5.0, 7.5)
SOLVERS = ("plms", "ddim", "dpm++", "unipc")
Presets = Mapping[str, tuple[Mapping[str, Any], str]]
SHARES = (8, 4, 2)  # of the training steps, and (the last two) of the sampling steps
Group = tuple[Series, list[Variant]]


def ablations(
    *,
    freeze_model: str,
    max_steps: int,
    sampler: str,
    steps: int,
    scale: float,
    bank: int = 0,
    single_view: float = 0.0,
    presets: Presets | None = None,
    published: Sequence[Variant] = (),
) -> Comparison:
    """All that the paper claims and we changed, around the recipe of these settings with few-shot tokens.

    `presets`: name => sampling and precision that it stands for. `published`: the paper's recipe, scaled to
    the base, as `paper-kv` and `paper-crossattn`; what the paper claims is told of these.
    """
    methods = [*_methods(), *published]
    [recipe] = [v for v in methods if v.name == f"tokens-{SHORT[freeze_model]}"]
    fed = [v for v in methods if v.name in ("linear-kv", recipe.name)]
    together = _tuned(recipe, "all-views", "every sample sees all few-shot tokens", single_view=0.0)
    anew = _tuned(recipe, "no-bank", "every sample encoded anew, no latent bank", bank=0)
    groups = [
        _table("Methods", methods),
        _table("The paper's recipe", _of_the_paper(published)),
        _table("Same-category pictures", [v for own in fed for v in (own, _alone(own))]),
        _table("Learning-rate schedule", [recipe, *_rates(recipe, max_steps, published)]),
        _table("Single views", [recipe, together] if single_view else []),
        _table("Latent bank", [recipe, anew] if bank else []),
        _table("Presets", [recipe, *_presets(recipe, presets or {})]),
        _chart("Few-shot pictures", {"recipe": {n: _fewer(recipe, n) for n in IMAGES}}, "few-shot pictures"),
        _chart("Training steps", {"recipe": _trained(recipe, max_steps)}, "training steps", log=True),
        _chart("Samplers", _solvers(recipe, sampler, steps), "UNet evaluations", log=True),
        _chart("Guidance", {"recipe": _guided(recipe, scale)}, "guidance scale"),
    ]
    found = {variant.name: variant for _, variants in groups for variant in variants}
    claims = [c for c in claims_of(recipe.name) if {c.better, c.worse} <= found.keys()]
    series = [series for series, variants in groups if len(variants) > 1]
    return Comparison(found, series, claims, recipe.name)


def _methods() -> list[Variant]:
    """From pasting to tuning all of the cross-attention, in the order of the table."""
    return [
        Variant("flat", "reference pasted flat", "flat"),
        Variant("poisson", "reference pasted by Poisson's equation", "poisson"),
        Variant("cut-out", "reference cut out and pasted", "cut-out"),
        Variant("zero-shot", "base as it is, one reference", "zero-shot"),
        *(
            Variant(
                f"{few_shot}-{SHORT[mode]}",
                f"{what}, {mode}",
                learning={"few_shot": few_shot, "freeze_model": mode},
            )
            for few_shot, what, mode in TUNED
        ),
    ]


def _of_the_paper(published: Sequence[Variant]) -> list[Variant]:
    """The published recipes and, of the first, what the paper compares it with, sampled as it is."""
    if not published:
        return []
    first, short = published[0], published[0].name.removeprefix(f"{PAPER}-")
    zero_shot = replace(
        first, name=f"{PAPER}-zero-shot", title="base as it is, one reference, sampled as in the paper",
        kind="zero-shot", learning={},
    )  # fmt: skip
    none = replace(
        first, name=f"{PAPER}-none-{short}", title=f"{first.title}, no few-shot tokens",
        learning=dict(first.learning) | {"few_shot": "none"},
    )  # fmt: skip
    return [zero_shot, none, first, _alone(first), *published[1:]]


def _rates(recipe: Variant, max_steps: int, published: Sequence[Variant]) -> list[Variant]:
    """The recipe by the paper's schedule: its warm-up, in shares of the steps, and its last rate."""
    if not published:
        return []
    paper = published[0].learning
    warmup = round(paper["warmup"] / paper["max_steps"] * max_steps)
    title = "the paper's learning-rate schedule"
    return [_tuned(recipe, "paper-rate", title, warmup=warmup, lr_final=paper["lr_final"])]


def _alone(variant: Variant) -> Variant:
    title = f"{variant.title}, no same-category pictures"
    return replace(variant, name=f"{variant.name}-alone", title=title, same_category=False)


def _fewer(recipe: Variant, images: int) -> Variant:
    title = f"recipe, {images} few-shot pictures at most"
    return replace(recipe, name=f"{recipe.name}-{images}-images", title=title, images=images)


def _tuned(recipe: Variant, name: str, title: str, **learning: Any) -> Variant:
    """The recipe, learnt otherwise."""
    learning = dict(recipe.learning) | learning
    return replace(recipe, name=f"{recipe.name}-{name}", title=f"recipe, {title}", learning=learning)


def _sampled(recipe: Variant, name: str, title: str, **sampling: Any) -> Variant:
    """The recipe, sampled otherwise."""
    return replace(recipe, name=f"{recipe.name}-{name}", title=f"recipe, {title}", sampling=sampling)


def _presets(recipe: Variant, presets: Presets) -> list[Variant]:
    return [
        replace(_sampled(recipe, name, f"--preset {name}", **sampling), precision=precision)
        for name, (sampling, precision) in presets.items()
    ]


def _trained(recipe: Variant, max_steps: int) -> dict[int, Variant]:
    """The recipe after shares of its steps, by step."""
    counts = dict.fromkeys(max_steps // share for share in SHARES if max_steps >= share)
    fewer = {n: _tuned(recipe, f"{n}-steps", f"{n} training steps", max_steps=n) for n in counts}
    return fewer | {max_steps: recipe}


def _solvers(recipe: Variant, sampler: str, steps: int) -> dict[str, dict[int, Variant]]:
    """The recipe by every solver, in shares of its steps."""
    counts = dict.fromkeys([*(max(1, steps // share) for share in SHARES[1:]), steps])
    other = {
        solver: {n: _sampled(recipe, f"{solver}-{n}", f"{solver}, {n} steps", sampler=solver, steps=n)
                 for n in counts}
        for solver in SOLVERS
    }  # fmt: skip
    other[sampler][steps] = recipe
    return other


def _guided(recipe: Variant, scale: float) -> dict[float, Variant]:
    """The recipe by guidance scale."""
    other = {x: _sampled(recipe, f"scale-{x:g}", f"guidance {x:g}", guidance_scale=x) for x in SCALES}
    return other | {scale: recipe}


def _table(title: str, variants: Sequence[Variant]) -> Group:
    return Series(title, {"": [(i, variant.name) for i, variant in enumerate(variants)]}), list(variants)


def _chart(title: str, lines: Mapping[str, Mapping[Any, Variant]], axis: str, log: bool = False) -> Group:
    points = {
        line: sorted((x, variant.name) for x, variant in found.items()) for line, found in lines.items()
    }
    variants = [variant for found in lines.values() for variant in found.values()]
    return Series(title, points, axis, log), variants
