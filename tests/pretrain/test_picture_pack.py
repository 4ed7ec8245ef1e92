"""The pack: folders => one file => tensors, and its errors."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pretrain.picture_pack import Pack, read_pack, sources, write_pack
from tests.fixtures.pictures import OBJECT, VIEWS, cutout, save, small_pack, write_sources


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return small_pack(tmp_path_factory.mktemp("pack"))


def test_everything_arrives_as_uint8_in_its_shape(pack: Pack) -> None:
    assert (len(pack.photos), len(pack.cutouts)) == (6, 2)
    assert {name: len(views) for name, views in pack.multiview.items()} == {
        "thing_0": VIEWS,
        "thing_1": VIEWS,
    }
    pictures = [*pack.photos, *pack.cutouts, *(view for views in pack.multiview.values() for view in views)]
    assert all(picture.dtype == torch.uint8 for picture in pictures)
    assert [len(photo) for photo in pack.photos] == [3] * 6
    assert [len(picture) for picture in pictures[6:]] == [4] * (2 + 2 * VIEWS)


def test_large_pictures_are_shrunk_and_small_ones_kept(pack: Pack) -> None:
    assert [tuple(photo.shape[1:]) for photo in pack.photos] == [
        (64, 96), (96, 64), (64, 64), (64, 96), (50, 60), (82, 64)
    ]  # fmt: skip
    assert pack.cutouts[0].shape == (4, 40, 48)


def test_small_webp_files_are_kept_byte_for_byte(pack: Pack) -> None:
    expected = torch.from_numpy(np.array(cutout((48, 40)))).permute(2, 0, 1)
    assert torch.equal(pack.cutouts[0], expected)


def test_relit_scenes_show_the_object_where_their_mask_is(pack: Pack) -> None:
    for scene in pack.relit:
        inside, outside = scene.mask[0] > 250, scene.mask[0] < 5
        assert 0.05 < inside.float().mean() < 0.4
        red = torch.tensor(OBJECT)[:, None]
        assert (scene.truth[:, inside].int() - red).abs().float().mean() < 12
        changed = (scene.truth.int() - scene.background.int()).abs().float().mean(0)
        assert changed[outside].mean() < 8 < 60 < changed[inside].mean()


def test_opaque_cutouts_keep_four_channels(tmp_path: Path) -> None:
    """WebP files drop an alpha channel that is 255 everywhere."""
    write_sources(tmp_path / "in")
    save(Image.new("RGBA", (20, 20), (9, 9, 9, 255)), tmp_path / "in/photos/cutouts/0.webp")
    write_pack(tmp_path / "in", tmp_path / "pack.zip", 64)
    opaque = read_pack(tmp_path / "pack.zip").cutouts[0]
    assert opaque.shape == (4, 20, 20) and (opaque[3] == 255).all()


def test_held_out_photos_are_in_one_part_only(pack: Pack) -> None:
    rest, held_out = pack.split(2, 2)
    assert len(held_out.photos) == 2 and len(rest.photos) == 4
    assert not {photo.data_ptr() for photo in rest.photos} & {photo.data_ptr() for photo in held_out.photos}
    assert rest.cutouts is pack.cutouts
    for part in (rest, held_out):
        for photo, silhouette in zip(part.photos, part.silhouettes, strict=True):
            assert silhouette is None or silhouette.shape[1:] == photo.shape[1:]


def test_silhouettes_belong_to_the_photo_of_their_name(pack: Pack) -> None:
    assert [x is None for x in pack.silhouettes] == [True, True, True, False, False, True]
    known, empty = pack.silhouettes[3:5]
    assert known is not None and known.shape == (1, 64, 96) and 0.15 < (known > 127).float().mean() < 0.25
    assert empty is not None and not empty.any()


def test_relit_scenes_arrive_whole_but_for_those_too_dark(pack: Pack) -> None:
    assert [scene.name for scene in pack.relit] == ["r0", "r1", "r2", "r3"]
    for scene in pack.relit:
        assert scene.background.shape == scene.truth.shape == (3, 64, 77) and scene.mask.shape == (1, 64, 77)
        assert [x.shape for x in scene.posed] == [(4, 64, 77)] * 2 and [len(x) for x in scene.views] == [
            4
        ] * 3
        both = (scene.posed[0][3] > 250) & (scene.mask[0] > 250)
        assert both.sum() > 0.8 * (scene.mask[0] > 250).sum(), "in the same place"


def test_held_out_relit_scenes_are_in_one_part_only(pack: Pack) -> None:
    rest, held_out = pack.split(2, 2)
    assert [x.name for x in held_out.relit] == ["r0", "r2"] and [x.name for x in rest.relit] == ["r1", "r3"]


def test_holding_out_too_many_leaves_photos_to_train_on(pack: Pack) -> None:
    rest, held_out = pack.split(100, 2)
    assert len(rest.photos) == len(held_out.photos) == 3


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no training pictures; expected photos/ and insertbench/"):
        write_pack(tmp_path, tmp_path / "pack.zip", 64)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_pack_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    write_sources(tmp_path / "in")
    (tmp_path / "pack.zip").write_text("old")
    (tmp_path / "in/insertbench/relit/r1/truth.webp").write_text("no picture")
    with pytest.raises(OSError):
        write_pack(tmp_path / "in", tmp_path / "pack.zip", 64)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "pack.zip"}
    assert (tmp_path / "pack.zip").read_text() == "old"


def test_a_missing_pack_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pack\.zip: no pack here; write one with `python scripts/"):
        read_pack(tmp_path / "pack.zip")


def test_names_say_what_a_picture_is(tmp_path: Path) -> None:
    write_sources(tmp_path)
    write_pack(tmp_path, tmp_path / "new/pack.zip", 64)
    with zipfile.ZipFile(tmp_path / "new/pack.zip") as archive:
        names = set(archive.namelist())
    assert names == {f"{name}.webp" for name, _ in sources(tmp_path)}
    assert {"photos/0.webp", "cutouts/1.webp", "multiview/thing_1/03.webp", "relit/r0/mask.webp"} <= names
