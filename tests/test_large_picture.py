"""100 megapixels in at most their own size and 2 GB: `bash test.sh -m slow`. Takes minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from tests.fixtures.small import written

SIDE, GIGABYTE = 10_000, 1e9
# what the process had at most; getrusage would count the memory of the process that started it, too
INSERT = "from scripts import inference; inference.main(); print(open('/proc/self/status').read())"


def ramps(channels: int, dtype: type) -> np.ndarray:
    """Smooth, so that writing and reading is fast."""
    y, x = np.arange(SIDE, dtype=np.uint16)[:, None], np.arange(SIDE, dtype=np.uint16)[None]
    grey = ((x // 50 + y // 60) % 256).astype(dtype) * (np.iinfo(dtype).max // 255)
    return np.repeat(grey[..., None], channels, axis=2)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (4, np.uint16)])
def test_a_hundred_megapixels_fit(
    tmp_path: Path, channels: int, dtype: type, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quarter of the picture is masked, so that its region is all of it."""
    config, toy = written(tmp_path)
    pixels, mask = ramps(channels, dtype), np.zeros((SIDE, SIDE, 1), np.uint8)
    mask[2000:7000, 2500:7500] = 255
    write_picture(tmp_path / "b.png", Picture(pixels))
    write_picture(tmp_path / "m.png", Picture(mask))
    work = f"--example_img {tmp_path}/b.png --mask {tmp_path}/m.png --reference {toy}/test.png --steps 2"
    options = f"--config {config} --outdir {tmp_path}/out --device cpu {work}"
    said = subprocess.check_output([sys.executable, "-c", INSERT, *options.split()], text=True)
    peak = int(said.partition("VmHWM:")[2].split()[0]) * 1024
    with capsys.disabled():
        print(
            f"{channels} channels of {pixels.itemsize * 8} bits: {pixels.nbytes / GIGABYTE:.1f} GB, ", end=""
        )
        print(f"peak {peak / GIGABYTE:.2f} GB")
    assert peak < pixels.nbytes + 2 * GIGABYTE
    after, outside = read_picture(tmp_path / "out" / "b.png").pixels, mask[..., 0] == 0
    assert (after[outside] == pixels[outside]).all() and (after[~outside] != pixels[~outside]).any()
