"""Several processes on one database, one of them killed in the middle: nothing lost, nothing twice, all in order."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.decision import Urgency
from schemas.errors import LeaseLost
from schemas.flag import Receipt
from schemas.lifecycle import JobState, OutboxState, StudyState
from tests.contract.record.given import PACS, RIS, Record, instance, not_read, read
from worker.record.database import Database

STUDIES, FILMS = 12, 4
LEASE = timedelta(seconds=600)  # what the dead held is given back by name


def outcome(film: int, study: int) -> Any:
    """Of each study one lateral, one raised film where the study's number is even, else none."""
    if film == 0:
        return not_read()
    return read(0.9 if film == 2 and study % 2 == 0 else 0.1 * film)


def hospital(name: str, url: str, folder: Path) -> None:
    """Receives every film (as every other process does), reads and delivers until nothing is left to do."""
    database = Database(url)
    record = Record(database, url)
    with (folder / name).open("a") as diary:
        films = list(itertools.product(range(FILMS), range(STUDIES)))
        turn = sum(map(ord, name)) % len(films)
        for film, study in films[turn:] + films[:turn]:
            received = record.receive(film, study, at=datetime.now(UTC))
            print(json.dumps(["received", received.job_id, received.outcome]), file=diary, flush=True)
            work(name, record, diary)
        while work(name, record, diary):
            pass
    database.close()


def work(name: str, record: Record, diary: Any) -> bool:
    """One film and one flag of each destination; whether there was any."""
    now = datetime.now(UTC)
    jobs = record.jobs.claim(name, 1, LEASE, now)
    for job in jobs:
        print(json.dumps(["claimed", job.id, job.attempt]), file=diary, flush=True)
        study, _, film = job.instance.sop_uid.removeprefix("1.2.3.").split(".")
        record.conclude(job, outcome(int(film), int(study)), worker=name, audiences=(PACS, RIS), at=now)
    told = 0
    for to in ("pacs", "ris"):
        for delivery in record.outbox.claim(to, name, 1, LEASE, now):
            flag = delivery.flag
            # What the destination sees, with a clock that all processes share.
            seen = ["sent", time.monotonic(), to, flag.study_uid, flag.revision, flag.predecessor]
            print(json.dumps(seen), file=diary, flush=True)
            record.outbox.sent(delivery.id, name, Receipt(object_id="1", proof="ok"), now)
            told += 1
    return bool(jobs or told)


def test_a_burst_over_three_processes_one_of_them_killed(url: str, record: Record, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    people = {n: context.Process(target=hospital, args=(n, url, tmp_path)) for n in ("anna", "boris", "carla")}
    for process in people.values():
        process.start()
    victim = people["boris"]
    until = time.monotonic() + 120
    while len(diary(tmp_path, "boris")) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    for process in people.values():
        process.join(120)
    assert [people[n].exitcode for n in ("anna", "carla")] == [0, 0]

    # Crash recovery, then somebody finishes the work.
    now = datetime.now(UTC)
    assert record.jobs.owners() | record.outbox.owners() <= {"boris"}
    record.jobs.rescue(now, 3, ["boris"])
    record.outbox.rescue(now, ["boris"])
    hospital("dora", url, tmp_path)

    entries = [entry for name in (*people, "dora") for entry in diary(tmp_path, name)]
    # Door 1: every instance is one job, whoever received it first.
    assert len({e[1] for e in entries if e[0] == "received"}) == STUDIES * FILMS
    assert sum(e[0] == "received" and e[2] == "new" for e in entries) in {STUDIES * FILMS, STUDIES * FILMS - 1}
    # No attempt at a film was given to two readers.
    claims = [(e[1], e[2]) for e in entries if e[0] == "claimed"]
    assert len(claims) == len(set(claims))
    assert {job for job, _ in claims} == {e[1] for e in entries if e[0] == "received"}
    assert record.worklist.counts().films == dict.fromkeys((JobState.SPOOLED, JobState.READING, JobState.FAILED), 0)

    flags: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for study in range(STUDIES):
        story = record.worklist.results(instance(0, study).study_uid)
        assert story is not None
        assert story["state"] == StudyState.READ
        assert story["urgency"] == (Urgency.STAT if study % 2 == 0 else Urgency.ROUTINE).name
        assert [r["revision"] for r in story["revisions"]] == list(range(1, story["revision"] + 1))
        assert len(story["revisions"][-1]["snapshot"]["films"]) == FILMS
        assert all(len(f["predictions"]) == (0 if f["not_analysed"] else 1) for f in story["films"])
        for row in story["deliveries"]:
            flags[story["study_uid"], row["destination"]].append(row)
    for (study_uid, destination), rows in flags.items():
        states = [row["state"] for row in rows]
        assert states[-1] == OutboxState.SENT, (study_uid, destination)
        assert set(states[:-1]) <= {OutboxState.SENT, OutboxState.SUPERSEDED}
        assert len({row["revision"] for row in rows}) == len(rows)
    assert {to for _, to in flags} == {"pacs", "ris"}
    assert len(flags) == STUDIES + (STUDIES + 1) // 2

    # What a destination saw of a study is in order, each naming the one before; only what the killed process had in
    # hand came twice, and then as the same.
    seen: dict[tuple[str, str], list[tuple[int, int | None]]] = defaultdict(list)
    for _, _, to, study_uid, revision, predecessor in sorted(e for e in entries if e[0] == "sent"):
        seen[study_uid, to].append((revision, predecessor))
    assert seen.keys() == flags.keys()
    again = 0
    for told in seen.values():
        once = list(dict.fromkeys(told))
        again += len(told) - len(once)
        assert once == sorted(once)
        assert [predecessor for _, predecessor in once] == [None, *(revision for revision, _ in once[:-1])]
    assert again <= 2


def diary(folder: Path, name: str) -> list[Any]:
    try:
        return [json.loads(line) for line in (folder / name).read_text().splitlines(keepends=True) if line[-1] == "\n"]
    except FileNotFoundError:
        return []


def test_a_film_in_the_hands_of_a_killed_process_is_read_again(url: str, record: Record, tmp_path: Path) -> None:
    record.receive(1, at=datetime.now(UTC))
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(url, tmp_path / "held"))
    process.start()
    until = time.monotonic() + 120
    while not (tmp_path / "held").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    now = datetime.now(UTC)
    assert record.jobs.claim("next", 1, LEASE, now) == []
    assert record.jobs.rescue(now, 3) == 0
    assert record.jobs.rescue(now + 2 * LEASE, 3) == 1
    (job,) = record.jobs.claim("next", 1, LEASE, now + 2 * LEASE)
    assert job.attempt == 2
    with pytest.raises(LeaseLost):
        record.conclude(job, read(0.9), worker="held")
    assert record.conclude(job, read(0.9), worker="next").revision == 1


def hold(url: str, sign: Path) -> None:
    database = Database(url)
    Record(database, url).jobs.claim("held", 1, LEASE, datetime.now(UTC))
    sign.touch()
    signal.pause()
