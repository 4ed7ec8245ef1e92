"""The reproduction: the methods that it compares, the claims that it tests by them, and RESULTS.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ldm.data.files import write_file
from ldm.evaluation.methods import ALL, KV, Method
from ldm.evaluation.methods import METHODS as BENCHMARKED
from ldm.evaluation.metrics import heading
from ldm.evaluation.report import Interval, better, cell, differences, markdown, measured, over_objects
from ldm.evaluation.results import Row

PAPER = "paper"  # first in the names of methods that are the paper's recipe
FEWEST = 5  # objects; fewer agree by chance one time in eight, so that an interval claims too much
SHORT = {KV: "kv", ALL: "crossattn"}
IMAGES = (1, 3, 5)  # few-shot pictures
PERCEPTUAL = "v2/perceptual_object"  # what claims are also judged by where there is a truth

LINEAR = "`linear` few-shot tokens (the paper's layer, our recipe)"
TUNED = (  # few-shot part, what it is, what of the cross-attention trains
    ("none", "no few-shot tokens (as Custom Diffusion)", KV),
    ("linear", LINEAR, KV),
    ("tokens", "`tokens` (ours)", KV),
    ("linear", LINEAR, ALL),
    ("tokens", "`tokens` (ours)", ALL),
)
METHODS = (  # from pasting to tuning all of the cross-attention, in the order of the table
    BENCHMARKED["flat"],
    Method("poisson", "reference pasted by Poisson's equation", "poisson"),
    BENCHMARKED["cut-out"],
    BENCHMARKED["zero-shot"],
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
    ("ours: same-category pictures help the recipe", "R", "R-alone"),
)
SHOWN = (
    "v2/identity", "v2/identity_mean", "paper/clip", "paper/dino", "v2/clip_mean", "v2/dino_mean",
    "v2/psnr_object", "v2/perceptual_object", "v2/seam", "v2/outside", "v2/seconds", "v2/learning_seconds",
    "paper/clip_fid", "v2/inception_fid",
)  # fmt: skip
ABOUT = (
    "Mean over images [95 % bootstrap interval]. Differences are paired by image, their intervals are over "
    f"objects, as an object's images are alike; fewer than {FEWEST} decide nothing. Every number is of the "
    "protocol before its colon and compares only inside it. Flat and Poisson pasting repeat the reference "
    "picture itself, so that their identity is high whatever they look like in the scene."
)


@dataclass(frozen=True)
class Claim:
    """The method `better` beats `worse`, in identity and in PERCEPTUAL."""

    text: str
    better: str
    worse: str


def verdict(difference: Interval, measure: str) -> str:
    """Judge a claim by the interval over objects of "better minus worse"."""
    if difference.count < FEWEST:
        return "too few objects"
    found = {"this run": "holds", "other run": "does not hold"}
    return found.get(better(measure, difference), "undecided")


@dataclass(frozen=True)
class Comparison:
    """Methods by name, tables of them by title, and claims; `recipe` is the method of our settings."""

    methods: Mapping[str, Method]
    tables: Mapping[str, Sequence[str]]
    claims: Sequence[Claim]
    recipe: str

    def of(self, names: Collection[str]) -> Comparison:
        """With these methods only, the tables in which they are compared, and their claims.

        ValueError for unknown names.
        """
        if unknown := [name for name in names if name not in self.methods]:
            raise ValueError(f"no method {', '.join(unknown)}; there are {', '.join(self.methods)}")
        chosen = {name: method for name, method in self.methods.items() if name in names}
        kept = dict[str, Sequence[str]]()
        for title, own in self.tables.items():
            rows = [name for name in own if name in chosen]
            if len(rows) > 1 and not any(set(rows) <= set(shown) for shown in kept.values()):
                kept[title] = rows
        claims = [claim for claim in self.claims if {claim.better, claim.worse} <= chosen.keys()]
        return Comparison(chosen, kept, claims, self.recipe)


def comparison(few_shot: str, freeze_model: str, published: Sequence[Method]) -> Comparison:
    """What the paper claims, and what we changed, around the recipe with these settings.

    Without few-shot tokens the recipe is that with `tokens`. `published`: the paper's recipe, scaled to the
    base, as `paper-kv` and `paper-crossattn`.
    """
    methods = {method.name: method for method in METHODS}
    kind = "tokens" if few_shot == "none" else few_shot
    linear, recipe = methods["linear-kv"], methods[f"{kind}-{SHORT[freeze_model]}"]
    both = [linear] if recipe is linear else [linear, recipe]
    tables = {
        "Methods": [*METHODS, *published],
        "The paper's recipe": _of_the_paper(published),
        "Same-category pictures": [one for method in both for one in (method, _alone(method))],
        "Few-shot pictures": [_fewer(recipe, n) for n in IMAGES],
    }
    found = {method.name: method for own in tables.values() for method in own}
    names = {title: [method.name for method in own] for title, own in tables.items()}
    return Comparison(found, names, _claims(recipe.name), recipe.name).of(found)


def _claims(recipe: str) -> list[Claim]:
    own = {"R": recipe, "P": f"{PAPER}-{recipe.partition('-')[2]}"}

    def named(short: str) -> str:
        first, dash, rest = short.partition("-")
        return own.get(first, first) + dash + rest

    return [Claim(text, named(a), named(b)) for text, a, b in CLAIMS]


def _of_the_paper(published: Sequence[Method]) -> list[Method]:
    """The published recipes, and what the paper compares the first one with, sampled in the same way."""
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


def _alone(method: Method) -> Method:
    title = f"{method.title}, no same-category pictures"
    return replace(method, name=f"{method.name}-alone", title=title, same_category=False)


def _fewer(recipe: Method, images: int) -> Method:
    title = f"recipe, {images} few-shot pictures at most"
    return replace(recipe, name=f"{recipe.name}-{images}-images", title=title, images=images)


@dataclass(frozen=True)
class BenchmarkResults:
    """The rows of one benchmark by method, `done` of `runs`; `sets`: numbers of all results of a method."""

    benchmark: str
    rows: Mapping[str, Sequence[Row]]
    done: int
    runs: int
    sets: Mapping[str, Mapping[str, float]]

    def claims(self, compared: Comparison) -> list[str]:
        """The table of claims, by identity to the truth where there is one, else to the object's views."""
        known = measured([row for rows in self.rows.values() for row in rows])
        identity = "v2/identity" if "v2/identity" in known else "v2/identity_mean"
        lines = [["claim", "compared", "measure", "objects", "difference", "verdict"]]
        for claim in compared.claims:
            for measure in (identity, PERCEPTUAL):
                own, other = (self.rows.get(name, ()) for name in (claim.better, claim.worse))
                if found := differences(own, other, measure):
                    difference = over_objects(found)
                    numbers = [str(difference.count), difference.text(3, sign=True)]
                    title = [claim.text, f"{claim.better} - {claim.worse}", heading(measure)]
                    lines.append([*title, *numbers, verdict(difference, measure)])
        return ["### Claims", markdown(lines, left=3)] if len(lines) > 1 else []

    def table(self, title: str, methods: Sequence[Method]) -> list[str]:
        """A line for each of the methods that have results."""
        methods = [method for method in methods if self.rows.get(method.name)]
        known = {name for method in methods for name in measured(self.rows[method.name])}
        known |= {name for scores in self.sets.values() for name in scores}
        measures = [name for name in SHOWN if name in known]
        lines = [["method", "", "images", *(heading(name) for name in measures)]]
        for method in methods:
            rows, sets = self.rows[method.name], self.sets.get(method.name, {})
            cells = [cell(rows, measure, sets) for measure in measures]
            lines.append([method.name, method.title, str(len(rows)), *cells])
        return [f"### {title}", markdown(lines, left=2)] if methods else []


def write_results(
    folder: Path, found: Sequence[BenchmarkResults], compared: Comparison, notes: Sequence[str]
) -> Path:
    """Write RESULTS.md into `folder`; returns it."""
    parts = ["# Results", ABOUT, *notes]
    for one in found:
        parts += [f"## {one.benchmark}", f"{one.done} of {one.runs} runs (a method on an object) are done."]
        parts += one.claims(compared)
        for title, names in compared.tables.items():
            parts += one.table(title, [compared.methods[name] for name in names])
    file = folder / "RESULTS.md"
    write_file(file, "\n\n".join(parts) + "\n")
    return file
