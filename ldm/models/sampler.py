"""From noise to x_0: guided sampling over diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from ldm.models.cross_attention import Context, Contexts, join
from ldm.models.diffusion import STEPS, betas, classifier_free_guidance

SPACING: dict[str, Any] = {"steps_offset": 1, "timestep_spacing": "leading"}
TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}  # starts at the last level even with few steps
Interval = tuple[float, float]  # noise levels t/T, in [0,1]
EVERYWHERE: Interval = (0.0, 1.0)
MAX_STEPS = STEPS // 2 - 1  # with more, 'leading' spacing of 1 leaves out the noisiest half
KARRAS = {"use_karras_sigmas": True}  # Karras et al. 2022: at 12 steps a quarter of the error of 'leading'
SAMPLERS: dict[str, tuple[type, dict[str, Any]]] = {
    "plms": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2} | KARRAS),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 2} | KARRAS),
}


class Predictor(Protocol):
    """What a sampler needs of a model."""

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The predicted noise [b,c,h,w], see `InpaintingModel.eps`."""


@dataclass(frozen=True)
class Condition:
    """Masked-image latents [b,c,h,w], mask [b,1,h,w] (1 = fill), contexts for b samples.

    `own` [b,1,h,w] in [0,1]: where the object is shown; beside it the prediction is the unconditional one.
    None: the object's context counts everywhere.
    """

    masked: Tensor
    mask: Tensor
    contexts: Contexts
    own: Tensor | None = None


def scheduler(name: str, levels: int = STEPS, trailing: bool = False) -> Any:
    """A diffusers scheduler with the base's noise schedule, or with its first `levels` levels.

    `name` is one of SAMPLERS. `trailing`: it starts at the last level, as it does with fewer levels.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    kind, options = SAMPLERS[name]
    spacing = TRAILING if trailing or levels < STEPS else SPACING
    return kind(num_train_timesteps=levels, trained_betas=betas()[:levels].numpy(), **spacing, **options)


@torch.no_grad()
def sample(
    base: Predictor,
    condition: Condition,
    x_T: Tensor,
    *,
    sampler: str = "plms",
    steps: int = 50,
    guidance_scale: float = 5.0,
    guidance_interval: Interval = EVERYWHERE,
    start: tuple[Tensor, float] | None = None,
) -> Tensor:
    """Noise x_T [b,c,h,w] => latents x_0 [b,c,h,w]; a guidance scale of 1 skips the unconditional half.

    Outside `guidance_interval` the scale is 1 (Kynkäänniemi et al. 2024). `start`: latents [b,c,h,w] to start
    from and the denoising strength in (0,1], the share of noise schedule and steps to run (SDEdit, Meng et
    al. 2022); None: pure noise.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{steps} sampling steps; expected 1 to {MAX_STEPS}")
    share = 1.0 if start is None else start[1]
    plan = scheduler(sampler, max(2, round(share * STEPS)), trailing=steps == 1)
    plan.set_timesteps(max(1, round(share * steps)), device=x_T.device)
    timesteps, x_t = plan.timesteps, x_T * plan.init_noise_sigma
    if start is not None:
        x_t = plan.add_noise(start[0], x_T, timesteps[:1])
    inside, outside = (guided_eps(base, condition, scale) for scale in (guidance_scale, 1))
    low, high = (level * STEPS for level in guidance_interval)
    for t, level in zip(timesteps, timesteps.tolist(), strict=True):
        eps = inside if low <= level <= high else outside
        x_t = plan.step(eps(plan.scale_model_input(x_t, t), t), t, x_t, return_dict=False)[0]
    return x_t


def guided_eps(base: Predictor, c: Condition, guidance_scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided eps [b,c,h,w] as a function of x_t and t, both halves of guidance in one batch.

    What is constant over the steps is stacked here, once.
    """
    if guidance_scale == 1 and c.own is None:
        return lambda x_t, t: base.eps(x_t, t, c.masked, c.mask, c.contexts.conditional)
    masked, mask = (torch.cat([x, x]) for x in (c.masked, c.mask))
    context = join([c.contexts.unconditional, c.contexts.conditional])

    def eps(x_t: Tensor, t: Tensor) -> Tensor:
        eps_null, eps_cond = base.eps(torch.cat([x_t, x_t]), t, masked, mask, context).chunk(2)
        guided = classifier_free_guidance(eps_null, eps_cond, guidance_scale)
        return guided if c.own is None else eps_null.lerp(guided, c.own)

    return eps
