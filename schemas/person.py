"""Who may look and act: people, what they may, and what is kept of what they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class Role(StrEnum):
    """What somebody may do."""

    RADIOLOGIST = "radiologist"  # reads, claims, agrees and disagrees
    ADMINISTRATOR = "administrator"  # also models, training, policy, people
    AUDITOR = "auditor"  # sees everything, changes nothing


ROLE_WORDS: Final[Mapping[Role, str]] = {
    Role.RADIOLOGIST: "reads the list, claims studies, says whether a flag was right",
    Role.ADMINISTRATOR: "also keeps models, training, policy, destinations and people",
    Role.AUDITOR: "sees everything, the audit trail too, and changes nothing",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who is signed in."""

    id: int
    name: str  # by which they sign in; shown to others
    role: Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """A person as the administrator sees it."""

    id: int
    name: str
    role: Role
    created_at: datetime
    last_seen_at: datetime | None
    disabled: bool
    has_password: bool
    subject: str  # "issuer subject" of OpenID Connect; empty: a local account
    locked_until: datetime | None  # after wrong passwords


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A program's key to the API, as it is listed; the key itself is shown once and only its SHA-256 is kept."""

    id: int
    name: str
    role: Role
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Deed:
    """One line of the audit trail; never changed, never removed."""

    at: datetime
    who: str  # a person's name, or "token NAME", or "command line"
    action: str  # "looked", "claimed", "promoted", …
    study_uid: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)  # never a patient's name
    address: str = ""
