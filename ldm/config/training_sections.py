"""The settings of learning one object and of extracting its file, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from ldm.config.loader import setting

EXTRACTED_SUFFIX = {"safetensors": ".safetensors", "ldm": ".ckpt"}  # by extract.format


@dataclass(frozen=True)
class DataSection:
    """The object's pictures."""

    root: str = setting("examples/objects/rocket_bee", "object folder: data/ bbox/ test.jpg ...", path=True)
    augment: bool = setting(True, "augment references by flip, rotation, blur and elastic deformation")
    augment_odds: str = setting(
        "fixed",
        "probabilities of these: fixed (flip 0.5, blur and deformation 0.3), or drawn per sample as in the "
        "paper (flip 0.7 r, blur and deformation 0.4 r, r uniform in [0,1])",
        ["fixed", "drawn"],
    )
    crop_squares: bool = setting(True, "crop square pictures, too; false: use them whole, as in the paper")
    mask_resize: str = setting(
        "cover",
        "how training masks are resized: cover fills every pixel that the mask touches; bilinear gives soft "
        "edges, as in the paper",
        ["cover", "bilinear"],
    )
    workers: int = setting(0, "worker processes that prepare samples; 0: the training process does", least=0)


@dataclass(frozen=True)
class TrainSection:
    """Training on one object."""

    name: str = setting("", "name of the run [the object folder's name]")
    logdir: str = setting("logs", "runs are written to <logdir>/<name>", path=True)
    resume: str = setting("", "run folder or checkpoint file to resume, with its own settings", path=True)
    freeze_model: str = setting(
        "crossattn-kv",
        "what trains: crossattn-kv, K and V of the cross-attention (real objects); crossattn, all of it "
        "(virtual objects)",
        ["crossattn-kv", "crossattn"],
    )
    few_shot: str = setting(
        "tokens",
        "few-shot part of the context: tokens, trained vectors; linear, the paper's layer; none",
        ["none", "linear", "tokens"],
    )
    few_shot_features: str = setting(
        "clip", "CLIP's input for few_shot=linear; raw: the paper's", ["clip", "raw"]
    )
    max_steps: int = setting(4000, "optimizer steps", least=1)
    batch_size: int = setting(1, "samples per batch", least=1)
    accumulate_grad_batches: int = setting(1, "batches per optimizer step", least=1)
    lr: float = setting(1e-5, "AdamW learning rate of the cross-attention", least=0)
    lr_conditioner: float = setting(1e-5, "learning rate of the conditioner without CLIP", least=0)
    lr_tokens: float = setting(1e-5, "learning rate of the few-shot tokens", least=0)
    lr_prior_encoder: float = setting(
        -1, "of the prior encoder (few_shot=linear); -1: lr_conditioner", least=-1
    )
    weight_decay: float = setting(0.01, "AdamW's weight decay", least=0)
    decayed: str = setting(
        "matrices",
        "weights with decay: matrices (not few-shot tokens), or all, as in the paper",
        ["matrices", "all"],
    )
    warmup_steps: int = setting(100, "steps of linear warm-up", least=0)
    lr_final: float = setting(
        1.0,
        "learning rates at the last step as a share of their start, along a cosine; 1: constant",
        least=0,
        most=1,
    )
    drop_context: float = setting(0.15, "share of samples with the unconditional context", least=0, most=1)
    single_view: float = setting(
        0.0,
        "share of few-shot samples whose reference and only token are their own picture, so that "
        "sample.reference_view can select a pose",
        least=0,
        most=1,
    )
    recolour: float = setting(
        0.0,
        "share of the samples that show the object in random other colours and light, so that its own are "
        "learnt (needs base.region_fill=composite)",
        least=0,
        most=1,
    )
    cached_samples: int = setting(0, "samples that are encoded once and reused; 0: all are new", least=0)
    posterior: str = setting(
        "mean",
        "latents of an image: mean of the VAE's posterior, or a sample of it, as in the paper",
        ["mean", "sample"],
    )
    loss: str = setting(
        "eps",
        "mean squared error of eps, the noise, as in the paper; or of v, which counts noisy steps more, for "
        "bases that predict v",
        ["eps", "v"],
    )
    precision: str = setting(
        "32-true",
        "Lightning's precision; bf16-mixed runs as 32-true on a device without bf16",
        ["32-true", "bf16-mixed", "16-mixed"],
    )
    gradient_checkpointing: bool = setting(False, "less memory in the backward pass, more time")
    devices: str = setting("auto", "Lightning's devices: auto, a number, or a list like 0,1")
    accelerator: str = setting("auto", "cpu, gpu or auto", ["auto", "cpu", "gpu", "mps"])
    seed: int = setting(23, "seed of samples, noise and initial weights", least=0, most=2**63 - 1)
    checkpoint_every: int = setting(500, "steps between checkpoints", least=1)
    keep_checkpoints: int = setting(2, "newest checkpoints to keep", least=1)
    preview_every: int = setting(500, "steps between preview images; 0: none", least=0)
    validate_every: int = setting(
        -1,
        "steps between validations; 0: none; -1: as often as 10 % of the training time allows",
        least=-1,
    )
    hold_out: str = setting("auto", "few-shot picture for validation: its name; auto: one of 4 or more; none")
    patience: int = setting(0, "validations without a new highest score, then stop; 0: never", least=0)


@dataclass(frozen=True)
class ExtractSection:
    """Extracting an object file from a run."""

    path: str = setting("", "run folder, or a checkpoint file", path=True)
    which: str = setting(
        "best", "checkpoint of a run folder: best (last without validation) or last", ["best", "last"]
    )
    out: str = setting("", "file to write [<run>/<name of the run>.safetensors or .ckpt]", path=True)
    format: str = setting(
        "safetensors", "object file, or ldm: the .ckpt of the paper's code", list(EXTRACTED_SUFFIX)
    )
    dtype: str = setting(
        "fp16",
        "fp16: differences to the base; fp32: the tuned values, exact, at twice the size",
        ["fp16", "fp32"],
    )
    author: str = setting("", "author, stored in the file")
    licence: str = setting("", "licence, stored in the file")
    base: str = setting("", "base checkpoint, if it has moved since the run", path=True)
    base_config: str = setting("configs/v.yaml", "the base of a checkpoint of the paper's code", path=True)
    dataset_dir: str = setting("", "object folder, for a checkpoint of the paper's code", path=True)
