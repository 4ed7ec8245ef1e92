"""The studio's editor, used as a person would: what is drawn with the mouse is what the server has."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.browser import MISSING, Server, browser, browsing, chromium, serving
from tests.fixtures.small import written
from tests.studio.serving import photo as disc

pytest.importorskip("playwright", reason="the extra `dev` is not installed")
pytest.importorskip("fastapi", reason="the extra `studio` is not installed")
pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)
W, H = 900, 600
FITTED = 0.96  # share of the stage that a fitted picture fills


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    config, _ = written(folder)
    with serving(folder / "folder", "--config", str(config), "--device", "cpu") as server:
        yield server


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def context(started: Any) -> Iterator[Any]:
    with browsing(started) as context:
        yield context


def photo(folder: Path, name: str = "room.jpg", size: tuple[int, int] = (W, H), turn: int = 0) -> Path:
    """A picture file; `turn`: an EXIF orientation, which the size is already in."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    picture = Image.fromarray(np.stack([across, down, 255 - across], 2).astype(np.uint8))
    exif = picture.getexif()
    if turn:
        exif[0x0112] = turn
    picture.save(folder / name, exif=exif)
    return folder / name


class Editor:
    """The page Insert with a background; points are pixels of the picture."""

    def __init__(self, server: Server, page: Any) -> None:
        self.server, self.page = server, page

    def drop(self, file: Path) -> Editor:
        """Give the background; waits until it is shown."""
        self.page.goto(f"{self.server.url}/#insert")
        self.page.set_input_files(".drop input", file)
        return self.shown()

    def shown(self) -> Editor:
        self.page.get_by_text("pixels, shown at").wait_for()
        self.page.wait_for_load_state("networkidle")
        return self

    @property
    def background(self) -> str:
        return self.page.url.split("/")[-1]

    @property
    def about(self) -> dict[str, Any]:
        return json.loads(self.server.read(f"/api/backgrounds/{self.background}"))

    def to_screen(self, x: float, y: float, size: tuple[int, int] = (W, H)) -> tuple[float, float]:
        """A pixel's place on the screen while the whole picture is shown."""
        stage = self.page.locator(".stage").bounding_box()
        scale = min(stage["width"] / size[0], stage["height"] / size[1]) * FITTED
        middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
        return middle[0] + (x - size[0] / 2) * scale, middle[1] + (y - size[1] / 2) * scale

    def drag(
        self, *points: tuple[float, float], button: str = "left", size: tuple[int, int] = (W, H)
    ) -> None:
        """Press at the first point, move through the others, release; `size`: of the picture."""
        screen = [self.to_screen(*point, size) for point in points]
        self.page.mouse.move(*screen[0])
        self.page.mouse.down(button=button)
        for point in screen[1:]:
            self.page.mouse.move(*point, steps=8)
        self.page.mouse.up(button=button)

    def tool(self, label: str) -> None:
        self.page.locator(f".toolbar button[aria-label^='{label}']").click()

    def brush(self, size: int) -> None:
        """Make the brush `size` pixels wide, by the slider."""
        self.page.locator(".toolbar input[type=range]").evaluate(
            "(input, size) => { input.value = Math.log(size) / Math.log(2000) * 100;"
            " input.dispatchEvent(new Event('input')); }",
            size,
        )
        assert self.page.locator(".size").text_content() == f"{size} px"

    def saving(self) -> Any:
        """Waits, at its end, until the server has taken a mask."""
        return self.page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok)

    def mask(self, known: frozenset[str] = frozenset()) -> np.ndarray:
        """The one mask that the server has, apart from `known`."""
        [name] = set(self.about["masks"]) - known
        return self.server.mask(f"/api/backgrounds/{self.background}/masks/{name}")


@pytest.fixture
def editor(server: Server, context: Any, tmp_path: Path) -> Editor:
    return Editor(server, context.new_page()).drop(photo(tmp_path))


def near_line(a: tuple[float, float], b: tuple[float, float], radius: float) -> np.ndarray:
    """Pixels whose centre lies within `radius` of the line from a to b, bool [H,W]."""
    x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    along = np.array(b) - a
    share = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / max(float(along @ along), 1e-9)
    share = share.clip(0, 1)
    return np.hypot(x - a[0] - share * along[0], y - a[1] - share * along[1]) <= radius


def differing(mask: np.ndarray, expected: np.ndarray) -> float:
    """Pixels that differ, as a share of the expected ones."""
    return float(((mask == 255) != expected).sum() / expected.sum())


def test_a_stroke_is_on_the_server_pixel_by_pixel(editor: Editor) -> None:
    editor.brush(60)
    with editor.saving():
        editor.drag((200, 300), (600, 340))
    mask = editor.mask()
    assert mask.shape == (H, W) and set(np.unique(mask)) == {0, 255}
    assert differing(mask, near_line((200, 300), (600, 340), 30)) < 0.02  # mouse places are whole pixels


def test_the_photo_stays_byte_for_byte(server: Server, context: Any, tmp_path: Path) -> None:
    """And a turned photo's mask has the size that is displayed."""
    file = photo(tmp_path, "turned.jpg", turn=6)
    editor = Editor(server, context.new_page()).drop(file)
    assert "600 × 900" in editor.page.locator(".editor .status").text_content()
    with editor.saving():
        editor.page.locator(".stage").click()
    assert editor.mask().shape == (900, 600)
    assert editor.mask()[450, 300] == 255
    original = server.read(f"/api/backgrounds/{editor.background}/original")
    assert hashlib.sha256(original).digest() == hashlib.sha256(file.read_bytes()).digest()
    assert editor.about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_undo_and_redo(editor: Editor) -> None:
    editor.brush(50)
    with editor.saving():
        editor.drag((200, 200), (300, 200))
    first = editor.mask()
    with editor.saving():
        editor.drag((250, 150), (250, 400))
    both = editor.mask()
    assert (both >= first).all() and both.sum() > first.sum()
    for keys, expected in (
        ("Control+z", first),
        ("Control+z", np.zeros_like(first)),
        ("Control+Shift+Z", first),
        ("Control+y", both),
    ):
        with editor.saving():
            editor.page.keyboard.press(keys)
        assert np.array_equal(editor.mask(), expected)


def test_zoom_keeps_the_pixel_under_the_pointer(editor: Editor) -> None:
    editor.brush(1)
    editor.page.mouse.move(*editor.to_screen(700.5, 150.5))
    for _ in range(12):
        editor.page.mouse.wheel(0, -200)
    with editor.saving():
        editor.page.mouse.down()
        editor.page.mouse.up()
    rows, columns = np.nonzero(editor.mask())
    assert (abs(rows - 150) <= 1).all() and (abs(columns - 700) <= 1).all() and 0 < len(rows) <= 2


def test_space_pans_and_draws_nothing(editor: Editor) -> None:
    editor.page.locator(".stage").focus()
    editor.page.keyboard.down("Space")
    editor.drag((450, 300), (550, 300))
    editor.page.keyboard.up("Space")
    editor.brush(20)
    with editor.saving():
        editor.drag((450, 300), (451, 300))
    rows, columns = np.nonzero(editor.mask())
    assert abs(columns.mean() - 350) < 3 and abs(rows.mean() - 300) < 3  # the picture moved 100 to the right


def test_strokes_may_leave_the_picture(editor: Editor) -> None:
    editor.brush(40)
    with editor.saving():
        editor.drag((850, 100), (1200, 100), (1200, 400), (850, 400))
    mask = editor.mask()
    expected = near_line((850, 100), (1200, 100), 20) | near_line((850, 400), (1200, 400), 20)
    assert mask[100, W - 1] == mask[400, W - 1] == 255 and not mask[150:350].any()
    assert differing(mask, expected) < 0.03


@pytest.mark.parametrize("shape", ["Rectangle", "Lasso", "Polygon"])
def test_shapes(editor: Editor, shape: str) -> None:
    editor.tool(shape)
    corners = [(200, 150), (500, 150), (500, 400), (200, 400)]
    with editor.saving():
        if shape == "Polygon":
            for corner in [*corners, corners[0]]:
                editor.page.mouse.click(*editor.to_screen(*corner))
        else:
            editor.drag(*([corners[0], corners[2]] if shape == "Rectangle" else corners))
    expected = np.zeros((H, W), bool)
    expected[150:400, 200:500] = True
    assert differing(editor.mask(), expected) < 0.03
    with editor.saving():  # the right button takes away
        editor.tool("Rectangle")
        editor.drag((300, 100), (400, 500), button="right")
    expected[:, 300:400] = False
    assert differing(editor.mask(), expected) < 0.04


def test_drawing_by_keyboard(editor: Editor) -> None:
    editor.page.locator(".stage").focus()
    for _ in range(3):
        editor.page.keyboard.press("]")
    size = int(editor.page.locator(".size").text_content().split()[0])
    assert size > 36
    editor.page.keyboard.press("Enter")
    for _ in range(10):
        editor.page.keyboard.press("Shift+ArrowRight")
    with editor.saving():
        editor.page.keyboard.press("Enter")
    rows, columns = np.nonzero(editor.mask())
    assert abs(rows.mean() - H / 2) < 1 and abs(np.ptp(rows) + 1 - size) <= 1
    assert abs(columns.min() - (W / 2 - size / 2)) <= 1 and columns.max() > W / 2 + 300


def test_a_finger_beside_a_handle_drags_it_and_two_fingers_zoom(
    server: Server, started: Any, tmp_path: Path
) -> None:
    with browsing(started, has_touch=True, is_mobile=True) as context:
        objects, given = f"{server.url}/api/objects", photo(tmp_path)
        assert context.request.post(objects, data={"name": "touched"}).ok
        answer = context.request.post(f"{objects}/touched/photos", multipart={"files": given})
        own = answer.json()["photos"][0]["id"]
        box = {"box": [300, 200, 600, 400]}
        assert context.request.put(f"{objects}/touched/photos/{own}", data=box).ok
        page = context.new_page()
        page.goto(f"{server.url}/#objects/touched")
        page.get_by_text("Two fingers zoom and move.").wait_for()
        page.locator(".stage").scroll_into_view_if_needed()
        handle = page.locator(".marks .handle").nth(2).bounding_box()  # the lower right one
        x, y = handle["x"] + 20, handle["y"] + 16
        session = context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            given = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

        with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok) as stored:
            touch("touchStart", (x, y))
            touch("touchMove", (x + 40, y + 30))
            touch("touchEnd")
        x0, y0, x1, y1 = stored.value.json()["box"]
        assert (x0, y0) == (300, 200) and x1 > 600 and y1 > 400

        before = page.locator(".editor .status").text_content()
        touch("touchStart", (x, y))
        touch("touchStart", (x, y), (x - 40, y))
        touch("touchMove", (x, y), (x - 140, y))
        touch("touchEnd")
        page.wait_for_function("(text) => !document.body.innerText.includes(text)", arg=before)
        heights = page.locator("button:visible").evaluate_all("(all) => all.map((one) => one.offsetHeight)")
        assert min(heights) >= 40


def test_a_reload_keeps_the_mask_and_goes_on(editor: Editor) -> None:
    editor.brush(50)
    with editor.saving():
        editor.drag((200, 200), (300, 200))
    first = editor.mask()
    editor.page.reload()
    editor.shown()
    with editor.saving():
        editor.drag((600, 400), (700, 400))
    both = editor.mask()
    assert both[400, 650] == 255 and (both >= first).all()


def test_a_mask_is_loaded_and_saved(editor: Editor, tmp_path: Path) -> None:
    levels = np.zeros((H, W), np.uint8)
    levels[100:200, 300:450] = 255
    levels[400:, :50] = 100  # darker than half: not the object
    Image.fromarray(levels).save(tmp_path / "mask.png")
    with editor.saving():
        editor.page.set_input_files("input[aria-label='Mask file']", tmp_path / "mask.png")
    assert np.array_equal(editor.mask() == 255, levels == 255)
    with editor.page.expect_download() as download:
        editor.page.get_by_role("button", name="Save").click()
    saved = Image.open(download.value.path())
    assert (saved.mode, saved.size, download.value.suggested_filename) == ("L", (W, H), "room_mask.png")
    assert np.array_equal(np.asarray(saved), editor.mask())
    Image.new("L", (W, H - 1)).save(tmp_path / "other.png")
    editor.page.set_input_files("input[aria-label='Mask file']", tmp_path / "other.png")
    editor.page.get_by_text(f"The mask is {W} × {H - 1} pixels, the picture {W} × {H}").wait_for()
    assert np.array_equal(editor.mask() == 255, levels == 255)


def test_a_hostile_name_is_text(server: Server, context: Any, tmp_path: Path) -> None:
    name = "<img src=x onerror=window.hacked=1>.png"
    data = photo(tmp_path, "plain.png").read_bytes()
    page = context.new_page()
    page.goto(f"{server.url}/#insert")
    page.set_input_files(".drop input", {"name": name, "mimeType": "image/png", "buffer": data})
    page.wait_for_selector(f'.thumbs img[alt="{name}"]')
    Editor(server, page).shown()
    assert page.evaluate("window.hacked") is None and page.locator("img[onerror]").count() == 0


def test_two_tabs_do_not_overwrite_each_other(editor: Editor, context: Any) -> None:
    editor.brush(50)
    with editor.saving():
        editor.drag((200, 200), (300, 200))
    [first] = editor.about["masks"]
    other = Editor(editor.server, context.new_page())
    with other.saving():  # a copy of the first tab's mask, under its own name
        other.page.goto(editor.page.url)
    other.shown()
    with other.saving():
        other.drag((600, 400), (700, 400))
    with editor.saving():
        editor.drag((200, 500), (300, 500))
    assert len(editor.about["masks"]) == 2
    mine = editor.server.mask(f"/api/backgrounds/{editor.background}/masks/{first}")
    assert mine[500, 250] == 255 and mine[400, 650] == 0
    others = other.mask(frozenset([first]))
    assert others[200, 250] == others[400, 650] == 255 and others[500, 250] == 0


def test_a_stroke_on_24_megapixels_keeps_up_with_the_screen(
    server: Server, context: Any, tmp_path: Path
) -> None:
    """The events of a frame are painted within a frame of 60 Hz, also with a brush of 600 pixels."""
    size = (6000, 4000)
    editor = Editor(server, context.new_page()).drop(photo(tmp_path, "large.jpg", size))
    editor.brush(600)
    places = [editor.to_screen(1000 + 60 * i, 2000 + 500 * (i % 3), size) for i in range(60)]
    editor.page.mouse.move(*places[0])
    editor.page.mouse.down()
    for place in places:
        editor.page.mouse.move(*place)
    with editor.saving():
        editor.page.mouse.up()
    spent = editor.page.evaluate("performance.getEntriesByName('stroke').map((one) => one.duration)")
    assert len(spent) > 10 and np.median(spent) < 16, spent
    assert editor.mask().shape == (4000, 6000)


def test_without_results_the_page_says_so_in_its_middle(context: Any, tmp_path: Path) -> None:
    config, _ = written(tmp_path)
    with serving(tmp_path / "empty", "--config", str(config), "--device", "cpu") as server:
        page = context.new_page()
        for name, title in (("results", "No results yet"), ("jobs", "No jobs yet")):
            page.goto(f"{server.url}/#{name}")
            page.get_by_role("heading", name=title).wait_for()
            box = page.locator(".empty").bounding_box()
            assert abs(box["x"] + box["width"] / 2 - 1280 / 2) < 10
            assert abs(box["y"] + box["height"] / 2 - 800 / 2) < 60
        server.stop()
        page.get_by_role("alert").get_by_text("does not answer").wait_for()
        server.start()
        page.wait_for_function("() => !document.querySelector('#lost').textContent")


def test_no_picture_is_refused_in_one_line(server: Server, context: Any) -> None:
    page = context.new_page()
    page.goto(f"{server.url}/#insert")
    page.set_input_files(".drop input", {"name": "a.png", "mimeType": "image/png", "buffer": b"x"})
    notice = page.locator(".panel .notice:not([data-kind=hint])").first
    notice.wait_for()
    assert notice.text_content().startswith("a.png") and "\n" not in notice.text_content()


def test_the_shown_command_has_the_settings(server: Server, context: Any) -> None:
    page = context.new_page()
    page.goto(server.url)
    page.get_by_label("New object").fill("shown")
    page.get_by_role("button", name="Create").click()
    page.locator("h2", has_text="shown").wait_for()
    page.set_input_files(
        ".work .drop input", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": disc(0, (180, 140))}
    )
    page.locator(".photo").wait_for()
    command = page.locator(".command code")
    assert " --config " in command.text_content() and "max_steps" not in command.text_content()
    page.locator("input[name='train.max_steps']").fill("7")
    page.locator("input[name='train.hold_out']").fill("it's 1")
    page.locator("input[name='train.hold_out']").press("Tab")
    words = shlex.split(command.text_content())
    assert words[-2:] == ["train.max_steps=7", "train.hold_out=it's 1"]
    page.goto(f"{server.url}/#objects")
    context.request.delete(f"{server.url}/api/objects/shown")


def test_a_slow_answer_is_told(server: Server, context: Any) -> None:
    page = context.new_page()
    page.goto(server.url)
    page.get_by_text("Teach the model an object").wait_for()
    held: list[Any] = []
    page.route("**/api/results", lambda route: held.append(route))
    page.get_by_role("link", name="Results").click()
    page.get_by_text("Loading…").wait_for()
    held[0].continue_()
    page.locator("#loading:empty").wait_for(state="attached")


def chosen_option(page: Any, label: str, text: str) -> None:
    """Choose the option of a select whose text begins so."""
    select = page.get_by_label(label, exact=True)
    options = select.locator("option").all_text_contents()
    select.select_option(label=next(one for one in options if one.startswith(text)))


def settled(page: Any, panel: str, minutes: int = 5) -> str:
    """The line of a job when it has ended."""
    line = page.locator(f"{panel} .job[data-state=done], {panel} .job[data-state=failed]")
    line.wait_for(timeout=minutes * 60_000)
    assert line.get_attribute("data-state") == "done", line.text_content()
    return line.locator(".status").text_content()


@pytest.mark.slow  # learns an object: minutes on a busy machine
def test_from_three_photos_to_a_replayed_result_by_clicks(
    server: Server, context: Any, tmp_path: Path
) -> None:
    page, room = context.new_page(), photo(tmp_path)
    page.goto(server.url)
    page.get_by_label("New object").fill("disc")
    page.get_by_role("button", name="Create").click()
    page.locator("h2", has_text="disc").wait_for()
    names = [f"<b>{i}</b>.jpg" for i in range(3)]
    files = [
        {"name": name, "mimeType": "image/jpeg", "buffer": disc(i, (180, 140))}
        for i, name in enumerate(names)
    ]
    page.set_input_files(".work .drop input", files)
    page.locator(".photo").nth(2).wait_for()
    assert page.locator(".photo .name").all_text_contents() == names

    about = json.loads(server.read("/api/objects/disc"))
    for i, one in enumerate(about["photos"]):
        stored = server.read(f"/api/objects/disc/photos/{one['id']}/image?original=1")
        assert stored == disc(i, (180, 140)) and one["box"][2] > one["box"][0]
    silhouette = f"/api/objects/disc/photos/{about['photos'][0]['id']}/mask"
    before = server.mask(silhouette)
    page.locator(".toolbar button[aria-label^='Eraser']").click()
    with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok):
        page.locator(".stage").click()
    after = server.mask(silhouette)
    height, width = before.shape
    assert before[height // 2, width // 2] == 255 and after[height // 2, width // 2] == 0
    assert ((after > 127) <= (before > 127)).all()
    about = json.loads(server.read("/api/objects/disc"))
    page.locator(".photo").nth(0 if about["reference"] != about["photos"][0]["id"] else 1).click()
    page.get_by_role("button", name="Use as reference").click()
    page.get_by_role("button", name="Is the reference").wait_for()

    page.locator("input[name='train.max_steps']").fill("2")
    page.get_by_role("button", name="Learn", exact=True).click()
    settled(page, ".side")
    page.locator(".side li strong", has_text=".safetensors").wait_for()

    editor = Editor(server, page).drop(room)
    chosen_option(page, "Object", "disc")
    with editor.saving():
        editor.drag((400, 300), (460, 300))
    mask = editor.mask()
    page.locator("input[name='sample.steps']").fill("2")
    page.get_by_label("Results").fill("2")
    page.get_by_label("Results").press("Tab")
    page.locator(".command code", has_text="--n_samples 2").wait_for()
    page.get_by_role("button", name="Insert", exact=True).click()
    settled(page, ".side")
    page.locator(".grid .card").nth(1).wait_for()

    page.locator(".grid .picture").first.click()  # large, beside its background
    page.keyboard.down("c")
    page.get_by_text("Before, at").wait_for()
    page.keyboard.up("c")
    page.get_by_text("Before left, Result right").wait_for()
    page.keyboard.press("Escape")
    page.locator(".grid figcaption a", has_text="Seed 321").click()
    page.get_by_role("button", name="Replay").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    result = Image.open(download.value.path())
    assert result.size == (W, H)
    changed = (np.asarray(result) != np.asarray(Image.open(room))).any(2)
    assert changed.any() and not changed[mask == 0].any()
    page.get_by_role("button", name="Replay").click()
    assert "the same pixels" in settled(page, ".side")

    page.get_by_role("button", name="Open in Insert").click()
    Editor(server, page).shown()
    assert page.get_by_label("Results").input_value() == "1"
    assert page.locator("input[name='sample.steps']").input_value() == "2"
    page.goto(f"{server.url}/#results")
    boxes = page.get_by_label("Compare")
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare two").click()
    page.get_by_text("left, ").wait_for()

    page.goto(f"{server.url}/#results")
    page.locator(".grid .picture").first.click()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert len(json.loads(server.read("/api/results"))) == 2
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.locator(".grid .card").wait_for()
    assert len(json.loads(server.read("/api/results"))) == 1
    page.goto(f"{server.url}/#objects/disc")
    page.get_by_role("button", name="Remove object").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_text("No object yet").wait_for()
    assert json.loads(server.read("/api/objects")) == []
