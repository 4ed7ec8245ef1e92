"""The mixture of the quality score against scipy's densities, and what its fit must find."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from ldm.evaluation.mixture import Mixture, fit_mixture, load_mixture, quality, save_mixture

ABOUT = {"encoder": "clip 12", "source": "by hand", "pictures": "0"}


def given(width: int = 3) -> Mixture:
    draw = np.random.default_rng(0)
    factors = draw.normal(size=(2, width, width))
    covariances = factors @ factors.transpose(0, 2, 1) + np.eye(width)
    return Mixture(np.array([0.3, 0.7]), draw.normal(size=(2, width)) * 3, covariances, ABOUT)


def sampled(mixture: Mixture, count: int, seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    which = draw.choice(len(mixture.shares), count, p=mixture.shares)
    return np.stack([draw.multivariate_normal(mixture.means[k], mixture.covariances[k]) for k in which])


def test_the_likelihood_is_the_sum_of_scipys_densities() -> None:
    mixture, points = given(), np.random.default_rng(2).normal(size=(5, 3)) * 4
    density = sum(
        share * multivariate_normal(mean, covariance).pdf(points)
        for share, mean, covariance in zip(mixture.shares, mixture.means, mixture.covariances, strict=True)
    )
    assert np.allclose(mixture.log_likelihood(points), np.log(density))


def test_quality_is_a_three_hundredth_in_percent_and_clipped() -> None:
    narrow = Mixture(np.ones(1), np.zeros((1, 90)), np.eye(90)[None] * 1e-3)
    best = float(multivariate_normal(np.zeros(90), np.eye(90) * 1e-3).logpdf(np.zeros(90)))
    middling = torch.full((90,), 0.05)
    found = quality(narrow, torch.stack([torch.zeros(90), middling, torch.full((90,), 9.0)]))
    assert found[0] == pytest.approx(best / 3) and 0 < found[1] < found[0] < 100 and found[2] == 0
    assert quality(Mixture(np.ones(1), np.zeros((1, 90)), np.eye(90)[None] * 1e-6), torch.zeros(1, 90)) == [
        100
    ]


def test_a_fit_finds_the_mixture_again_and_never_does_worse_than_a_round_before() -> None:
    truth = given()
    points, unseen = sampled(truth, 3000), sampled(truth, 500, seed=5)
    found = fit_mixture(points, 2)
    order = np.argsort(found.shares)
    assert np.allclose(found.shares[order], truth.shares, atol=0.04)
    assert np.allclose(found.means[order], truth.means, atol=0.25)
    assert found.log_likelihood(unseen).mean() > truth.log_likelihood(unseen).mean() - 0.02
    steps = [fit_mixture(points, 2, rounds=n, rest=0).log_likelihood(points).mean() for n in (0, 1, 2, 5, 9)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(steps))


def test_a_fit_is_the_same_every_time_and_wants_enough_pictures() -> None:
    points = sampled(given(), 100)
    assert np.array_equal(fit_mixture(points, 3).means, fit_mixture(points, 3).means)
    with pytest.raises(ValueError, match="5 pictures for 3 components"):
        fit_mixture(points[:5], 3)


def test_a_file_keeps_the_mixture_and_serves_its_own_encoder_only(tmp_path: Path) -> None:
    file, mixture = tmp_path / "gmm.safetensors", given()
    save_mixture(file, mixture)
    found = load_mixture(file, "clip 12")
    assert np.array_equal(found.covariances, mixture.covariances) and found.about["source"] == "by hand"
    with pytest.raises(ValueError, match="features of clip 12, not clip 13"):
        load_mixture(file, "clip 13")
    with pytest.raises(FileNotFoundError, match=r"no mixture .*none.*--fit_quality"):
        load_mixture(tmp_path / "none.safetensors", "clip 12")
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="is no mixture"):
        load_mixture(tmp_path / "x.npz", "clip 12")
