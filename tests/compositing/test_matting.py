"""The matting network: its file, and that the shipped one finds what a box, or nothing, points at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.compositing.cut_out import cut_out, cut_out_picture
from ldm.compositing.matting import FILE, Matting, MattingNetwork, load_matting, save_matting
from ldm.models.checkpoint import write_safetensors

SHIPPED = Path(__file__).parents[2] / "checkpoints/mini" / FILE
HEIGHT, WIDTH = 120, 160
CENTRES, RADIUS = ((42, 60), (118, 60)), 26  # of two discs, x y


@pytest.fixture(scope="module")
def matting() -> Matting:
    return Matting(SHIPPED)


def discs(*shown: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Striped discs on a noisy ground, uint8 [H,W,3], and where each is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = 90 + np.random.default_rng(0).normal(0, 8, (HEIGHT, WIDTH, 3))
    inside = [(x - CENTRES[i][0]) ** 2 + (y - CENTRES[i][1]) ** 2 <= RADIUS**2 for i in shown]
    for each in inside:
        pixels[each] = np.where((x // 6 % 2)[each][:, None], (215, 60, 40), (240, 190, 60))
    return pixels.clip(0, 255).astype(np.uint8), inside


def box_of(inside: np.ndarray, loose: int = 3) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero(inside.any(side)) for side in (1, 0))
    return columns[0] - loose, rows[0] - loose, columns[-1] + 1 + loose, rows[-1] + 1 + loose


def overlap(alpha: np.ndarray, inside: np.ndarray) -> float:
    return ((alpha > 0.5) & inside).sum() / ((alpha > 0.5) | inside).sum()


def test_a_file_of_fp16_gives_the_same_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MattingNetwork()
    save_matting(network, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 4 * 2**20
    x = torch.rand(1, 4, 64, 96)
    found, loaded = network(x).detach(), load_matting(tmp_path / "m.safetensors")(x)
    assert found.shape == (1, 1, 64, 96) and torch.allclose(
        found, loaded, atol=0.02 * float(found.abs().max())
    )


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Matting(tmp_path / "none.safetensors")
    write_safetensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=rf"do not fit the matting network, {tmp_path}.*\.safetensors"):
        Matting(tmp_path / "other.safetensors")


@pytest.mark.parametrize("wanted", [0, 1])
def test_the_box_says_which_object_is_meant(matting: Matting, wanted: int) -> None:
    pixels, inside = discs(0, 1)
    alpha = matting(pixels, box_of(inside[wanted]))
    assert alpha.shape == (HEIGHT, WIDTH) and alpha.min() >= 0 and alpha.max() <= 1
    assert overlap(alpha, inside[wanted]) > 0.85
    assert alpha[inside[1 - wanted]].mean() < 0.1


def test_without_a_box_it_is_proposed(matting: Matting, tmp_path: Path) -> None:
    pixels, [inside] = discs(0)
    assert np.abs(np.array(matting.propose(pixels)) - box_of(inside, loose=0)).max() <= 4
    assert overlap(matting(pixels, (1, 1, WIDTH - 1, HEIGHT - 1)), inside) > 0.85
    Image.fromarray(pixels).save(tmp_path / "disc.png")
    cut = cut_out_picture(tmp_path / "disc.png", matting)
    assert np.abs(np.array(cut.box) - box_of(inside, loose=0)).max() <= 4


def test_a_cut_out_takes_the_segmenter_that_it_is_given() -> None:
    pixels, [inside] = discs(0)
    asked = []

    def left_half(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        asked.append((pixels.shape, box))
        alpha = np.zeros(pixels.shape[:2], np.float32)
        alpha[box[1] : box[3], box[0] : (box[0] + box[2]) // 2] = 1
        return alpha

    box = box_of(inside)
    cut = cut_out(pixels, box, segmenter=left_half)
    [(shape, inner)] = asked
    assert shape[0] > box[3] - box[1] and inner[2] - inner[0] == box[2] - box[0], "with its surroundings"
    assert cut.box[0] == box[0] and abs(cut.box[2] - (box[0] + box[2]) / 2) <= 2
