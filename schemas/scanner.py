"""What a film was made with: whatever changes of it may change what a model says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST: Final = 64  # characters of each text; LO has no more (PS3.5 6.2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanner:
    """Manufacturer, Manufacturer's Model Name, View Position and Bits Stored, as a film's header has them."""

    manufacturer: str = ""
    model: str = ""
    view: str = ""
    bits_stored: int | None = None  # None: the header does not say

    def __post_init__(self) -> None:
        for name in ("manufacturer", "model", "view"):
            object.__setattr__(self, name, " ".join(getattr(self, name)[:LONGEST].split()))

    @property
    def words(self) -> str:
        """For a person: "Acme DR 9000, PA, 12 bit"."""
        device = " ".join(filter(None, (self.manufacturer, self.model))) or "unnamed scanner"
        depth = "" if self.bits_stored is None else f"{self.bits_stored} bit"
        return ", ".join(filter(None, (device, self.view or "no view", depth)))
