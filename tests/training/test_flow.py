"""From a folder in NIH's layout to a bundle, with a small network in DenseNet's place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from schemas.card import model_id, read_card
from schemas.findings import LABELS
from training import cli
from training.compare import variants
from training.description import Over, read
from training.trainer import held

COLUMNS = {"binary", *LABELS}
PLAN = """
name = "small"
[model]
size = 48
start = "random"
[loss]
auxiliary = ["sex", "view", "age"]
[evaluate]
rounds = 20
[[multilabel]]
name = "short"
size = 32
batch = 8
[[multilabel]]
name = "longer"
size = 48
batch = 8
epochs = 2
[[binary]]
name = "short"
size = 32
batch = 8
"""

app = typer.Typer()
app.command()(cli.train)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "plan.toml"


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch, small_model: None) -> None:
    """The small network is no bundle for a real worker; `tests/acceptance/test_training.py` has a real one."""
    monkeypatch.setattr(cli, "_proven_by_the_worker", lambda bundle: None)


def train(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_from_films_to_bundle_and_report(nih: Path, plan: Path, tmp_path: Path) -> None:
    (nih / "images" / "00000002_000.png").write_bytes(b"no film")
    out = train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    run = tmp_path / "run"
    assert str(run / "bundle") in out
    card = read_card(run / "bundle")
    assert (card.name, card.input_size, card.architecture) == ("small", 48, "densenet121")
    assert set(card.thresholds) == set(card.calibration) == COLUMNS
    assert all(0 < t < 1 for t in card.thresholds.values())
    assert card.metrics["test"]["films"] == 10
    assert card.metrics["test"]["patients"] == 5
    assert set(card.metrics["test"]["findings"]) == set(LABELS)
    assert card.metrics["test"]["binary"]["at_balanced_point"]["threshold"] > 0
    assert [(each["task"], each["stage"], len(each["epochs"])) for each in card.training["history"]] == [
        ("multilabel", "short", 1),
        ("multilabel", "longer", 2),
        ("binary", "short", 1),
    ]
    assert card.training["unreadable"] == 1
    assert card.training["start"] == ["random weights"]
    assert "60" not in card.limits[0] and "not for clinical use" in card.limits[0]
    json.loads((run / "bundle" / "card.json").read_text(), parse_constant=pytest.fail)
    assert "</html>" in (run / "report.html").read_text()
    assert json.loads((run / "progress.json").read_text())["task"] == "done"
    assert json.loads((run / "split.json").read_text())["digest"] == card.split_hash
    with np.load(run / "bundle" / "multilabel.npz") as weights:
        assert weights["maps/kernel"].shape[-1] == 15, "auxiliary outputs stay in training"


def test_same_command_and_seed_give_the_same_bundle(nih: Path, plan: Path, tmp_path: Path) -> None:
    ids = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train("--data", nih, "--preset", plan, "--run-folder", tmp_path / name, "--seed", seed)
        ids.append(model_id(read_card(tmp_path / name / "bundle")))
    assert ids[0] == ids[1] != ids[2]


def test_each_step_alone_in_turn(nih: Path, plan: Path, tmp_path: Path) -> None:
    made = {
        "index": "index.json",
        "split": "split.json",
        "fit": "binary/weights.npz",
        "calibrate": "calibration.json",
        "evaluate": "metrics.json",
        "report": "report.html",
        "export": "bundle/card.json",
    }
    for step, file in made.items():
        assert not (tmp_path / "run" / file).exists()
        train(step, "--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
        assert (tmp_path / "run" / file).is_file()


def test_one_model_alone_takes_the_other_from_a_bundle(nih: Path, plan: Path, tmp_path: Path) -> None:
    train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "both")
    kept = tmp_path / "both" / "bundle"
    plan.write_text(PLAN.replace("[model]", f'[model]\nkeep = "{kept}"').replace('"random"', f'"bundle:{kept}"'))
    train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "one", "--only", "binary", "--against", kept)
    bundle = tmp_path / "one" / "bundle"
    assert (bundle / "multilabel.npz").read_bytes() == (kept / "multilabel.npz").read_bytes()
    assert (bundle / "binary.npz").read_bytes() != (kept / "binary.npz").read_bytes()
    card = read_card(bundle)
    assert {each["task"] for each in card.training["history"]} == {"binary"}
    assert card.training["kept"] == {"multilabel": "small 0.1.0"}
    assert card.training["unseen"]
    assert card.metrics["against"]["same_split"]
    assert card.metrics["against"]["comparison"]["macro_auroc"]["difference"]["value"] == 0.0


def test_label_groups_share_an_output(nih: Path, plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace("[loss]", '[model.groups]\nlesion = ["Mass", "Nodule"]\n[loss]'))
    train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    with np.load(tmp_path / "run" / "bundle" / "multilabel.npz") as weights:
        kernel = weights["maps/kernel"]
    assert (kernel[..., LABELS.index("Mass")] == kernel[..., LABELS.index("Nodule")]).all()


def test_a_report_with_films_shows_them_and_one_without_names_none(nih: Path, plan: Path, tmp_path: Path) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    train(*words)
    plain = (tmp_path / "run" / "report.html").read_text()
    assert "00000025_000" not in plain
    train("report", *words, "--with-films")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/" in page
    assert len(page) > len(plain)


def test_another_description_needs_another_folder(nih: Path, plan: Path, tmp_path: Path) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    train("fit", *words)
    assert "another description" in train("index", *words, "--seed", 9, code=2)


def test_other_labels_need_another_folder(nih: Path, plan: Path, tmp_path: Path) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    train("fit", *words)
    _replace(nih / "Data_Entry_2017_v2020.csv", "Cardiomegaly", "Hernia")
    assert "labels" in train("fit", *words, code=2)


def test_figures_are_never_those_of_other_weights(nih: Path, plan: Path, tmp_path: Path) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    train(*words)
    path = tmp_path / "run" / "multilabel" / "weights.npz"
    with np.load(path) as saved:
        np.savez(path, **{key: saved[key][..., ::-1] if key == "maps/kernel" else saved[key] for key in saved.files})
    before = json.loads((tmp_path / "run" / "metrics.json").read_text())
    train("export", *words)
    after = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert before["test"]["macro_auroc"] != after["test"]["macro_auroc"]
    assert read_card(tmp_path / "run" / "bundle").metrics["test"] == after["test"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda nih: (nih / "Data_Entry_2017_v2020.csv").unlink(), "Data_Entry_2017"),
        (lambda nih: (nih / "test_list.txt").unlink(), "test_list.txt"),
        (lambda nih: [p.unlink() for p in (nih / "images").iterdir()], "film"),
        (lambda nih: _replace(nih / "Data_Entry_2017_v2020.csv", "Finding Labels", "Labels"), "Finding Labels"),
        (lambda nih: _replace(nih / "Data_Entry_2017_v2020.csv", "Cardiomegaly", "Cardiomegali"), "Cardiomegali"),
        (lambda nih: _append(nih / "train_val_list.txt", "00000029_000.png\n"), "both lists"),
    ],
)
def test_bad_input_is_one_clear_error_and_no_bundle(
    nih: Path, plan: Path, tmp_path: Path, spoil: object, words: str
) -> None:
    spoil(nih)  # type: ignore[operator]
    out = train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run", code=2)
    assert words in out
    assert "Traceback" not in out
    assert not (tmp_path / "run" / "bundle").exists()


def test_a_full_disk_names_the_file_and_loses_nothing(
    nih: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    real, calls = np.savez, []

    def full(file: IO[bytes], **arrays: object) -> None:
        calls.append(file)
        if len(calls) == 4:  # in the second stage
            file.write(b"half")
            raise OSError("27700 requested and 0 written")  # as NumPy says it
        real(file, **arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "savez", full)
    out = train(*words, code=1)
    assert "longer/checkpoint.npz: cannot be written" in out.replace("\n", "")
    assert "same command again" in out.replace("\n", " ")
    monkeypatch.setattr(np, "savez", real)
    assert not [p for p in (tmp_path / "run").rglob("*") if ".new" in p.name], "nothing half-written is left"
    before = (tmp_path / "run" / "multilabel" / "short" / "checkpoint.npz").stat().st_mtime_ns
    train(*words)
    assert (tmp_path / "run" / "multilabel" / "short" / "checkpoint.npz").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", b"no archive"])
@pytest.mark.parametrize("file", ["longer/checkpoint.npz", "weights.npz"])
def test_a_damaged_checkpoint_is_told_with_the_mend(
    nih: Path, plan: Path, tmp_path: Path, file: str, damage: bytes
) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    train("fit", *words)
    (tmp_path / "run" / "multilabel" / file).write_bytes(damage)
    if file != "weights.npz":
        (tmp_path / "run" / "multilabel" / "weights.npz").unlink()
    out = train(*words, code=1).replace("\n", "")
    assert file in out
    assert "damaged" in out


def test_two_of_the_same_command_do_not_meet(nih: Path, plan: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with held(run):
        assert "another process" in train("index", "--data", nih, "--preset", plan, "--run-folder", run, code=2)


def test_a_bundle_of_another_split_is_told(nih: Path, plan: Path, tmp_path: Path) -> None:
    """Its weights may have seen the test patients."""
    train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "one", "--seed", 4)
    start = f"bundle:{tmp_path / 'one' / 'bundle'}"
    train("--data", nih, "--preset", plan, "--run-folder", tmp_path / "two", "--seed", 5, "--start", start)
    card = read_card(tmp_path / "two" / "bundle")
    assert card.split_hash != read_card(tmp_path / "one" / "bundle").split_hash
    assert any("another split" in limit for limit in card.limits)
    assert not card.training["unseen"]
    assert "neither model has seen" not in (tmp_path / "two" / "report.html").read_text()
    assert "neither model has seen" in (tmp_path / "one" / "report.html").read_text()


def test_names_are_looked_up_before_anything_is_trained(nih: Path, plan: Path, tmp_path: Path) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    assert "starterr" in train(*words, "--against", "starterr", code=1)
    assert "no such file" in train(*words, "--start", "torch:/nowhere.pth", code=2).replace("\n", " ")
    assert "224 px" in train(*words, "--only", "binary", code=2).replace("\n", " "), "starter is of another size"
    assert not (tmp_path / "run" / "run.toml").exists(), "what was refused locks nothing"


def test_another_aim_needs_no_new_fit(nih: Path, plan: Path, tmp_path: Path) -> None:
    words = ("--data", nih, "--preset", plan, "--run-folder", tmp_path / "run")
    train(*words)
    one = read_card(tmp_path / "run" / "bundle")
    plan.write_text(PLAN.replace("rounds = 20", "rounds = 20\nprevalence = { binary = 0.1 }"))
    train("export", *words)
    two = read_card(tmp_path / "run" / "bundle")
    assert model_id(one) == model_id(two)
    sites = [card.metrics["test"]["binary"]["at_site"]["prevalence"] for card in (one, two)]
    assert sites[1] == 0.1 != sites[0]


def test_networks_are_compared_and_what_was_trained_is_not_trained_again(nih: Path, plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace('[[multilabel]]\nname = "longer"\nsize = 48\nbatch = 8\nepochs = 2\n', ""))
    words = ("compare", "--data", nih, "--preset", plan, "--run-folder", tmp_path / "run", "--over", "auxiliary")
    out = train(*words)
    rows = json.loads((tmp_path / "run" / "compare.json").read_text())
    assert [row["variant"] for row in rows] == ["labels-alone", "auxiliary"]
    assert "labels-alone" in out
    kept = tmp_path / "run" / "compare" / "auxiliary" / "binary" / "short" / "checkpoint.npz"
    before = kept.stat().st_mtime_ns
    train(*words)
    assert kept.stat().st_mtime_ns == before
    assert len((tmp_path / "run" / "compare.csv").read_text().splitlines()) == 3


def test_backbones_and_constructions_of_the_reference(plan: Path) -> None:
    plan.write_text(re.sub(r"size = \d+", "size = 96", plan.read_text()))  # not every backbone takes films so small
    made = variants(read(str(plan)), [Over.BACKBONE, Over.CONSTRUCTION])
    assert len(made) == 5 * 3
    frozen, first = made["vgg16-frozen"], made["xception-head-first"]
    assert frozen.model.backbone == "vgg16"
    assert {stage.train for stage in (*frozen.multilabel, *frozen.binary)} == {"head"}
    assert [stage.train for stage in first.multilabel] == ["head", "all", "all"]
    assert variants(read(str(plan)), [])["as-described"] == read(str(plan))
    assert len(variants(read(str(plan)), [Over.LOSS, Over.AUGMENTATION])) == 4 * 3


def test_presets_are_listed() -> None:
    out = train("presets")
    assert "quick" in out and "starter" in out


def _replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
