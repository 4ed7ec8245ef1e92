"""The Frechet distance against its formula with scipy's matrix root."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ldm.evaluation.metrics import frechet_distance


def formula(a: np.ndarray, b: np.ndarray) -> float:
    """Heusel et al. 2017: |m - n|^2 + tr(A + B - 2 (A B)^(1/2))."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


@pytest.mark.parametrize(("counts", "width"), [((50, 70), 6), ((8, 9), 5), ((200, 200), 12)])
def test_it_is_the_formula(counts: tuple[int, int], width: int) -> None:
    draw = np.random.default_rng(width)
    a = draw.normal(size=(counts[0], width)) @ draw.normal(size=(width, width))
    b = draw.normal(1, 2, size=(counts[1], width))
    found = frechet_distance(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert found == pytest.approx(formula(a, b), rel=1e-4)


def test_a_shift_costs_its_square_even_with_fewer_pictures_than_numbers() -> None:
    a = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    shift = torch.zeros(40)
    shift[3] = 2
    assert frechet_distance(a, a + shift) == pytest.approx(4, abs=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-3)
    with pytest.raises(ValueError, match="1 results to 10 real"):
        frechet_distance(a[:1], a)
