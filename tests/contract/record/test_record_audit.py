"""The audit trail: lines are added, read back the latest first, and never change."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from schemas.errors import RecordError
from schemas.person import Deed
from tests.contract.record.given import NOW, Record, after
from worker.record.audit import Audit


@pytest.fixture
def audit(record: Record) -> Audit:
    """An empty trail."""
    return Audit(record.database)


def test_a_line_comes_back_as_it_was_noted(audit: Audit) -> None:
    audit.note("dr one", "looked", NOW, study_uid="1.2.3", detail={"finding": "Mass", "n": [1, 2]}, address="192.0.2.7")
    ((_, deed),) = audit.deeds(10)
    assert deed == Deed(
        at=NOW,
        who="dr one",
        action="looked",
        study_uid="1.2.3",
        detail={"finding": "Mass", "n": [1, 2]},
        address="192.0.2.7",
    )


def test_the_latest_first_and_on_from_any_line(audit: Audit) -> None:
    for number in range(7):
        audit.note("dr one", f"deed {number}", after(number))
    first = audit.deeds(3)
    second = audit.deeds(3, before=first[-1][0])
    third = audit.deeds(3, before=second[-1][0])
    assert [deed.action for _, deed in first + second + third] == [f"deed {n}" for n in reversed(range(7))]
    assert audit.deeds(3, before=third[-1][0]) == []


def test_by_whom_what_and_of_which_study(audit: Audit) -> None:
    for who in ("dr one", "dr two"):
        for action in ("looked", "claimed"):
            for study in ("1.2.3", "1.2.4"):
                audit.note(who, action, NOW, study_uid=study)
    assert len(audit.deeds(100)) == 8
    assert len(audit.deeds(100, who="dr one")) == 4
    ((_, deed),) = audit.deeds(100, who="dr two", action="claimed", study_uid="1.2.4")
    assert (deed.who, deed.action, deed.study_uid) == ("dr two", "claimed", "1.2.4")
    assert audit.deeds(100, who="dr") == []


def test_text_that_no_database_takes_makes_no_line_fail(audit: Audit) -> None:
    hostile = "a\0b\ud800"
    audit.note(hostile, hostile, NOW, study_uid=hostile, detail={hostile: [hostile, {"x": hostile}]}, address=hostile)
    ((_, deed),) = audit.deeds(10, who=hostile, action=hostile, study_uid=hostile)
    assert deed.who == deed.action == deed.study_uid == deed.address == "ab?"
    assert deed.detail == {"ab?": ["ab?", {"x": "ab?"}]}


@pytest.mark.parametrize("change", ["UPDATE deeds SET who = 'dr two'", "DELETE FROM deeds"])
def test_no_line_is_changed_or_removed_whoever_tries(record: Record, audit: Audit, change: str) -> None:
    audit.note("dr one", "looked", NOW)
    with pytest.raises(RecordError, match="audit trail"):
        record.database.write(lambda connection: connection.execute(text(change)))
    assert [deed.who for _, deed in audit.deeds(10)] == ["dr one"]
