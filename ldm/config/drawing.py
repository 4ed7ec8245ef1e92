"""How the settings say that an object is drawn, and laid over its background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ldm.config.schema import Config
from ldm.insertion.blend import Blend, treatment

if TYPE_CHECKING:
    from ldm.insertion.sampling import Sampling


def sampling_of(config: Config) -> Sampling:
    """How the settings say that latents are drawn."""
    from ldm.insertion.sampling import Sampling

    s, i = config.sample, config.insert
    laid_in = {"begin": s.begin < 1, "shadow": s.shadow, "own_detail": s.own_detail, "halo": i.halo}
    if not config.base.architecture.collage and (unknown := [key for key, on in laid_in.items() if on]):
        raise ValueError(f"{', '.join(unknown)}: only a base of collages knows the object; leave it out")
    return Sampling(
        s.sampler, s.steps, s.scale, s.refine, s.noise, s.guidance_interval, s.reuse, s.guidance_from, s.view,
        s.begin, s.shadow, s.own_detail,
    )  # fmt: skip


def seam_of(config: Config) -> Blend:
    """How the settings say that a region is laid over its background."""
    i = config.insert
    return treatment(i.blend, i.feather, i.reach, i.halo)
