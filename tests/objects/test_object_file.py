"""Cut-outs in a file: bytes of a PNG that are smaller and give back every level."""

from __future__ import annotations

import pytest
import torch

from ldm.objects.object_file import VIEWS, packed, unpacked


@pytest.mark.parametrize("n", [1, 3])
def test_pictures_come_back_as_they_were(n: int) -> None:
    g = torch.Generator().manual_seed(0)
    views = torch.randint(256, (n, 4, 12, 12), generator=g).to(torch.uint8)
    views[:, 3, :6] = 0  # colours behind full transparency are kept, too
    others = {"tokens": torch.rand(3), "opaque": torch.zeros(3, 9, 9).to(torch.uint8)}
    tensors = {VIEWS: views, "reference": views[0], "reference.a": views[-1]} | others
    stored = packed(tensors)
    assert all(stored[name].ndim == 1 for name in (VIEWS, "reference", "reference.a"))
    assert all(stored[name] is others[name] for name in others)
    found = unpacked(stored)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_cut_out_takes_less_than_its_pixels() -> None:
    picture = torch.zeros(4, 320, 320).to(torch.uint8)
    picture[:, 80:240, 80:240] = torch.randint(256, (4, 160, 160)).to(torch.uint8)
    assert len(packed({"reference": picture})["reference"]) < 0.4 * picture.numel()


@pytest.mark.parametrize("damage", ["cut", "oblong"])
def test_damaged_bytes_are_one_line(damage: str) -> None:
    stored = packed({"reference": torch.zeros(4, 8, 6 if damage == "oblong" else 8).to(torch.uint8)})
    bad = {"reference": stored["reference"][: None if damage == "oblong" else 40]}
    with pytest.raises(ValueError, match="its reference is no PNG of square pictures; write it again"):
        unpacked(bad)
