"""What the reproduction is to tell of its variants, one against another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ldm.evaluation.metrics import MEASURES
from ldm.evaluation.summary import Interval

PAPER = "paper"  # first in the names of variants that are the paper's recipe
PSNR, PERCEPTUAL = "v2/psnr_object", "v2/perceptual_object"
FEWEST = 5  # objects: of fewer, which are alike by chance one time in eight, an interval tells too much


@dataclass(frozen=True)
class Claim:
    """`better` beats `worse`, or is `equal` to it, in identity and in a measure against the truth."""

    text: str
    better: str
    worse: str
    equal: bool = False

    @property
    def against_truth(self) -> str:
        """What beating, and what being equal, shows in, beside identity."""
        return PSNR if self.equal else PERCEPTUAL

    def verdict(self, apart: Interval, measure: str) -> str:
        """What an interval over objects of "better minus worse" says of it; equality is never proven."""
        if apart.count < FEWEST:
            return "too few objects"
        if apart.low <= 0 <= apart.high:
            return "not told apart" if self.equal else "undecided"
        return "holds" if apart.mean * MEASURES[measure].better > 0 and not self.equal else "does not hold"


def claims_of(recipe: str) -> list[Claim]:
    """What the paper says, of its own recipe, and what we do otherwise, around the variant `recipe`."""
    paper = f"{PAPER}-{recipe.partition('-')[2]}"
    fast, exact = f"{recipe}-fast", f"{recipe}-exact"
    alike = [
        ("ours: `--preset fast` costs nothing against `exact`", fast, exact),
        ("ours: `--preset fast` costs the recipe nothing", fast, recipe),
        ("ours: the recipe's sampling is as good as `--preset exact`", recipe, exact),
        ("ours: the latent bank costs nothing", recipe, f"{recipe}-no-bank"),
    ]
    return [
        Claim("the paper: learning the object beats one reference alone", "paper-kv", "paper-zero-shot"),
        Claim("the paper: few-shot tokens beat K/V tuning without them", "paper-kv", "paper-none-kv"),
        Claim("the paper: same-category pictures help", "paper-kv", "paper-kv-alone"),
        Claim("the paper: tuning all of the cross-attention beats K and V", "paper-crossattn", "paper-kv"),
        Claim("ours: the recipe beats the paper's", recipe, paper),
        Claim("ours, `linear`: learning the object beats one reference alone", "linear-kv", "zero-shot"),
        Claim("ours, `linear`: few-shot tokens beat K/V tuning without them", "linear-kv", "none-kv"),
        Claim("ours, `linear`: same-category pictures help", "linear-kv", "linear-kv-alone"),
        Claim("more few-shot pictures help (5 against 1)", f"{recipe}-5-images", f"{recipe}-1-images"),
        Claim("more few-shot pictures help (5 against 3)", f"{recipe}-5-images", f"{recipe}-3-images"),
        Claim(
            "ours, `linear`: tuning all of the cross-attention beats K and V", "linear-crossattn", "linear-kv"
        ),
        Claim("ours: `tokens` beat `linear`, crossattn-kv", "tokens-kv", "linear-kv"),
        Claim("ours: `tokens` beat `linear`, crossattn", "tokens-crossattn", "linear-crossattn"),
        Claim("ours: our learning-rate schedule beats the paper's", recipe, f"{recipe}-paper-rate"),
        Claim("ours: same-category pictures help the recipe", recipe, f"{recipe}-alone"),
        *(Claim(text, one, other, equal=True) for text, one, other in alike),
    ]


@dataclass(frozen=True)
class Variant:
    """One way to insert. `kind`: flat, poisson, zero-shot or learnt.

    `learning` and `insertion` are settings that differ from the recipe's, the latter dotted; it learns from
    `images` few-shot pictures, 0: all.
    """

    name: str
    title: str
    kind: str = "learnt"
    learning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    insertion: Mapping[str, Any] = field(default_factory=dict, hash=False)
    images: int = 0
    same_category: bool = True


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
Presets = Mapping[str, Mapping[str, Any]]
SHARES = (8, 4, 2)  # of the training steps, and (the last two) of the sampling steps
Group = tuple[Series, list[Variant]]


def ablations(
    *,
    freeze_model: str,
    max_steps: int,
    sampler: str,
    steps: int,
    scale: float,
    cached_samples: int = 0,
    single_view: float = 0.0,
    presets: Presets | None = None,
    published: Sequence[Variant] = (),
) -> Comparison:
    """All that the paper claims and we changed, around the recipe of these settings with few-shot tokens.

    `presets`: name => settings of the section `sample` that it stands for. `published`: the paper's recipe, scaled to
    the base, as `paper-kv` and `paper-crossattn`; what the paper claims is told of these.
    """
    methods = [*_methods(), *published]
    [recipe] = [v for v in methods if v.name == f"tokens-{SHORT[freeze_model]}"]
    fed = [v for v in methods if v.name in ("linear-kv", recipe.name)]
    together = _tuned(recipe, "all-views", "every sample sees all few-shot tokens", single_view=0.0)
    anew = _tuned(recipe, "no-bank", "every sample encoded anew, no latent bank", cached_samples=0)
    groups = [
        _table("Methods", methods),
        _table("The paper's recipe", _of_the_paper(published)),
        _table("Same-category pictures", [v for own in fed for v in (own, _alone(own))]),
        _table("Learning-rate schedule", [recipe, *_rates(recipe, max_steps, published)]),
        _table("Single views", [recipe, together] if single_view else []),
        _table("Latent bank", [recipe, anew] if cached_samples else []),
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
    warmup_steps = round(paper["warmup_steps"] / paper["max_steps"] * max_steps)
    title = "the paper's learning-rate schedule"
    return [_tuned(recipe, "paper-rate", title, warmup_steps=warmup_steps, lr_final=paper["lr_final"])]


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


def _sampled(recipe: Variant, name: str, title: str, **sample: Any) -> Variant:
    """The recipe with other settings of the section `sample`."""
    changes = {f"sample.{key}": value for key, value in sample.items()}
    return replace(recipe, name=f"{recipe.name}-{name}", title=f"recipe, {title}", insertion=changes)


def _presets(recipe: Variant, presets: Presets) -> list[Variant]:
    return [_sampled(recipe, name, f"--preset {name}", **sample) for name, sample in presets.items()]


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
    other = {x: _sampled(recipe, f"scale-{x:g}", f"guidance {x:g}", scale=x) for x in SCALES}
    return other | {scale: recipe}


def _table(title: str, variants: Sequence[Variant]) -> Group:
    return Series(title, {"": [(i, variant.name) for i, variant in enumerate(variants)]}), list(variants)


def _chart(title: str, lines: Mapping[str, Mapping[Any, Variant]], axis: str, log: bool = False) -> Group:
    points = {
        line: sorted((x, variant.name) for x, variant in found.items()) for line, found in lines.items()
    }
    variants = [variant for found in lines.values() for variant in found.values()]
    return Series(title, points, axis, log), variants
