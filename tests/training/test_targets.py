from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.findings import LABELS, Label
from training.description import Loss, Model
from training.nih_index import NihFilm
from training.targets import binary_start, columns_of, for_export, wanted

GROUPS = {
    "opacity": (Label.PNEUMONIA, Label.INFILTRATION, Label.CONSOLIDATION),
    "lesion": (Label.MASS, Label.NODULE),
}
AUXILIARY = Loss(auxiliary=("sex", "view", "age"))
RNG = np.random.default_rng(0)


def film(*labels: Label, age: int | None = 40, sex: str = "M", view: str = "AP") -> NihFilm:
    return NihFilm(name="a.png", patient=1, labels=frozenset(labels), path=Path("a.png"), age=age, sex=sex, view=view)


def one_hot(*labels: Label) -> np.ndarray:
    return np.array([[label in labels for label in LABELS]], np.float32)


def weights(outputs: int) -> dict[str, np.ndarray]:
    return {
        "maps/kernel": RNG.normal(size=(1, 1, 8, outputs)).astype(np.float32),
        "maps/bias": RNG.normal(size=outputs).astype(np.float32),
        "conv/kernel": np.ones((1, 1, 3, 8), np.float32),
    }


def test_without_groups_the_outputs_are_the_labels() -> None:
    columns = columns_of("multilabel", Model(), Loss())
    assert columns.names == LABELS
    assert columns.main == 15
    assert columns.judged == tuple(range(14)), "No Finding is not among what is judged"
    labels = one_hot(Label.MASS)
    assert (wanted(columns, [film(Label.MASS)], labels) == labels).all()


def test_a_group_is_there_when_one_of_its_labels_is() -> None:
    columns = columns_of("multilabel", Model(groups=GROUPS), Loss())
    assert columns.main == 15 - 3
    assert columns.names[2] == "opacity", "a group stands where its first label would"
    got = wanted(columns, [film()], one_hot(Label.NODULE, Label.EDEMA))[0]
    assert [columns.names[k] for k in np.flatnonzero(got)] == ["Edema", "lesion"]


def test_a_groups_output_is_exported_for_each_of_its_labels() -> None:
    columns = columns_of("multilabel", Model(groups=GROUPS), AUXILIARY)
    trained = weights(len(columns.names))
    served = for_export(trained, columns)
    assert served["maps/bias"].shape == (15,)
    lesion = columns.names.index("lesion")
    for label in GROUPS["lesion"]:
        assert (served["maps/kernel"][..., LABELS.index(label)] == trained["maps/kernel"][..., lesion]).all()
    assert served["maps/bias"][LABELS.index(Label.EDEMA)] == trained["maps/bias"][columns.names.index("Edema")]
    assert served["conv/kernel"] is trained["conv/kernel"]


def test_what_the_table_knows_is_asked_too_and_what_it_does_not_is_half() -> None:
    columns = columns_of("binary", Model(), AUXILIARY)
    assert columns.names[:3] == ("binary", "male", "AP")
    assert columns.main == 1
    films = [film(age=50, sex="F", view="PA"), film(age=None, sex="", view="")]
    got = wanted(columns, films, np.concatenate([one_hot(Label.NO_FINDING), one_hot(Label.MASS)]))
    assert got[0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert got[1].tolist() == [1, *[0.5] * 7]


def test_the_binary_model_starts_as_no_finding_turned_round() -> None:
    source, target = columns_of("multilabel", Model(), AUXILIARY), columns_of("binary", Model(), AUXILIARY)
    multilabel = weights(len(source.names))
    start = binary_start(multilabel, source, target)
    x = RNG.normal(size=8)
    one = x @ multilabel["maps/kernel"][0, 0] + multilabel["maps/bias"]
    other = x @ start["maps/kernel"][0, 0] + start["maps/bias"]
    assert other[0] == pytest.approx(-one[14])
    assert np.allclose(other[1:], one[15:]), "auxiliary outputs go on as they were"
    assert for_export(start, target)["maps/bias"].shape == (1,)
