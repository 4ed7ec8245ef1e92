"""The mixture of the quality score against the densities of scipy and scikit-learn; what its fit finds."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator, Tensor

from ldm.evaluation.networks import Mixture, estimator, fit_mixture, load_mixture, quality, save_mixture

ABOUT = {"encoder": "clip 12", "source": "by hand", "pictures": "0"}


def given(width: int = 3) -> Mixture:
    draw = Generator().manual_seed(0)
    factors = torch.randn(2, width, width, generator=draw, dtype=torch.float64)
    covariances = factors @ factors.mT + torch.eye(width)
    means = torch.randn(2, width, generator=draw, dtype=torch.float64) * 6
    return Mixture(torch.tensor([0.3, 0.7]).double(), means, covariances, ABOUT)


def sampled(mixture: Mixture, count: int, seed: int = 1) -> Tensor:
    draw = np.random.default_rng(seed)
    which = draw.choice(len(mixture.shares), count, p=mixture.shares.numpy())
    means, covariances = mixture.means.numpy(), mixture.covariances.numpy()
    return torch.from_numpy(np.stack([draw.multivariate_normal(means[k], covariances[k]) for k in which]))


def test_the_density_is_the_sum_of_scipys() -> None:
    mixture, points = given(), np.random.default_rng(2).normal(size=(5, 3)) * 4
    density = sum(
        share * multivariate_normal(mean, covariance).pdf(points)
        for share, mean, covariance in zip(
            mixture.shares.numpy(), mixture.means.numpy(), mixture.covariances.numpy(), strict=True
        )
    )
    assert np.allclose(mixture.density.log_prob(torch.from_numpy(points)).exp(), density)


def test_quality_is_a_three_hundredth_in_percent_and_clipped() -> None:
    def narrow(variance: float) -> Mixture:
        shares, means = torch.ones(1).double(), torch.zeros(1, 90).double()
        return Mixture(shares, means, torch.eye(90).double()[None] * variance)

    best = float(multivariate_normal(np.zeros(90), np.eye(90) * 1e-3).logpdf(np.zeros(90)))
    middling = torch.full((90,), 0.05)
    found = quality(narrow(1e-3), torch.stack([torch.zeros(90), middling, torch.full((90,), 9.0)]))
    assert found[0] == pytest.approx(best / 3) and 0 < found[1] < found[0] < 100 and found[2] == 0
    assert quality(narrow(1e-6), torch.zeros(1, 90)) == [100]


def test_a_fit_finds_the_mixture_again_and_scores_as_scikit_learn_does() -> None:
    pytest.importorskip("sklearn", reason="needs the extra `quality`")
    truth = given()
    points, unseen = sampled(truth, 3000), sampled(truth, 500, seed=5)
    fitted = estimator(len(points), 2)
    found = fit_mixture(fitted, points)
    order = found.shares.argsort()
    assert torch.allclose(found.shares[order], truth.shares, atol=0.04)
    assert torch.allclose(found.means[order], truth.means, atol=0.25)
    assert torch.allclose(found.covariances[order], truth.covariances, rtol=0.15, atol=0.2)
    score = found.density.log_prob(unseen)
    assert np.allclose(score, fitted.score_samples(unseen.numpy()))
    assert score.mean() > truth.density.log_prob(unseen).mean() - 0.02


def test_a_fit_is_the_same_every_time_and_wants_enough_pictures() -> None:
    pytest.importorskip("sklearn", reason="needs the extra `quality`")
    points = sampled(given(), 100)
    first, again = (fit_mixture(estimator(100, 3), points) for _ in range(2))
    assert torch.equal(first.means, again.means)
    with pytest.raises(ValueError, match="5 pictures for 3 components"):
        estimator(5, 3)


def test_without_scikit_learn_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[quality\]'"):
        estimator(100)


def test_a_file_keeps_the_mixture_and_serves_its_own_encoder_only(tmp_path: Path) -> None:
    file, mixture = tmp_path / "gmm.safetensors", given()
    save_mixture(file, mixture)
    found = load_mixture(file, "clip 12")
    assert torch.equal(found.covariances, mixture.covariances) and found.metadata["source"] == "by hand"
    with pytest.raises(ValueError, match="features of clip 12, not clip 13"):
        load_mixture(file, "clip 13")
    with pytest.raises(FileNotFoundError, match=r"no mixture .*none.*--fit_quality"):
        load_mixture(tmp_path / "none.safetensors", "clip 12")
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="is no mixture"):
        load_mixture(tmp_path / "x.npz", "clip 12")
