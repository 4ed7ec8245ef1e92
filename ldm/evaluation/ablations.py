"""The methods that the reproduction compares, and the claims it tests by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ldm.evaluation.methods import ALL, KV, Method
from ldm.evaluation.metrics import MEASURES
from ldm.evaluation.report import Interval

PAPER = "paper"  # first in the names of methods that are the paper's recipe
PSNR, PERCEPTUAL = "v2/psnr_object", "v2/perceptual_object"
FEWEST = 5  # objects; fewer agree by chance one time in eight, so that an interval claims too much
SHORT = {KV: "kv", ALL: "crossattn"}
IMAGES, SCALES = (1, 3, 5), (1.0, 2.5, 5.0, 7.5)
SOLVERS = ("plms", "ddim", "dpm++", "unipc")
SHARES = (8, 4, 2, 1)  # of the training steps, and (but the first) of the sampling steps
Presets = Mapping[str, Mapping[str, Any]]

LINEAR = "`linear` few-shot tokens (the paper's layer, our recipe)"
TUNED = (  # few-shot part, what it is, what of the cross-attention trains
    ("none", "no few-shot tokens (as Custom Diffusion)", KV),
    ("linear", LINEAR, KV),
    ("tokens", "`tokens` (ours)", KV),
    ("linear", LINEAR, ALL),
    ("tokens", "`tokens` (ours)", ALL),
)
METHODS = (  # from pasting to tuning all of the cross-attention, in the order of the table
    Method("flat", "reference pasted flat", "flat"),
    Method("poisson", "reference pasted by Poisson's equation", "poisson"),
    Method("cut-out", "reference cut out and pasted", "cut-out"),
    Method("zero-shot", "base as it is, one reference", "zero-shot"),
    *(
        Method(f"{few_shot}-{SHORT[mode]}", f"{what}, {mode}",
               learning={"few_shot": few_shot, "freeze_model": mode})
        for few_shot, what, mode in TUNED
    ),
)  # fmt: skip

CLAIMS = (  # what is claimed, the better method, the worse one; R: our recipe, P: the paper's
    ("the paper: learning the object beats one reference alone", "paper-kv", "paper-zero-shot"),
    ("the paper: few-shot tokens beat K/V tuning without them", "paper-kv", "paper-none-kv"),
    ("the paper: same-category pictures help", "paper-kv", "paper-kv-alone"),
    ("the paper: tuning all of the cross-attention beats K and V", "paper-crossattn", "paper-kv"),
    ("ours: the recipe beats the paper's", "R", "P"),
    ("ours, `linear`: learning the object beats one reference alone", "linear-kv", "zero-shot"),
    ("ours, `linear`: few-shot tokens beat K/V tuning without them", "linear-kv", "none-kv"),
    ("ours, `linear`: same-category pictures help", "linear-kv", "linear-kv-alone"),
    ("more few-shot pictures help (5 against 1)", "R-5-images", "R-1-images"),
    ("more few-shot pictures help (5 against 3)", "R-5-images", "R-3-images"),
    ("ours, `linear`: tuning all of the cross-attention beats K and V", "linear-crossattn", "linear-kv"),
    ("ours: `tokens` beat `linear`, crossattn-kv", "tokens-kv", "linear-kv"),
    ("ours: `tokens` beat `linear`, crossattn", "tokens-crossattn", "linear-crossattn"),
    ("ours: our learning-rate schedule beats the paper's", "R", "R-paper-rate"),
    ("ours: same-category pictures help the recipe", "R", "R-alone"),
)
EQUAL = (  # likewise, where the second costs nothing against the third
    ("ours: `--preset fast` costs nothing against `exact`", "R-fast", "R-exact"),
    ("ours: `--preset fast` costs the recipe nothing", "R-fast", "R"),
    ("ours: the recipe's sampling is as good as `--preset exact`", "R", "R-exact"),
    ("ours: cached samples cost nothing", "R", "R-no-cached-samples"),
)


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


@dataclass(frozen=True)
class Comparison:
    """All that one reproduction compares: methods by name, tables of them by title, and claims.

    `recipe` names the method that the others differ from.
    """

    methods: Mapping[str, Method]
    tables: Mapping[str, Sequence[str]]
    claims: Sequence[Claim]
    recipe: str

    def of(self, names: Collection[str]) -> Comparison:
        """With these methods only, and the tables and claims that have them; ValueError for unknown names."""
        if unknown := [name for name in names if name not in self.methods]:
            raise ValueError(f"no method {', '.join(unknown)}; there are {', '.join(self.methods)}")
        chosen = {name: method for name, method in self.methods.items() if name in names}
        kept = {title: [name for name in own if name in chosen] for title, own in self.tables.items()}
        claims = [claim for claim in self.claims if {claim.better, claim.worse} <= chosen.keys()]
        return Comparison(chosen, {k: v for k, v in kept.items() if len(v) > 1}, claims, self.recipe)


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
    methods = {method.name: method for method in METHODS}
    recipe = methods[f"tokens-{SHORT[freeze_model]}"]
    both = {name: methods[name] for name in ("linear-kv", recipe.name)}.values()
    all_views = _tuned(recipe, "all-views", "every sample sees all few-shot tokens", single_view=0.0)
    not_cached = _tuned(
        recipe, "no-cached-samples", "every sample encoded when it is drawn", cached_samples=0
    )
    tables = {
        "Methods": [*METHODS, *published],
        "The paper's recipe": _of_the_paper(published),
        "Same-category pictures": [v for own in both for v in (own, _alone(own))],
        "Learning-rate schedule": [recipe, *_rates(recipe, max_steps, published)],
        "Single views": [recipe, all_views] if single_view else [],
        "Cached samples": [recipe, not_cached] if cached_samples else [],
        "Presets": [recipe, *(_sampled(recipe, k, f"--preset {k}", **v) for k, v in (presets or {}).items())],
        "Few-shot pictures": [_fewer(recipe, n) for n in IMAGES],
        "Training steps": _trained(recipe, max_steps),
        "Samplers": _solvers(recipe, sampler, steps),
        "Guidance": _guided(recipe, guidance_scale),
    }
    return _comparison(recipe, tables)


def _comparison(recipe: Method, tables: Mapping[str, Sequence[Method]]) -> Comparison:
    """Of the methods in these tables, with the claims about them; a table of one method is left out."""
    found = {method.name: method for own in tables.values() for method in own}
    return Comparison(
        methods=found,
        tables={title: [method.name for method in own] for title, own in tables.items() if len(own) > 1},
        claims=[c for c in _claims(recipe.name) if {c.better, c.worse} <= found.keys()],
        recipe=recipe.name,
    )


def _claims(recipe: str) -> list[Claim]:
    own = {"R": recipe, "P": f"{PAPER}-{recipe.partition('-')[2]}"}

    def named(short: str) -> str:
        first, dash, rest = short.partition("-")
        return own.get(first, first) + dash + rest

    better = [Claim(text, named(a), named(b)) for text, a, b in CLAIMS]
    return better + [Claim(text, named(a), named(b), equal=True) for text, a, b in EQUAL]


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


def _trained(recipe: Method, max_steps: int) -> list[Method]:
    """The recipe after shares of its steps."""
    counts = dict.fromkeys(max_steps // share for share in SHARES[:-1] if max_steps >= share)
    return [_tuned(recipe, f"{n}-steps", f"{n} training steps", max_steps=n) for n in counts] + [recipe]


def _solvers(recipe: Method, sampler: str, steps: int) -> list[Method]:
    """The recipe by every solver, in shares of its number of steps."""
    counts = dict.fromkeys(max(1, steps // share) for share in SHARES[1:])
    return [
        recipe if (solver, n) == (sampler, steps)
        else _sampled(recipe, f"{solver}-{n}", f"{solver}, {n} steps", sampler=solver, steps=n)
        for solver in SOLVERS for n in counts
    ]  # fmt: skip


def _guided(recipe: Method, guidance_scale: float) -> list[Method]:
    """The recipe by guidance scale, in their order."""
    scales = sorted({*SCALES, guidance_scale})
    return [
        recipe if x == guidance_scale
        else _sampled(recipe, f"scale-{x:g}", f"guidance {x:g}", guidance_scale=x)
        for x in scales
    ]  # fmt: skip
