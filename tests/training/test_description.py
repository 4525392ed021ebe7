from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from schemas.findings import LABELS, Label
from training.description import Model, Run, Stage, outputs, presets, read

MINIMAL = '[[binary]]\nname = "a"\n'


@pytest.mark.parametrize("name", ["quick", "starter", "nih", "frozen", "full", "reference", "large"])
def test_presets_are_read_and_say_what_they_are_for(name: str) -> None:
    assert len(presets()[name]) > 20
    assert read(name).name == name


def test_every_preset_is_known_to_this_test() -> None:
    assert set(presets()) == {"quick", "starter", "nih", "frozen", "full", "reference", "large"}


def test_locked_toml_is_the_same_run(tmp_path: Path) -> None:
    run = Run(
        name="a.b",
        model=Model(groups={"les.ion": (Label.MASS, Label.NODULE)}, start='bundle:a"b\\c'),
        multilabel=(Stage(name="one"), Stage(name="two", ema=0.0)),
    )
    (tmp_path / "run.toml").write_text(run.to_toml())
    again = read(str(tmp_path / "run.toml"))
    assert again == run
    assert again.digest() == run.digest() != run.model_copy(update={"seed": 1}).digest()


def test_what_the_command_says_lies_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "a"\n[model]\nsize = 96\n' + MINIMAL)
    run = read(str(tmp_path / "a.toml"), name="b", seed=7, model={"start": "bundle:x"})
    assert (run.name, run.seed, run.model.start, run.model.size) == ("b", 7, "bundle:x", 96)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no stages"),
        ("a = [", "not TOML"),
        (MINIMAL + "epochs = 0\nbacth = 3", "binary.0.bacth"),
        (MINIMAL + "epochs = 0\nbacth = 3", "binary.0.epochs"),
        (MINIMAL + MINIMAL, "same name"),
        ('[model]\nbackbone = "resnet"\n' + MINIMAL, "densenet121"),
        ('[model]\nstart = "imagnet"\n' + MINIMAL, "model.start"),
        ("[model]\nsize = 7\n" + MINIMAL, "model.size"),
        ('[model.groups]\na = ["Mass"]\n' + MINIMAL, "two labels"),
        ('[model.groups]\na = ["Mass", "Nodule"]\nb = ["Mass", "Edema"]\n' + MINIMAL, "in two groups: Mass"),
        ('[model.groups]\na = ["Mass", "No Finding"]\n' + MINIMAL, "no finding"),
        ('[model.groups]\na = ["Mass", "Tumor"]\n' + MINIMAL, "model.groups.a"),
        ('[model.groups]\nMass = ["Nodule", "Edema"]\n' + MINIMAL, "name of its own: Mass"),
        ('[model.groups]\nbinary = ["Nodule", "Edema"]\n' + MINIMAL, "name of its own: binary"),
        ("[evaluate]\nsensitivity = 80\n" + MINIMAL, "evaluate.sensitivity"),
        ('[[binary]]\nname = "../a"\n', "binary.0.name"),
    ],
)
def test_a_fault_is_named_by_its_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        read(str(tmp_path / "bad.toml"))
    assert "bad.toml" in str(error.value)


def test_a_section_that_is_none_is_a_fault_too(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("model = 3\n" + MINIMAL)
    assert read("quick", model={"start": "imagenet"}).model.size == 96
    with pytest.raises(ConfigurationError, match="model"):
        read(str(tmp_path / "bad.toml"))


def test_what_is_neither_preset_nor_file_is_told_with_the_presets() -> None:
    with pytest.raises(ConfigurationError, match=r"neither a preset .*starter"):
        read("quik")


def test_outputs_cover_every_label_once() -> None:
    groups = {"opacity": (Label.PNEUMONIA, Label.INFILTRATION, Label.CONSOLIDATION)}
    covered = [label for _, labels in outputs(Model(groups=groups)) for label in labels]
    assert sorted(covered) == sorted(LABELS)


def test_a_size_that_a_backbone_cannot_reduce_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text('model = { backbone = "inception_resnet_v2" }\n' + MINIMAL)
    stages = [{"name": "a", "size": 64}]
    with pytest.raises(ConfigurationError, match="inception_resnet_v2 sees nothing in films of 64 px; 75"):
        read(str(tmp_path / "small.toml"), multilabel=stages)
    assert read(str(tmp_path / "small.toml"), multilabel=[{"name": "a", "size": 75}])
