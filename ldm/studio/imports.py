"""Imports that take seconds: made when they are first needed, by one thread at a time.

Modules that import each other cannot be imported by several threads at once: one of them would see a part.
"""

from __future__ import annotations

import threading
from importlib import import_module

from ldm.config.process import gc_frozen

PICTURES = (  # torch, and all that reads pictures, object folders, object files and results
    "ldm.batch.results_log", "ldm.batch.work_item", "ldm.data.insertset", "ldm.objects.object_file",
    "ldm.prepare.object_folder", "ldm.validation.score",
)  # fmt: skip
MODELS = (  # what plans and makes insertions
    "ldm.batch.runner", "ldm.compositing.composite_fill",
    "ldm.compositing.object_cut_outs",
    "ldm.config.build", "ldm.config.inference_cli", "ldm.insertion.session", "ldm.merge.merged_file",
    "ldm.models.base", "ldm.models.runtime", "ldm.scenes.regional_context", "ldm.scenes.replay",
    "ldm.speed.deep_cache", "ldm.speed.onednn_packing", "ldm.studio.watch", "ldm.tiling.second_pass",
)  # fmt: skip
_PICTURES, _MODELS = threading.Lock(), threading.Lock()


def import_pictures() -> None:
    """Wait until what reads pictures and folders is imported."""
    with _PICTURES, gc_frozen():
        for name in PICTURES:
            import_module(name)


def import_models() -> None:
    """Wait until what inserts is imported."""
    import_pictures()
    with _MODELS, gc_frozen():
        for name in MODELS:
            import_module(name)
