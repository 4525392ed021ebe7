"""Passwords: argon2id (RFC 9106), and what one must be. No more than a few are checked at once: each takes 64 MiB."""

from __future__ import annotations

import threading
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST: Final = 12  # characters; NIST SP 800-63B-4 asks for 15 where nothing else is asked, and for no mixture
LONGEST: Final = 256
_AT_ONCE: Final = 2
_WAITING: Final = 20

_hasher: Final = PasswordHasher()
_turn: Final = threading.BoundedSemaphore(_AT_ONCE)
_queue: Final = threading.BoundedSemaphore(_WAITING)
_nobody: Final = _hasher.hash("nobody has this password")


class Busy(Exception):
    """Too many passwords are being checked at once."""


def fault(password: str, name: str) -> str:
    """What is wrong with a new password, in words; empty when nothing is."""
    if len(password) < SHORTEST:
        return f"a password has at least {SHORTEST} characters: a sentence is easy to remember"
    if len(password) > LONGEST:
        return f"a password has at most {LONGEST} characters"
    if len(set(password.lower())) < 5:
        return "this password repeats the same few characters: take a sentence"
    if any(word in password.lower() for word in ("hilum", *(w for w in name.lower().split() if len(w) > 3))):
        return "a password contains neither the name nor the word hilum"
    return ""


def hashed(password: str) -> str:
    """Raises `Busy`."""
    with _Turn():
        return _hasher.hash(_same(password))


def is_right(password: str, known: str | None) -> bool:
    """Whether `known` is its hash; takes as long where there is none. Raises `Busy`."""
    with _Turn():
        try:
            return _hasher.verify(known or _nobody, _same(password)) and known is not None
        except (VerificationError, InvalidHashError):
            return False


def is_outdated(known: str) -> bool:
    """Whether it was hashed with less than is asked for today."""
    return _hasher.check_needs_rehash(known)


def _same(password: str) -> str:
    # One keyboard sends "é" as one character and another as two; both mean the same (NIST SP 800-63B-4 3.1.1.2).
    return unicodedata.normalize("NFKC", password)


class _Turn:
    def __enter__(self) -> None:
        if not _queue.acquire(blocking=False):
            raise Busy
        _turn.acquire()

    def __exit__(self, *_: object) -> None:
        _turn.release()
        _queue.release()
