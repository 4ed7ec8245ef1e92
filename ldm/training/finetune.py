"""Learning one object: a LightningModule that trains exactly the weights of the object and nothing else.

In: batches of ldm.training.datamodule. Out: checkpoints that hold what trains and what get_deltas needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ldm.models.base import Base
from ldm.models.diffusion import add_noise, eps_loss, level_weight
from ldm.models.state_dict import first_few
from ldm.objects.delta import trained_names
from ldm.training.datamodule import draw_noise
from ldm.training.encoded_samples import Shown, encoded, grey, narrow_frozen
from ldm.training.trainer import warm_cosine

SAME = ("base", "freeze_model", "few_shot", "few_shot_count")  # what a resumed run may not change
FEATURES = "few_shot_features"


class FineTune(pl.LightningModule):
    """Trains `trained_names(base, freeze_model)` of a base with its few-shot part (see `prepare_few_shot`).

    Learning rates: `lr` of the cross-attention, `lr_tokens` of the few-shot tokens, `lr_prior_encoder` of the
    prior encoder (-1: `lr_conditioner`), `lr_conditioner` of the rest; they fall along a cosine to `lr_final`
    of themselves at `max_steps` (1: they stay).
    `decayed`: the weights that decay, `matrices` (but for few-shot tokens) or `all`. `posterior`: see
    `encoded`. The learnable vector trains only if contexts are dropped.
    `min_snr` is gamma of `level_weight`; 0: plain eps MSE, as Paint-by-Example and the paper.
    `checkpointing`: the way back computes the UNet's activations again instead of keeping them.
    `shown` says what a batch's holes show, see `encoded`. `card` is plain data and tensors about the object,
    kept in every checkpoint under "object"; its "about" are the fields of an object file's `ObjectMetadata`.
    """

    strict_loading = False  # checkpoints hold what trains; on_load_checkpoint is strict about that

    def __init__(
        self,
        base: Base,
        freeze_model: str = "crossattn-kv",
        *,
        lr: float = 1e-5,
        lr_conditioner: float = 1e-5,
        lr_tokens: float = 1e-5,
        lr_prior_encoder: float = -1,
        weight_decay: float = 0.01,
        decayed: str = "matrices",
        posterior: str = "mean",
        warmup_steps: int = 100,
        lr_final: float = 1.0,
        max_steps: int = 1,
        drop_context: float = 0.15,
        min_snr_gamma: float = 0.0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        shown: Shown = grey,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.base, self.card, self.shown = base, dict(card or {}), shown
        self.rates = {
            "crossattn": lr,
            "conditioner": lr_conditioner,
            "tokens": lr_tokens,
            "prior_encoder": lr_conditioner if lr_prior_encoder < 0 else lr_prior_encoder,
        }
        self.weight_decay, self.decayed, self.warmup_steps = weight_decay, decayed, warmup_steps
        self.posterior = posterior
        self.lr_final, self.max_steps = lr_final, max_steps
        self.drop_context, self.min_snr_gamma, self.seed = drop_context, min_snr_gamma, seed
        self.trained = trained_names(base, freeze_model)
        base.requires_grad_(False)
        for name, weight in self.trained_weights().items():
            # without dropped contexts its gradient is 0, but AdamW would let it decay
            weight.requires_grad_(drop_context > 0 or name != "conditioner.learnable_vector")
        if gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()

    def configure_model(self) -> None:
        """Called by the trainer before it moves the weights to the device."""
        narrow_frozen(self.base, str(self.trainer.precision))

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """House name => weight, of what trains."""
        weights = dict(self.base.named_parameters())
        return {name: weights[name] for name in self.trained}

    def training_step(self, batch: dict[str, Tensor], i: int) -> Tensor:
        """A batch of pairs, or of what a `EncodedSamples` made of them => the loss."""
        if "image" in batch:
            batch = batch | encoded(self.base, batch, self.shown, self.posterior, self.seed)
        x_0, masked, mask = batch["x_0"], batch["masked"], batch["latent_mask"]
        shape = (x_0.shape[1], x_0.shape[2], x_0.shape[3])
        drawn = draw_noise(batch["index"], self.seed, shape, self.drop_context)
        t, eps, dropped = (x.to(x_0.device) for x in drawn)
        loss = self.loss(x_0, masked, mask, batch["pooled"], t, eps, dropped, batch["view"])
        self.log("loss", loss.detach(), batch_size=len(x_0))
        return loss

    def loss(
        self,
        x_0: Tensor,
        masked: Tensor,
        mask: Tensor,
        pooled: Tensor,
        t: Tensor,
        eps: Tensor,
        dropped: Tensor,
        view: Tensor | None = None,
    ) -> Tensor:
        """Scalar; `pooled` [b,c] is CLIP's view of the references, `dropped` [b] ones lose their context.

        `view` [b]: the few-shot token that stands in every place; -1 or no view: each in its own.
        """
        conditioner = self.base.conditioner
        few_shot = conditioner.few_shot() if view is None else conditioner.few_shot_by_sample(view)
        context = conditioner(pooled, few_shot)
        null = conditioner.unconditional(context)
        context = torch.where(dropped[:, None, None], null, context)
        predicted = self.base.eps(add_noise(x_0, eps, t), t, masked, mask, context)
        return eps_loss(eps, predicted, level_weight(t, self.min_snr_gamma) if self.min_snr_gamma else None)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = AdamW(self.groups(), fused=True)
        schedule = warm_cosine(optimizer, self.max_steps, self.warmup_steps, self.lr_final)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def groups(self) -> list[dict[str, Any]]:
        """AdamW's parameter groups: a learning rate each, and weight decay on what `decayed` says."""
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, weight in self.trained_weights().items():
            decays = self.decayed == "all" or (weight.ndim == 2 and not name.endswith("_tokens"))
            groups.setdefault((rate_of(name), decays), []).append(weight)
        return [
            {
                "params": weights,
                "lr": self.rates[rate],
                "weight_decay": self.weight_decay * decays,
                "name": rate,
            }
            for (rate, decays), weights in groups.items()
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what trains, and what the object file will say."""
        checkpoint["state_dict"] = {f"base.{k}": v.detach() for k, v in self.trained_weights().items()}
        checkpoint["object"] = self.card | {FEATURES: self.base.conditioner.few_shot_features}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base, object or mode; take its few-shot features."""
        own, saved = self.card.get("about", {}), checkpoint["object"].get("about", {})
        for key in SAME:
            if own.get(key) != saved.get(key):
                raise ValueError(
                    f"{key} is {own.get(key)}, but {saved.get(key)} in the run to resume; resume it as it was"
                )
        shapes = {f"base.{k}": v.shape for k, v in self.trained_weights().items()}
        state = checkpoint["state_dict"]
        if wrong := [
            k for k in shapes.keys() | state.keys() if k not in state or state[k].shape != shapes.get(k)
        ]:
            raise ValueError(f"the checkpoint does not fit what this run trains: {first_few(sorted(wrong))}")
        if checkpoint["object"].get(FEATURES) is not None:
            self.base.conditioner.few_shot_features = checkpoint["object"][FEATURES].to(self.base.device)


def rate_of(name: str) -> str:
    """Which learning rate a trained weight has: crossattn, tokens, prior_encoder or conditioner."""
    if name.startswith("unet."):
        return "crossattn"
    if name.startswith("conditioner.prior_encoder."):
        return "prior_encoder"
    return "tokens" if name.endswith(".few_shot_tokens") else "conditioner"
