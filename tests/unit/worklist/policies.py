"""The policy's desk on a ward, with the packaged model's card."""

from __future__ import annotations

from datetime import timedelta

from schemas.decision import Policy
from tests.contract.record.given import Record
from tests.unit.corridor.past import CARD, week
from tests.unit.worklist.ward import Ward
from worker.corridor.preview import Previews
from worker.decide.policy import thresholds
from worker.record.history import History
from worker.record.judged import Judged
from worker.record.policies import Policies
from worker.worklist.web.policy_desk import PolicyDesk


def policy_desk(ward: Ward) -> PolicyDesk:
    """Policies on the ward's record."""
    made = Previews(History(ward.database), Judged(ward.database), lambda: CARD, lambda: ward.now)
    return PolicyDesk(
        policies=Policies(ward.database),
        configured=Policy(),
        previews=lambda: made,
        check=lambda policy: thresholds(policy, CARD.thresholds),
    )


def past_week(ward: Ward, studies: int) -> None:
    """So many studies in the week before now."""
    week(Record(ward.database, ""), studies, until=ward.now - timedelta(hours=1))
