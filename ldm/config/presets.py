"""Settings that belong together: what `--preset` stands for, and flags that scripts share."""

from __future__ import annotations

from ldm.config.command_line import Presets

LEAN = ("train.precision=bf16-mixed", "train.bank=384")
TRAINING: Presets = {  # steps of the same 8 samples, by the GPU's memory at Paint-by-Example's size
    "8gb": ("train.batch_size=1", "train.accumulate=8", "train.checkpointing=true", *LEAN),
    "12gb": ("train.batch_size=2", "train.accumulate=4", *LEAN),
    "24gb": ("train.batch_size=8", "train.accumulate=1", *LEAN),
}
INFERENCE: Presets = {
    # no approximation: the paper's solver and steps in fp32
    "exact": (
        "sample.sampler=plms",
        "sample.steps=50",
        "sample.guidance_interval=0,1",
        "sample.reuse=1",
        "sample.precision=fp32",
    ),
    # every approximation
    "fast": (
        "sample.sampler=unipc",
        "sample.steps=12",
        "sample.guidance_interval=0.1,1",
        "sample.reuse=2",
        "sample.precision=bf16",
    ),
}

# flags of the scripts that learn and insert by a recipe and measure it
RECIPE_FLAGS = {
    "base": "base.path",
    "max_steps": "train.max_steps",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "scale": "sample.scale",
    "noise": "sample.noise",
    "begin": "sample.begin",
    "shadow": "sample.shadow",
    "own_detail": "sample.own_detail",
    "guidance_from": "sample.guidance_from",
    "seed": "sample.seed",
    "blend": "insert.blend",
    "halo": "insert.halo",
}

# flags of the scripts that insert
INSERTION_FLAGS = {
    "base": "base.path",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "scale": "sample.scale",
    "n_samples": "sample.n_samples",
    "best_of": "sample.best_of",
    "seed": "sample.seed",
    "strength": "sample.strength",
    "view": "sample.view",
    "noise": "sample.noise",
    "begin": "sample.begin",
    "shadow": "sample.shadow",
    "own_detail": "sample.own_detail",
    "guidance_from": "sample.guidance_from",
    "guidance_interval": "sample.guidance_interval",
    "reuse": "sample.reuse",
    "precision": "sample.precision",
    "compile": "sample.compile",
    "refine": "sample.refine",
    "roi_factor": "insert.roi_factor",
    "context_px": "insert.context_px",
    "zoom": "insert.zoom",
    "blend": "insert.blend",
    "feather": "insert.feather",
    "reach": "insert.reach",
    "halo": "insert.halo",
    "max_seam": "insert.max_seam",
    "outdir": "insert.outdir",
    "grid": "insert.grid",
    "at_once": "insert.at_once",
    "keep_mb": "insert.keep_mb",
    "mask_channel": "mask.channel",
    "threshold": "mask.threshold",
    "invert": "mask.invert",
    "fill_holes": "mask.fill_holes",
    "grow": "mask.grow",
}
