"""Which films may be scored: the administrator's rules, checked from header and pixels by `worker.decode.gate`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """Keyword lists are matched case-insensitively on whole words."""

    modalities: tuple[str, ...] = ("CR", "DX", "DR", "RG")
    chest_words: tuple[str, ...] = (
        *("chest", "thorax", "lung", "lungs", "rib", "ribs", "cxr"),
        *("torax", "tórax", "torace", "brustkorb", "poumon", "poumons", "pulmon"),
    )
    not_chest_words: tuple[str, ...] = (  # the film shows something else, unless a chest word stands beside it
        *("abdomen", "kub", "pelvis", "hip", "hips", "sacrum", "coccyx", "spine", "tspine", "lspine", "cspine"),
        *("lumbar", "cervical", "skull", "head", "face", "facial", "sinus", "sinuses", "orbit", "orbits"),
        *("nasal", "jaw", "mandible", "maxilla", "zygoma", "tooth", "teeth", "neck", "breast", "clavicle", "scapula"),
        *("shoulder", "humerus", "elbow", "forearm", "wrist", "hand", "finger", "thumb", "arm", "extremity", "femur"),
        *("knee", "patella", "leg", "tibia", "fibula", "ankle", "foot", "feet", "toe", "heel", "calcaneus"),
    )
    lateral_words: tuple[str, ...] = (
        *("lateral", "lat", "ll", "rl", "profile"),
        *("profil", "perfil", "laterale", "seitlich"),
    )
    oblique_words: tuple[str, ...] = ("oblique", "obl", "rao", "lao", "rpo", "lpo", "rlo", "llo")
    frontal_views: tuple[str, ...] = ("AP", "PA", "frontal", "anteroposterior", "posteroanterior", "antero", "postero")
    child_words: tuple[str, ...] = (  # only where the header gives no age
        *("pediatric", "paediatric", "neonatal", "neonate", "newborn", "infant", "baby", "babygram", "child"),
        *("pediatrics", "paediatrics", "peds", "neonates", "infants", "children"),
    )
    animal_words: tuple[str, ...] = ("canine", "feline", "equine", "bovine", "avian", "veterinary", "dog")
    minimum_age_years: float = 18.0
    assume_chest: bool = True  # a CR or DX that names no body part at all is let through to the pixel gate
    minimum_size: int = 200  # pixels on the shorter side; DICOM films only
