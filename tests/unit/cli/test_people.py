"""`hilum people`: what it prints works, what it refuses it says, and all of it is in the trail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.person import Deed, Person, Role
from tests.unit.cli import commands
from tests.unit.cli.commands import configured
from tests.unit.worklist.ward import Ward
from worker.record.audit import Audit
from worker.settings import load
from worker.worklist.web.desk import now_utc
from worker.worklist.web.entry import digest

WEB = """
[web]
url = "https://hilum.hospital.example/"
"""


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """An administrator, "keeper", and nobody else."""
    with configured(tmp_path, WEB) as ward:
        ward.people.add("keeper", Role.ADMINISTRATOR, ward.now)
        yield ward


def call(ward: Ward, *words: str, code: int = 0) -> str:
    return commands.call(ward, "people", *words, code=code)


def deeds(ward: Ward) -> list[Deed]:
    return [deed for _, deed in Audit(ward.database).deeds(100)]


def secret_of(ward: Ward, printed: str) -> Person | None:
    """Whose link was printed."""
    found = re.search(r"^https://hilum\.hospital\.example/welcome/([\w-]{43})$", printed, re.MULTILINE)
    assert found is not None, printed
    return ward.people.invited(digest(found[1]), now_utc())


def test_somebody_is_added_and_invited_by_a_link_that_works(ward: Ward) -> None:
    first = call(ward, "add", "Dr  New", "--role", "auditor")
    person = secret_of(ward, first)
    assert person is not None
    assert (person.name, person.role) == ("Dr New", Role.AUDITOR)
    second = call(ward, "invite", "dr new")
    assert secret_of(ward, second) == person
    assert secret_of(ward, first) is None, "a later link voids the earlier"
    assert [(d.who, d.action, d.detail["person"]) for d in deeds(ward)] == [("command line", "invited", "Dr New")] * 2
    assert all(d.detail["account"] for d in deeds(ward))
    assert first.split("/welcome/")[1][:43] not in str(deeds(ward))


def test_roles_and_who_is_shut_out(ward: Ward) -> None:
    call(ward, "add", "dr one")
    assert "radiologist before, administrator now" in call(ward, "role", "dr one", "administrator")
    assert "keeper is shut out" in call(ward, "shut-out", "keeper")
    listed = call(ward, "list")
    assert re.search(r"dr one\s+administrator\s+invited\s+never", listed)
    assert re.search(r"keeper\s+administrator\s+shut out", listed)
    assert "let-in" in call(ward, "invite", "keeper", code=1)
    assert "keeper may sign in again" in call(ward, "let-in", "keeper")
    assert [d.action for d in deeds(ward)] == ["let in again", "shut out", "changed a role", "invited"]
    rows = [json.loads(line) for line in call(ward, "list", "--json").splitlines()]
    assert [(row["name"], row["disabled"], row["has_password"]) for row in rows] == [
        ("dr one", False, False),
        ("keeper", False, False),
    ]


def test_keys(ward: Ward) -> None:
    printed = call(ward, "key", "the RIS", "--role", "auditor", "--days", "30")
    found = re.search(r"^hil_[\w-]{43}$", printed, re.MULTILINE)
    assert found is not None
    assert ward.people.by_token(digest(found[0]), now_utc()) == Person(id=0, name="token the RIS", role=Role.AUDITOR)
    listed = call(ward, "keys")
    assert re.search(r"1\s+the RIS\s+auditor\s+command line\s+\d{4}-\d\d-\d\d\s+", listed)
    assert found[0] not in listed
    assert "opens nothing any more" in call(ward, "revoke", "1")
    assert "revoked" in call(ward, "keys")
    assert ward.people.by_token(digest(found[0]), now_utc()) is None
    (row,) = [json.loads(line) for line in call(ward, "keys", "--json").splitlines()]
    assert (row["name"], row["revoked"]) == ("the RIS", True)
    call(ward, "key", "for ever", "--days", "0")
    assert ward.people.tokens()[0].expires_at is None
    assert [d.action for d in deeds(ward)] == ["made a key", "revoked a key", "made a key"]
    assert found[0] not in str(deeds(ward))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "KEEPER"), "is there already"),
        (("add", " "), "1 to 100 printable"),
        (("invite", "[red]"), "nobody signs in as '[red]'; `hilum people list`"),
        (("role", "nobody there", "auditor"), "nobody signs in as"),
        (("role", "keeper", "auditor"), "last administrator"),
        (("shut-out", "keeper"), "last administrator"),
        (("key", ""), "say who uses it"),
        (("revoke", "9"), "there is no key 9; `hilum people keys`"),
    ],
)
def test_what_cannot_be_is_told_and_not_noted(ward: Ward, words: tuple[str, ...], told: str) -> None:
    assert told in call(ward, *words, code=1)
    assert deeds(ward) == []


def test_nothing_to_show_says_what_to_do(ward: Ward) -> None:
    assert "`hilum people key`" in call(ward, "keys")


@pytest.mark.parametrize(
    ("web", "expected"),
    [
        ("", "http://127.0.0.1:8080"),
        ('host = "0.0.0.0"\nport = 80', "http://localhost:80"),
        ('host = "::1"', "http://[::1]:8080"),
        ('url = "https://hilum.example:8443/"', "https://hilum.example:8443"),
    ],
)
def test_links_lead_to_the_configured_page(tmp_path: Path, web: str, expected: str) -> None:
    from worker.desk import address, rules

    (tmp_path / "hilum.toml").write_text(f"[web]\n{web}\n")
    settings = load(tmp_path / "hilum.toml")
    assert address(settings.web) == expected
    assert ("hilum.example" in rules(settings).hosts) is ("hilum.example" in web)


@pytest.mark.parametrize("url", ["https://hilum.example/under/", "https://a:b@hilum.example", "ftp://x", "hilum"])
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, url: str) -> None:
    from schemas.errors import ConfigurationError

    (tmp_path / "hilum.toml").write_text(f'[web]\nurl = "{url}"\n')
    with pytest.raises(ConfigurationError, match=r"web\.url"):
        load(tmp_path / "hilum.toml")
