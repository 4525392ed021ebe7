from __future__ import annotations

from uuid import UUID

from schemas.identity import is_uid
from worker.notify.uids import derive_uid, sc_instance_uid, sc_series_uid, sr_instance_uid, sr_series_uid


def test_the_same_flag_has_the_same_uid_on_every_machine() -> None:
    assert sr_instance_uid("1.2.3", "model", 1) == "2.25.316109656689675872608648461843284311188"
    assert sr_series_uid("1.2.3", "model") == sr_series_uid("1.2.3", "model")


def test_a_uid_is_a_uuid_in_decimal() -> None:
    uid = derive_uid("kind", "x" * 5000, 7, "山田")
    prefix, _, number = uid.rpartition(".")
    assert prefix == "2.25"
    assert is_uid(uid)
    assert UUID(int=int(number)).version == 5


def test_every_part_counts() -> None:
    uids = [
        derive_uid("sr", "1.2.3", "a", 1),
        derive_uid("sr", "1.2.3", "a", 2),
        derive_uid("sr", "1.2.3", "b", 1),
        derive_uid("sr", "1.2.4", "a", 1),
        derive_uid("paper", "1.2.3", "a", 1),
        derive_uid("sr", "1.2.3", "a1"),
        derive_uid("sr", "1.2.31:a", "1"),
    ]
    assert len(set(uids)) == len(uids)


def test_all_revisions_of_a_model_are_in_one_series() -> None:
    assert sr_series_uid("1.2.3", "a") != sr_series_uid("1.2.3", "b")
    assert sr_series_uid("1.2.3", "a") != sr_instance_uid("1.2.3", "a", 1)


def test_every_object_of_a_study_has_a_uid_of_its_own() -> None:
    basic_text = "1.2.840.10008.5.1.4.1.1.88.11"
    uids = [
        sr_series_uid("1.2.3", "a"),
        sc_series_uid("1.2.3", "a"),
        sr_instance_uid("1.2.3", "a", 1),
        sr_instance_uid("1.2.3", "a", 1, basic_text),
        sr_instance_uid("1.2.3", "a", 2, basic_text),
        sc_instance_uid("1.2.3", "a", 1),
        sc_instance_uid("1.2.3", "a", 2),
    ]
    assert len(set(uids)) == len(uids)
