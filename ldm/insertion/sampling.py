"""How a sample is drawn, and from whose unconditional branch it is guided away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ldm.models.base import Base
from ldm.models.contexts import Context
from ldm.models.sampler import EVERYWHERE


@dataclass(frozen=True)
class Sampling:
    """How x_0 is drawn: solver, UNet evaluations, guidance scale, standard deviation of the start noise.

    `refine` is the strength of the second pass over regions larger than the model's resolution; 0: none.
    `guidance_interval`: noise levels t/T that are guided; `reuse`: steps for one run of the whole UNet.
    `guidance_from`: whose unconditional branch is guided away from, see `null_of`.
    `view`: the few-shot token that stands for all, see `ldm.objects.pose.pose_of`.
    For a base of collages only, as others know no object to begin from:
    `begin`: noise level t/T to begin at; below 1, from the scene with the reference laid in (as SDEdit of
    Meng et al. 2022 does), over a contact shadow of this `shadow`, see `shadowed`.
    `own_detail`: if not 0, the scale below which detail is the reference's own, see `with_own_detail`.
    """

    sampler: str = "plms"
    steps: int = 50
    guidance_scale: float = 5.0
    refine: float = 0.0
    noise: float = 1.0
    guidance_interval: tuple[float, ...] = EVERYWHERE
    reuse: int = 1
    guidance_from: str = "object"
    view: int = 0
    begin: float = 1.0
    shadow: float = 0.0
    own_detail: float = 0.0

    def __post_init__(self) -> None:
        interval = self.guidance_interval
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(
                f"guidance_interval={list(interval)}: expected LOW,HIGH with 0 <= LOW <= HIGH <= 1"
            )
        if self.refine and self.own_detail:
            raise ValueError(
                f"refine={self.refine:g} draws anew what own_detail={self.own_detail:g} keeps; set one to 0"
            )

    def schedule(self) -> dict[str, Any]:
        """What `sample` takes of it, but for the solver."""
        interval = (self.guidance_interval[0], self.guidance_interval[1])
        return {"steps": self.steps, "guidance_scale": self.guidance_scale, "guidance_interval": interval}


def null_of(base: Base, sampling: Sampling) -> Context | None:
    """The unconditional context if it is to be the base's own: ask before the base carries an object.

    None: the object's, whose weights draw the object without being told to, as in the paper. Away from the
    base's, guidance goes towards all that was learnt (as Karras et al. 2024 guide by a worse model).
    """
    return base.null() if sampling.guidance_from == "base" else None
