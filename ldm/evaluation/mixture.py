"""The quality score's mixture of Gaussians over CLIP features: fit, save, load, score.

Paint-by-Example's own file is not public, so a score by this one is named "own GMM" and compares only with
scores by the same file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from torch import Tensor

from ldm.data.digest import file_digest
from ldm.models.checkpoint import read_metadata, read_state, write_safetensors

FORMAT = "implicit-insertion quality mixture"
COMPONENTS = 20  # Paint-by-Example's
FULL_SCORE = 300  # log-likelihood that counts as 100, Paint-by-Example's
FLOOR = 1e-6  # added to every variance, as scikit-learn does


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares [k], means [k,d], covariances [k,d,d] in float64; `about`: encoder, pictures, source, digest."""

    shares: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def roots(self) -> np.ndarray:
        """Lower Cholesky factors [k,d,d]."""
        return np.linalg.cholesky(self.covariances)

    def joint(self, features: np.ndarray) -> np.ndarray:
        """log(share * density) of every component at features [n,d] => [n,k]."""
        columns = []
        for share, mean, root in zip(self.shares, self.means, self.roots, strict=True):
            apart = solve_triangular(root, (features - mean).T, lower=True)
            volume = np.log(np.diag(root)).sum() + len(mean) / 2 * np.log(2 * np.pi)
            columns.append(np.log(share) - volume - (apart**2).sum(0) / 2)
        return np.stack(columns, axis=1)

    def log_likelihood(self, features: np.ndarray) -> np.ndarray:
        """Of features [n,d] => [n]."""
        return logsumexp(self.joint(features), axis=1)


def quality(mixture: Mixture, features: Tensor) -> list[float]:
    """Quality score of CLIP features [n,d], 0 ... 100: log-likelihood / 300, clipped."""
    found = mixture.log_likelihood(features.double().numpy())
    return (np.clip(found / FULL_SCORE, 0, 1) * 100).tolist()


def fit_mixture(
    features: np.ndarray, components: int = COMPONENTS, seed: int = 0, rounds: int = 100, rest: float = 1e-3
) -> Mixture:
    """Expectation-maximisation from k-means over features [n,d], till a round gains less than `rest`."""
    if len(features) < 2 * components:
        raise ValueError(f"{len(features)} pictures for {components} components; give 2 a component or more")
    features = np.asarray(features, float)
    # an empty cluster becomes a component of no share, which `_maximised` lets fade
    _, label = kmeans2(features, components, minit="++", seed=seed, missing="warn")
    mixture, before = _maximised(features, np.eye(components)[label]), -np.inf
    for _ in range(rounds):
        joint = mixture.joint(features)
        each = logsumexp(joint, axis=1, keepdims=True)
        mixture = _maximised(features, np.exp(joint - each))
        if each.mean() - before < rest:
            break
        before = each.mean()
    return mixture


def save_mixture(path: Path, mixture: Mixture) -> None:
    """Write a .safetensors file whose metadata say what the mixture is and what it was fitted on."""
    tensors = {name: torch.from_numpy(getattr(mixture, name)) for name in ("shares", "means", "covariances")}
    about = {"format": FORMAT, "about": json.dumps(dict(mixture.about))}
    write_safetensors(path, tensors, about)


def load_mixture(path: Path, encoder: str) -> Mixture:
    """Read a mixture that was fitted on features of this very encoder; ValueError if it was not."""
    if not path.is_file():
        raise FileNotFoundError(
            f"quality score: no mixture {path}; fit one: evaluate.py --fit_quality PICTURES --out {path}"
        )
    told = read_metadata(path) if path.suffix == ".safetensors" else {}
    if told.get("format") != FORMAT:
        raise ValueError(f"{path} is no mixture for the quality score; fit one by evaluate.py --fit_quality")
    about = json.loads(told["about"])
    if about["encoder"] != encoder:
        raise ValueError(f"{path} was fitted on features of {about['encoder']}, not {encoder}; fit another")
    values = {name: value.numpy() for name, value in read_state(path).items()}
    return Mixture(**values, about=about | {"digest": file_digest(path)[:16]})


def _maximised(features: np.ndarray, duty: np.ndarray) -> Mixture:
    """The mixture that fits features [n,d] best, of which component k answers for duty [n,k]."""
    weight = duty.sum(0) + 10 * np.finfo(float).eps
    means = duty.T @ features / weight[:, None]
    covariances = []
    for k, mean in enumerate(means):
        apart = features - mean
        covariances.append((duty[:, k, None] * apart).T @ apart / weight[k] + FLOOR * np.eye(len(mean)))
    return Mixture(weight / weight.sum(), means, np.stack(covariances))
