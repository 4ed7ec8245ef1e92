"""Measures: the table of all numbers of a report, and how those of an image or a set are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from ldm.features.encoders import Lpips
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.roi import box_of

DIGITS = 5  # behind the point, in files
GMM = "close to, by our own GMM"  # Paint-by-Example's is not public


@dataclass(frozen=True)
class Measure:
    """`better` is 1 if more is better, -1 if less is, 0 if it says nothing about quality.

    `metric` is what a user asks for; `of_set`: one number for all results together.
    """

    metric: str
    title: str
    decimals: int = 3
    better: int = 1
    of_set: bool = False


MEASURES = {  # <protocol>/<name>, in the order of columns; numbers compare only inside one protocol
    "v2/identity": Measure("identity", "identity, to the truth"),
    "v2/identity_mean": Measure("identity", "identity, mean of views"),
    "v2/identity_max": Measure("identity", "identity, best view"),
    "v2/clip_mean": Measure("clip", "region CLIP, mean of views"),
    "v2/clip_max": Measure("clip", "region CLIP, best view"),
    "v2/dino_mean": Measure("dino", "region DINOv2, mean of views"),
    "v2/dino_max": Measure("dino", "region DINOv2, best view"),
    "paper/clip": Measure("clip", "region CLIP, x 100", 2),
    "paper/dino": Measure("dino", "region DINOv2, x 100", 2),
    "pbe/clip": Measure("clip", "region CLIP, x 100", 2),
    "pbe/quality": Measure("quality", f"quality score ({GMM})", 2),
    "v2/psnr_object": Measure("fidelity", "PSNR object, dB", 2),
    "v2/psnr_region": Measure("fidelity", "PSNR region, dB", 2),
    "v2/psnr_around": Measure("fidelity", "PSNR around the object in the mask, dB", 2),
    "v2/ssim_object": Measure("fidelity", "SSIM object"),
    "v2/ssim_region": Measure("fidelity", "SSIM region"),
    "v2/perceptual_object": Measure("fidelity", "LPIPS-like object", 4, -1),
    "v2/perceptual_region": Measure("fidelity", "LPIPS-like region", 4, -1),
    "v2/lpips_object": Measure("lpips", "LPIPS object", 3, -1),
    "v2/lpips_region": Measure("lpips", "LPIPS region", 3, -1),
    "v2/seam": Measure("background", "seam ratio", 2, -1),
    "v2/colour_offset": Measure("background", "colour offset around the mask, levels", 2, -1),
    "v2/outside": Measure("background", "changed outside, most", 0, -1),
    "v2/outside_mean": Measure("background", "changed outside, mean", 3, -1),
    "v2/seconds": Measure("background", "seconds", 2, 0),
    "v2/learning_seconds": Measure("background", "learning, s", 0, 0),
    "paper/clip_fid": Measure("clip-fid", "CLIP-FID", 2, -1, of_set=True),
    "v2/inception_fid": Measure("inception-fid", "Inception FID", 2, -1, of_set=True),
}
METRICS = tuple(dict.fromkeys(measure.metric for measure in MEASURES.values()))
OFFLINE = ("identity", "fidelity", "background")  # need no weights that are not installed


def heading(name: str) -> str:
    """Of a column: protocol (`paper`, `pbe` or `v2`) and title."""
    return f"{name.partition('/')[0]}: {MEASURES[name].title}"


def in_order(names: object) -> list[str]:
    """Those of MEASURES that are among `names`, in the order of columns."""
    return [name for name in MEASURES if name in names]  # type: ignore[operator]


MIN_MSE = 1e-10  # in [0,1]: equal regions have 100 dB, not infinity, so that means stay finite
SSIM_REACH = 5  # pixels that a window reaches to each side
RESAMPLES = 10_000


def psnr(image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """Peak signal-to-noise ratio of the region's pixels in dB, at most 100."""
    inside = torch.from_numpy(region)
    mse = ((image - truth)[:, inside] / 2).double().square().mean()
    return float(-10 * torch.log10(mse.clamp(min=MIN_MSE)))


def ssim(image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """Mean over the region of the SSIM map (Wang et al. 2004: Gaussian of 1.5 px, 11 x 11; mean of RGB)."""
    box = box_of(region)
    rows = slice(max(box.y0 - SSIM_REACH, 0), box.y1 + SSIM_REACH)
    columns = slice(max(box.x0 - SSIM_REACH, 0), box.x1 + SSIM_REACH)
    a, b = ((x[None, :, rows, columns] + 1) / 2 for x in (image, truth))
    _, similarity = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    return float(similarity[0][:, torch.from_numpy(region[rows, columns])].mean())


def perceptual(features: ImageNetFeatures, image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """LPIPS-like, of EfficientNet-Lite0: mean over the region of the squared distance of unit features.

    Mean of three stages; a stage's position counts by the share of it that lies in the region.
    """
    with torch.no_grad():
        stages = [features.maps(x[None].to(features.mean.device)) for x in (image, truth)]
    inside = torch.from_numpy(region)[None, None].to(stages[0][0])
    found = []
    for a, b in zip(*stages, strict=True):
        share = F.interpolate(inside, a.shape[2:], mode="area")[0, 0]
        found.append(((a - b).square().sum(1)[0] * share).sum() / share.sum())
    return float(torch.stack(found).mean())


def lpips(net: Lpips, image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """Mean over the region of LPIPS' map; 0 is the same."""
    device = next(net.parameters()).device
    return float(net(image[None].to(device), truth[None].to(device)).cpu()[torch.from_numpy(region)].mean())


def frechet_distance(results: Tensor, real: Tensor) -> float:
    """Distance of the Gaussians of two sets of features [n,d], [m,d]; ValueError for less than two."""
    if min(len(results), len(real)) < 2:
        raise ValueError(
            f"a Frechet distance of {len(results)} results to {len(real)} real pictures; give two or more"
        )
    metric = FrechetInceptionDistance(feature=_Given(results.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(results.double(), real=False)
    metric.update(real.double(), real=True)
    return float(metric.compute())


class _Given(nn.Module):
    """The network that torchmetrics expects, for features that are computed already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean of `values` (at least one)."""
    data = np.asarray(values, float)
    assert data.ndim == 1 and len(data), f"no values to resample: {values}"
    draws = np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))
    low, high = np.quantile(data[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
