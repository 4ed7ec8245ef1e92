"""What the reproduction is to tell of its variants, one against another."""

from __future__ import annotations

from dataclasses import dataclass

from ldm.evaluation.measures import MEASURES
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
