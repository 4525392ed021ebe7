"""Which films may be scored: the administrator's rules, checked from header and pixels by `worker.decode.gate`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """Keyword lists are matched case-insensitively on whole words."""

    modalities: tuple[str, ...] = ("CR", "DX", "DR", "RG")
    chest_words: tuple[str, ...] = ("chest", "thorax", "lung", "lungs", "rib", "ribs", "cxr")
    lateral_words: tuple[str, ...] = ("lateral", "lat", "ll", "rl", "profile")
    frontal_views: tuple[str, ...] = ("AP", "PA")
    minimum_age_years: float = 18.0
    assume_chest: bool = True  # a CR or DX that names no body part at all is let through to the pixel gate
    minimum_size: int = 200  # pixels on the shorter side; DICOM films only
