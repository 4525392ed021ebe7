"""The site's policies as pages and commands work on them, and their previews. Part of the roof."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from worker.record.policies import Policies
from worker.record.registry import Registry
from worker.worklist.web.policy_desk import PolicyDesk

if TYPE_CHECKING:
    from schemas.card import ModelCard
    from schemas.decision import Policy
    from worker.corridor.preview import Previews
    from worker.record.database import Database
    from worker.settings import Settings


def policy_in_force(settings: Settings, database: Database) -> Policy:
    """What films are decided by now: what was enacted last, else the configuration's."""
    found = Policies(database).current(datetime.now(UTC))
    return settings.policy.policy() if found is None else found.policy


def policy_desk(settings: Settings, database: Database, configured: Callable[[], ModelCard]) -> PolicyDesk:
    """Policies on `database`; `configured` gives the card of the model that reads where none was ever promoted."""
    of_configuration = cache(configured)
    registry = Registry(database)

    def card() -> ModelCard:
        service = registry.service()
        return of_configuration() if service is None else service.live.card

    @cache
    def previews() -> Previews:
        from worker.corridor.preview import Previews
        from worker.record.history import History
        from worker.record.judged import Judged

        return Previews(History(database), Judged(database), card, lambda: datetime.now(UTC))

    def check(policy: Policy) -> dict[str, float]:
        from worker.decide.policy import thresholds

        return thresholds(policy, card().thresholds)

    return PolicyDesk(policies=Policies(database), configured=settings.policy.policy(), previews=previews, check=check)
