"""What each output of a network is asked: labels or groups of them, any finding, and what else the table knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.findings import LABELS, Label
from training import network
from training.description import Loss, Model, Task, outputs
from training.nih_index import NihFilm

AGES: Final = (25, 35, 45, 55, 65)  # years: "at least so old?", once for each

_NO_FINDING: Final = LABELS.index(Label.NO_FINDING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The outputs of a network that is being trained, the bundle's own first."""

    task: Task
    names: tuple[str, ...]
    members: tuple[tuple[Label, ...], ...]  # of each own output: the labels that it answers for; none for "binary"
    main: int  # how many are the bundle's own
    judged: tuple[int, ...]  # those whose mean AUROC says how good the network is: all but "No Finding"


def columns_of(task: Task, model: Model, loss: Loss) -> Columns:
    """The columns that a description asks for."""
    own = outputs(model) if task == "multilabel" else (("binary", ()),)
    extra: list[str] = []
    for what in loss.auxiliary:
        extra += {"sex": ["male"], "view": ["AP"], "age": [f"age {years}" for years in AGES]}[what]
    return Columns(
        task=task,
        names=(*(name for name, _ in own), *extra),
        members=tuple(labels for _, labels in own),
        main=len(own),
        judged=tuple(i for i, (_, labels) in enumerate(own) if Label.NO_FINDING not in labels),
    )


def wanted(columns: Columns, films: Sequence[NihFilm], labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (N, K) in [0, 1]. `labels` (N, 15) may be soft; what the table does not know of a film is 0.5."""
    made = np.empty((len(films), len(columns.names)), np.float32)
    for k, name in enumerate(columns.names):
        if name == "binary":
            made[:, k] = 1.0 - labels[:, _NO_FINDING]
        elif k < columns.main:
            made[:, k] = labels[:, [LABELS.index(label) for label in columns.members[k]]].max(axis=1)
        else:
            made[:, k] = [_known(film, name) for film in films]
    return made


def for_export(weights: network.Weights, columns: Columns) -> network.Weights:
    """The last layer as a bundle has it: auxiliary outputs gone, a group's output repeated for each of its labels."""
    if columns.task == "binary":
        return network.columns(weights, [0])
    return network.columns(weights, [next(k for k, m in enumerate(columns.members) if x in m) for x in LABELS])


def binary_start(multilabel: network.Weights, source: Columns, target: Columns) -> network.Weights:
    """The binary network to begin with: the multilabel one, its "No Finding" turned round."""
    at = source.names.index(Label.NO_FINDING)
    start = dict(network.columns(multilabel, [at, *(source.names.index(name) for name in target.names[1:])]))
    sign = np.ones(len(target.names), np.float32)
    sign[0] = -1.0
    return start | {"maps/kernel": start["maps/kernel"] * sign, "maps/bias": start["maps/bias"] * sign}


def _known(film: NihFilm, name: str) -> float:
    if name == "male":
        return {"M": 1.0, "F": 0.0}.get(film.sex, 0.5)
    if name == "AP":
        return {"AP": 1.0, "PA": 0.0}.get(film.view, 0.5)
    return 0.5 if film.age is None else float(film.age >= int(name.removeprefix("age ")))
