"""The other end of a channel, as the contract sees it: what it holds, and the habits that it can be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from worker.ports import Channel


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the receiver understands, in its own dialect, of one object or message that it has taken."""

    object_id: str  # by which a resend is known again
    revision: int
    withdrawn: bool
    urgent: bool  # above the standing order
    words: str  # everything that a person or a program can read in it


class Receiver(Protocol):
    """Listens on the loopback; made anew for every test, started, and stopped at its end."""

    def start(self) -> None:
        """Listen; after `stop`, again on the same port with what it held."""

    def stop(self) -> None:
        """Nobody listens; what it holds stays."""

    def channel(self, *, timeout: float = 5.0) -> Channel:
        """A channel to it; the test closes it."""

    def held(self) -> list[Held]:
        """What it holds, in the order of first arrival; the same object twice is one."""

    def refuse(self) -> None:
        """From now on it says no, for good: the dialect's permanent answer."""

    def overload(self) -> None:
        """From now on it says not now: the dialect's passing answer."""

    def stall(self) -> None:
        """From now on it takes what it is sent and never answers."""

    def reset(self) -> None:
        """From now on it drops the connection in the middle."""

    def heal(self) -> None:
        """It behaves again."""
