"""What a friend would say about the photos of an object: faults of one, and of all together."""

from __future__ import annotations

MIN_PHOTOS = 3


def check_count(count: int) -> list[str]:
    """A warning if there are too few photos."""
    if count >= MIN_PHOTOS:
        return []
    return [f"{count} photo{'s' * (count != 1)}: take at least {MIN_PHOTOS}, from different sides"]
