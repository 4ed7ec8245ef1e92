"""What encoders are shown, against each protocol written down a second time with other libraries."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil

from ldm.data.picture import Picture
from ldm.evaluation.networks import centre, object_view, whole
from ldm.features.encoders import load_dino
from ldm.insertion.crop_paste import crop_region
from ldm.insertion.roi import box_of
from tests.fixtures.networks import write_dino

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def picture(seed: int = 0, size: tuple[int, int] = (90, 120)) -> Picture:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Picture(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))


def blob(size: tuple[int, int] = (90, 120)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (60, 40), (35, 12), 20, 0, 360, 1, -1)
    return mask.astype(bool)


def normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)


def shown(image: torch.Tensor) -> np.ndarray:
    assert image.shape == (1, 3, 224, 224)
    return image[0].permute(1, 2, 0).numpy()


def test_the_whole_reference_is_squashed_with_antialiasing() -> None:
    pixels = picture(size=(300, 500)).pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    smooth = torch.nn.functional.interpolate(image, (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    apart = np.abs(shown(whole(pixels)) - normalised(smooth[0].permute(1, 2, 0).numpy()))
    assert apart.max() < 2 / 255 / min(STD)  # Pillow rounds


@pytest.mark.parametrize("size", [(300, 404), (404, 300), (90, 120), (224, 224)])
def test_the_centre_is_what_clips_own_processor_makes(size: tuple[int, int]) -> None:
    pixels = picture(1, size).pixels
    expected = CLIPImageProcessorPil()(pixels, return_tensors="np")["pixel_values"][0]
    assert np.abs(centre(pixels)[0].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize(("width", "left"), [(225, 0), (226, 1), (227, 2), (229, 2), (231, 4)])
def test_the_centres_odd_margin_is_rounded_as_in_torchvision(width: int, left: int) -> None:
    pixels = picture(1, (224, width)).pixels  # int(round(margin / 2)), half to even
    assert np.allclose(shown(centre(pixels)), normalised(pixels[:, left : left + 224]), atol=1e-4)


def test_v2_shows_the_box_on_the_mean_colour_in_the_encoders_own_normalisation(tmp_path: Path) -> None:
    encoder, ground, mask = load_dino(write_dino(tmp_path / "dino")), picture(), blob()
    image = object_view(encoder, crop_region(ground, box_of(mask)))
    assert image.shape == (1, 3, 224, 224)
    assert image[:, :, :40].abs().max() < 1e-4 and image[:, :, -40:].abs().max() < 1e-4  # mean colour is 0
    rows, columns = np.where(mask)
    part = ground.pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    part_image = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(object_view(encoder, part_image), image)
    middle = encoder.normalised(part_image[None])[0, :, part.shape[0] // 2, part.shape[1] // 2]
    assert torch.allclose(image[0, :, 112, 112], middle, atol=0.3)
