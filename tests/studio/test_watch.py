"""Progress and previews of a sampling."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image

from ldm.data.picture import Picture
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.region import InsertableObject, InsertRequest, ObjectFill
from ldm.insertion.roi import Roi
from ldm.studio.watch import Watch, WatchedPredictor
from tests.fixtures.small import small_base


def test_every_step_is_counted_and_previews_show_the_scene_around_the_mask() -> None:
    base = small_base()
    contexts = base.contexts(torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(1)))
    pixels = np.full((64, 64, 3), (200, 40, 90), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[24:40, 24:40] = True
    heard: list[tuple[int, list[bytes]]] = []
    watch = Watch(lambda done, previews: heard.append((done, previews)))
    options = InsertOptions(
        Sampling("ddim", 3, 2.0),
        predictor=lambda model, regions: WatchedPredictor(model, regions, model, watch),
    )
    request = InsertRequest(mask, [Roi(0, 0, 64, 64)], [1, 2])
    insert(base, Picture(pixels), [request], [InsertableObject(contexts, ObjectFill())], options)
    assert [done for done, _ in heard] == [1, 2, 3] and len(heard[0][1]) == 2, "one of each seed"
    shown = np.asarray(Image.open(BytesIO(heard[0][1][0]))).astype(int)
    quarter = len(shown) // 4
    away = np.abs(shown - pixels[0, 0]).mean(2)
    assert away[:quarter].mean() < 8, "but for the JPEG"
    assert away[2 * quarter - 2 : 2 * quarter + 2, 2 * quarter - 2 : 2 * quarter + 2].mean() > 16
