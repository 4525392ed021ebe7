"""Who hears of it: the site's destinations, each with what it asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, time

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.outcome import Audience, News


def recipients(audiences: Iterable[Audience], news: News, told: Collection[str]) -> list[str]:
    """Names of the destinations that hear of `news`, in the order of the configuration.

    Whoever was `told` of a study hears how it goes on, also when he would not have been told of that alone. What is
    withdrawn is told to them and to nobody else; that a study has been reported, only to those who keep a task for it.
    """
    if news.withdrawn is not None:
        tasks_only = news.withdrawn is Withdrawal.REPORTED
        return [a.name for a in audiences if a.name in told and (a.keeps_tasks or not tasks_only)]
    return [a.name for a in audiences if a.name in told or _asks_for(a, news)]


def _asks_for(audience: Audience, news: News) -> bool:
    return (
        (audience.when == "analysed" or news.urgency > Urgency.ROUTINE)
        and news.urgency >= audience.urgency
        and (not audience.called_ae or not audience.called_ae.isdisjoint(news.called_ae))
        and (not audience.modality or news.modality in audience.modality)
        and (not audience.findings or not audience.findings.isdisjoint(news.findings))
        and (audience.hours is None or _within(news.decided_at, *audience.hours))
    )


def _within(moment: datetime, start: time, until: time) -> bool:
    """Whether local time is in [start, until)."""
    now = moment.astimezone().time()
    return start <= now < until if start < until else now >= start or now < until
