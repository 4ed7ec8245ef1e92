"""The studio without HTTP: its stores, its workers, and what requests for jobs do with them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ldm import __version__
from ldm.config.schema import load_config
from ldm.studio.access import Policy
from ldm.studio.backgrounds import PIXELS, Backgrounds
from ldm.studio.jobs import ENDED, Job, JobBook
from ldm.studio.learning import Trainings, learning_command, run_name, training_words
from ldm.studio.objects import Objects
from ldm.studio.plans import (
    Insertion,
    command_words,
    insertion_of,
    plan,
    scene_folder,
    shell_command,
    with_own_masks,
)
from ldm.studio.proxies import Proxies
from ldm.studio.results import ASKED, Results
from ldm.studio.settings import changed, shown_settings
from ldm.studio.worker import ModelWorker
from ldm.studio.workspace import Workspace, checked_name, new_id, shown_path, write_json

DATABASE = "studio.db"
COPIED = "from_shell"  # result folder of command lines that are copied from a plan


class Studio:
    """Everything that the routes use."""

    def __init__(self, workspace: Workspace, policy: Policy, device: str | None = None) -> None:
        workspace.make()
        self.workspace, self.policy = workspace, policy
        self.config = load_config(workspace.config)
        self.jobs = JobBook(workspace.folder / DATABASE)
        self.proxies = Proxies(workspace.part("cache"))
        self.objects, self.backgrounds = Objects(workspace), Backgrounds(workspace, self.proxies)
        self.results = Results(workspace)
        self.worker = ModelWorker(workspace, self.jobs, device)
        self.trainings = Trainings(workspace, self.jobs)

    def start(self) -> None:
        """Start the workers."""
        self.worker.start()
        self.trainings.start()

    def stop(self, patience: float) -> None:
        """End the workers, within about `patience` seconds; trainings go on as processes of their own."""
        threads = (self.worker, self.trainings)
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(patience)
        if not self.is_working():
            self.jobs.close()

    def is_working(self) -> bool:
        """Whether a worker still runs, in a step that takes longer than `stop` waits."""
        return any(thread.is_alive() for thread in (self.worker, self.trainings))

    def info(self) -> dict[str, Any]:
        """What a page has to know before anything else."""
        base = self.config.base
        return {
            "version": __version__,
            "base": base.architecture.name,
            "image_size": base.architecture.image_size,
            "error": self.worker.model.error,
            "settings": shown_settings(self.config),
            "limits": {"bytes": self.policy.max_bytes, "pixels": PIXELS},
        }

    def plan(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The regions and the command line of an insertion, without a model."""
        insertion = self._insertion(asked)
        scenes = scene_folder(self.workspace.part("backgrounds", asked["background"]) / "scenes", insertion)
        outdir = self.workspace.part("results") / COPIED
        calls = command_words(insertion, self.workspace, outdir, scenes)
        planned = plan(calls, insertion.size)
        rois = [list(roi) for rois in planned.rois for roi in rois]
        warnings = planned.warnings_of(_names(asked))
        return {"rois": rois, "warnings": warnings, "command": shell_command(calls)}

    def insert(self, asked: Mapping[str, Any], client: str) -> Job:
        """Queue an insertion; every mistake that shows without a model is an error now."""
        own = new_id()
        folder = self.workspace.part("results", own)
        try:
            insertion = with_own_masks(self._insertion(asked), folder / "inputs")
            calls = command_words(insertion, self.workspace, folder, folder / "inputs")
            regions = sum(len(rois) for rois in plan(calls, insertion.size).rois)
            command = shell_command(calls)
            name = self.backgrounds.get(asked["background"])["name"]
            write_json(folder / ASKED, {**asked, "background_name": name, "command": command})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        request = {"calls": calls, "regions": regions, "files": _files(insertion)}
        where, what = asked["background"], ", ".join(_names(asked))
        return self.jobs.add("insert", client, request, own, command=command, background=where, object=what)

    def learn(self, name: str, settings: Mapping[str, Any], client: str) -> Job:
        """Queue learning an object, in a run folder of its own."""
        from ldm.data.insertset import load_insertset

        root = self.objects.root(checked_name(name))
        load_insertset(root)
        run = self.workspace.part("runs") / run_name(self.workspace, name)
        words = training_words(self.workspace, self.config, root, run.name, settings)
        try:
            run.mkdir()
        except FileExistsError as error:
            raise ValueError(
                f"run {run.name}: another request made it at the same time; ask again for one more"
            ) from error
        command = learning_command(words, run)
        return self.jobs.add(
            "learn", client, {"run": shown_path(run), "words": words}, command=command, object=name
        )

    def remove_object(self, name: str) -> None:
        """Remove an object, unless a job needs it."""
        folder = self.objects.folder(name)
        self._refuse(f"object {name[:80]}", lambda job: _learns(job, name) or _needs(job, folder))
        self.objects.remove(name)

    def remove_photo(self, name: str, own: str) -> dict[str, Any]:
        """Remove a photo of an object, unless a job needs it, or the reference, which may change with it."""
        files = self.objects.photo(name, own), self.objects.thumb(name)
        self._refuse(f"photo {own} of {name}", lambda job: _learns(job, name) or _needs(job, *files))
        return self.objects.remove_photo(name, own)

    def remove_category(self, name: str, file: str) -> dict[str, Any]:
        """Remove a same-category picture of an object, unless the object is being learnt."""
        self._refuse(f"same-category picture {file[:80]}", lambda job: _learns(job, name))
        return self.objects.remove_category(name, file)

    def remove_background(self, own: str) -> None:
        """Remove a background, unless a job needs it."""
        folder = self.workspace.part("backgrounds", own)
        self._refuse(f"background {own}", lambda job: job.background == own or _needs(job, folder))
        self.backgrounds.remove(own)

    def remove_result(self, own: str) -> None:
        """Remove a result, unless its job or a replay of it runs."""
        folder = own.partition("~")[0]
        self._refuse(f"result {own[:80]}", lambda job: own == job.request.get("result") or job.id == folder)
        self.results.remove(own)

    def _refuse(self, what: str, uses: Callable[[Job], bool]) -> None:
        """ValueError if a job that has not ended uses what is to be removed."""
        if any(job.state not in ENDED and uses(job) for job in self.jobs.all()):
            raise ValueError(f"{what} is in use; cancel its job first, or wait for it")

    def replay(self, result: str, client: str) -> Job:
        """Queue making a result again."""
        found = self.results.get(result)
        file, needed = shown_path(found.file), [shown_path(path) for path in self.results.sources(found)]
        command = f"python scripts/inference.py --replay {shlex.quote(file)}"
        request = {"file": file, "result": result, "files": needed}
        return self.jobs.add("replay", client, request, command=command)

    def preview(self, own: str, name: str) -> Path | bytes:
        """A preview of a job: a file of its run, or a JPEG of what is being drawn."""
        job = self.jobs.get(own)
        if job.kind == "learn":
            file = Path(job.request["run"]) / "previews" / f"{checked_name(name)}.png"
            if file.is_file():
                return file
        elif name in (found := self.worker.previews.get(own, {})):
            return found[name]
        raise FileNotFoundError(f"preview {name[:40]}: no longer there")

    def _insertion(self, asked: Mapping[str, Any]) -> Insertion:
        given = changed(self.config, asked.get("settings", {}), "insert")
        return insertion_of(self.workspace, self.objects, self.backgrounds, asked, given)


def _files(insertion: Insertion) -> list[str]:
    """The files that an insertion needs, besides its own copies of the masks."""
    inserted = [file for source in insertion.sources for file in (source.object, source.reference) if file]
    return [shown_path(file) for file in (insertion.background, *inserted)]


def _learns(job: Job, name: str) -> bool:
    return job.kind == "learn" and job.object == name


def _needs(job: Job, *removed: Path) -> bool:
    """Whether a file or folder that a job needs is in one that is to be removed, or the other way round."""
    needed = [Path(file).resolve() for file in job.request.get("files", ())]
    gone = [path.resolve() for path in removed]
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in needed for b in gone)


def _names(asked: Mapping[str, Any]) -> list[str]:
    """What an insertion calls its objects, of object files without folder and ending."""
    return [Path(one["object"] or one["reference"] or "").stem for one in asked["placements"]]
