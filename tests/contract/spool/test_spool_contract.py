"""What every spool promises."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.errors import HilumError, SpoolError
from tests.contract.spool.conftest import Open, instance
from worker.ports import Spool, SpooledFile

PREAMBLE = bytes(128) + b"DICM" + b"meta"


def store(spool: Spool, data: bytes, sop_uid: str = "1.2.3", preamble: bytes = PREAMBLE) -> SpooledFile:
    incoming = spool.begin(preamble)
    incoming.write(data)
    return incoming.commit(instance(sop_uid))


def test_a_committed_film_is_there_with_preamble_and_data_set(spool: Spool) -> None:
    incoming = spool.begin(PREAMBLE)
    incoming.write(b"one ")
    incoming.write(bytearray(b"two "))
    incoming.write(memoryview(b"three"))
    file = incoming.commit(instance())
    assert spool.path_of(file.path).read_bytes() == PREAMBLE + b"one two three"
    assert file.size == len(PREAMBLE) + 13


def test_the_digest_is_of_the_data_set_alone(spool: Spool) -> None:
    file = store(spool, b"data")
    assert file.sha256 == hashlib.sha256(b"data").hexdigest()
    assert store(spool, b"data", preamble=PREAMBLE + b" of another sender").sha256 == file.sha256


def test_the_same_bytes_come_to_the_same_path_and_stay_readable(spool: Spool) -> None:
    first = store(spool, b"data")
    second = store(spool, b"data")
    assert second == first
    assert spool.path_of(first.path).read_bytes() == PREAMBLE + b"data"


def test_another_version_of_an_instance_leaves_the_first_alone(spool: Spool) -> None:
    first, second = store(spool, b"data"), store(spool, b"other")
    assert first.path != second.path
    assert spool.path_of(first.path).read_bytes() == PREAMBLE + b"data"
    assert spool.path_of(second.path).read_bytes() == PREAMBLE + b"other"


def test_two_instances_of_the_same_bytes_do_not_share_a_file(spool: Spool) -> None:
    first, second = store(spool, b"data", "1.2.3"), store(spool, b"data", "1.2.4")
    spool.remove(first.path)
    assert spool.path_of(second.path).is_file()


def test_a_film_of_no_bytes(spool: Spool) -> None:
    file = spool.begin(PREAMBLE).commit(instance())
    assert spool.path_of(file.path).read_bytes() == PREAMBLE


def test_discard_leaves_nothing_and_may_be_called_at_any_time(open_spool: Open) -> None:
    spool = open_spool()
    incoming = spool.begin(PREAMBLE)
    incoming.write(b"data")
    incoming.discard()
    incoming.discard()
    assert open_spool().sweep(set()) == 0


def test_discard_after_commit_keeps_the_film(spool: Spool) -> None:
    incoming = spool.begin(PREAMBLE)
    incoming.write(b"data")
    file = incoming.commit(instance())
    incoming.discard()
    assert spool.path_of(file.path).is_file()


def test_nothing_can_be_written_after_the_end(spool: Spool) -> None:
    incoming = spool.begin(PREAMBLE)
    incoming.discard()
    with pytest.raises(HilumError):
        incoming.write(b"data")
    with pytest.raises(HilumError):
        incoming.commit(instance())


@pytest.mark.parametrize("uid", ["", ".", "..", "../../1.2", "1.2/3", "1.2\0", "1" * 65, "1.2.3\n", "C:\\1", "1.é"])
def test_a_hostile_uid_never_becomes_a_name(spool: Spool, uid: str) -> None:
    with pytest.raises(HilumError):
        store(spool, b"data", uid)
    assert spool.sweep(set()) == 0


def test_a_missing_film_is_an_error_to_read_and_none_to_remove(spool: Spool) -> None:
    file = store(spool, b"data")
    spool.remove(file.path)
    spool.remove(file.path)
    with pytest.raises(SpoolError):
        spool.path_of(file.path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "films/../../x", "/etc/passwd", "films", "films/00"])
def test_no_name_leads_out_of_the_spool(spool: Spool, name: str) -> None:
    with pytest.raises(SpoolError):
        spool.path_of(name)
    with pytest.raises(SpoolError):
        spool.remove(name)


def test_sweep_removes_what_no_row_knows_and_nothing_else(open_spool: Open) -> None:
    before = open_spool()
    known, orphan = store(before, b"known"), store(before, b"orphan")
    before.begin(PREAMBLE).write(b"unfinished")
    after = open_spool()
    assert after.sweep({known.path}) == 2
    assert after.path_of(known.path).read_bytes() == PREAMBLE + b"known"
    with pytest.raises(SpoolError):
        after.path_of(orphan.path)
    assert after.sweep({known.path}) == 0


def test_a_resend_heals_a_film_whose_file_was_lost(spool: Spool) -> None:
    file = store(spool, b"data")
    spool.remove(file.path)
    assert store(spool, b"data") == file
    assert spool.path_of(file.path).read_bytes() == PREAMBLE + b"data"


def test_many_films_at_once(spool: Spool) -> None:
    def one(n: int) -> SpooledFile:
        incoming = spool.begin(PREAMBLE)
        for _ in range(8):
            incoming.write(bytes([n % 8]) * 1000)
        return incoming.commit(instance(f"1.2.{n % 8}"))

    with ThreadPoolExecutor(16) as pool:
        files = list(pool.map(one, range(64)))
    assert len(set(files)) == 8
    for file in files:
        assert spool.path_of(file.path).stat().st_size == file.size


def test_free_bytes_is_a_number_of_bytes(spool: Spool) -> None:
    assert spool.free_bytes() > 1 << 20
