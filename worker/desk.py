"""What the pages are made of: from settings and the running worker to the page's own view. Part of the roof."""

from __future__ import annotations

import logging
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from schemas.person import Role
from worker.record.audit import Audit
from worker.record.outbox import Outbox
from worker.record.people import People
from worker.record.readings import Readings
from worker.record.rejections import Rejections
from worker.record.retrainings import Retrainings
from worker.record.second_look import SecondLooks
from worker.record.training_runs import TrainingRuns
from worker.record.worklist import Worklist
from worker.settings import EVERY_ADDRESS
from worker.worklist.web.desk import Desk, Rules, nothing_kept, now_utc
from worker.worklist.web.entry import digest, new_secret
from worker.worklist.web.routes.door import INVITED_FOR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schemas.activation import Activation
    from schemas.original import Original
    from worker.record.database import Database
    from worker.settings import Settings, Web
    from worker.worklist.web.models_desk import ModelsDesk
    from worker.worklist.web.oidc import Provider
    from worker.worklist.web.policy_desk import PolicyDesk
    from worker.worklist.web.watch_desk import WatchDesk

log = logging.getLogger("hilum")

FIRST: Final = "administrator"  # the name of whoever may enter first


def rules(settings: Settings) -> Rules:
    """What the site says of its pages."""
    web = settings.web
    hosts = [*web.hosts, *([urlsplit(web.url).hostname or ""] if web.url is not None else [])]
    if not is_loopback(web.host):
        hosts.append(web.host)
    return Rules(
        hosts=hosts,
        idle=timedelta(minutes=web.idle_minutes),
        longest=timedelta(hours=web.session_hours),
        research=web.research,
        viewer_url=web.viewer_url,
        unopened=timedelta(minutes=settings.worklist.unopened_minutes),
        undo=timedelta(seconds=settings.worklist.undo_seconds),
        longest_wait=timedelta(minutes=settings.worklist.longest_wait_minutes),
        url=web.url or "",
    )


def provider(settings: Settings) -> Provider | None:
    """Who else says who somebody is, by `[web.oidc]`."""
    if settings.web.oidc is None:
        return None
    from worker.worklist.web import oidc

    said = settings.web.oidc.model_dump() | {"client_secret": settings.web.oidc.client_secret.get_secret_value()}
    return oidc.Provider(oidc.Rules(**said))


def desk(
    settings: Settings,
    database: Database,
    status: Callable[[], Mapping[str, Any]],
    *,
    original: Callable[[str, str], Original | None] = nothing_kept,
    activation: Callable[[str, str, str], Activation | None] = nothing_kept,
    policy: PolicyDesk | None = None,
    watch: WatchDesk | None = None,
    models: ModelsDesk | None = None,
) -> Desk:
    """Everything that a page may ask for; `status` says what this process serves."""
    from worker.upkeep.calendar import next_time

    web = settings.web
    if not is_loopback(web.host):
        log.warning("web-open host=%s mend=put-a-proxy-that-speaks-TLS-before-it", web.host)
    return Desk(
        worklist=Worklist(database),
        rejections=Rejections(database),
        outbox=Outbox(database),
        people=People(database),
        audit=Audit(database),
        readings=Readings(database),
        second_looks=SecondLooks(database),
        training=TrainingRuns(database),
        retrainings=Retrainings(database),
        next_time=next_time,
        status=status,
        rules=rules(settings),
        oidc=provider(settings),
        original=original,
        activation=activation,
        policy=policy,
        watch=watch,
        models=models,
        register=None if models is None else models.enter,
    )


def address(web: Web, port: int = 0) -> str:
    """Of the page, without a path: as configured, or by host and `port` (0: the configured one)."""
    if web.url is not None:
        return web.url
    host = "localhost" if web.host in EVERY_ADDRESS else web.host
    return f"http://{f'[{host}]' if ':' in host else host}:{port or web.port}"


def first_link(database: Database, address: str) -> str:
    """Where the first administrator chooses a password; empty once somebody can enter. Each call voids the one before.

    `address`: of the page, without a path.
    """
    people = People(database)
    if any(a.has_password or a.subject for a in people.everybody() if a.role is Role.ADMINISTRATOR and not a.disabled):
        return ""
    account = people.named(FIRST)
    person = people.add(FIRST, Role.ADMINISTRATOR, now_utc()).id if account is None else account.id
    secret = new_secret()
    people.invite(person, digest(secret), now_utc() + INVITED_FOR)
    return f"{address}/welcome/{secret}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
