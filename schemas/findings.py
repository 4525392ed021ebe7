"""The 15 labels of NIH ChestX-ray14, in the order of the model's outputs, and their codes.

Labels: Wang et al., CVPR 2017, doi:10.1109/CVPR.2017.369; order as in the published
`Data_Entry_2017_v2020.csv` when sorted, "No Finding" last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Label(StrEnum):
    """One output of the multilabel model; the value is NIH's spelling."""

    ATELECTASIS = "Atelectasis"
    CARDIOMEGALY = "Cardiomegaly"
    CONSOLIDATION = "Consolidation"
    EDEMA = "Edema"
    EFFUSION = "Effusion"
    EMPHYSEMA = "Emphysema"
    FIBROSIS = "Fibrosis"
    HERNIA = "Hernia"
    INFILTRATION = "Infiltration"
    MASS = "Mass"
    NODULE = "Nodule"
    PLEURAL_THICKENING = "Pleural_Thickening"
    PNEUMONIA = "Pneumonia"
    PNEUMOTHORAX = "Pneumothorax"
    NO_FINDING = "No Finding"


LABELS: Final[tuple[Label, ...]] = tuple(Label)
FINDINGS: Final[tuple[Label, ...]] = LABELS[:-1]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8): Code Value, Coding Scheme Designator, Code Meaning."""

    value: str
    scheme: str
    meaning: str


# SNOMED CT codes (designator SCT) of the findings; the words are the terminology's own.
SNOMED: Final[dict[Label, Code]] = {
    Label.ATELECTASIS: Code("46621007", "SCT", "Atelectasis"),
    Label.CARDIOMEGALY: Code("8186001", "SCT", "Cardiomegaly"),
    Label.CONSOLIDATION: Code("95436008", "SCT", "Lung consolidation"),
    Label.EDEMA: Code("19242006", "SCT", "Pulmonary edema"),
    Label.EFFUSION: Code("60046008", "SCT", "Pleural effusion"),
    Label.EMPHYSEMA: Code("87433001", "SCT", "Pulmonary emphysema"),
    Label.FIBROSIS: Code("51615001", "SCT", "Fibrosis of lung"),
    Label.HERNIA: Code("39839004", "SCT", "Diaphragmatic hernia"),
    Label.INFILTRATION: Code("409609008", "SCT", "Radiologic infiltrate of lung"),
    Label.MASS: Code("309529002", "SCT", "Lung mass"),
    Label.NODULE: Code("786838002", "SCT", "Nodule of lung"),
    Label.PLEURAL_THICKENING: Code("301256004", "SCT", "Pleura finding"),  # the nearest wider concept that is sure
    Label.PNEUMONIA: Code("233604007", "SCT", "Pneumonia"),
    Label.PNEUMOTHORAX: Code("36118008", "SCT", "Pneumothorax"),
}
