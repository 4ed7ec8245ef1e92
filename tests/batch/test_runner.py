"""Work is finished once, whatever interrupts it, and one bad item costs only itself."""

import multiprocessing
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.batch.results_log import FILE, ItemResult, ResultsLog, RunSummary, append, recipe_in, rows
from ldm.batch.runner import make_item, prepare
from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.data.picture import Picture, read_picture
from ldm.insertion.crop_paste import Patch
from ldm.insertion.region import InsertableObject, InsertRequest, Result
from ldm.insertion.roi import Roi
from tests.fixtures.stub import Stub, items, options


def finish(
    todo: list[WorkItem], folder: Path, stub: Stub | None = None, **settings: object
) -> list[ItemResult]:
    log, stub = ResultsLog(folder), stub or Stub()
    return [make_item(item, stub, options(**settings), log) for item in todo]


def lines(folder: Path) -> list[dict]:
    return list(rows(folder / FILE))


def test_results_are_named_proven_and_listed(tmp_path: Path) -> None:
    todo = items(tmp_path, 2, seeds=(5, 6))
    outcomes = finish(todo, tmp_path / "out")
    assert [list(o.files.values()) for o in outcomes] == [
        ["0_5.png", "0_6.png"],
        ["1_5.png", "1_6.png"],
    ]
    for row in lines(tmp_path / "out"):
        assert row["outside"] == 0 and row["seam"] == 1 + row["seed"] / 1000 and row["seam_before"] == 2
        assert row["colour_offset_before"] == 3 and row["batch"] == [5, 6] and "settings" not in row
        recipe = recipe_in(tmp_path / "out" / row["file"])
        assert recipe["key"] == row["key"] and recipe["base_fingerprint"] == Stub.fingerprint
        assert set(recipe["sha256"]) == {"background", "mask", "reference"}
    assert len({row["key"] for row in lines(tmp_path / "out")}) == 4


def test_an_edited_result_is_not_replaced(tmp_path: Path) -> None:
    """An editor may keep the recipe; optimisers of files keep the pixels, too."""
    todo, out = items(tmp_path, 2), tmp_path / "out"
    finish(todo, out)
    for name, change in (("0.png", 1), ("1.png", 0)):
        with Image.open(out / name) as file:
            text = PngInfo()
            text.add_text("recipe", file.info["recipe"])
            Image.fromarray(np.asarray(file) ^ change).save(out / name, pnginfo=text)
    edited = (out / "0.png").read_bytes()
    assert not any(outcome.error or outcome.made for outcome in finish(todo, out))
    others = [replace(item, source=replace(item.source, object_scale=0.5)) for item in todo]
    first, second = finish(others, out)
    assert "0.png was edited since this program wrote it" in first.error and second.made
    assert (out / "0.png").read_bytes() == edited


class Narrow(Stub):
    """Has memory for two results at a time."""

    def insert(self, background: Any, requests: Any, objects: Any = None) -> Any:
        if sum(len(request.seeds) for request in requests) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().insert(background, requests, objects)


def test_batches_are_halved_until_they_fit_and_recorded(tmp_path: Path) -> None:
    todo, wide, narrow = items(tmp_path, 1, seeds=tuple(range(5))), Stub(), Narrow()
    finish(todo, tmp_path / "wide", wide)
    with pytest.warns(UserWarning, match=r"5 results in one batch do not fit into memory; made 2 at a time"):
        finish(todo, tmp_path / "narrow", narrow)
    assert wide.made == [(0, 1, 2, 3, 4)] and narrow.made == [(0, 1), (2, 3), (4,)]
    for name in todo[0].files().values():
        one, other = (read_picture(tmp_path / x / name).pixels for x in ("wide", "narrow"))
        assert np.array_equal(one, other)
    assert recipe_in(tmp_path / "narrow" / "0_3.png")["batch"] == [2, 3]


def test_memory_for_not_even_one_result_stops_the_run(tmp_path: Path) -> None:
    class NoMemory(Stub):
        def insert(self, *_: Any) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        finish(items(tmp_path, 2), tmp_path / "out", NoMemory())


def test_nothing_is_repeated_and_only_what_is_missing_is_made(tmp_path: Path) -> None:
    todo, out = items(tmp_path, 3, seeds=(5, 6)), tmp_path / "out"
    finish(todo[:2], out)
    (out / "1_6.png").unlink()
    stub = Stub()
    outcomes = finish(todo, out, stub)
    # of 1.png the whole batch is made again: alone, a seed may round differently
    assert stub.made == [(5, 6), (5, 6)] and [len(o.made) for o in outcomes] == [0, 1, 2]


@pytest.mark.parametrize(
    "what", ["mask", "background", "reference", "settings", "object_scale", "base", "roi"]
)
def test_what_determines_a_result_makes_it_new(tmp_path: Path, what: str) -> None:
    [item], out, stub = items(tmp_path, 1), tmp_path / "out", Stub()
    finish([item], out)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    renamed = replace(item, masked=replace(item.masked, background=tmp_path / "copy.png"), name="0")
    finish([renamed], out, stub)
    assert stub.made == [], "a name does not determine anything"
    if what in ("mask", "background", "reference"):
        file = item.sources()[what]
        pixels = np.array(Image.open(file))
        pixels[7, 7] = 255 if what == "mask" else 3
        Image.fromarray(pixels).save(file)
    if what == "base":
        stub.fingerprint = "f" * 16
    if what == "object_scale":
        item = replace(item, source=replace(item.source, object_scale=0.5))
    if what == "roi":
        [roi] = prepare(item, options())[1].rois
        item = replace(item, roi=(roi.x0, roi.y0, roi.x1, roi.y1))
    finish([item], out, stub, **({"steps": 9} if what == "settings" else {}))
    assert stub.made == [(7,)]


def test_an_older_line_does_not_vouch_for_a_newer_picture(tmp_path: Path) -> None:
    """a.png by settings A, then by B, then asked for by A again: the file shows B."""
    todo, out = items(tmp_path, 1), tmp_path / "out"
    for steps in (1, 2, 1):
        stub = Stub()
        finish(todo, out, stub, steps=steps)
        assert stub.made == [(7,)]
    assert len(lines(out)) == 3


def test_a_line_lost_between_picture_and_journal_is_written_again(tmp_path: Path) -> None:
    todo, out, stub = items(tmp_path, 2), tmp_path / "out", Stub()
    finish(todo, out)
    before = lines(out)
    text = (out / FILE).read_text()
    (out / FILE).write_text(text[: text.rindex('"key"')])  # torn in the middle of the last line
    finish(todo, out, stub)
    assert stub.made == [] and lines(out) == before


@pytest.mark.parametrize("left", [20, 60, 0.5, -1])
def test_a_result_that_is_cut_off_is_made_again(tmp_path: Path, left: float) -> None:
    todo, file, stub = items(tmp_path, 1), tmp_path / "out" / "0.png", Stub()
    finish(todo, file.parent)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole)) if 0 < left < 1 else int(left)])
    finish(todo, file.parent, stub)
    made = read_picture(file).pixels
    file.write_bytes(whole)
    assert stub.made == [(7,)] and np.array_equal(made, read_picture(file).pixels)


def test_a_broken_line_in_the_middle_is_no_torn_one(tmp_path: Path) -> None:
    finish(items(tmp_path, 1), tmp_path / "out")
    file = tmp_path / "out" / FILE
    file.write_text("{}\n" + file.read_text())
    with pytest.raises(ValueError, match="line 1 is no result of this program"):
        ResultsLog(tmp_path / "out")


def test_a_full_disk_is_named_with_the_log() -> None:
    with pytest.raises(OSError, match="No space left") as error:
        append(Path("/dev/full"), {"file": "a.png"})
    assert error.value.filename == "/dev/full"


def test_bad_items_are_reported_skipped_and_counted(tmp_path: Path) -> None:
    todo, out = items(tmp_path, 5), tmp_path / "out"
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(b"no picture")
    todo[3] = replace(todo[3], masked=MaskedBackground(tmp_path / "3.png", box=(0, 0, 99, 99)))
    summary, log = RunSummary(), ResultsLog(out)
    outcomes = [make_item(item, Stub(), options(), log) for item in todo]
    for outcome in outcomes:
        summary.add(outcome, log)
    assert [bool(o.error) for o in outcomes] == [False, True, True, True, False]
    assert all("\n" not in o.error for o in outcomes) and "1.png" in outcomes[1].error
    assert summary.exit_code == 13 and summary.problems() == ["error: 3 skipped, 2 done"]
    assert sorted(f.name for f in out.iterdir()) == ["0.png", "4.png", FILE]


def test_a_changed_pixel_outside_is_not_let_pass(tmp_path: Path) -> None:
    class Careless(Stub):
        def insert(
            self,
            background: Picture,
            requests: Sequence[InsertRequest],
            objects: Sequence[InsertableObject] | None = None,
        ) -> list[list[Result]]:
            [[result]] = super().insert(background, requests, objects)
            corner = Patch(Roi(0, 0, 1, 1), background.pixels[:1, :1] ^ 1)
            return [[replace(result, patches=(*result.patches, corner))]]

    with pytest.raises(AssertionError, match="outside the mask changed by 1"):
        finish(items(tmp_path, 1), tmp_path / "out", Careless())
    assert not (tmp_path / "out" / FILE).exists()


def test_seams_above_the_limit_fail_a_run_new_or_kept(tmp_path: Path) -> None:
    [item], out = items(tmp_path, 1, seeds=(5, 600)), tmp_path / "out"
    for _ in range(2):
        log, summary = ResultsLog(out), RunSummary(1.5)
        summary.add(make_item(item, Stub(), options(), log), log)
        assert summary.exit_code == 1 and (out / "0_600.png").exists()
        assert summary.problems() == ["error: the seam of 0_600.png (1.60) is above 1.5"]


def work_on(todo: list[WorkItem], out: Path, log: Path) -> None:
    results = ResultsLog(out)
    for item in todo:
        make_item(item, Stub(log), options(), results)


def test_killed_at_any_moment_it_finishes_what_is_missing_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGKILL at random points, then a last run: the same pictures, and one line for each, as undisturbed."""
    todo, out, log = items(tmp_path, 60), tmp_path / "out", tmp_path / "made.log"
    fork, chance, kills, done = multiprocessing.get_context("fork"), random.Random(0), 0, False
    finish(todo, tmp_path / "undisturbed")
    log.touch()
    while not done:
        child = fork.Process(target=work_on, args=(todo, out, log))
        child.start()
        enough = len(log.read_text().splitlines()) + chance.randint(1, 9)
        while child.is_alive() and len(log.read_text().splitlines()) < enough:
            time.sleep(0.001)
        child.join(chance.uniform(0, 0.02))
        child.kill()
        child.join()
        done = child.exitcode == 0
        kills += not done
    made = len(log.read_text().splitlines())
    assert kills >= 2 and 60 <= made <= 60 + kills, "at most the picture that a kill hit is made again"
    assert sorted(row["file"] for row in lines(out)) == sorted(f"{i}.png" for i in range(60))
    assert not list(out.glob(".*")), "no half-written picture stays"
    for i in range(60):
        alone, resumed = (read_picture(f / f"{i}.png").pixels for f in (tmp_path / "undisturbed", out))
        assert np.array_equal(alone, resumed)


def test_a_given_roi_that_is_no_square_is_squared_and_said(tmp_path: Path) -> None:
    [item] = items(tmp_path, 1)
    with pytest.warns(UserWarning, match="ROI is 16 x 12 px; the square around it is used: 8 2 24 18"):
        _, request = prepare(replace(item, roi=(8, 4, 24, 16)), options())
    assert request.rois == [Roi(8, 2, 24, 18)]
    with pytest.raises(ValueError, match="the given ROI cuts off a part of the mask"):
        prepare(replace(item, roi=(8, 4, 18, 16)), options())
    with pytest.raises(ValueError, match=r"ROI is 500 x 12 px, .* give a square, \d+ px at most"):
        prepare(replace(item, roi=(0, 4, 500, 16)), options())
