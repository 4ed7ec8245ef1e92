"""A scene made and delivered: written, proven and entered like any result."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ldm import __version__
from ldm.data.digest import file_digest, text_digest
from ldm.data.picture import Picture
from ldm.data.save import write_picture
from ldm.insertion.cases import Case
from ldm.insertion.item import Item
from ldm.insertion.journal import Journal, recipe_in
from ldm.insertion.kept import Kept
from ldm.insertion.layout import Placed, joint
from ldm.insertion.scene import Scene
from ldm.insertion.staging import Told, carry_out
from ldm.insertion.subject import Subject
from ldm.insertion.work import Inserter, Options, Outcome, enter


def deliver(
    scene: Scene,
    background: Picture,
    groups: Sequence[Sequence[Placed]],
    inserter: Inserter,
    options: Options,
    journal: Journal,
    kept: Kept,
    told: Told = lambda placed, made: None,
) -> Outcome:
    """Carry out a scene and write it, unless that very picture is there already."""
    after, records = carry_out(background, groups, inserter, options, kept, told)
    facts = {"background": file_digest(scene.background), "parts": [record["key"] for record in records]}
    name, key = f"{scene.file.stem}.png", text_digest(facts)[:32]
    item = Item(Case(scene.background), Subject(), (0,), name=scene.file.stem)
    if recipe_in(journal.folder / name).get("key") == key and journal.has(name, key):
        return Outcome(item, {0: name})
    seconds = round(sum(record["seconds"] for record in records), 3)
    record = {
        "key": key,
        "version": __version__,
        "base_fingerprint": inserter.fingerprint,
        "scene": str(scene.file),
        "content": scene.values,
        "background": str(scene.background),
        "sha256": {"background": facts["background"]},
        "placements": records,
        "regions": [region for record in records for region in record["regions"]],
        "seconds": seconds,
        **options.facts,
    }
    write_picture(journal.folder / name, after, {"recipe": json.dumps(record)})
    del after  # the proof reads it from the file: two large pictures fit into memory, three do not
    mask = joint([placed for group in groups for placed in group], background.size)
    enter(journal.folder / name, record, background, mask, journal)
    return Outcome(item, {0: name}, (0,), seconds=seconds)
