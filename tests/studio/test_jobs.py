"""Jobs: the queue is fair, requests to stop are checked, and everything is there after a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ldm.studio.jobs import Job, JobBook

INSERT = ("insert", "replay")


@pytest.fixture
def book(tmp_path: Path) -> JobBook:
    return JobBook(tmp_path / "jobs.db")


def taken(book: JobBook, *kinds: str) -> Job:
    job = book.take(kinds or INSERT, 0)
    assert job is not None
    return job


def test_tabs_take_turns(book: JobBook) -> None:
    for client in ("a", "a", "a", "b", "b", "c"):
        book.add("insert", client, {})
    served = []
    while (job := book.take(INSERT, 0)) is not None:
        served.append(job.client)
        book.end(job.id, "done")
    assert served[:3] == ["a", "b", "c"] and served[3:5] == ["a", "b"] and served[5] == "a"


def test_kinds_have_queues_of_their_own(book: JobBook) -> None:
    book.add("learn", "a", {})
    assert book.take(INSERT, 0) is None
    assert taken(book, "learn").state == "running"


def test_jobs_are_there_after_a_restart(tmp_path: Path) -> None:
    first = JobBook(tmp_path / "jobs.db")
    one = first.add("insert", "a", {"calls": [["--seed", "3"]]}, command="bash inference.sh")
    two = first.add("learn", "b", {"run": "runs/x"})
    taken(first)
    first.update(two.id, loss=[(10, 0.5)], message="starting")
    first.end(two.id, "failed", error="no memory")
    again = JobBook(tmp_path / "jobs.db")  # the first one was never closed, as after a kill
    assert [job.id for job in again.all()] == [two.id, one.id]
    assert again.get(one.id).state == "running" and again.get(one.id).request == one.request
    assert again.get(two.id).message == "" and again.get(two.id).error == "no memory"
    assert again.get(two.id).public()["loss"] == [[10, 0.5]]


@pytest.mark.parametrize(
    ("kind", "state", "wanted", "becomes"),
    [
        ("insert", "queued", "cancelled", "cancelled"),
        ("learn", "queued", "paused", "paused"),
        ("learn", "paused", "queued", "queued"),
        ("learn", "paused", "cancelled", "cancelled"),
        ("learn", "running", "paused", "running"),  # when its step is done
        ("insert", "running", "cancelled", "running"),
    ],
)
def test_what_can_be_asked_of_a_job(book: JobBook, kind: str, state: str, wanted: str, becomes: str) -> None:
    job = book.update(book.add(kind, "a", {}).id, state=state)
    asked = book.ask(job.id, wanted)
    assert asked.state == becomes and (becomes != "running" or asked.state_wanted == wanted)


@pytest.mark.parametrize(
    ("kind", "state", "wanted"),
    [
        ("insert", "done", "cancelled"),
        ("learn", "failed", "queued"),
        ("learn", "running", "queued"),
        ("insert", "running", "paused"),
    ],
)
def test_what_cannot(book: JobBook, kind: str, state: str, wanted: str) -> None:
    job = book.update(book.add(kind, "a", {}).id, state=state)
    with pytest.raises(ValueError, match=r"job is|only learning"):
        book.ask(job.id, wanted)
    assert book.get(job.id).state == state


def test_a_diverged_run_is_valid_json(book: JobBook) -> None:
    job = book.add("learn", "a", {})
    loss = [(1, 0.5), (2, float("nan")), (3, float("inf"))]
    public = book.update(job.id, loss=loss, seconds_left=float("nan")).public()
    found = json.loads(json.dumps(public, allow_nan=False))
    assert found["loss"] == [[1, 0.5], [2, None], [3, None]] and found["seconds_left"] is None


def test_pages_do_not_see_what_is_private(book: JobBook) -> None:
    job = book.add("learn", "a tab", {"run": "runs/x"})
    public = book.update(job.id, process=7, previews=["step-1"]).public()
    assert not {"client", "request", "process"} & set(public)
    assert public["previews"] == [f"/api/jobs/{job.id}/previews/step-1"]
    with pytest.raises(FileNotFoundError, match="no such job"):
        book.get("nobody")
