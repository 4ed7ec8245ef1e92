"""The quality score's mixture of Gaussians over CLIP features: fit, save, load, score.

Paint-by-Example's own file is not public, so a score by this one is named "close to" and compares only with
scores by the same file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ldm.data.files import file_digest
from ldm.models.checkpoint import check_replaceable, read_metadata, read_state, write_safetensors

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


FORMAT = "implicit-insertion quality mixture"
COMPONENTS = 20  # Paint-by-Example's
FULL_SCORE = 300  # log-likelihood that counts as 100, Paint-by-Example's


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares [k], means [k,d], covariances [k,d,d] in float64; `about`: encoder, pictures, source, digest."""

    shares: Tensor
    means: Tensor
    covariances: Tensor
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def density(self) -> MixtureSameFamily:
        """The mixture as a distribution of torch."""
        return MixtureSameFamily(Categorical(self.shares), MultivariateNormal(self.means, self.covariances))


def quality(mixture: Mixture, features: Tensor) -> list[float]:
    """Quality score of CLIP features [n,d], 0 ... 100: log-likelihood / 300, clipped."""
    found = mixture.density.log_prob(features.double())
    return ((found / FULL_SCORE).clamp(0, 1) * 100).tolist()


def estimator(pictures: int, components: int = COMPONENTS, seed: int = 0) -> GaussianMixture:
    """scikit-learn's expectation-maximisation (extra `quality`); its errors come before the encoding."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ModuleNotFoundError(
            "fitting a mixture needs scikit-learn; run `pip install '.[quality]'`"
        ) from error
    if not 0 < 2 * components <= pictures:
        raise ValueError(f"{pictures} pictures for {components} components; give 2 a component or more")
    return GaussianMixture(components, random_state=seed)


def fit_mixture(estimator: GaussianMixture, features: Tensor) -> Mixture:
    """Fit to features [n,d]."""
    estimator.fit(features.double().numpy())
    found = (estimator.weights_, estimator.means_, estimator.covariances_)
    return Mixture(*map(torch.from_numpy, found))


def save_mixture(path: Path, mixture: Mixture) -> None:
    """Write a .safetensors file; its metadata name format, encoder and the pictures of the fit."""
    tensors = {name: getattr(mixture, name) for name in ("shares", "means", "covariances")}
    about = {"format": FORMAT, "about": json.dumps(dict(mixture.about))}
    check_replaceable(path)
    write_safetensors(path, tensors, about)


def load_mixture(path: Path, encoder: str) -> Mixture:
    """Read a mixture that was fitted on features of this very encoder; ValueError if it was not."""
    if not path.is_file():
        raise FileNotFoundError(
            f"quality score: no mixture {path}; fit one: evaluate.py --fit_quality PICTURES --out {path}"
        )
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no mixture for the quality score; fit one by evaluate.py --fit_quality")
    about = json.loads(metadata["about"])
    if about["encoder"] != encoder:
        raise ValueError(f"{path} was fitted on features of {about['encoder']}, not {encoder}; fit another")
    return Mixture(**read_state(path), about=about | {"digest": file_digest(path)[:16]})
