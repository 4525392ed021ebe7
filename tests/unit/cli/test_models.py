"""`hilum models` and `hilum runs` as a person and a program meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from schemas.card import read_card
from schemas.figures import Figure, binary_auroc, figure_in, macro_auroc, of_output
from schemas.training_run import Progress
from tests.unit.infer.bundles import FakeRuntime, card, write_bundle
from worker.cli import main, models, options, runs
from worker.infer import exports
from worker.record.database import Database
from worker.record.training_runs import TrainingRuns
from worker.tensor import recipe

METRICS = {
    "test": {
        "macro_auroc": {"value": 0.731, "low": 0.7, "high": 0.76},
        "binary": {"auroc": {"value": 0.751, "low": None, "high": None}, "sensitivity": 0.8},
        "findings": {"Mass": {"auroc": None}},
    }
}


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with its own store and database, a packaged bundle, and a runtime that answers golden films rightly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models.console, "_width", 200)
    monkeypatch.setattr(models, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setattr(exports, "load_runtime", lambda name, bundle, threads: Proven(bundle))
    (tmp_path / "hilum.toml").write_text('[database]\nurl = "sqlite:///hilum.db"\n[model]\nstore = "store"\n')
    write_bundle(tmp_path / "packaged" / "starter", name="starter", recipe_fingerprint=recipe.fingerprint(4))
    return tmp_path


class Proven(FakeRuntime):
    def __init__(self, bundle: Any) -> None:
        super().__init__()
        bundle.replay(self)


def call(app: typer.Typer, *words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def bundle(folder: Path, **fields: Any) -> Path:
    write_bundle(folder, **{"recipe_fingerprint": recipe.fingerprint(4), "name": folder.name, **fields})
    return folder


def test_a_bundle_comes_in_is_listed_shown_verified_and_goes_out(site: Path) -> None:
    bundle(site / "mine", version="2", metrics=METRICS, limits=("One hospital.",), provenance="NIH")
    taken = lines(call(models.app, "import", "mine", "--json"))[0]
    assert (taken["name"], taken["outcome"]) == ("mine", "new")
    mine, starter = lines(call(models.app, "list", "--json"))
    assert (mine["name"], mine["where"], mine["in_service"], mine["version"]) == ("mine", "store", False, "2")
    assert mine["macro"] == {"value": 0.731, "low": 0.7, "high": 0.76}
    assert (starter["where"], starter["in_service"], starter["macro"]) == ("packaged", True, None)
    table = call(models.app, "list").stdout
    assert "0.73 (0.70 to 0.76)" in table
    assert "●" in next(line for line in table.splitlines() if "starter" in line)
    shown = call(models.app, "show", "mine").stdout
    for words in ("One hospital.", "Apache-2.0", "NIH", "0.75", "Pleural Thickening"):
        assert words in shown
    assert lines(call(models.app, "show", "mine", "--json"))[0]["card"]["version"] == "2"
    proof = lines(call(models.app, "verify", "mine", "--json"))[0]
    assert proof["ok"]
    assert [c["check"] for c in proof["checks"]] == ["files", "recipe", "fake (none)"]
    assert "hilum models add again" in call(models.app, "import", "mine", "--name", "again").stdout
    assert "restart the worker" in call(models.app, "import", "mine", "--name", "starter", "--replace").stdout
    call(models.app, "export", "mine", "--to", ".")
    assert (site / "mine-2.zip").is_file()
    assert "there already" in call(models.app, "export", "mine", "--to", ".", code=2).output
    call(models.app, "export", "mine", "--to", ".", "--replace")
    assert lines(call(models.app, "import", "mine-2.zip", "--json"))[0]["outcome"] == "same"


def test_a_models_id_can_be_copied_from_a_narrow_terminal(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = lines(call(models.app, "list", "--json"))[0]["model_id"]
    monkeypatch.setattr(options, "console", Console(width=60, force_terminal=True, color_system=None))
    assert wanted in call(models.app, "list").stdout


def test_verify_fails_by_its_exit_code_and_says_why(site: Path) -> None:
    bundle(site / "store" / "spoiled")
    (site / "store" / "spoiled" / "binary.npz").write_bytes(b"rust")
    proof = lines(call(models.app, "verify", "spoiled", "--json", code=1))[0]
    assert not proof["ok"]
    assert "SHA-256" in proof["checks"][0]["words"]
    assert "FAIL" in call(models.app, "verify", "spoiled", code=1).stdout
    bundle(site / "store" / "wrong")
    np.savez(site / "golden.npz", inputs=np.zeros((1, 4, 4, 3), np.uint8), binary=np.ones(1), findings=np.ones((1, 15)))
    bundle(site / "off")
    raw = json.loads((site / "off" / "card.json").read_text())
    content = (site / "golden.npz").read_bytes()
    (site / "off" / "golden.npz").write_bytes(content)
    import hashlib

    raw["files"]["golden.npz"] = hashlib.sha256(content).hexdigest()
    (site / "off" / "card.json").write_text(json.dumps(raw))
    assert "golden film" in call(models.app, "verify", "./off", code=1).stdout
    assert "golden film" in call(models.app, "import", "off", code=1).output
    assert not (site / "store" / "off").exists()


def test_what_is_not_there_or_unusable_is_told(site: Path) -> None:
    assert "there are: starter" in call(models.app, "show", "nothing", code=1).output
    (site / "store" / "empty").mkdir(parents=True)
    assert "cannot be read" in call(models.app, "list").stdout
    assert lines(call(models.app, "list", "--json"))[0]["fault"]
    assert "cannot be read" in call(models.app, "show", "empty", code=1).output
    assert "--half is for" in call(models.app, "export", "starter", "--to", "x", "--half", code=2).output
    (site / "hilum.toml").write_text('[model]\nbundle = "gone"\n')
    assert '[model] bundle = "gone" is among them' in call(models.app, "list").output


def test_words_of_a_card_are_neither_markup_nor_commands(site: Path) -> None:
    bundle(site / "store" / "odd", name="[bold]x\x1b[31m", version="../../1", limits=("[/]\x1b]0;",))
    for command in (("list",), ("show", "odd")):
        out = call(models.app, *command).stdout
        assert "\x1b[31m" not in out
    call(models.app, "export", "odd", "--to", ".")
    assert [p.name for p in site.glob("*.zip")] == [f"{lines(call(models.app, 'list', '--json'))[0]['model_id']}.zip"]


def test_figures_of_old_new_and_broken_cards() -> None:
    new = card(metrics=METRICS)
    assert str(macro_auroc(new)) == "0.73 (0.70 to 0.76)"
    assert str(binary_auroc(new)) == "0.75"
    assert of_output(new, "binary", "sensitivity") == Figure(value=0.8)
    assert of_output(new, "Mass", "auroc") is None
    for metrics in ({}, {"test": None}, {"test": {"macro_auroc": "good", "binary": 3}}, {"macro_auroc": True}):
        old = card(metrics=metrics)
        assert macro_auroc(old) is binary_auroc(old) is None
    assert figure_in({"macro": {"value": 0.5}}, "macro") == Figure(value=0.5)


def test_the_packaged_starter_can_be_shown() -> None:
    folder = Path(models.__file__).parents[1] / "models" / "starter"
    assert read_card(folder).name in call(models.app, "show", folder).stdout


@pytest.fixture
def database(site: Path) -> Database:
    database = Database("sqlite:///hilum.db")
    database.migrate()
    return database


def test_a_run_is_asked_for_watched_and_called_off(site: Path, database: Database) -> None:
    asked = call(runs.app, "request", "--data", "films", "--preset", "quick").stdout
    assert "hilum runs show 1 --follow" in asked
    assert "no folder on this machine" in asked
    (site / "mine.toml").write_text('name = "mine"\nseed = 1\n')
    assert lines(call(runs.app, "request", "--data", ".", "--description", "mine.toml", "--json")) == [{"id": 2}]
    second, first = lines(call(runs.app, "list", "--json"))
    assert (first["name"], first["preset"], first["data"]) == ("quick", "quick", str(site / "films"))
    assert (second["name"], second["description"]) == ("mine", 'name = "mine"\nseed = 1\n')
    assert "is cancelled" in call(runs.app, "cancel", "1").stdout
    assert "nothing to cancel" in call(runs.app, "cancel", "1", code=1).output
    followed = call(runs.app, "show", "1", "--follow", code=1).stdout
    assert "cancelled" in followed
    call(runs.app, "resume", "1")
    assert TrainingRuns(database).show(1).state == "requested"
    assert "not known" in call(runs.app, "show", "7", code=1).output
    table = call(runs.app, "list").stdout
    assert "quick" in table
    assert "a TOML file" in table


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ((), "--preset NAME, or --description FILE"),
        (("--preset", "quick", "--description", "mine.toml"), "--preset NAME, or --description FILE"),
        (("--description", "none.toml"), "cannot be read"),
        (("--description", "bad.toml"), "not TOML"),
        (("--preset", "../x"), "name"),
        (("--preset", "quick", "--name", "a/b"), "name"),
    ],
)
@pytest.mark.usefixtures("database")
def test_a_request_that_cannot_be_is_told_so(site: Path, words: tuple[str, ...], fault: str) -> None:
    (site / "bad.toml").write_text("seed = ")
    assert fault in call(runs.app, "request", "--data", ".", *words, code=2).output.replace("\n", " ")


def test_progress_in_words(database: Database) -> None:
    queue = TrainingRuns(database)
    queue.request(name="a", preset="quick", data="/x", requested_by="anna", now=runs._now())
    raw = {"task": "multilabel", "stage": "128 px", "epoch": 2, "epochs": 9, "step": 30, "steps": 90, "loss": 0.25}
    run = queue.show(1)
    object.__setattr__(
        run, "progress", Progress.of({**raw, "auroc": 0.71, "films_per_second": 6.0, "seconds_left": 700})
    )
    object.__setattr__(run, "state", "running")
    object.__setattr__(run, "state", runs.RunState.RUNNING)
    assert runs.progress_words(run) == (
        "multilabel, 128 px, epoch 2/9, 33%, loss 0.2500, AUROC 0.710, 6.0 films/s, 12 min left of the stage"
    )
    assert [runs.duration(s) for s in (-1, 40.4, 700, 20_000)] == ["0 s", "40 s", "12 min", "5 h 33 min"]


class Entry:
    """Enough of an entry point."""

    def __init__(self, name: str, offered: object) -> None:
        self.name, self._offered = name, offered

    def load(self) -> object:
        if isinstance(self._offered, Exception):
            raise self._offered
        return self._offered


def test_an_entry_point_may_be_an_application_or_a_command_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()

    @app.callback()
    def _root() -> None:
        pass

    monkeypatch.setattr(main, "app", app)
    inner = typer.Typer()

    @inner.command()
    def one() -> None:
        print("one")

    @inner.command()
    def two() -> None:
        print("two")

    def single(word: str) -> None:
        print(f"single {word}")

    for entry in (Entry("many", inner), Entry("single", single), Entry("broken", ImportError("No module named x"))):
        main.add(entry)  # type: ignore[arg-type]
    assert call(app, "many", "two").stdout == "two\n"
    assert call(app, "single", "x").stdout == "single x\n"
    assert "No module named x" in call(app, "broken", "--data", "y", code=2).output


def test_the_workers_own_commands_do_not_load_those_of_others() -> None:
    assert {"serve", "predict", "models", "runs"} <= main._own()
    assert "train" not in main._own()
