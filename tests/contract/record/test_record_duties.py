"""The periodic duties on a real record."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from schemas.decision import Urgency
from schemas.errors import SpoolError
from schemas.identity import Sender, StudyContext
from schemas.lifecycle import StudyState
from schemas.rejection import Rejection
from tests.contract.record.given import NOW, PACS, SENDER, Record, after, instance, read
from worker.spool.local import LocalSpool
from worker.upkeep import digest, finalise, rescue, retention

QUIET = timedelta(seconds=120)


def test_rescue_gives_back_at_once_what_a_dead_process_held(record: Record) -> None:
    record.film(1, 1, audiences=(PACS,))
    record.outbox.claim("pacs", "dead", 1, timedelta(seconds=60), NOW)
    record.receive(1, 2)
    record.claim("dead")
    alive = rescue.run_once(record.jobs, record.outbox, after(1), max_attempts=3, is_dead=lambda _: False)
    assert alive == 0
    freed = rescue.run_once(record.jobs, record.outbox, after(1), max_attempts=3, is_dead=lambda who: who == "dead")
    assert freed == 2
    assert record.claim("other", after(1)).attempt == 2
    assert record.deliver(at=after(1)).attempt == 2


def test_retention_lets_the_bytes_of_old_final_studies_go_and_keeps_results(record: Record, tmp_path: Path) -> None:
    spool = LocalSpool(tmp_path / "spool")
    incoming = spool.begin(b"")
    incoming.write(b"film")
    file = incoming.commit(instance())
    record.instances.receive(instance(), file, SENDER, StudyContext(), Urgency.ROUTINE, NOW)
    record.conclude(record.claim(), read())
    assert spool.path_of(file.path).is_file()
    assert finalise.run_once(record.studies, after(121), quiet=QUIET) == 1
    assert record.worklist.rows(1)[0].state is StudyState.FINAL
    day = timedelta(days=1)
    assert retention.run_once(record.studies, spool, after(121), keep=timedelta(0)) == 0
    assert retention.run_once(record.studies, spool, after(121), keep=day) == 0
    assert retention.run_once(record.studies, spool, after(121) + 2 * day, keep=day) == 1
    with pytest.raises(SpoolError):
        spool.path_of(file.path)
    story = record.worklist.results("1.2.3.1")
    assert story is not None
    assert story["films"][0]["predictions"]


def test_the_digest_counts_the_kinds_of_the_last_day(record: Record) -> None:
    sender = Sender(calling_ae="ROOM1", called_ae="WRONG", address="127.0.0.1")
    for at in (NOW, after(1)):
        record.rejections.add(Rejection(sender=sender, what="called AE title not recognised", mend="mend it", at=at))
    assert digest.run_once(record.rejections, after(60)) == 1
    assert digest.run_once(record.rejections, after(60) + timedelta(days=2)) == 0
