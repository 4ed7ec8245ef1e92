"""Fine-tuning on one object: a LightningModule that trains exactly the weights of the object.

In: batches of ldm.training.samples. Out: checkpoints with what trains and what get_deltas needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ldm.data.pairs import DEFAULT, SampleOptions
from ldm.models.base import Base
from ldm.models.checkpoint import first_few
from ldm.models.diffusion import add_noise, eps_loss, v_weight
from ldm.objects.delta import trained_names
from ldm.training.samples import (
    FillImages,
    cast_frozen,
    draw_noise,
    encoded,
    fill_with_grey,
)
from ldm.training.trainer import cosine_with_warmup

FILES = "files"  # of a card: the hashes of what is learnt from
SAME = ("base", "freeze_model", "few_shot", "few_shot_count")  # of a card: what a resumed run must share
FEATURES = "few_shot_features"


@dataclass(frozen=True)
class Tuning:
    """What trains, how fast, and on which loss.

    `freeze_model`: see `trained_names`; `few_shot` and `few_shot_features`: see `prepare_few_shot`.
    Learning rates: `lr` of the cross-attention, `lr_tokens` of the few-shot tokens, `lr_prior_encoder` of the
    prior encoder (-1: `lr_conditioner`), `lr_conditioner` of the rest. They fall along a cosine to the share
    `lr_final` at `max_steps` (1: constant), after a linear warm-up. `decayed`: the weights that decay,
    `matrices` (few-shot tokens excepted) or `all`. The learnable vector trains only if contexts are dropped.
    `loss`: mean squared error of eps, as in Paint-by-Example and the paper, or of v, see `v_weight`.
    `gradient_checkpointing`: compute the UNet's activations again in the backward pass, not keep them.
    """

    freeze_model: str = "crossattn-kv"
    few_shot: str = "tokens"
    few_shot_features: str = "clip"
    lr: float = 1e-5
    lr_conditioner: float = 1e-5
    lr_tokens: float = 1e-5
    lr_prior_encoder: float = -1
    lr_final: float = 1.0
    warmup_steps: int = 100
    max_steps: int = 1
    weight_decay: float = 0.01
    decayed: str = "matrices"
    drop_context: float = 0.15
    loss: str = "eps"
    gradient_checkpointing: bool = False

    def rates(self) -> dict[str, float]:
        """Learning rates by `lr_group`."""
        prior_encoder = self.lr_conditioner if self.lr_prior_encoder < 0 else self.lr_prior_encoder
        return {
            "crossattn": self.lr,
            "conditioner": self.lr_conditioner,
            "tokens": self.lr_tokens,
            "prior_encoder": prior_encoder,
        }


class FineTune(pl.LightningModule):
    """Trains `trained_names(base, freeze_model)` of a base that has its few-shot part (`prepare_few_shot`).

    `samples` and `shown`: how batches are encoded, see `encoded`. `card` is plain data and tensors about the
    object, kept in every checkpoint under "object"; its "metadata" are the fields of an object file's
    `ObjectMetadata`.
    """

    strict_loading = False  # checkpoints hold what trains; on_load_checkpoint is strict about that

    def __init__(
        self,
        base: Base,
        tuning: Tuning = Tuning(),
        samples: SampleOptions = DEFAULT,
        *,
        shown: FillImages = fill_with_grey,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.base, self.tuning, self.samples = base, tuning, samples
        self.shown, self.card = shown, dict(card or {})
        self.trained = trained_names(base, tuning.freeze_model)
        base.requires_grad_(False)
        for name, weight in self.trained_weights().items():
            # without dropped contexts its gradient is 0, but AdamW would let it decay
            weight.requires_grad_(tuning.drop_context > 0 or name != "conditioner.learnable_vector")
        if tuning.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()

    def configure_model(self) -> None:
        """Called by the trainer before it moves the weights to the device."""
        cast_frozen(self.base, str(self.trainer.precision))

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """The weights that train, by name."""
        weights = dict(self.base.named_parameters())
        return {name: weights[name] for name in self.trained}

    def training_step(self, batch: dict[str, Tensor], i: int) -> Tensor:
        """A batch of `TrainingPairs` or `EncodedSamples` => the loss."""
        if "image" in batch:
            batch = batch | encoded(self.base, batch, self.shown, self.samples)
        x_0 = batch["x_0"]
        drawn = draw_noise(batch["index"], self.samples.seed, tuple(x_0.shape[1:]), self.tuning.drop_context)
        loss = self.loss(batch, *(x.to(x_0.device) for x in drawn))
        self.log("loss", loss.detach(), batch_size=len(x_0))
        return loss

    def loss(self, batch: Mapping[str, Tensor], t: Tensor, eps: Tensor, dropped: Tensor) -> Tensor:
        """Scalar, of a batch of `encoded` samples at steps t [b] with noise eps [b,c,h,w].

        `dropped` bool [b]: use the null context. If the batch has a `view` [b], it is the few-shot token that
        takes the place of all of them, -1: all are used; `weight` [b,1,h,w]: of the error in each cell.
        """
        x_0, masked, mask = batch["x_0"], batch["masked"], batch["latent_mask"]
        conditioner = self.base.conditioner
        few_shot = (
            conditioner.few_shot_by_sample(batch["view"]) if "view" in batch else conditioner.few_shot()
        )
        context = conditioner(batch["pooled"], few_shot)
        null = conditioner.unconditional(context)
        context = torch.where(dropped[:, None, None], null, context)
        t = self.base.training_timesteps(t, masked, mask)
        predicted = self.base.eps(add_noise(x_0, eps, t), t, masked, mask, context)
        level_weight = v_weight(t) if self.tuning.loss == "v" else None
        return eps_loss(eps, predicted, level_weight, batch.get("weight"))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, t = AdamW(self.groups(), fused=True), self.tuning
        schedule = cosine_with_warmup(optimizer, t.max_steps, t.warmup_steps, t.lr_final)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def groups(self) -> list[dict[str, Any]]:
        """AdamW's parameter groups: one for each learning rate, with and without weight decay."""
        rates = self.tuning.rates()
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, weight in self.trained_weights().items():
            decays = self.tuning.decayed == "all" or (weight.ndim == 2 and not name.endswith("_tokens"))
            groups.setdefault((lr_group(name), decays), []).append(weight)
        return [
            {
                "params": weights,
                "lr": rates[rate],
                "weight_decay": self.tuning.weight_decay * decays,
                "name": rate,
            }
            for (rate, decays), weights in groups.items()
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store only what trains, and the object's card with the date, which its file then has."""
        checkpoint["state_dict"] = {f"base.{k}": v.detach() for k, v in self.trained_weights().items()}
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        checkpoint["object"] = self.card | {
            FEATURES: self.base.conditioner.few_shot_features,
            "date": date,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base, object or mode; restore its few-shot features."""
        self.check_same(checkpoint)
        if checkpoint["object"].get(FEATURES) is not None:
            self.base.conditioner.few_shot_features = checkpoint["object"][FEATURES].to(self.base.device)

    def check_same(self, checkpoint: Mapping[str, Any]) -> None:
        """ValueError if a checkpoint is of another base, object or mode."""
        learnt, there = checkpoint["object"].get(FILES, {}), self.card.get(FILES, {})
        if learnt and (changed := [k for k in learnt | there if learnt.get(k) != there.get(k)]):
            raise ValueError(
                f"{first_few(changed)}: not as when this run began; put the old files back, "
                "or start a new run"
            )
        own, saved = self.card.get("metadata", {}), checkpoint["object"].get("metadata", {})
        for key in SAME:
            if own.get(key) != saved.get(key):
                raise ValueError(
                    f"{key} is {own.get(key)}, but {saved.get(key)} in the run to resume; give the same"
                )
        shapes = {f"base.{k}": v.shape for k, v in self.trained_weights().items()}
        state = checkpoint["state_dict"]
        if wrong := [
            k for k in shapes.keys() | state.keys() if k not in state or state[k].shape != shapes.get(k)
        ]:
            raise ValueError(
                f"the checkpoint does not fit what this run trains: {first_few(sorted(wrong))}; "
                "resume it with its own settings"
            )


def lr_group(name: str) -> str:
    """Which learning rate a trained weight has: crossattn, tokens, prior_encoder or conditioner."""
    if name.startswith("unet."):
        return "crossattn"
    if name.startswith("conditioner.prior_encoder."):
        return "prior_encoder"
    return "tokens" if name.endswith(".few_shot_tokens") else "conditioner"
