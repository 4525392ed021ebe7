"""What the pages of the models are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.record.registry import Registry
    from worker.record.shadow import Shadows


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelsDesk:
    """The registry, and what a candidate says in silence."""

    registry: Registry
    shadows: Shadows
    offered: Callable[[], Sequence[str]]  # names of the store's bundles
    enter: Callable[[str, str, str], str]  # a bundle, why and by whom, as a candidate; its model id. `HilumError`
    two_people: bool = False  # whoever promotes is not who brought it into the shadow
