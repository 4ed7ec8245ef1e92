"""The settings that pages show: a few for everyone, others folded away; read from their schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from ldm.config.build import takes_one_step
from ldm.config.schema import Config

LEARN_MAIN = ("max_steps", "freeze_model", "lr", "hold_out", "precision")
LEARN_MORE = (
    "few_shot", "batch_size", "accumulate_grad_batches", "lr_conditioner", "lr_tokens",
    "lr_prior_encoder", "lr_final",
    "warmup_steps", "drop_context", "single_view", "recolour", "loss", "cached_samples",
    "gradient_checkpointing",
    "checkpoint_every", "preview_every", "validate_every", "patience", "seed",
)  # fmt: skip
INSERT_MAIN = (
    "sample.steps", "sample.sampler", "sample.guidance_scale", "sample.object_scale",
    "sample.detail_transfer", "insert.keep_scene", "insert.roi_factor",
    "insert.blend",
)  # fmt: skip
INSERT_MORE = (
    "sample.guidance_from", "sample.guidance_interval", "sample.reference_view",
    "sample.deep_cache_interval", "sample.precision", "sample.second_pass", "insert.context_px",
    "insert.zoom",
    "insert.feather", "insert.reach", "mask.fill_holes", "mask.grow",
)  # fmt: skip
MULTI_STEP = (
    "sample.steps", "sample.sampler", "sample.guidance_interval", "sample.deep_cache_interval",
    "sample.second_pass",
)  # fmt: skip
COMPOSITE_ONLY = "base.region_fill=composite"  # in the help of settings that other bases do not have
LABELS = {
    "train.max_steps": "Steps",
    "train.freeze_model": "What is learnt",
    "train.lr": "Learning rate",
    "train.hold_out": "Held-out photo",
    "train.few_shot": "Photos in the context",
    "train.accumulate_grad_batches": "Batches per step",
    "train.lr_conditioner": "Learning rate, conditioner",
    "train.lr_tokens": "Learning rate, tokens",
    "train.lr_prior_encoder": "Learning rate, few_shot=linear",
    "train.lr_final": "Learning rate at the end",
    "train.warmup_steps": "Warm-up steps",
    "train.checkpoint_every": "Steps per checkpoint",
    "train.preview_every": "Steps per preview",
    "train.validate_every": "Steps per validation",
    "sample.object_scale": "Object strength",
    "sample.deep_cache_interval": "DeepCache interval",
    "insert.keep_scene": "Keep the scene",
    "insert.roi_factor": "Context around the mask",
    "insert.context_px": "Context in pixels",
    "insert.zoom": "Largest enlargement",
    "insert.feather": "Soft edge",
    "insert.reach": "Reach of the colour match",
    "mask.grow": "Grow the mask",
}


def shown_settings(config: Config) -> dict[str, list[dict[str, Any]]]:
    """The settings of learning and of inserting, as pages show them, with the values of `config`."""
    learn = {f"train.{key}": key in LEARN_MAIN for key in (*LEARN_MAIN, *LEARN_MORE)}
    insert = {dotted: dotted in INSERT_MAIN for dotted in (*INSERT_MAIN, *INSERT_MORE)}
    return {
        page: [entry for dotted, main in keys.items() if (entry := _entry(config, dotted, main)) is not None]
        for page, keys in (("learn", learn), ("insert", insert))
    }


def changed(config: Config, given: Mapping[str, Any], page: str) -> list[str]:
    """Settings of a request as `section.key=value`, without those that the config has already.

    ValueError for a setting that the page (learn, insert) does not have; values are checked in use.
    """
    known = {entry["key"]: entry for entry in shown_settings(config)[page]}
    if unknown := [key for key in given if key not in known]:
        raise ValueError(f"unknown setting {unknown[0][:80]!r}; there are {', '.join(known)}")
    texts = {key: _text(value) for key, value in given.items() if value is not None}
    return [f"{key}={text}" for key, text in texts.items() if text != _text(known[key]["default"])]


def _entry(config: Config, dotted: str, main: bool) -> dict[str, Any] | None:
    """One setting as pages show it; None if the base does not have it."""
    section, _, key = dotted.partition(".")
    values = getattr(config, section)
    f = next(f for f in fields(values) if f.name == key)
    allowed, value = f.metadata, getattr(values, key)
    if COMPOSITE_ONLY in allowed["help"] and config.base.region_fill != "composite":
        return None
    if dotted in MULTI_STEP and takes_one_step(config):
        return None
    entry = {
        "key": dotted,
        "label": LABELS.get(dotted, key.replace("_", " ").capitalize()),
        "help": allowed["help"],
        "type": _kind(get_type_hints(type(values))[key], allowed["choices"]),
        "default": _text(value) if isinstance(value, tuple) else value,
        "group": "main" if main else "more",
    }
    limits = {"min": allowed["least"], "max": allowed["most"]}
    entry |= {name: limit for name, limit in limits.items() if abs(limit) < float("inf")}
    return entry | ({"choices": list(allowed["choices"])} if allowed["choices"] else {})


def _kind(kind: Any, choices: Sequence[str]) -> str:
    if choices:
        return "choice"
    return {bool: "bool", int: "int", float: "float"}.get(kind, "text")


def _text(value: Any) -> str:
    """A value as a command line has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(_text(item) for item in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
