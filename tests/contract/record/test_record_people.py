"""Who may look and act: people, their passwords' locks, links, sessions, and programs' keys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from schemas.errors import RecordError
from schemas.person import Person, Role
from tests.contract.record.given import NOW, Record, after
from worker.record.people import People

IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=14)


@pytest.fixture
def people(record: Record) -> People:
    """Nobody yet."""
    return People(record.database)


def at_once(*works: Callable[[], object]) -> list[object]:
    """What each gives, or the error that it ends with, all begun in the same moment."""
    gate = threading.Barrier(len(works))
    said: list[object] = [None] * len(works)

    def run(place: int) -> None:
        gate.wait()
        try:
            said[place] = works[place]()
        except RecordError as error:
            said[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


# People


def test_the_first_is_added_and_found_by_name(people: People) -> None:
    assert people.everybody() == []
    added = people.add("  Dr   Ärmel ", Role.RADIOLOGIST, NOW)
    assert added == Person(id=added.id, name="Dr Ärmel", role=Role.RADIOLOGIST)
    assert people.everybody() != []
    (account,) = people.everybody()
    assert people.show(added.id) == account
    assert (account.has_password, account.disabled, account.subject, account.last_seen_at) == (False, False, "", None)
    assert people.show(added.id + 1) is None


@pytest.mark.parametrize("name", ["Dr Ärmel", "dr ärmel", "DR ÄRMEL", " dr  Ärmel ", "dr A\u0308rmel", "dr ärmel\0"])
def test_neither_case_nor_spelling_of_a_name_counts(people: People, name: str) -> None:
    added = people.add("Dr Ärmel", Role.RADIOLOGIST, NOW)
    known = people.credentials(name)
    assert known is not None
    assert known.person == added
    account = people.named(name)
    assert account is not None
    assert account.id == added.id
    with pytest.raises(RecordError, match="is there already"):
        people.add(name, Role.AUDITOR, NOW)


@pytest.mark.parametrize("name", ["", "  ", "\0", "a" * 101, "dr\x1b[31m", "dr \u202egood", "dr\u200b"])
def test_what_is_no_name_is_refused(people: People, name: str) -> None:
    with pytest.raises(RecordError, match="1 to 100 printable characters"):
        people.add(name, Role.RADIOLOGIST, NOW)
    assert people.everybody() == []


@pytest.mark.parametrize("name", ["token ris", "TOKEN ris", "Command  Line", "nobody"])
def test_nobody_is_taken_for_a_program(people: People, name: str) -> None:
    with pytest.raises(RecordError, match="taken for no person"):
        people.add(name, Role.RADIOLOGIST, NOW)


def test_of_two_who_add_the_same_name_at_once_one_is_told(people: People) -> None:
    said = at_once(*(lambda n=n: people.add(n, Role.AUDITOR, NOW) for n in ("dr one", "DR ONE")))  # type: ignore[misc]
    assert sorted(type(each).__name__ for each in said) == ["Person", "RecordError"]
    assert len(people.everybody()) == 1


def test_the_last_administrator_stays(people: People) -> None:
    one, other = (people.add(name, Role.ADMINISTRATOR, NOW).id for name in ("one", "other"))
    people.set_role(one, Role.RADIOLOGIST)
    for attempt in (lambda: people.set_role(other, Role.AUDITOR), lambda: people.disable(other)):
        with pytest.raises(RecordError, match="last administrator"):
            attempt()
    people.set_role(one, Role.ADMINISTRATOR)
    people.disable(other)
    with pytest.raises(RecordError, match="last administrator"):
        people.set_role(one, Role.RADIOLOGIST)  # who is shut out does not count
    assert [a.role for a in people.everybody()] == [Role.ADMINISTRATOR] * 2


def test_whoever_is_not_there_is_not_changed(people: People) -> None:
    people.add("one", Role.ADMINISTRATOR, NOW)
    with pytest.raises(RecordError, match="no such person"):
        people.set_role(999, Role.AUDITOR)


@pytest.mark.parametrize("round_", range(5))
def test_two_administrators_who_demote_each_other_do_not_both_succeed(people: People, round_: int) -> None:
    one, other = (people.add(name, Role.ADMINISTRATOR, NOW).id for name in ("one", "other"))
    said = at_once(lambda: people.set_role(one, Role.AUDITOR), lambda: people.disable(other))
    assert sum(isinstance(each, RecordError) for each in said) == 1
    assert sum(a.role is Role.ADMINISTRATOR and not a.disabled for a in people.everybody()) == 1


def test_whoever_is_shut_out_is_out_at_once_and_everywhere(people: People) -> None:
    people.add("one", Role.ADMINISTRATOR, NOW)
    person = people.add("other", Role.RADIOLOGIST, NOW, subject="https://login.example 7")
    known_there = people.by_subject("https://login.example 7")
    assert known_there == people.show(person.id)
    assert people.by_subject("https://login.example 8") is None
    people.sign_in(person.id, "cookie", NOW)
    people.invite(person.id, "link", after(1000))
    people.disable(person.id)
    assert people.session("cookie", NOW, idle=IDLE, longest=LONGEST) is None
    assert people.invited("link", NOW) is None
    assert people.accept("link", "hash", NOW) is None
    assert people.by_subject("https://login.example 7").disabled  # type: ignore[union-attr]
    assert not people.sign_in(person.id, "cookie 2", NOW), "the password was checked while the door was being shut"
    known = people.credentials("other")
    assert known is not None
    assert known.disabled
    people.disable(person.id, disabled=False)
    for cookie in ("cookie", "cookie 2"):
        assert people.session(cookie, NOW, idle=IDLE, longest=LONGEST) is None, "let in again is not signed in again"
    assert people.invited("link", NOW) is None


def test_what_somebody_set_for_themselves(people: People) -> None:
    person = people.add("one", Role.AUDITOR, NOW).id
    assert people.view(person) == {}
    people.set_view(person, {"views": {"mine": "claims=mine"}})
    assert people.view(person) == {"views": {"mine": "claims=mine"}}
    assert people.view(999) == {}


# Links and passwords


def test_a_link_works_once_and_the_later_one_voids_the_earlier(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    people.invite(person.id, "earlier", after(60))
    people.invite(person.id, "later", after(60))
    assert people.invited("earlier", NOW) is None
    assert people.invited("later", NOW) == person
    assert people.invited("later", NOW) == person, "looking at it does not use it up"
    assert people.accept("earlier", "hash", NOW) is None
    assert people.accept("later", "hash", NOW) == person
    assert people.accept("later", "another hash", NOW) is None
    known = people.credentials("one")
    assert known is not None
    assert known.password == "hash"


def test_a_link_is_good_for_a_while(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    people.invite(person.id, "link", after(60))
    assert people.invited("link", after(60)) is None
    assert people.accept("link", "hash", after(60)) is None
    assert people.accept("link", "hash", after(59)) == person


def test_of_two_who_use_a_link_at_once_one_chooses_the_password(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    people.invite(person.id, "link", after(60))
    said = at_once(lambda: people.accept("link", "mine", NOW), lambda: people.accept("link", "yours", NOW))
    assert sorted(said, key=bool) == [None, person]


def test_a_new_password_signs_out_and_opens_the_lock(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    people.sign_in(person.id, "stolen", NOW)
    for _ in range(5):
        people.wrong_password(person.id, NOW)
    people.invite(person.id, "link", after(60))
    people.accept("link", "hash", NOW)
    assert people.session("stolen", NOW, idle=IDLE, longest=LONGEST) is None
    known = people.credentials("one")
    assert known is not None
    assert known.locked_until is None
    people.sign_in(person.id, "again", NOW)
    people.set_password(person.id, "another hash")
    assert people.session("again", NOW, idle=IDLE, longest=LONGEST) is None


def test_the_same_password_hashed_anew_signs_nobody_out(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    people.sign_in(person.id, "cookie", NOW)
    people.rehash(person.id, "stronger hash")
    assert people.session("cookie", NOW, idle=IDLE, longest=LONGEST) is not None
    known = people.credentials("one")
    assert known is not None
    assert known.password == "stronger hash"


def test_wrong_passwords_lock_for_longer_and_longer(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    locked = [people.wrong_password(person.id, NOW) for _ in range(14)]
    assert locked[:4] == [None] * 4
    minutes = [(until - NOW).total_seconds() / 60 for until in locked[4:] if until is not None]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    known = people.credentials("one")
    assert known is not None
    assert known.locked_until == after(3600)
    people.sign_in(person.id, "cookie", after(3601))
    assert people.wrong_password(person.id, after(3700)) is None, "the right one makes the others forgotten"


def test_wrong_passwords_at_once_are_all_counted(people: People) -> None:
    person = people.add("one", Role.ADMINISTRATOR, NOW)
    said = at_once(*(lambda: people.wrong_password(person.id, NOW) for _ in range(6)))
    assert sum(until is not None for until in said) == 2  # the fifth and the sixth


# Sessions


def test_a_session_is_somebody_until_it_is_over(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW)
    assert people.sign_in(person.id, "cookie", NOW)
    found = people.session("cookie", after(60), idle=IDLE, longest=LONGEST)
    assert found is not None
    assert (found.person, found.locked) == (person, False)
    assert people.session("another", NOW, idle=IDLE, longest=LONGEST) is None
    for minutes in range(0, 14 * 60 + 1, 20):
        assert people.session("cookie", after(60 * minutes), idle=IDLE, longest=LONGEST) is not None
    assert people.session("cookie", after(14 * 3600 + 1), idle=IDLE, longest=LONGEST) is None, "however busy"


def test_an_idle_session_is_locked_and_stays_so(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW)
    people.sign_in(person.id, "cookie", NOW)
    for at, locked in ((1800, False), (3601, True), (3602, True)):
        found = people.session("cookie", after(at), idle=IDLE, longest=LONGEST)
        assert found is not None
        assert found.locked is locked, at


def test_what_a_page_asks_by_itself_does_not_keep_a_session_open(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW)
    people.sign_in(person.id, "cookie", NOW)
    for minutes in range(0, 31, 5):
        found = people.session("cookie", after(60 * minutes), idle=IDLE, longest=LONGEST, used=False)
        assert found is not None
        assert not found.locked
    found = people.session("cookie", after(60 * 30 + 1), idle=IDLE, longest=LONGEST, used=False)
    assert found is not None
    assert found.locked


def test_a_lock_by_hand_is_not_undone_by_what_is_under_way(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW)
    people.sign_in(person.id, "cookie", NOW)

    class Slow(People):
        """Locked by another tab between the look and its note."""

        def _used(self, digest: str, person: int, now: object) -> None:
            people.lock("cookie")
            super()._used(digest, person, now)  # type: ignore[arg-type]

    Slow(people._database).session("cookie", after(60), idle=IDLE, longest=LONGEST)
    found = people.session("cookie", after(61), idle=IDLE, longest=LONGEST)
    assert found is not None
    assert found.locked


def test_a_role_counts_from_the_next_request_on(people: People) -> None:
    people.add("one", Role.ADMINISTRATOR, NOW)
    person = people.add("other", Role.RADIOLOGIST, NOW)
    people.sign_in(person.id, "cookie", NOW)
    people.set_role(person.id, Role.AUDITOR)
    found = people.session("cookie", NOW, idle=IDLE, longest=LONGEST)
    assert found is not None
    assert found.person.role is Role.AUDITOR


def test_signing_out_ends_one_session_and_no_other(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW)
    for cookie in ("here", "there"):
        people.sign_in(person.id, cookie, NOW)
    people.sign_out("here")
    assert people.session("here", NOW, idle=IDLE, longest=LONGEST) is None
    assert people.session("there", NOW, idle=IDLE, longest=LONGEST) is not None


def test_when_somebody_was_seen_last(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW).id
    people.sign_in(person, "cookie", NOW)
    people.session("cookie", after(20), idle=IDLE, longest=LONGEST)
    assert people.show(person).last_seen_at == NOW  # type: ignore[union-attr]  # noted no more often than needed
    people.session("cookie", after(40), idle=IDLE, longest=LONGEST)
    assert people.show(person).last_seen_at == after(40)  # type: ignore[union-attr]


def test_what_is_over_is_let_go(people: People) -> None:
    person = people.add("one", Role.RADIOLOGIST, NOW).id
    people.sign_in(person, "old", NOW)
    people.sign_in(person, "young", after(3600))
    people.invite(person, "link", after(60))
    assert people.sweep(after(14 * 3600 + 1), LONGEST) == 2
    assert people.sweep(after(14 * 3600 + 1), LONGEST) == 0
    assert people.session("young", after(3601), idle=IDLE, longest=LONGEST) is not None


# Programs


def add_token(people: People, digest: str = "key", seconds: float | None = 3600) -> int:
    expires = None if seconds is None else after(seconds)
    return people.add_token(
        name=" the  RIS ", role=Role.AUDITOR, digest=digest, created_by="one", now=NOW, expires_at=expires
    )


def test_a_key_opens_until_it_expires_or_is_revoked(people: People) -> None:
    add_token(people)
    for_ever = add_token(people, "for ever", None)
    person = Person(id=0, name="token the RIS", role=Role.AUDITOR)
    assert people.by_token("key", after(3599)) == person
    assert people.by_token("key", after(3600)) is None
    assert people.by_token("for ever", after(1e9)) == person
    assert people.by_token("another", NOW) is None
    assert people.revoke(for_ever)
    assert people.by_token("for ever", NOW) is None
    assert not people.revoke(999)
    latest, first = people.tokens()
    assert (latest.id, latest.revoked, latest.expires_at, latest.created_by) == (for_ever, True, None, "one")
    assert (first.name, first.revoked, first.expires_at, first.last_used_at) == (
        "the RIS",
        False,
        after(3600),
        after(3599),
    )


@pytest.mark.parametrize("name", ["", " \0", "a" * 101, "ris\x07"])
def test_a_key_has_a_name(people: People, name: str) -> None:
    with pytest.raises(RecordError, match="say who uses it"):
        people.add_token(name=name, role=Role.AUDITOR, digest="d", created_by="one", now=NOW, expires_at=None)
