"""What came of a task: its patches over the untouched background, put together only where it is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ldm.data.picture import Picture
from ldm.insertion.paste import Patch, patched
from ldm.insertion.roi import Roi


@dataclass(frozen=True, eq=False)
class Result:
    """One composite, as what lies over its background, and its record: seed, regions, seams, seconds."""

    background: Picture
    patches: tuple[Patch, ...]
    record: dict[str, Any]

    @property
    def picture(self) -> Picture:
        """Put together anew each time it is asked for: of large pictures only one fits into memory."""
        return patched(self.background, self.patches)

    def part(self, box: Roi) -> np.ndarray:
        """The picture's pixels [h,w,C] in a box that holds all patches."""
        within = [Patch(patch.box.within(box), patch.pixels) for patch in self.patches]
        part = replace(self.background, pixels=self.background.pixels[box.slices])
        return patched(part, within).pixels
