"""Every number of a report: its protocol, its meaning, which way is better, and which metric asks for it."""

from __future__ import annotations

from dataclasses import dataclass

DIGITS = 5  # behind the point, in files
GMM = "close to, by our own GMM"  # Paint-by-Example's is not public


@dataclass(frozen=True)
class Measure:
    """`better` is 1 if more is better, -1 if less is, 0 if it says nothing about quality.

    `judge` names the network that tells it, see `Judges`; `of_set`: a number of all results together.
    """

    metric: str
    title: str
    decimals: int = 3
    better: int = 1
    judge: str = ""
    of_set: bool = False


MEASURES = {  # <protocol>/<name>, in the order of columns; numbers compare only inside one protocol
    "v2/identity": Measure("identity", "identity, to the truth", judge="imagenet"),
    "v2/identity_mean": Measure("identity", "identity, mean of views", judge="imagenet"),
    "v2/identity_max": Measure("identity", "identity, best view", judge="imagenet"),
    "v2/clip_mean": Measure("clip", "region CLIP, mean of views", judge="clip"),
    "v2/clip_max": Measure("clip", "region CLIP, best view", judge="clip"),
    "v2/dino_mean": Measure("dino", "region DINOv2, mean of views", judge="dino"),
    "v2/dino_max": Measure("dino", "region DINOv2, best view", judge="dino"),
    "paper/clip": Measure("clip", "region CLIP, x 100", 2, judge="clip"),
    "paper/dino": Measure("dino", "region DINOv2, x 100", 2, judge="dino"),
    "pbe/clip": Measure("clip", "region CLIP, x 100", 2, judge="clip"),
    "pbe/quality": Measure("quality", f"quality score ({GMM})", 2, judge="mixture"),
    "v2/psnr_object": Measure("fidelity", "PSNR object, dB", 2),
    "v2/psnr_region": Measure("fidelity", "PSNR region, dB", 2),
    "v2/ssim_object": Measure("fidelity", "SSIM object"),
    "v2/ssim_region": Measure("fidelity", "SSIM region"),
    "v2/detail_object": Measure("fidelity", "detail object, of the truth's", 2, 0),
    "v2/detail_region": Measure("fidelity", "detail region, of the truth's", 2, 0),
    "v2/perceptual_object": Measure("fidelity", "LPIPS-like object", 4, -1, "imagenet"),
    "v2/perceptual_region": Measure("fidelity", "LPIPS-like region", 4, -1, "imagenet"),
    "v2/lpips_object": Measure("lpips", "LPIPS object", 3, -1, "lpips"),
    "v2/lpips_region": Measure("lpips", "LPIPS region", 3, -1, "lpips"),
    "v2/seam": Measure("background", "seam ratio", 2, -1),
    "v2/ring_offset": Measure("background", "ring offset, levels", 2, -1),
    "v2/outside": Measure("background", "changed outside, most", 0, -1),
    "v2/outside_mean": Measure("background", "changed outside, mean", 3, -1),
    "v2/seconds": Measure("background", "seconds", 2, 0),
    "v2/learning_seconds": Measure("background", "learning, s", 0, 0),
    "paper/clip_fid": Measure("clip-fid", "CLIP-FID", 2, -1, "clip", of_set=True),
    "v2/inception_fid": Measure("inception-fid", "Inception FID", 2, -1, "inception", of_set=True),
}
METRICS = tuple(dict.fromkeys(measure.metric for measure in MEASURES.values()))
OFFLINE = ("identity", "fidelity", "background")  # need no weights but those that come with the project


def protocol(name: str) -> str:
    """Of a measure: `paper`, `pbe` or `v2`."""
    return name.partition("/")[0]


def heading(name: str) -> str:
    """Of a column: protocol and title."""
    return f"{protocol(name)}: {MEASURES[name].title}"


def in_order(names: object) -> list[str]:
    """Those of MEASURES that are among `names`, in the order of columns."""
    return [name for name in MEASURES if name in names]  # type: ignore[operator]
