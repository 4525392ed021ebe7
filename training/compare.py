"""Several networks trained alike and put side by side: backbones, constructions, losses, augmentations.

The reference project's comparison, and the evidence that a loss or an augmentation is chosen by. Choose by the
validation columns; the test columns are for telling, not for choosing.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, get_args

import keras
from rich.table import Table

from training.description import Backbone, Loss, Over, Run, Stage
from training.evaluate import compare as paired
from training.flow import Flow
from training.whole_file import write_whole

CONSTRUCTIONS: Final = ("frozen", "full", "head-first")
TASKS: Final = ("multilabel", "binary")


def compare(flow: Flow, over: Sequence[Over]) -> list[dict[str, Any]]:
    """Train every variant in a folder of its own below the run's; what was trained before is only read.

    Returns
    -------
        A row for each, as in `compare.json` and `compare.csv`: the variant, validation and test AUROC of both models
        (value, and low and high of the test's), accuracy at a recall of one half beside the majority's, minutes,
        weights.
    """
    rows = []
    for name, run in variants(flow.run, over).items():
        variant = replace(flow, run=run, folder=flow.folder / "compare" / name)
        variant.fit()
        metrics = variant.evaluate()["test"]
        validation = variant.readings("validation")
        chosen = paired(validation, validation, rounds=10)
        recall = metrics["binary"]["accuracy_at_recall_50"]
        rows.append(
            {"variant": name}
            | {
                "validation_macro_auroc": chosen["macro_auroc"]["mine"]["value"],
                "validation_binary_auroc": chosen["binary_auroc"]["mine"]["value"],
            }
            | _figure("test_macro_auroc", metrics["macro_auroc"])
            | _figure("test_binary_auroc", metrics["binary"]["auroc"])
            | _figure("accuracy_at_recall_50", recall["accuracy"])
            | {"majority": recall["majority"]["value"], "minutes": variant.minutes(), "weights": variant.size()}
        )
        write_whole(flow.folder / "compare.json", json.dumps(rows, indent=1))
        write_whole(flow.folder / "compare.csv", _csv(rows))
        keras.utils.clear_session()  # the next network would find this one's memory taken
    return rows


def variants(run: Run, over: Sequence[Over]) -> dict[str, Run]:
    """Every combination of what they differ in, by a name that says it."""
    choices: list[list[tuple[str, dict[str, Any]]]] = []
    for dimension in dict.fromkeys(over):
        choices.append(list(_choices(run, dimension)))
    made = {}
    for combination in itertools.product(*choices):
        name = "-".join(word for word, _ in combination) or "as-described"
        changes: dict[str, Any] = {}
        for _, change in combination:
            for key, value in change.items():
                changes[key] = changes.get(key, {}) | value if isinstance(value, dict) else value
        values = run.model_dump(mode="json")
        for key, value in changes.items():
            if key == "stage":
                for task in TASKS:
                    values[task] = [stage | value for stage in values[task]]
            elif key == "construction":
                values["binary_start"] = "own"  # each network for itself, as the reference had them
                for task in TASKS:
                    values[task] = _constructed(values[task], value)
            else:
                values[key] |= value
        made[name] = Run(**values)
    return made


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """For a terminal; the best of each column is bold."""
    shown = ("validation_macro_auroc", "validation_binary_auroc", "test_macro_auroc", "test_binary_auroc")
    view = Table(box=None, header_style="bold")
    view.add_column("variant", no_wrap=True)
    for column in (*(name.replace("_", " ") for name in shown), "accuracy at recall 0.5", "minutes"):
        view.add_column(column, justify="right")
    best = {name: max((row[name] for row in rows if row[name] is not None), default=None) for name in shown}
    for row in rows:
        cells = ["none" if row[n] is None else f"{row[n]:.3f}" for n in shown]
        bold = [f"[bold]{c}[/]" if row[n] == best[n] else c for n, c in zip(shown, cells, strict=True)]
        accuracy, majority = row["accuracy_at_recall_50"], row["majority"]
        beside = "none" if accuracy is None else f"{accuracy:.3f} (majority {majority:.3f})"
        view.add_row(row["variant"], *bold, beside, f"{row['minutes']:.1f}")
    return view


def _choices(run: Run, dimension: Over) -> Iterator[tuple[str, dict[str, Any]]]:
    match dimension:
        case Over.BACKBONE:
            yield from ((name, {"model": {"backbone": name}}) for name in get_args(Backbone))
        case Over.CONSTRUCTION:
            yield from ((name, {"construction": name}) for name in CONSTRUCTIONS)
        case Over.LOSS:
            kinds = get_args(Loss.model_fields["kind"].annotation)
            yield from ((kind, {"loss": {"kind": kind}}) for kind in kinds)
        case Over.AUGMENTATION:
            kinds = get_args(Stage.model_fields["augmentation"].annotation)
            yield from ((f"augmentation-{kind}", {"stage": {"augmentation": kind}}) for kind in kinds)
        case Over.AUXILIARY:
            yield "labels-alone", {"loss": {"auxiliary": []}}
            yield "auxiliary", {"loss": {"auxiliary": list(run.loss.auxiliary or ("sex", "view", "age"))}}


def _constructed(stages: list[dict[str, Any]], construction: str) -> list[dict[str, Any]]:
    """The reference's two constructions, and the way between them."""
    if not stages or construction == "frozen":
        return [stage | {"train": "head"} for stage in stages]
    whole = [stage | {"train": "all"} for stage in stages]
    if construction == "full":
        return whole
    return [stages[0] | {"name": "head-first", "train": "head", "epochs": 1}, *whole]


def _figure(name: str, figure: dict[str, Any]) -> dict[str, Any]:
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
