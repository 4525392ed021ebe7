"""What the pages are made of: doors to the record, what only the assembled worker can do, and how a page is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse

from schemas.activation import Activation
from schemas.original import Original
from schemas.person import Person

if TYPE_CHECKING:
    from jinja2 import Environment

    from worker.record.audit import Audit
    from worker.record.outbox import Outbox
    from worker.record.people import People
    from worker.record.readings import Readings
    from worker.record.rejections import Rejections
    from worker.record.retrainings import Retrainings
    from worker.record.second_look import SecondLooks
    from worker.record.training_runs import TrainingRuns
    from worker.record.worklist import Worklist
    from worker.worklist.web.models_desk import ModelsDesk
    from worker.worklist.web.oidc import Provider
    from worker.worklist.web.policy_desk import PolicyDesk
    from worker.worklist.web.watch_desk import WatchDesk

_SAME_LOOK: Final = timedelta(minutes=10)


def now_utc() -> datetime:
    """The clock, unless another is passed in."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the site says of its pages, by `[web]` and `[worklist]`."""

    hosts: Collection[str] = ()  # names besides loopback by which browsers ask for it
    idle: timedelta = timedelta(minutes=30)  # then a session is locked
    longest: timedelta = timedelta(hours=14)  # then it is over
    research: bool = False  # maps and probabilities are shown
    viewer_url: str = ""  # template of a link into the hospital's viewer
    unopened: timedelta = timedelta(minutes=10)  # a flag that nobody opened for so long stands out
    undo: timedelta = timedelta(seconds=30)  # for so long a reading can be undone
    longest_wait: timedelta = timedelta(hours=8)  # then a study goes before all but STAT
    url: str = ""  # by which browsers reach the pages, where the site says it

    def address(self, request: Request) -> str:
        """Of the pages, as whoever asks reaches them, without a path."""
        return self.url or f"{request.url.scheme}://{request.headers['host']}"


def nothing_kept(*uids: str) -> None:
    """Where no film is to be had."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything that a page may ask for."""

    worklist: Worklist
    rejections: Rejections
    outbox: Outbox
    people: People
    audit: Audit
    readings: Readings
    second_looks: SecondLooks
    training: TrainingRuns
    retrainings: Retrainings
    next_time: Callable[[str, datetime], datetime]  # when a cron expression comes next after a moment
    status: Callable[[], Mapping[str, Any]]  # what this process serves: `model`, `dicom`, `spool_free_bytes`, …
    clock: Callable[[], datetime] = now_utc
    rules: Rules = field(default_factory=Rules)
    original: Callable[[str, str], Original | None] = nothing_kept  # by study and SOP Instance UID
    activation: Callable[[str, str, str], Activation | None] = nothing_kept  # and finding; research mode alone asks
    policy: PolicyDesk | None = None
    models: ModelsDesk | None = None
    register: Callable[[str, str, str], str] | None = None  # a bundle, why and by whom, as a candidate; its model id
    watch: WatchDesk | None = None
    oidc: Provider | None = None

    @cached_property
    def templates(self) -> Environment:
        """Of every page."""
        from worker.worklist.web.pages import environment

        return environment()

    def notices(self, status: Mapping[str, Any]) -> list[str]:
        """What whoever reads the list must know now: hilum is behind, flags are paused, a destination is down."""
        return [str(words) for words in status.get("notices", ())]

    def page(self, request: Request, name: str, values: Mapping[str, object], code: int = 200) -> HTMLResponse:
        """A page for whoever is signed in, if anybody is."""
        common = {
            "now": self.clock(),
            "person": getattr(request.state, "person", None),
            "csrf": getattr(request.state, "csrf", ""),
            "rules": self.rules,
            "path": request.url.path,
            "here": f"{request.url.path}?{request.url.query}".rstrip("?") if request.method == "GET" else "/",
        }
        return HTMLResponse(self.templates.get_template(name).render({**common, **values}), code)

    def looked(self, request: Request, study_uid: str) -> None:
        """A line for the audit trail; a page that is fetched again while it is looked at gives no further one."""
        person: Person = request.state.person
        for _, deed in self.audit.deeds(1, who=person.name, action="looked", study_uid=study_uid):
            if self.clock() - deed.at < _SAME_LOOK:
                return
        self.note(request, "looked", study_uid=study_uid)

    def note(self, request: Request, action: str, *, study_uid: str = "", **detail: Any) -> None:
        """A line for the audit trail, of whoever is signed in."""
        person: Person = request.state.person
        address = request.client.host if request.client else ""
        self.audit.note(person.name, action, self.clock(), study_uid=study_uid, detail=detail, address=address)
