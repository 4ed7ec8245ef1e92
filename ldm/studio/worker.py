"""The one model in memory, and the thread that inserts and replays with it, one job after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.config.process import gc_frozen, warnings_in_a_line
from ldm.config.schema import Config, load_config
from ldm.studio.imports import import_models
from ldm.studio.jobs import Job, JobBook
from ldm.studio.plans import HELP
from ldm.studio.results import result_id
from ldm.studio.workspace import Workspace, shown_path, without_name

if TYPE_CHECKING:
    from argparse import Namespace

    from ldm.batch.runner import ItemResult
    from ldm.insertion.session import Session
    from ldm.scenes.replay import Replay

KINDS = ("insert", "replay")
WAIT = 2.0  # seconds without a job after which the model is loaded, so that the first page comes first
LOG = logging.getLogger(__name__)


class LoadedModel:
    """The base in memory, with a session for the settings that were used last."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._base: tuple[Any, ...] = ()
        self._settings: dict[str, Any] = {}
        self.error = ""  # in one line, why the base could not be loaded

    def session(self, config: Config, device: str) -> Session:
        """A session with these settings; the base is read again only if another one is asked for."""
        from ldm.config.build import insert_settings, open_session, session_for
        from ldm.insertion.object_source import ObjectSource

        base = (config.base, config.sample.precision, config.sample.compile, device)
        if self._session is None or base != self._base:
            self._session = None
            self.error = ""
            try:
                self._session = open_session(config, [ObjectSource()], device)
            except Exception as error:  # whatever it is, the page shows it
                self.error = f"the base cannot be loaded: {' '.join(str(error).split())}"
                raise
        elif insert_settings(config) != self._settings:
            self._session.unload_object()
            old = self._session
            self._session = session_for(config, old.base, old.fingerprint)
        self._base, self._settings = base, insert_settings(config)
        return self._session

    def forget(self) -> None:
        """After an error of unknown cause: read the base again."""
        self._session = None


class ModelWorker(threading.Thread):
    """Takes insertions and replays from the queue."""

    def __init__(self, workspace: Workspace, jobs: JobBook, device: str | None) -> None:
        super().__init__(name="model", daemon=True)
        self.workspace, self.jobs, self.device = workspace, jobs, device
        self.model, self.ending = LoadedModel(), threading.Event()
        self.previews: dict[str, dict[str, bytes]] = {}  # of the running job, by name

    def run(self) -> None:
        """Work until the end; jobs that a killed server left running are made again."""
        for job in self.jobs.all():
            if job.kind in KINDS and job.state == "running":
                self.jobs.update(job.id, state="queued", message="again, after a restart")
        loaded = False
        while not self.ending.is_set():
            job_or_none = self.jobs.take(KINDS, WAIT)
            if job_or_none is not None:
                self._do(job_or_none)
                loaded = True
            elif not loaded:
                loaded = True
                self._load()

    def stop(self) -> None:
        """End after the step that is being computed; the job is made again when the server runs again."""
        self.ending.set()

    def _load(self) -> None:
        """Load the model before anybody waits for it."""
        try:
            import_models()
            from ldm.models.runtime import device_named

            with gc_frozen():
                self.model.session(load_config(self.workspace.config), device_named(self.device))
        except Exception as error:  # the page and the first insertion show it
            LOG.warning("the base cannot be loaded: %s", error)

    def _do(self, job: Job) -> None:
        import_models()
        from ldm.studio.watch import Stopped

        self.previews = {job.id: {}}
        begun = time.monotonic()
        try:
            notes: dict[str, None] = {}  # each warning once: every seed and object gives its own
            with warnings_in_a_line(lambda line: notes.setdefault(without_name(line))):
                changes = (self._insert if job.kind == "insert" else self._replay)(job)
            texts = [changes.get("message") or f"{time.monotonic() - begun:.1f} s", *notes]
            self.jobs.end(
                job.id, "done", **{**changes, "message": "; ".join(texts)}, progress=1.0, previews=[]
            )
        except Stopped:
            if not self.ending.is_set():
                self.jobs.end(job.id, "cancelled", previews=[])
        except (ValueError, FileNotFoundError, PermissionError) as error:
            self.jobs.end(job.id, "failed", error=" ".join(str(error).split()), previews=[])
        except (Exception, SystemExit) as error:  # a fault of ours, or no memory: the next job begins afresh
            LOG.exception("job %s", job.id)
            self.model.forget()
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.jobs.end(job.id, "failed", error=text, previews=[])

    def _insert(self, job: Job) -> dict[str, Any]:
        from ldm.config.inference_cli import options_of, parse

        calls: Sequence[Sequence[str]] = job.request["calls"]
        made: list[str] = []
        folder = self.workspace.part("results", job.id)
        for number, words in enumerate(calls):
            args, config = parse([*words, *self._device_words()], HELP)
            options = options_of(args, config)
            result = self._made(job, args, config, options, number, len(calls))
            if result.error:
                raise ValueError(result.error)
            made += [result_id(folder / file) for file in result.files.values()]
            self.jobs.update(job.id, results=list(made))
        return {"results": made}

    def _made(
        self, job: Job, args: Namespace, config: Config, options: Any, number: int, calls: int
    ) -> ItemResult:
        """The results of one call."""
        from ldm.batch.results_log import ResultsLog
        from ldm.batch.runner import make_item
        from ldm.config.inference_cli import items_of, scene_of
        from ldm.scenes.layout import lay_out
        from ldm.scenes.runner import run_scene

        log = ResultsLog(Path(config.insert.outdir))
        regions = max(1, job.request["regions"])
        if args.scene is None:
            [item] = items_of(args, config)
            session = self._watched(job, config, args.device, regions, number, calls)
            return make_item(item, session, options, log)
        layout = lay_out(scene_of(args, config), options)
        session = self._watched(job, config, args.device, regions, number, calls)
        return run_scene(layout, session, options, log, lambda line: None)

    def _replay(self, job: Job) -> dict[str, Any]:
        """Make a result again, as `inference.sh --replay` does, and compare."""
        from ldm.config.inference_cli import parse, parse_replay
        from ldm.models.runtime import threads

        folder = self.workspace.part("cache")
        words = ["--replay", job.request["file"], "--outdir", shown_path(folder), *self._device_words()]
        args, _ = parse(words, HELP)
        found, config = parse_replay(words, args, HELP)
        with threads(found.recipe["machine"]["threads"]):
            notes = self._compared(job, found, args, config, folder / f"{job.id}.png")
        return {"message": "; ".join(notes), "results": [job.request["result"]]}

    def _compared(self, job: Job, found: Replay, args: Namespace, config: Config, file: Path) -> list[str]:
        """Make a result again in `file`, which is removed => how its pixels differ, and possible reasons."""
        from ldm.config.inference_cli import options_of
        from ldm.scenes.replay import replay_warnings, write_replay

        options = options_of(args, config)
        regions = max(1, len(found.recipe["regions"]))
        session = self._watched(job, config, args.device, regions, 0, 1)
        try:
            differs = write_replay(found, session, options, file)
        finally:
            file.unlink(missing_ok=True)
        return [differs or "the same pixels", *replay_warnings(found.recipe, options.facts)]

    def _watched(
        self,
        job: Job,
        config: Config,
        device: str,
        regions: int,
        call: int,
        calls: int,
    ) -> Session:
        """The session, with a watch that reports to the job and stops it when it is asked to."""
        from ldm.config.build import insert_options, sampling_of
        from ldm.studio.watch import Watch, WatchedPredictor

        self.jobs.update(job.id, message="loading")
        session = self.model.session(config, device)
        sampling = sampling_of(config)
        steps = regions * (sampling.steps + (sampling.sampler == "plms"))
        begun = time.monotonic()

        def on_step(done: int, previews: list[bytes]) -> None:
            seconds = (time.monotonic() - begun) / done  # of one step
            self._report(job, previews, call * steps + min(done, steps), calls * steps, seconds)

        watch, inner = Watch(on_step), insert_options(config).predictor
        session.options = replace(
            session.options,
            predictor=lambda model, regions: WatchedPredictor(model, regions, inner(model, regions), watch),
        )
        return session

    def _report(self, job: Job, previews: Sequence[bytes], step: int, steps: int, seconds: float) -> None:
        """Tell the job how far it is, or stop it if that was asked for; `seconds`: of one step."""
        from ldm.studio.watch import Stopped

        if self.ending.is_set() or self.jobs.get(job.id).state_wanted == "cancelled":
            raise Stopped
        news: dict[str, Any] = {"step": step, "steps": steps, "progress": step / steps, "message": "drawing"}
        if previews:
            named = {f"{number}-{step}": data for number, data in enumerate(previews, start=1)}
            self.previews, news["previews"] = {job.id: named}, list(named)
        self.jobs.update(job.id, seconds_left=round(seconds * (steps - step), 1), **news)

    def _device_words(self) -> list[str]:
        return ["--device", self.device] if self.device else []
