"""The methods that the reproduction compares, and the claims it tests by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ldm.evaluation.methods import ALL, KV, Method
from ldm.evaluation.metrics import MEASURES
from ldm.evaluation.tables import Interval

PAPER = "paper"  # first in the names of methods that are the paper's recipe
PSNR, PERCEPTUAL = "v2/psnr_object", "v2/perceptual_object"
FEWEST = 5  # objects; fewer agree by chance one time in eight, so that an interval claims too much


@dataclass(frozen=True)
class Claim:
    """`better` beats `worse`, or is `equal` to it, in identity and in a measure against the truth."""

    text: str
    better: str
    worse: str
    equal: bool = False

    @property
    def against_truth(self) -> str:
        """The second measure of the claim: PSNR of equality, LPIPS-like distance of the others."""
        return PSNR if self.equal else PERCEPTUAL

    def verdict(self, difference: Interval, measure: str) -> str:
        """Judge the claim by the interval over objects of "better minus worse"; equality is never proven."""
        if difference.count < FEWEST:
            return "too few objects"
        if difference.low <= 0 <= difference.high:
            return "not significantly different" if self.equal else "undecided"
        return (
            "holds" if difference.mean * MEASURES[measure].better > 0 and not self.equal else "does not hold"
        )


def claims_of(recipe: str) -> list[Claim]:
    """The paper's claims, of its own recipe, and ours, around the method `recipe`."""
    paper = f"{PAPER}-{recipe.partition('-')[2]}"
    fast, exact = f"{recipe}-fast", f"{recipe}-exact"
    equal = [
        ("ours: `--preset fast` costs nothing against `exact`", fast, exact),
        ("ours: `--preset fast` costs the recipe nothing", fast, recipe),
        ("ours: the recipe's sampling is as good as `--preset exact`", recipe, exact),
        ("ours: cached samples cost nothing", recipe, f"{recipe}-no-cached-samples"),
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
        *(Claim(text, one, other, equal=True) for text, one, other in equal),
    ]


@dataclass(frozen=True)
class Series:
    """Methods side by side: line's name => points (x, method's name); without `axis` it is no chart."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, str]]]
    axis: str = ""
    log: bool = False

    @property
    def names(self) -> list[str]:
        """All its methods, each once."""
        return list(dict.fromkeys(name for points in self.lines.values() for _, name in points))

    def of(self, names: Collection[str]) -> Series:
        """The series with these methods only."""
        lines = {line: [p for p in points if p[1] in names] for line, points in self.lines.items()}
        return replace(self, lines={line: points for line, points in lines.items() if points})


@dataclass(frozen=True)
class Comparison:
    """All that one reproduction compares; `recipe` names the method that the others differ from."""

    methods: Mapping[str, Method]
    series: Sequence[Series]
    claims: Sequence[Claim]
    recipe: str

    def of(self, names: Collection[str]) -> Comparison:
        """With these methods only, and the series and claims that have them; ValueError for unknown names."""
        if unknown := [name for name in names if name not in self.methods]:
            raise ValueError(f"no method {', '.join(unknown)}; there are {', '.join(self.methods)}")
        chosen = {name: method for name, method in self.methods.items() if name in names}
        series = [kept for one in self.series if len((kept := one.of(names)).names) > 1]
        claims = [claim for claim in self.claims if {claim.better, claim.worse} <= chosen.keys()]
        return Comparison(chosen, series, claims, self.recipe)


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
Group = tuple[Series, list[Method]]


def ablations(
    *,
    freeze_model: str,
    max_steps: int,
    sampler: str,
    steps: int,
    guidance_scale: float,
    cached_samples: int = 0,
    single_view: float = 0.0,
    presets: Presets | None = None,
    published: Sequence[Method] = (),
) -> Comparison:
    """What the paper claims and what we changed, around the recipe of these settings with few-shot tokens.

    `presets`: name => settings of the section `sample` that it stands for. `published`: the paper's recipe,
    scaled to the base, as `paper-kv` and `paper-crossattn`; the paper's claims are tested by these.
    """
    methods = [*_methods(), *published]
    [recipe] = [v for v in methods if v.name == f"tokens-{SHORT[freeze_model]}"]
    both = [v for v in methods if v.name in ("linear-kv", recipe.name)]
    all_views = _tuned(recipe, "all-views", "every sample sees all few-shot tokens", single_view=0.0)
    not_cached = _tuned(
        recipe, "no-cached-samples", "every sample encoded when it is drawn", cached_samples=0
    )
    groups = [
        _table("Methods", methods),
        _table("The paper's recipe", _of_the_paper(published)),
        _table("Same-category pictures", [v for own in both for v in (own, _alone(own))]),
        _table("Learning-rate schedule", [recipe, *_rates(recipe, max_steps, published)]),
        _table("Single views", [recipe, all_views] if single_view else []),
        _table("Cached samples", [recipe, not_cached] if cached_samples else []),
        _table("Presets", [recipe, *_presets(recipe, presets or {})]),
        _chart("Few-shot pictures", {"recipe": {n: _fewer(recipe, n) for n in IMAGES}}, "few-shot pictures"),
        _chart("Training steps", {"recipe": _trained(recipe, max_steps)}, "training steps", log=True),
        _chart("Samplers", _solvers(recipe, sampler, steps), "UNet evaluations", log=True),
        _chart("Guidance", {"recipe": _guided(recipe, guidance_scale)}, "guidance scale"),
    ]
    found = {method.name: method for _, methods in groups for method in methods}
    claims = [c for c in claims_of(recipe.name) if {c.better, c.worse} <= found.keys()]
    series = [series for series, methods in groups if len(methods) > 1]
    return Comparison(found, series, claims, recipe.name)


def _methods() -> list[Method]:
    """From pasting to tuning all of the cross-attention, in the order of the table."""
    return [
        Method("flat", "reference pasted flat", "flat"),
        Method("poisson", "reference pasted by Poisson's equation", "poisson"),
        Method("cut-out", "reference cut out and pasted", "cut-out"),
        Method("zero-shot", "base as it is, one reference", "zero-shot"),
        *(
            Method(
                f"{few_shot}-{SHORT[mode]}",
                f"{what}, {mode}",
                learning={"few_shot": few_shot, "freeze_model": mode},
            )
            for few_shot, what, mode in TUNED
        ),
    ]


def _of_the_paper(published: Sequence[Method]) -> list[Method]:
    """The published recipes, and what the paper compares the first one with, sampled in the same way."""
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


def _rates(recipe: Method, max_steps: int, published: Sequence[Method]) -> list[Method]:
    """The recipe with the paper's schedule: its warm-up as a share of the steps, and its last rate."""
    if not published:
        return []
    paper = published[0].learning
    warmup_steps = round(paper["warmup_steps"] / paper["max_steps"] * max_steps)
    title = "the paper's learning-rate schedule"
    return [_tuned(recipe, "paper-rate", title, warmup_steps=warmup_steps, lr_final=paper["lr_final"])]


def _alone(method: Method) -> Method:
    title = f"{method.title}, no same-category pictures"
    return replace(method, name=f"{method.name}-alone", title=title, same_category=False)


def _fewer(recipe: Method, images: int) -> Method:
    title = f"recipe, {images} few-shot pictures at most"
    return replace(recipe, name=f"{recipe.name}-{images}-images", title=title, images=images)


def _tuned(recipe: Method, name: str, title: str, **learning: Any) -> Method:
    """The recipe with other settings of training."""
    learning = dict(recipe.learning) | learning
    return replace(recipe, name=f"{recipe.name}-{name}", title=f"recipe, {title}", learning=learning)


def _sampled(recipe: Method, name: str, title: str, **sample: Any) -> Method:
    """The recipe with other settings of the section `sample`."""
    changes = {f"sample.{key}": value for key, value in sample.items()}
    return replace(recipe, name=f"{recipe.name}-{name}", title=f"recipe, {title}", insertion=changes)


def _presets(recipe: Method, presets: Presets) -> list[Method]:
    return [_sampled(recipe, name, f"--preset {name}", **sample) for name, sample in presets.items()]


def _trained(recipe: Method, max_steps: int) -> dict[int, Method]:
    """The recipe after shares of its steps, by step."""
    counts = dict.fromkeys(max_steps // share for share in SHARES if max_steps >= share)
    fewer = {n: _tuned(recipe, f"{n}-steps", f"{n} training steps", max_steps=n) for n in counts}
    return fewer | {max_steps: recipe}


def _solvers(recipe: Method, sampler: str, steps: int) -> dict[str, dict[int, Method]]:
    """The recipe by every solver, in shares of its number of steps."""
    counts = dict.fromkeys([*(max(1, steps // share) for share in SHARES[1:]), steps])
    other = {
        solver: {n: _sampled(recipe, f"{solver}-{n}", f"{solver}, {n} steps", sampler=solver, steps=n)
                 for n in counts}
        for solver in SOLVERS
    }  # fmt: skip
    other[sampler][steps] = recipe
    return other


def _guided(recipe: Method, guidance_scale: float) -> dict[float, Method]:
    """The recipe by guidance scale."""
    other = {x: _sampled(recipe, f"scale-{x:g}", f"guidance {x:g}", guidance_scale=x) for x in SCALES}
    return other | {guidance_scale: recipe}


def _table(title: str, methods: Sequence[Method]) -> Group:
    return Series(title, {"": [(i, method.name) for i, method in enumerate(methods)]}), list(methods)


def _chart(title: str, lines: Mapping[str, Mapping[Any, Method]], axis: str, log: bool = False) -> Group:
    points = {line: sorted((x, method.name) for x, method in found.items()) for line, found in lines.items()}
    methods = [method for found in lines.values() for method in found.values()]
    return Series(title, points, axis, log), methods
