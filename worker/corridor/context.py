"""The story beside the films: what the hospital says of patients, orders and reports (HL7 v2).

A message is understood, recorded together with what follows from it, and only then accepted: whatever was accepted is
on the disk, and whatever was not its sender keeps and sends again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from schemas.context import Content, Order, SignedReport
from schemas.errors import MessageRefused, RecordError
from schemas.identity import Sender
from schemas.outcome import Route
from schemas.rejection import Rejection
from worker.corridor.bell import Bell
from worker.receive.hl7_content import Rules, understand
from worker.receive.hl7_in import Answer, Message, acknowledge, open_message
from worker.record.context import Context
from worker.record.rejections import Rejections

log = logging.getLogger("hilum.context")


class Hearing:
    """Called by the listener for each message; what it returns goes back to the sender."""

    def __init__(
        self,
        context: Context,
        rejections: Rejections,
        rules: Rules,
        route: Route,
        work: Bell,
        news: Bell,
        clock: Callable[[], datetime],
    ) -> None:
        self._context = context
        self._rejections = rejections
        self._rules = rules
        self._route = route
        self._work = work
        self._news = news
        self._clock = clock

    def __call__(self, block: bytes, address: str) -> bytes:
        """Understand, record, act, answer. Raises nothing: whatever goes wrong is answered so."""
        now = self._clock()
        message: Message | None = None
        try:
            message = open_message(block)
            contents = understand(message, self._rules, now)
            self._record(message, contents, now)
        except MessageRefused as refusal:
            self._turn_away(refusal, address, now)
            return acknowledge(message, Answer.REJECT, now, refusal)
        except RecordError as error:
            log.warning("not-recorded error=%s", error)
            return acknowledge(message, Answer.ERROR, now)
        except Exception as error:  # noqa: BLE001  its words, and the locals of a traceback, may hold a patient
            log.error("not-understood error=%s", type(error).__name__)
            return acknowledge(message, Answer.ERROR, now)
        return acknowledge(message, Answer.ACCEPT, now)

    def _record(self, message: Message, contents: tuple[Content, ...], now: datetime) -> None:
        kind = "^".join(message.kind)
        if not contents:
            log.info("heard kind=%s outcome=nothing-for-us", kind)
            return
        taken = self._context.take(message.id, contents, self._route, now)
        if taken.studies:
            self._work.ring()
            self._news.ring()
        # An order without an accession number waits for a message that names it: until then it moves no study.
        log.info(
            "heard kind=%s outcome=%s studies=%d told=%d no-verdict=%d no-accession=%d",
            kind,
            "again" if taken.repeated else "new",
            taken.studies,
            taken.told,
            sum(isinstance(content, SignedReport) and content.verdict is None for content in contents),
            sum(isinstance(content, Order) and not content.accession_number for content in contents),
        )

    def _turn_away(self, refusal: MessageRefused, address: str, now: datetime) -> None:
        """The page shows who sends what is not taken, with the mend."""
        log.warning("refused condition=%s what=%r", refusal.condition, str(refusal))
        try:
            self._rejections.add(
                Rejection(
                    sender=Sender(calling_ae="HL7 v2", called_ae="", address=address),
                    what=str(refusal),
                    mend=_mend(refusal),
                    at=now,
                )
            )
        except RecordError:
            log.warning("rejection-not-recorded")


def _mend(refusal: MessageRefused) -> str:
    if refusal.location:
        return f"mend {refusal.location.replace('^', '-')} at the sender"
    return (
        "let the sender say it in several messages" if refusal.condition == "104" else "mend the message at the sender"
    )
