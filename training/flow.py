"""A run from films to bundle: index, split, cache, fit, calibrate, evaluate, report, export.

Each step leaves its result in the run's folder and takes what the steps before it left, so that any one can be done
again alone. What a killed run finished is not done twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from schemas.card import Calibration, ModelCard, model_id
from schemas.errors import ConfigurationError
from schemas.findings import LABELS, Label
from schemas.image import GrayImage
from training import bundles, calibrate, description, network, speed
from training.description import Run, Stage, Task
from training.evaluate import COLUMNS, Readings, compare, measure
from training.export import rounded, write_bundle
from training.fit import HISTORY, Films, Network, fit, predict, read_weights, save_weights
from training.golden import golden_films
from training.nih_index import IndexReport, NihIndex, find_table, read_index, targets
from training.pixel_cache import PixelCache, pixel_cache
from training.report import InService, write_report
from training.soft_targets import soften
from training.split import SIDES, Split, SplitReport, by_hash, by_lists, read_list
from training.split import report as split_report
from training.start import of_kept, start_of
from training.targets import Columns, binary_start, columns_of, for_export, wanted
from training.watch import Watch
from training.whole_file import write_whole
from worker.tensor.image_file import open_image
from worker.tensor.recipe import fingerprint, to_tensor

log = logging.getLogger("hilum.training")

LOCKED: Final = "run.toml"
WEIGHTS: Final = "weights.npz"

_LIMITS: Final = (
    "Films of one hospital only (NIH Clinical Center, 1992 to 2015), PA and AP, all ages; no lateral views.",
    "Labels were mined from reports by software; NIH puts their accuracy above 90 %, not at 100 %.",
    "How often a finding occurs in these films is not how often it occurs elsewhere: probabilities and thresholds must "
    "be set again at the site.",
)
_TEACHER_LIMIT: Final = (
    "Some training targets come from a published model whose own training films may include patients of the test "
    "list: the test figures may flatter."
)


_OUTSIDE: Final = (
    "Training began with a published checkpoint whose own training films may include patients of the test list: the "
    "test figures may flatter.",
)


@dataclass(kw_only=True)
class Flow:
    """One run and its folder.

    Parameters
    ----------
    data:
        Folder with NIH's table, both official lists, and the films anywhere below it.
    folder:
        The run's own. `run.toml` in it is the locked description: another description needs another folder.
    caches:
        Where pixel caches are kept; runs over the same films share them.
    against:
        The bundle in service, to be measured on the same test films; empty: none.
    stores:
        Folders of bundles, for names.
    with_films:
        The report shows the most confidently wrong films; such a page must not leave the hospital.
    """

    run: Run
    data: Path
    folder: Path
    caches: Path
    progress: Progress
    against: str = ""
    stores: tuple[Path, ...] = ()
    with_films: bool = False
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self._check_names()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_description()
        self.watch = Watch(self.folder, self.progress)
        self.device = speed.prepare()

    def all(self) -> ModelCard:
        """Every step, in order."""
        for step in (self.index, self.split, self.cache, self.fit, self.calibrate, self.evaluate, self.report):
            self.watch.task(step.__name__)
            step()
        self.watch.task("export")
        card = self.export()
        self.watch.task("done")
        return card

    def _check_names(self) -> None:
        """A mistyped name is told before hours of training, not after."""
        kind, _, source = self.run.model.start.partition(":")
        if kind in ("torch", "imagenet") and source and not Path(source).is_file():
            raise ConfigurationError(f"model.start: {source}: no such file")
        if kind == "bundle":
            bundles.find(source, self.stores)
        if self.against:
            bundles.find(self.against, self.stores)
        how, kept = self.run.model, self._kept
        if kept is not None and (kept.card.architecture, kept.card.input_size) != (how.backbone, how.size):
            raise ConfigurationError(
                f"model.keep: {kept.folder} holds {kept.card.architecture} at {kept.card.input_size} px, and both "
                f"models of a bundle are alike: set [model] backbone and size to these (now {how.backbone} at "
                f"{how.size} px), or keep another bundle"
            )

    def _check_description(self) -> None:
        """Weights are never called those of another description; names and aims may change."""
        path = self.folder / LOCKED
        if path.exists() and description.read(str(path)).fitted() != self.run.fitted():
            raise ConfigurationError(
                f"{path}: this folder holds a run with another description; name another folder (--run-folder), or "
                "give the same description"
            )

    def _lock(self) -> None:
        """From here on description, films and labels are those of this folder."""
        write_whole(self.folder / LOCKED, self.run.to_toml())
        path = self.folder / "films.digest"
        if not path.exists():
            write_whole(path, self._films)
        elif path.read_text(encoding="utf-8") != self._films:
            raise ConfigurationError(
                f"{path}: films, labels, lists or soft targets have changed since this run began; name another folder "
                "(--run-folder), or put back what was"
            )

    # ── index, split, cache ──────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _index(self) -> NihIndex:
        return read_index(find_table(self.data, self.run.data.table), [self.data])

    @cached_property
    def _split(self) -> Split:
        how = {"validation": self.run.data.validation, "seed": self.run.seed}
        if self.run.data.split == "hash":
            return by_hash(self._index.films, **how)  # type: ignore[arg-type]
        return by_lists(self._index.films, *self._lists, **how)  # type: ignore[arg-type]

    @property
    def _lists(self) -> tuple[Path, Path]:
        return self.data / self.run.data.train_list, self.data / self.run.data.test_list

    def index(self) -> NihIndex:
        """Which films there are, and what is missing: `index.json`."""
        self._tell("index", self._index.report)
        return self._index

    def split(self) -> Split:
        """Whose films train, tune and test: `split.json`."""
        official = self.run.data.split == "lists"
        report = split_report(
            self._split,
            self._index.films,
            rule="the official lists" if official else "patient hash",
            listed=frozenset().union(*(read_list(path) for path in self._lists)) if official else (),
            without_film=self._index.without_film,
        )
        self._tell("split", report)
        return self._split

    def _tell(self, step: str, report: IndexReport | SplitReport) -> None:
        write_whole(self.folder / f"{step}.json", report.to_json())
        for line in report.words():
            log.info("%s %s", step, line)

    def cache(self) -> None:
        """Every film decoded once, at each size that the run needs."""
        for size in sorted({self.run.model.size, *(stage.size for _, stage in self._stages())}):
            self._pixels(size)

    def _pixels(self, size: int) -> PixelCache:
        if size not in self._caches:
            self._caches[size] = pixel_cache(self._index.films, self.caches, size, self.progress)
        return self._caches[size]

    @cached_property
    def _caches(self) -> dict[int, PixelCache]:
        return {}

    def _members(self, side: str, size: int) -> NDArray[np.intp]:
        """Positions of the side's films that could be read."""
        members = np.array(getattr(self._split, side), np.intp)
        return members[self._pixels(size).readable[members]]

    # ── fit ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def fit(self) -> None:
        """Both networks, or the one that the description has stages for: `multilabel/`, `binary/`."""
        self._lock()
        for task in self._tasks:
            if not (self.folder / task / WEIGHTS).exists():
                self._train(task)

    @property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(task for task in ("multilabel", "binary") if getattr(self.run, task))

    def _stages(self) -> Iterable[tuple[Task, Stage]]:
        return ((task, stage) for task in self._tasks for stage in getattr(self.run, task))

    def _columns(self, task: Task) -> Columns:
        return columns_of(task, self.run.model, self.run.loss)

    @cached_property
    def _labels(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Hard and soft, (N, 15)."""
        hard = targets(self._index.films)
        if not self.run.data.teacher:
            return hard, hard
        table = self.data / self.run.data.teacher
        return hard, soften(hard, self._index.films, table, self.run.data.teacher_share)

    def _train(self, task: Task) -> None:
        self.watch.task(task)
        columns = self._columns(task)
        how = self.run.model
        follows = task == "binary" and self.run.binary_start == "multilabel"
        if follows and self._kept is not None and how.start == "random":
            begin = of_kept(self._kept, how.backbone, columns, seed=self.run.seed)
        else:
            begin = start_of(how.start, how.backbone, columns, seed=self.run.seed, stores=self.stores)
        weights = begin.weights
        if follows and "multilabel" in self._tasks:
            learned = read_weights(self.folder / "multilabel" / WEIGHTS)
            weights = binary_start(learned, self._columns("multilabel"), columns)
        net = Network(
            backbone=how.backbone,
            scaling=begin.scaling,
            main=columns.main,
            judged=columns.judged,
            loss=self.run.loss,
            seed=self.run.seed,
            mixed_precision=self.run.mixed_precision,
        )
        hard, soft = (wanted(columns, self._index.films, labels) for labels in self._labels)
        for stage in getattr(self.run, task):
            train, validation = (self._members(side, stage.size) for side in ("train", "validation"))
            pixels = self._pixels(stage.size).pixels
            weights = fit(
                stage,
                net,
                Films(pixels=pixels, members=train, targets=soft[train]),
                Films(pixels=pixels, members=validation, targets=hard[validation]),
                self.folder / task / stage.name,
                self.watch,
                start=weights,
            )
        assert weights is not None  # noqa: S101 - there is a stage
        facts: dict[str, Any] = {"scaling": begin.scaling, "start": begin.words, "device": self.device}
        if begin.bundle is not None:
            facts["limits"] = self._inherited(begin.bundle)
        elif how.start.startswith("torch:"):
            facts["limits"] = _OUTSIDE
        write_whole(self.folder / task / "facts.json", json.dumps(facts))
        save_weights(self.folder / task / WEIGHTS, weights)

    # ── calibrate, evaluate ──────────────────────────────────────────────────────────────────────────────────────────

    def _served(self, task: Task) -> keras.Model:
        """What the bundle will hold: weights as they are exported, at the size that is served."""
        if task not in self._tasks:
            assert self._kept is not None  # noqa: S101 - one of the two is kept
            return self._kept.model(task)
        weights = rounded(for_export(read_weights(self.folder / task / WEIGHTS), self._columns(task)))
        model = network.build(
            weights["maps/bias"].shape[0],
            self.run.model.size,
            self.run.model.backbone,
            scaling=str(self._fact("scaling")),
        )
        network.load_weights(model, weights)
        return model

    @cached_property
    def _kept(self) -> bundles.Bundle | None:
        """The bundle that the other model is taken from, where only one is trained."""
        return bundles.find(self.run.model.keep, self.stores) if len(self._tasks) == 1 else None

    def _inherited(self, bundle: bundles.Bundle) -> tuple[str, ...]:
        """What must be said of weights that come out of another bundle."""
        if bundle.card.split_hash == self._split.digest:
            return tuple(limit for limit in bundle.card.limits if limit == _TEACHER_LIMIT)
        return (
            f"Weights come from bundle {bundle.card.name} {bundle.card.version}, trained on another split "
            f"({bundle.card.split_hash}): it may have seen test or validation patients, and the figures may flatter.",
        )

    def _facts(self) -> list[dict[str, Any]]:
        """What `_train` noted of each network: "scaling", "start", "device", "limits"."""
        paths = [self.folder / task / "facts.json" for task in self._tasks]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]

    def _fact(self, key: str) -> Any:
        return next((facts[key] for facts in self._facts()), "")

    def _read(self, side: str, models: Sequence[keras.Model], size: int) -> Readings:
        """What the models (binary, multilabel) say of the films of one side."""
        films = self._index.films
        members = self._members(side, size)
        pixels = self._pixels(size).pixels
        logits = [predict(model, [pixels[i] for i in members], size) for model in models]
        hard = self._labels[0][members]
        any_finding = 1.0 - hard[:, LABELS.index(Label.NO_FINDING), np.newaxis]
        return Readings(
            names=np.array([films[i].name for i in members]),
            patients=np.array([films[i].patient for i in members]),
            ages=np.array([-1 if films[i].age is None else films[i].age for i in members]),
            sexes=np.array([films[i].sex for i in members]),
            views=np.array([films[i].view for i in members]),
            truth=np.concatenate([any_finding, hard], axis=1).astype(np.uint8),
            logits=np.concatenate(logits, axis=1),
        )

    @cached_property
    def _of(self) -> str:
        """16 hex digits over what the figures are made of: weights, size, films. Other ones, other figures."""
        self._lock()
        size = self.run.model.size
        made_of = f"{size} {fingerprint(size)} {self._films} {sorted(self._pixels(size).unreadable)}\n"
        digest = hashlib.sha256(made_of.encode())
        if self._kept is not None:
            digest.update(model_id(self._kept.card).encode())
        for task in self._tasks:
            path = self.folder / task / WEIGHTS
            if not path.exists():
                raise ConfigurationError(f"{path}: not there yet; fit comes first (`hilum train fit …`)")
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _films(self) -> str:
        """16 hex digits over every film's name, side and labels, and the soft targets."""
        digest = hashlib.sha256(self._split.digest.encode())
        for film in self._index.films:
            digest.update(f"{film.name}:{film.patient}:{'|'.join(sorted(film.labels))}\n".encode())
        if self.run.data.teacher:
            digest.update(self._labels[1].tobytes())
        return digest.hexdigest()[:16]

    def readings(self, side: str) -> Readings:
        """What both models say of the films of "validation" or "test"; read once, then kept beside the run."""
        path = self.folder / f"readings-{side}-{self._of}.npz"
        if not path.exists():
            models = [self._models["binary"], self._models["multilabel"]]
            self._read(side, models, self.run.model.size).save(path)
        return Readings.load(path)

    def calibrate(self) -> tuple[dict[str, Calibration], dict[str, float]]:
        """Probabilities and operating points of each output, from validation films: `calibration.json`."""
        readings, aims = self.readings("validation"), self.run.evaluate
        calibration = {
            name: calibrate.platt(readings.logits[:, k], readings.truth[:, k]) for k, name in enumerate(COLUMNS)
        }
        thresholds = {
            name: calibrate.operating_point(
                calibrate.probability(readings.logits[:, k], calibration[name]),
                readings.truth[:, k],
                sensitivity=aims.sensitivities.get(name, aims.sensitivity),  # type: ignore[call-overload]
            )
            for k, name in enumerate(COLUMNS)
        }
        content = {"calibration": {k: asdict(c) for k, c in calibration.items()}, "thresholds": thresholds}
        write_whole(self.folder / "calibration.json", json.dumps(content, indent=1))
        return calibration, thresholds

    def _balanced(self, calibration: dict[str, Calibration]) -> dict[str, float]:
        """Thresholds with the best balanced accuracy on validation films: to be reported, not to be served."""
        readings = self.readings("validation")
        return {
            name: calibrate.balanced_point(
                calibrate.probability(readings.logits[:, k], calibration[name]), readings.truth[:, k]
            )
            for k, name in enumerate(COLUMNS)
        }

    def evaluate(self) -> dict[str, Any]:
        """How good the bundle is on patients that nobody has tuned on, and for whom: `metrics.json`."""
        calibration, thresholds = self.calibrate()
        aims = self.run.evaluate
        test = self.readings("test")
        metrics: dict[str, Any] = {
            "of": self._asked,
            "test": measure(
                test,
                calibration,
                thresholds,
                balanced=self._balanced(calibration),
                prevalence={str(k): v for k, v in aims.prevalence.items()},
                rounds=aims.rounds,
                seed=self.run.seed,
            ),
        }
        if self.against:
            rival = bundles.find(self.against, self.stores)
            other = self._read("test", [rival.model("binary"), rival.model("multilabel")], rival.card.input_size)
            metrics["against"] = {
                "name": rival.card.name,
                "version": rival.card.version,
                "model_id": model_id(rival.card),
                "same_split": rival.card.split_hash == self._split.digest,
                "test": measure(other, rival.card.calibration, rival.card.thresholds, rounds=aims.rounds),
                "comparison": compare(test, other, rounds=aims.rounds, seed=self.run.seed),
            }
        write_whole(self.folder / "metrics.json", json.dumps(metrics, indent=1))
        log.info("test macro=%s binary=%s", metrics["test"]["macro_auroc"], metrics["test"]["binary"]["auroc"])
        return metrics

    # ── report, export ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _asked(self) -> str:
        return f"{self._of} {self.run.evaluate.model_dump_json()}"

    def _metrics(self) -> dict[str, Any]:
        """As `evaluate` left them, if they are of these weights and films and of the rival that is asked for."""
        path = self.folder / "metrics.json"
        if path.exists():
            metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rival = bundles.find(self.against, self.stores).card if self.against else None
            same = rival is None or metrics.get("against", {}).get("model_id") == model_id(rival)
            if metrics.get("of") == self._asked and same:
                return metrics
        return self.evaluate()

    def report(self) -> Path:
        """One self-contained page: curves, tables, pictures, card."""
        metrics, size = self._metrics(), self.run.model.size
        calibration, thresholds = self.calibrate()
        rival = metrics.get("against")
        path = self.folder / "report.html"
        write_report(
            path,
            metrics=metrics["test"],
            readings=self.readings("test"),
            calibration=calibration,
            thresholds=thresholds,
            card=self._card() | {"input_size": size, "recipe_fingerprint": fingerprint(size)},
            run=self.run.model_dump(mode="json"),
            histories={task: list(self._histories(task).items()) for task in self._tasks},
            in_service=rival
            and InService(
                name=f"{rival['name']} {rival['version']}"
                + ("" if rival["same_split"] else " (trained on another split: it may have seen these patients)"),
                metrics=rival["test"],
                comparison=rival["comparison"],
            ),
            films=self.with_films,
            picture=self._picture if self.with_films else None,
        )
        return path

    def _picture(self, name: str, column: str) -> tuple[GrayImage, NDArray[np.float32]]:
        """A film as it lies on the disk, and the activation map of one output."""
        film = next(film for film in self._index.films if film.name == name)
        grey = open_image(film.path)
        task: Task = "binary" if column == "binary" else "multilabel"
        model = self._models[task]
        maps = keras.ops.convert_to_numpy(model(to_tensor(grey, self.run.model.size)[np.newaxis])["maps"])
        return grey, maps[0, :, :, 0 if task == "binary" else LABELS.index(Label(column))]

    @cached_property
    def _models(self) -> dict[Task, keras.Model]:
        return {task: self._served(task) for task in ("binary", "multilabel")}

    def export(self) -> ModelCard:
        """The bundle that the worker takes, in `bundle/`."""
        card = write_bundle(
            self.folder / "bundle",
            binary=self._models["binary"],
            multilabel=self._models["multilabel"],
            golden=golden_films(self.run.model.size),
            card=self._card(),
        )
        log.info("bundle folder=%s model=%s", self.folder / "bundle", model_id(card))
        return card

    def _card(self) -> dict[str, Any]:
        """Of the card, what this run knows."""
        calibration, thresholds = self.calibrate()
        return {
            "name": self.run.name,
            "version": self.run.version,
            "architecture": self.run.model.backbone,
            "calibration": calibration,
            "thresholds": thresholds,
            "split_hash": self._split.digest,
            "metrics": self._told(),
            "training": self._provenance(),
            "limits": self._limits(),
            "licence": self.run.licence,
            "provenance": "NIH ChestX-ray14, NIH Clinical Center (Wang et al., CVPR 2017): "
            f"{len(self._split.train):,} films to train on, {len(self._split.validation):,} to choose by",
        }

    def _told(self) -> dict[str, Any]:
        """The figures for the card: of a rival only how it compares."""
        metrics = {key: value for key, value in self._metrics().items() if key != "of"}
        if "against" in metrics:
            metrics["against"] = {key: value for key, value in metrics["against"].items() if key != "test"}
        return metrics

    def _provenance(self) -> dict[str, Any]:
        histories = {task: self._histories(task) for task in self._tasks}
        kept = [task for task in ("binary", "multilabel") if task not in self._tasks]
        return {
            "description": self.run.model_dump(mode="json"),
            "description_digest": self.run.digest(),
            "films": {side: len(self._members(side, self.run.model.size)) for side in SIDES},
            "unseen": not self._foreign(),
            "unreadable": int((~self._pixels(self.run.model.size).readable).sum()),
            "start": self._fact("start"),
            "scaling": self._fact("scaling"),
            "device": self._fact("device"),
            "kept": {task: f"{self._kept.card.name} {self._kept.card.version}" for task in kept if self._kept},
            "groups": {name: list(labels) for name, labels in self.run.model.groups.items()},
            "minutes": self.minutes(),
            "history": [
                {"task": task, "stage": stage, "epochs": epochs}
                for task, stages in histories.items()
                for stage, epochs in stages.items()
            ],
        }

    def minutes(self) -> float:
        """Of training, both models."""
        histories = [self._histories(task) for task in self._tasks]
        return float(round(sum(epochs[-1]["minutes"] for each in histories for epochs in each.values()), 1))

    def size(self) -> int:
        """Numbers that both models hold."""
        return sum(model.count_params() for model in self._models.values())

    def _histories(self, task: Task) -> dict[str, list[dict[str, Any]]]:
        paths = {stage.name: self.folder / task / stage.name / HISTORY for stage in getattr(self.run, task)}
        return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}

    def _limits(self) -> tuple[str, ...]:
        films = len(self._members("train", self.run.model.size))
        few = f"Trained on {films:,} films: a demonstration, not for clinical use. NIH has 112,120; rebuild it on all."
        own = (*((few,) if films < 50_000 else ()), *_LIMITS, *((_TEACHER_LIMIT,) if self.run.data.teacher else ()))
        return tuple(dict.fromkeys((*own, *self._foreign())))

    def _foreign(self) -> list[str]:
        """Limits that came in with weights from elsewhere."""
        came = [limit for facts in self._facts() for limit in facts.get("limits", ())]
        return [*came, *(self._inherited(self._kept) if self._kept else ())]
