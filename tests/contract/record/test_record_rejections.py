"""Who was turned away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from schemas.identity import Sender
from schemas.rejection import Rejection
from tests.contract.record.given import NOW, Record, after
from worker.record.rejections import KEPT


def rejection(who: str = "ROOM1", at: datetime = NOW, mend: str = "add it to [dicom] accept") -> Rejection:
    sender = Sender(calling_ae=who, called_ae="HILUM", address="192.0.2.7")
    return Rejection(sender=sender, what="calling AE title not in the allow-list", mend=mend, at=at)


def test_the_same_again_only_counts(record: Record) -> None:
    record.rejections.add(rejection())
    record.rejections.add(rejection(at=after(5), mend="the mend of today"))
    record.rejections.add(rejection("ROOM2", at=after(3)))
    first, second = record.rejections.recent(10)
    assert (first.sender.calling_ae, first.count, first.first_at, first.last_at) == ("ROOM1", 2, NOW, after(5))
    assert first.mend == "the mend of today"
    assert (second.sender.calling_ae, second.count) == ("ROOM2", 1)
    assert record.rejections.recent(1) == [first]


def test_many_at_once_are_all_counted(record: Record) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record.rejections.add(rejection(f"ROOM{n % 2}")), range(40)))
    assert [r.count for r in record.rejections.recent(10)] == [20, 20]


def test_hostile_titles_are_cut_and_kept(record: Record) -> None:
    record.rejections.add(rejection("\0\udcffé" * 10_000))
    (kept,) = record.rejections.recent(10)
    assert kept.sender.calling_ae.startswith("?é")
    assert len(kept.sender.calling_ae) == 500


def test_a_scanner_of_ports_leaves_no_more_than_the_latest(record: Record) -> None:
    for n in range(KEPT + 30):
        record.rejections.add(rejection(f"X{n}", at=after(n)))
    kept = record.rejections.recent(10 * KEPT)
    assert len(kept) == KEPT
    assert kept[-1].sender.calling_ae == "X30"
