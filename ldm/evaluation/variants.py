"""What the reproduction compares: variants of one recipe, and the series that set them side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ldm.evaluation.claims import Claim, claims_of

KV, ALL = "crossattn-kv", "crossattn"
SHORT = {KV: "kv", ALL: "crossattn"}
TUNED = (  # few-shot part, what it is, what of the cross-attention trains
    ("none", "no few-shot tokens (as Custom Diffusion)", KV),
    ("linear", "`linear` few-shot tokens (the paper)", KV),
    ("tokens", "`tokens` (ours)", KV),
    ("linear", "`linear` few-shot tokens (the paper)", ALL),
    ("tokens", "`tokens` (ours)", ALL),
)
PAPER_WARMUP = 2.5  # of the steps: in the paper's config 10,000 for 4000, so the rate ends at 40 % of its own
IMAGES, SCALES = (1, 3, 5), (1.0, 2.5, 5.0, 7.5)
SOLVERS = ("plms", "ddim", "dpm++", "unipc")
Presets = Mapping[str, tuple[Mapping[str, Any], str]]
SHARES = (8, 4, 2)  # of the training steps, and (the last two) of the sampling steps


@dataclass(frozen=True)
class Variant:
    """One way to insert. `kind`: flat, poisson, zero-shot or learnt.

    `learning` and `sampling` are settings that differ from the recipe's; it learns from `images` few-shot
    pictures, 0: all. `precision` is the UNet's when it inserts.
    """

    name: str
    title: str
    kind: str = "learnt"
    learning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    images: int = 0
    same_category: bool = True
    precision: str = "fp32"


@dataclass(frozen=True)
class Series:
    """Variants side by side: line's name => points (x, variant's name); without `axis` it is no chart."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, str]]]
    axis: str = ""
    log: bool = False

    @property
    def names(self) -> list[str]:
        """All its variants, each once."""
        return list(dict.fromkeys(name for points in self.lines.values() for _, name in points))

    def of(self, names: Collection[str]) -> Series:
        """What these variants leave of it."""
        lines = {line: [p for p in points if p[1] in names] for line, points in self.lines.items()}
        return replace(self, lines={line: points for line, points in lines.items() if points})


@dataclass(frozen=True)
class Comparison:
    """All that one reproduction runs and tells; `recipe` names the variant that the others differ from."""

    variants: Mapping[str, Variant]
    series: Sequence[Series]
    claims: Sequence[Claim]
    recipe: str

    def of(self, names: Collection[str]) -> Comparison:
        """With these variants only, and what they leave of series and claims; ValueError for unknown ones."""
        if unknown := [name for name in names if name not in self.variants]:
            raise ValueError(f"no variant {', '.join(unknown)}; there are {', '.join(self.variants)}")
        chosen = {name: variant for name, variant in self.variants.items() if name in names}
        series = [kept for one in self.series if len((kept := one.of(names)).names) > 1]
        claims = [claim for claim in self.claims if {claim.better, claim.worse} <= chosen.keys()]
        return Comparison(chosen, series, claims, self.recipe)


def comparison(
    *,
    freeze_model: str,
    max_steps: int,
    sampler: str,
    steps: int,
    scale: float,
    bank: int = 0,
    presets: Presets | None = None,
) -> Comparison:
    """All that the paper claims and we changed, around the recipe of these settings with few-shot tokens.

    `presets`: name => sampling and precision that it stands for.
    """
    methods = _methods()
    found = {variant.name: variant for variant in methods}
    recipe = found[f"tokens-{SHORT[freeze_model]}"]
    alone = {name: _alone(found[name]) for name in ("linear-kv", recipe.name)}
    rate = _tuned(
        recipe, "paper-rate", "the paper's learning-rate schedule",
        warmup=round(PAPER_WARMUP * max_steps), lr_final=1.0,
    )  # fmt: skip
    banks = [_tuned(recipe, "no-bank", "every sample encoded anew, no latent bank", bank=0)] if bank else []
    preset = [
        replace(_sampled(recipe, name, f"--preset {name}", **sampling), precision=precision)
        for name, (sampling, precision) in (presets or {}).items()
    ]
    images = {n: _fewer(recipe, n) for n in IMAGES}
    counts = dict.fromkeys(max_steps // share for share in SHARES if max_steps >= share)
    trained = {n: _tuned(recipe, f"{n}-steps", f"{n} training steps", max_steps=n) for n in counts}
    trained[max_steps] = recipe
    evaluations = dict.fromkeys([*(max(1, steps // share) for share in SHARES[1:]), steps])
    solvers = {
        solver: {
            n: recipe if (solver, n) == (sampler, steps) else
            _sampled(recipe, f"{solver}-{n}", f"{solver}, {n} steps", sampler=solver, steps=n)
            for n in evaluations
        }
        for solver in SOLVERS
    }  # fmt: skip
    guided = {
        x: recipe if x == scale else _sampled(recipe, f"scale-{x:g}", f"guidance {x:g}", guidance_scale=x)
        for x in dict.fromkeys([*SCALES, scale])
    }
    series = [
        _table("Methods", methods),
        _table("Same-category pictures", [v for n in alone for v in (found[n], alone[n])]),
        _table("Learning-rate schedule", [recipe, rate]),
        *(_table("Latent bank", [recipe, *own]) for own in [banks] if own),
        *(_table("Presets", [recipe, *own]) for own in [preset] if own),
        _chart("Few-shot pictures", {"recipe": images}, "few-shot pictures"),
        _chart("Training steps", {"recipe": trained}, "training steps", log=True),
        _chart("Samplers", solvers, "UNet evaluations", log=True),
        _chart("Guidance", {"recipe": guided}, "guidance scale"),
    ]
    several = [*alone.values(), rate, *banks, *preset, *images.values(), *trained.values(), *guided.values()]
    several += [variant for line in solvers.values() for variant in line.values()]
    found |= {variant.name: variant for variant in several}
    claims = [c for c in claims_of(recipe.name) if {c.better, c.worse} <= found.keys()]
    return Comparison(found, series, claims, recipe.name)


def _methods() -> list[Variant]:
    """From pasting to tuning all of the cross-attention, in the order of the table."""
    return [
        Variant("flat", "reference pasted flat", "flat"),
        Variant("poisson", "reference pasted by Poisson's equation", "poisson"),
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


def _table(title: str, variants: Sequence[Variant]) -> Series:
    return Series(title, {"": [(i, variant.name) for i, variant in enumerate(variants)]})


def _chart(title: str, lines: Mapping[str, Mapping[Any, Variant]], axis: str, log: bool = False) -> Series:
    points = {
        line: sorted((x, variant.name) for x, variant in found.items()) for line, found in lines.items()
    }
    return Series(title, points, axis, log)
