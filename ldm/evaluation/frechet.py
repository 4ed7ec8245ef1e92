"""The Frechet distance of two sets of features: FID with Inception's, CLIP-FID with CLIP's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance


class _Given(nn.Module):
    """Stands where torchmetrics expects a network: the features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


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
