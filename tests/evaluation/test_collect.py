"""Folders and manifests say which results there are, what they were made from, and what they should show."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.batch.results_log import FILE
from ldm.batch.work_item import MaskedBackground
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.benchmark import load_benchmark
from ldm.evaluation.collect import check_pairs, collect
from ldm.evaluation.results import Insertion, References, Results, references_of, row_of
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.roi import Roi
from ldm.models.checkpoint import write_safetensors
from ldm.objects.object_file import ObjectMetadata, write_object
from tests.fixtures.bench import write_bench

WHOLE = {"result": "r.png", "background": "b.png", "box": "1 2 3 4", "references": "o.png"}
GREY = Picture(np.full((80, 96, 3), 90, np.uint8))


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return write_bench(tmp_path / "bench")


def log(folder: Path, bench: Path, **changes: object) -> dict:
    """One line and its picture, as inference writes them."""
    scene = bench / "scenes" / "s1"
    row = {
        "file": "a.png", "key": "k", "base_fingerprint": "base1", "background": str(scene / "background.png"),
        "mask": str(scene / "mask.png"), "reference": str(bench / "objects" / "apple" / "test.jpg"),
        "box": [], "regions": [{"roi": [16, 8, 80, 72]}], "seconds": 0.5, "seam": 1.0, "colour_offset": 2.0,
    } | changes  # fmt: skip
    settings = {"mask": {"channel": "auto", "threshold": 0.5, "invert": True, "fill_holes": False, "grow": 0}}
    folder.mkdir(exist_ok=True)
    write_picture(folder / str(row["file"]), GREY, {"recipe": json.dumps(row | {"settings": settings})})
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n")
    return row


def test_inferences_folder_tells_all(tmp_path: Path, bench: Path) -> None:
    out = tmp_path / "out"
    log(out, bench, seconds=9.0)
    row = log(out, bench)  # made anew: the last line counts
    (found,) = collect(out)
    assert (found.name, found.object, found.model, found.result) == ("a", "test", "base1", out / "a.png")
    assert found.site.masked == MaskedBackground(Path(row["background"]), Path(row["mask"]))
    assert found.references == References(Path(row["reference"]))
    assert found.site.rois == (Roi(16, 8, 80, 72),) and found.mask_options == MaskOptions(invert=True)
    assert found.facts == {"seconds": 0.5, "colour_offset": 2.0}
    _, images = found.read()
    assert not images.mask[30, 40] and images.mask[0, 0]  # read as it was then, inverted
    (other,) = collect(out, references=bench / "objects" / "brick")
    assert len(other.references.views) == 2 and other.references.whole.name == "test.jpg"


def test_an_object_file_is_its_own_reference(tmp_path: Path, bench: Path) -> None:
    own = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    pictured = tmp_path / "thing.safetensors"
    write_object(pictured, {"reference": own}, ObjectMetadata("base1", "tiny"))
    log(tmp_path / "out", bench, reference=None, object=str(pictured))
    (found,) = collect(tmp_path / "out")
    assert found.object == "thing"
    assert np.array_equal(found.references.picture(), own.permute(1, 2, 0).numpy())
    assert torch.allclose(found.references.images()[0], own / 127.5 - 1)
    write_safetensors(tmp_path / "bare.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="holds no reference picture"):
        References(tmp_path / "bare.safetensors").picture()


def test_the_pictures_it_was_learnt_from_are_its_views_if_they_are_there(tmp_path: Path, bench: Path) -> None:
    for name in ("apple", "gone"):
        about = ObjectMetadata("base1", "tiny", recipe={"data": {"root": str(bench / "objects" / name)}})
        own = torch.zeros(3, 8, 8, dtype=torch.uint8)
        write_object(tmp_path / f"{name}.safetensors", {"reference": own}, about)
        file = str(tmp_path / f"{name}.safetensors")
        log(tmp_path / "out", bench, file=f"{name}.png", reference=None, object=file)
    apple, gone = collect(tmp_path / "out")
    assert len(apple.references.views) == 2 and apple.references.whole.name == "test.jpg"
    assert gone.references == References(tmp_path / "gone.safetensors")


def bench_results(folder: Path, bench: Path, methods: tuple[str, ...] = ("flat", "ceiling")) -> Path:
    """Grey results of the engine at two sites of a benchmark."""
    benchmark, results = load_benchmark(bench, sites=["s1", "s2"]), Results(folder)
    for method in methods:
        for site in benchmark.sites:
            known, path = benchmark.objects[site.object], results.path(method, benchmark, site)
            path.parent.mkdir(parents=True, exist_ok=True)
            insertion = Insertion(site, references_of(known), path, method, "base2", facts={"seconds": 1.0})
            results.add(insertion, GREY, {**row_of(insertion, {}, {}), "references": str(known.root)})
    return folder


def test_a_benchs_folder_has_methods_and_truths(tmp_path: Path, bench: Path) -> None:
    out = bench_results(tmp_path / "out", bench)
    found = collect(out)
    assert [(x.method, x.name) for x in found] == [
        ("flat", "s1"), ("flat", "s2"), ("ceiling", "s1"), ("ceiling", "s2"),
    ]  # fmt: skip
    first = found[0]
    assert first.site.truth == bench / "scenes" / "s1" / "truth.png" and first.model == "base2"
    assert first.site.rois == (Roi(16, 8, 80, 72),) and first.facts == {"seconds": 1.0}
    assert first.references.views[0].image.parent == bench / "objects" / "apple" / "data"
    assert collect(out, methods=["ceiling"]) == collect(out / "ceiling") == found[2:]
    with pytest.raises(ValueError, match="no result of crossattn"):
        collect(out, methods=["crossattn"])


def test_a_manifest_names_any_results(tmp_path: Path, bench: Path) -> None:
    Image.fromarray(GREY.pixels).save(tmp_path / "r1.png")
    lines = [
        "result,background,mask,box,references,object,truth,model",
        "r1.png,bench/scenes/s1/background.png,bench/scenes/s1/mask.png,,bench/objects/apple,Apple,"
        "bench/scenes/s1/truth.png,other program",
    ]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    (found,) = collect(tmp_path / "m.csv")
    assert (found.name, found.object, found.model) == ("r1", "Apple", "other program")
    assert found.site.truth == tmp_path / "bench/scenes/s1/truth.png" and len(found.references.views) == 2
    row = {"result": "r1.png", "background": "bench/scenes/s1/background.png", "box": [1, 2, 30, 40]}
    (tmp_path / "m.jsonl").write_text(json.dumps(row | {"seconds": 2, "name": "x"}))
    (boxed,) = collect(tmp_path / "m.jsonl", references=bench / "objects" / "brick" / "test.jpg")
    assert boxed.site.masked.box == (1, 2, 30, 40) and boxed.facts == {"seconds": 2} and boxed.name == "x"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"background": "b.png", "box": "1 2 3 4"}, "line 1: no result"),
        ({"result": "r.png", "background": "b.png"}, "line 1: expected one of mask and box"),
        ({"result": "r.png", "background": "b.png", "box": "1 2 3 4"}, "line 1: no references"),
        ({"result": "r.png", "backgrund": "b.png"}, "did you mean background"),
        (WHOLE, "r.png is gone .2 such"),
        (WHOLE | {"seconds": "x"}, "seconds 'x'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_manifest_are_named(tmp_path: Path, line: dict, message: str) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    (tmp_path / "o.png").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        collect(tmp_path / "m.jsonl")


def test_other_mistakes_are_named(tmp_path: Path, bench: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder of results, and no manifest"):
        collect(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no results\.jsonl"):
        collect(bench)
    log(tmp_path / "scenes", bench, scene="x.yaml")
    with pytest.raises(ValueError, match="several objects"):
        collect(tmp_path / "scenes")
    log(tmp_path / "gone", bench)
    (tmp_path / "gone" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png is gone; put it back"):
        collect(tmp_path / "gone")


@pytest.mark.parametrize("line", ['{"file": "a.png", "method": "x"}', '{"file": "a.png"', "mine", "[1]"])
def test_a_log_of_another_program_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"results\.jsonl: line 1 is no result of this program"):
        collect(tmp_path)


def test_runs_that_cannot_be_paired_are_refused(tmp_path: Path, bench: Path) -> None:
    both, flat = bench_results(tmp_path / "both", bench), bench_results(tmp_path / "flat", bench, ("flat",))
    one, two = collect(flat), collect(both)
    check_pairs("both", two, "flat", one)
    with pytest.raises(ValueError, match=r"2 methods \(flat, ceiling\).*--against both/flat"):
        check_pairs("flat", one, "both", two)
    log(tmp_path / "out", bench)
    with pytest.raises(ValueError, match=r"share no image \(a \.\.\. and s1 \.\.\.\)"):
        check_pairs("out", collect(tmp_path / "out"), "flat", one)
