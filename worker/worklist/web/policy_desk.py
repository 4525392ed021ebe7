"""What the policy's pages and commands are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from schemas.decision import Policy
from schemas.policy import CONFIGURED
from schemas.preview import Curve, Preview

if TYPE_CHECKING:
    from worker.record.policies import Policies


class Previews(Protocol):
    """What past studies would have been: a `worker.corridor.preview.Previews`."""

    def preview(self, edited: Policy, in_force: Policy, days: float, *, fresh: bool = False) -> Preview: ...

    def curves(self, days: float) -> dict[str, Curve]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyDesk:
    """The site's policies, and what they would have raised."""

    policies: Policies
    configured: Policy  # number 0
    previews: Callable[[], Previews]
    check: Callable[[Policy], Mapping[str, float]]  # operating points; `ConfigurationError` where the model lacks one

    def in_force(self, now: datetime) -> tuple[int, Policy]:
        """The number of the policy in force, and what it says."""
        found = self.policies.current(now)
        return (CONFIGURED, self.configured) if found is None else (found.number, found.policy)

    def body(self, number: int) -> Policy:
        """What a policy says. Raises `PolicyUnknown`."""
        return self.configured if number == CONFIGURED else self.policies.show(number).policy
