"""A scene file is checked as a whole; overlapping placements need an order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ldm.data.picture import read_picture
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import CropContext
from ldm.scenes.layout import PlacedObject, groups, place
from ldm.scenes.scene_file import Scene, read_scene

ROOT = Path(__file__).parents[2]
SIZE = (40, 60)
CORNERS = [[8, 5], [16, 5], [16, 12], [8, 12]]  # of the box that `entry` gives


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    mask[5:12, 8:16] = 255
    Image.fromarray(noise).save(tmp_path / "b.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "r.png")
    return tmp_path


def entry(**values: Any) -> dict[str, Any]:
    return {"reference": "r.png", "box": [8, 5, 16, 12]} | values


def read(folder: Path, *entries: Any, **values: Any) -> Scene:
    file = folder / "scene.yaml"
    file.write_text(yaml.safe_dump({"background": "b.png", "placements": list(entries)} | values))
    return read_scene(file, 321, 0.9)


def placed(folder: Path, *entries: Any) -> list[PlacedObject]:
    scene = read(folder, *entries)
    return place(scene, read_picture(scene.background), MaskOptions(), CropContext(8))


def test_what_a_placement_says_and_does_not_say(folder: Path) -> None:
    scene = read(
        folder,
        {"reference": "r.png", "mask": "m.png"},
        entry(seed=5, object_scale=1, order=2, n=3),
    )
    first, second = scene.placements
    assert scene.background == folder / "b.png" and first.item.masked.mask == folder / "m.png"
    assert first.item.source == ObjectSource(None, folder / "r.png", 0.9)
    assert (first.item.seeds, first.item.best, first.order) == ((321,), False, 0)
    assert (second.item.seeds, second.item.best, second.order) == ((5, 6, 7), True, 2)
    assert second.item.source.object_scale == 1 and [p.item.stem for p in scene.placements] == [
        "scene_1",
        "scene_2",
    ]


@pytest.mark.parametrize(
    ("entries", "values", "message"),
    [
        ([entry()], {"placement": []}, "unknown 'placement'; did you mean placements"),
        ([entry(sed=3)], {}, "placement 1: unknown 'sed'; did you mean seed"),
        (
            [entry(), entry(mask="m.png")],
            {},
            "placement 2: expected one of mask, box, polygon and",
        ),
        (
            [{"reference": "r.png"}],
            {},
            "placement 1: expected one of mask, box, polygon",
        ),
        ([{"box": [1, 1, 9, 9]}], {}, "placement 1: expected an object, a reference or both"),
        ([entry(object="o.safetensors")], {}, "o.safetensors: no such object file; get_deltas.sh writes one"),
        ([entry(reference="gone.png")], {}, "placement 1: "),
        ([{"reference": "r.png", "mask": "gone.png"}], {}, "gone.png: no such mask"),
        ([entry(object="r.png")], {}, "placement 1: "),
        ([entry(box="1 2 3")], {}, "placement 1: box '1 2 3'; expected four numbers"),
        ([entry(polygon=CORNERS)], {}, "placement 1: expected one of mask, box, polygon"),
        ([entry(box=None, polygon=[[1, 2], 3])], {}, "placement 1: polygon: expected a list of polygons"),
        ([entry(box=None, polygon="a.json")], {}, "placement 1: polygon: expected a list of polygons"),
        ([entry(mask_channel="background")], {}, "placement 1: expected one of mask, box, polygon"),
        ([entry(mask_channel="alpha")], {}, "placement 1: mask_channel='alpha' does not go with box"),
        ([entry(mask_channel="blue")], {}, "placement 1: mask_channel='blue'; expected one of auto, luma"),
        ([entry(seed=1.5)], {}, "placement 1: seed 1.5; expected a whole number"),
        ([entry(seed=-1)], {}, "placement 1: seed -1: expected 0 to 9223372036854775807"),
        ([entry(object_scale="much")], {}, "placement 1: object_scale='much'; expected a number"),
        ([entry(order=True)], {}, "placement 1: order True; expected a whole number"),
        ([entry(n=0)], {}, "placement 1: n=0; expected at least 1"),
        (["r.png"], {}, "placement 1: 'r.png'; expected {object"),
        (
            [entry(), {"together": [entry()]}],
            {},
            "placement 2: together: expected a list of two or more",
        ),
        ([{"together": "r.png"}], {}, "placement 1: together: expected a list of two or more"),
        ([{"togehter": [entry()]}], {}, "unknown 'togehter'; did you mean together"),
        ([{"together": [entry(), entry()], "n": 2}], {}, "placement 1: unknown 'n'"),
        ([{"together": [entry(), entry(seed=1)]}], {}, "placement 1, object 2: unknown 'seed'"),
        ([{"together": [entry(), {"reference": "r.png"}]}], {}, "object 2: expected one of mask, box"),
        ([{"together": [entry(), entry()], "seed": "x"}], {}, "seed 'x'; expected a whole number"),
        ([], {}, "no placements"),
        ([entry()], {"background": "gone.png"}, "no such background"),
        ([entry()], {"background": 7}, "no background"),
    ],
)
def test_mistakes_are_one_line_that_names_the_placement(
    folder: Path, entries: list[Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read(folder, *entries, **values)
    assert message in str(error.value) and "scene.yaml" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_scenes(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such scene file"):
        read_scene(folder / "gone.yaml")
    for text in (
        "a: [",
        "- 1",
        "",
        "background: &a [*a]",
        "a: " + "[" * 5000,
        "placements: 1\nplacements: 2",
    ):
        (folder / "s.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"s\.yaml: (not readable|expected `background:`)"):
            read_scene(folder / "s.yaml")


def test_numbers_are_decimal_and_dates_are_text(folder: Path) -> None:
    text = "background: b.png\nplacements:\n  - {reference: r.png, mask: m.png, "
    (folder / "s.yaml").write_text(text + "seed: 010}\n")
    assert read_scene(folder / "s.yaml").placements[0].item.seeds == (10,)
    (folder / "s.yaml").write_text(text + "2024-01-01: 3}\n")
    with pytest.raises(ValueError, match=r"s\.yaml: placement 1: unknown '2024-01-01'"):
        read_scene(folder / "s.yaml")
    (folder / "s.yaml").write_text("background: 2024-13-45\nplacements: [1]")
    with pytest.raises(FileNotFoundError, match=r"2024-13-45: no such background; .*s\.yaml names it"):
        read_scene(folder / "s.yaml")


def test_groups_go_by_order_and_by_the_file_within_one(folder: Path) -> None:
    entries = [
        entry(order=3),
        entry(box=[30, 20, 40, 30]),
        entry(),
        entry(order=-1, box=[0, 0, 20, 20]),
    ]
    found = [[p.placement.item.name for p in group] for group in groups(placed(folder, *entries))]
    assert found == [["scene_4"], ["scene_2", "scene_3"], ["scene_1"]]


def test_overlapping_without_order_is_refused(folder: Path) -> None:
    two = placed(folder, entry(), {"reference": "r.png", "mask": "m.png"})
    with pytest.raises(ValueError, match=r"placements 1 and 2 overlap in 56 pixels .* order \(0\)"):
        groups(two)
    corner = placed(folder, entry(), entry(box=[15, 11, 30, 30]), entry(box=[16, 0, 20, 40]))
    with pytest.raises(ValueError, match="placements 1 and 2 overlap in 1 pixels"):
        groups(corner)


def test_objects_together_share_a_square_around_them_all(folder: Path) -> None:
    pair = [entry(box=[4, 5, 12, 12], object_scale=0.5), {"reference": "r.png", "box": [12, 5, 20, 30]}]
    scene = read(folder, entry(box=[30, 0, 40, 9]), {"together": pair, "seed": 9, "order": 2})
    placement = scene.placements[1]
    assert (placement.item.name, placement.item.seeds, placement.order) == ("scene_2", (9,), 2)
    assert [item.source.object_scale for item in placement.items] == [0.5, 0.9]
    [_, both] = place(scene, read_picture(scene.background), MaskOptions(), CropContext(8))
    [roi], request = both.rois, both.request
    assert roi.x0 <= 4 and roi.x1 >= 20 and roi.y0 <= 5 and roi.y1 >= 30
    masks = both.masks
    assert not (masks[0] & masks[1]).any()
    assert [mask.sum() for mask in masks] == [56, 200] and ((masks[0] | masks[1]) == request.mask).all()
    assert not placed(folder, entry())[0].masks


def test_objects_together_may_touch_but_not_overlap(folder: Path) -> None:
    with pytest.raises(ValueError, match="placement 1: objects 1 and 2 overlap in 7 pixels"):
        placed(folder, {"together": [entry(), entry(box=[15, 5, 20, 30])]})


@pytest.mark.filterwarnings("ignore:.*fully transparent")
def test_paths_may_begin_at_home_and_numbers_come_from_spreadsheets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    scene = read(folder, {"reference": "~/r.png", "mask": "~/m.png", "seed": 7.0}, background="~/b.png")
    [only] = scene.placements
    assert scene.background == folder / "b.png" and only.item.masked.mask == folder / "m.png"
    assert only.item.source.reference == folder / "r.png" and only.item.seeds == (7,)


@pytest.mark.filterwarnings("ignore:.*read as shares")
def test_every_way_to_mark_a_region_means_the_same(folder: Path) -> None:
    region = np.array(Image.open(folder / "m.png"))
    noise = np.array(Image.open(folder / "b.png"))
    Image.fromarray(np.dstack([noise, ~region])).save(folder / "b.png")
    Image.fromarray(np.dstack([np.rot90(region, 2), region])).save(folder / "two.png")
    apart = [[0, 20], [5, 20], [0, 25]]
    ways: list[dict[str, Any]] = [
        *({"box": "8;5;16;12"}, {"box": [8 / 60, 5 / 40, 16 / 60, 12 / 40]}),
        *({"box": [8, 5, 16, 12]}, {"mask": "m.png"}, {"mask_channel": "background"}),
        *({"polygon": CORNERS}, {"polygon": [CORNERS]}, {"mask": "two.png", "mask_channel": "alpha"}),
    ]
    for one in placed(folder, *({"reference": "r.png", **way} for way in ways)):
        assert np.array_equal(one.mask, region > 0)
    [two] = placed(folder, {"reference": "r.png", "polygon": [CORNERS, apart]})
    assert two.mask[21, 1] and (two.mask >= (region > 0)).all()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"box": [0, 0, 99, 9]}, "box 0 0 99 9: outside the picture, which is 60 x 40"),
        ({"box": [0, 0, float("inf"), 9]}, "expected four numbers x0 y0 x1 y1 in pixels (inf is not"),
        ({"polygon": [[1, 1], [9, 9]]}, "a polygon of 2 points; give at least 3"),
        ({"polygon": [[1, 1], [9, 9], [1, float("nan")]]}, "a point is not finite"),
        ({"polygon": [[80, 1], [99, 9], [80, 9]]}, "polygons: the mask is empty"),
        ({"mask_channel": "background"}, "b.png: has no alpha channel"),
    ],
)
def test_a_region_that_does_not_fit_is_named(folder: Path, where: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        placed(folder, entry(), {"reference": "r.png", "order": 1, **where})
    assert "scene.yaml: placement 2: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(("name", "sizes"), [("scene", [2, 1]), ("together", [1])])
def test_the_examples_are_scenes(name: str, sizes: list[int]) -> None:
    scene = read_scene(ROOT / "examples" / f"{name}.yaml")
    background = read_picture(scene.background)
    ordered = groups(place(scene, background, MaskOptions(), CropContext(128)))
    assert [len(group) for group in ordered] == sizes
