"""Encoded samples: latents of images and of what the masked regions show."""

from __future__ import annotations

import pytest
import torch

from ldm.compositing.composite import boxes_for
from ldm.compositing.composite_fill import CompositesInTraining
from ldm.models.conditioner import clip_normalised
from ldm.models.diffusion import latent_mask, masked_image
from ldm.training.samples import encoded, fill_with_grey
from tests.fixtures.small import small_base


@pytest.mark.parametrize("composited", [False, True])
def test_pairs_become_latents_with_the_object_in_its_place(composited: bool) -> None:
    torch.manual_seed(0)
    base, what = small_base(), CompositesInTraining(recolour=1.0) if composited else fill_with_grey
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 4:28, 4:28] = 1
    batch = {"image": torch.rand(2, 3, 32, 32), "mask": mask, "reference": torch.rand(2, 3, 28, 28)}
    batch |= {"cut_out": torch.ones(2, 4, 16, 16), "index": torch.arange(2)}
    batch["object_box"] = torch.tensor([[6.0, 8.0, 16.0, 18.0], [10.0, 10.0, 26.0, 26.0]])
    made = encoded(base, batch, what)
    shown, elsewhere = (
        masked_image(batch["image"], mask, what(batch | {"object_box": place}))
        for place in (batch["object_box"], boxes_for(mask))
    )
    assert torch.allclose(made["x_0"], base.encode(batch["image"]), atol=1e-5)
    assert torch.allclose(made["masked"], base.encode(shown), atol=1e-5)
    assert torch.equal(shown, elsewhere) != composited, "only a composite depends on the place"
    assert torch.equal(made["latent_mask"], latent_mask(mask, made["x_0"].shape[2:]))
    pooled = base.conditioner.pooled(clip_normalised(batch["reference"]))
    assert torch.allclose(made["pooled"], pooled, atol=1e-5)
    if composited:
        assert made["weight"][0, 0, 1].eq(1).all(), "outside the mask nothing may change"
        assert made["weight"].min() == 0 and made["weight"][0, 0, 7].max() == 1
    else:
        assert "weight" not in made
