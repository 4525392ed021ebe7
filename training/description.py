"""The description of a run: everything that decides what comes out of it, in one TOML file.

A preset (a file in `training/presets`) or a file of one's own is read, the command line's choices are laid over it, and
the whole is written as `run.toml` beside the result: the same file, films and machine give the same bundle.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, LABELS, Label

PACKAGED: Final = Path(str(resources.files("worker"))) / "models"  # the bundles that come with hilum

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=32, le=1024)]  # pixels
Rate = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Sensitivity = Annotated[float, Field(gt=0, lt=1)]

_LEAST: Final = {"inception_resnet_v2": 75, "xception": 71}  # pixels that are left over by its reductions (Keras)

Backbone = Literal["densenet121", "vgg16", "inception_resnet_v2", "mobilenet", "xception"]
Task = Literal["multilabel", "binary"]


class Over(StrEnum):
    """What the networks of a comparison differ in (`training.compare`)."""

    BACKBONE = "backbone"
    CONSTRUCTION = "construction"
    LOSS = "loss"
    AUGMENTATION = "augmentation"
    AUXILIARY = "auxiliary"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Section):
    """Where the films and their labels are. Names are relative to the data folder."""

    table: str = "Data_Entry_2017_v2020.csv"  # NIH's own names; Data_Entry_2017.csv is taken where this one is missing
    train_list: str = "train_val_list.txt"
    test_list: str = "test_list.txt"
    split: Literal["lists", "hash"] = "lists"  # "hash": by patient without lists, 10 % validation and 20 % test
    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.1  # share of the training list's patients
    teacher: str = ""  # CSV of another model's probabilities: "Image Index", "prob_<label>", ...; empty: none
    teacher_share: Share = 0.5  # of the target, where a film has soft targets


class Model(_Section):
    """What is trained, and from where it starts."""

    backbone: Backbone = "densenet121"
    size: Side = 224  # of the exported graphs, the card and the recipe
    # "random", "imagenet" (Keras downloads it), "imagenet:FILE", "bundle:NAME_OR_FOLDER", "torch:FILE" (torchvision's
    # layout)
    start: Annotated[str, Field(pattern=r"^(random|imagenet|(imagenet|bundle|torch):.+)$")] = "random"
    keep: str = "starter"  # the bundle that the other model is taken from when only one of the two is trained
    # Labels that share one output, by the name of the group; the bundle repeats it for each of them.
    groups: dict[Name, tuple[Label, ...]] = {}

    @model_validator(mode="after")
    def _groups_are_apart(self) -> Model:
        members = [label for group in self.groups.values() for label in group]
        if Label.NO_FINDING in members:
            raise ValueError(f'"No Finding" is no finding; groups are made of {", ".join(FINDINGS)}')
        twice = sorted({label for label in members if members.count(label) > 1})
        if twice:
            raise ValueError(f"in two groups: {', '.join(twice)}")
        taken = {*LABELS, "binary", "male", "AP"} & set(self.groups)
        if taken:
            raise ValueError(f"a group needs a name of its own: {', '.join(sorted(taken))}")
        short = sorted(name for name, group in self.groups.items() if len(group) < 2)
        if short:
            raise ValueError(f"a group has two labels or more: {', '.join(short)}")
        return self


class Loss(_Section):
    """What is minimised; chosen by evidence on validation films (`hilum train compare`)."""

    kind: Literal["bce", "weighted", "focal", "asymmetric"] = "weighted"
    ceiling: Annotated[float, Field(ge=1)] = 8.0  # weighted: the largest weight of a positive
    gamma: Annotated[float, Field(ge=0)] = 2.0  # focal and asymmetric: how little easy films count
    # Asked of the network beside the labels, and left out of the bundle: what the table knows for certain teaches a
    # network that starts from random weights what a chest looks like.
    auxiliary: tuple[Literal["sex", "view", "age"], ...] = ()
    auxiliary_weight: Annotated[float, Field(ge=0)] = 1.0  # of an auxiliary output, against one label


class Stage(_Section):
    """One stretch of training: how large, how long, how fast."""

    name: Name
    size: Side = 224
    epochs: Count = 1
    batch: Count = 32
    train: Literal["all", "head"] = "all"  # "head": the backbone is frozen, statistics and all
    learning_rate: Rate = 1e-3  # peak, of AdamW
    warm_up: Share = 0.05  # share of the stage
    final: Share = 0.01  # share of the peak at the end; higher where another stage follows
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998  # per step; 0: the last weights themselves
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9  # of batch normalisation's statistics
    patience: Annotated[int, Field(ge=0)] = 0  # epochs without a better validation AUROC; 0: all epochs are run
    augmentation: Literal["none", "anatomical", "reference"] = "anatomical"
    films: Annotated[int, Field(ge=0)] = 0  # of an epoch, drawn anew each time; 0: all


class Evaluate(_Section):
    """What the operating points aim at, and for whom PPV is told."""

    sensitivity: Sensitivity = 0.8  # on validation films, for every output that has none of its own
    sensitivities: dict[Literal["binary"] | Label, Sensitivity] = {}
    prevalence: dict[Literal["binary"] | Label, Sensitivity] = {}  # at the site; default: as in the test films
    rounds: Annotated[int, Field(ge=10)] = 1000  # of the patient bootstrap


class Run(_Section):
    """The whole description."""

    name: Name = "trained"  # of the bundle
    version: str = "0.1.0"
    seed: Annotated[int, Field(ge=0)] = 0
    licence: str = "Apache-2.0"
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    evaluate: Evaluate = Evaluate()
    mixed_precision: bool = (
        True  # on a GPU, and on CPUs that compute in bfloat16; what is exported is measured in float32
    )
    multilabel: tuple[Stage, ...] = ()
    binary: tuple[Stage, ...] = ()
    # "multilabel": the binary network begins as the multilabel one, its "No Finding" turned round; where that one is
    # kept and [model] start is random, as the kept one. "own": from [model] start, like the other.
    binary_start: Literal["multilabel", "own"] = "multilabel"

    @model_validator(mode="after")
    def _stages_have_names_of_their_own(self) -> Run:
        for task in ("multilabel", "binary"):
            names = [stage.name for stage in getattr(self, task)]
            if len(names) != len(set(names)):
                raise ValueError(f"{task}: two stages have the same name")
        least = _LEAST.get(self.model.backbone, 32)
        for size in (self.model.size, *(stage.size for stage in (*self.multilabel, *self.binary))):
            if size < least:
                raise ValueError(f"{self.model.backbone} sees nothing in films of {size} px; {least} is the least")
        if not self.multilabel and not self.binary:
            raise ValueError("no stages: add [[multilabel]] or [[binary]], or take a preset")
        return self

    def digest(self) -> str:
        """16 hex digits over everything in here."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]

    def fitted(self) -> Run:
        """What the weights depend on: the same run under another name, with another aim, needs no new fit."""
        return self.model_copy(
            update={"name": "trained", "version": "", "licence": "", "evaluate": Evaluate()},
        )

    def to_toml(self) -> str:
        """TOML that `read` takes back as the same run."""
        return _toml(self.model_dump(mode="json"))


PRESETS: Final = resources.files("training") / "presets"


def presets() -> dict[str, str]:
    """Name of each preset → its first comment line, what it is for."""
    found = sorted(p.name for p in PRESETS.iterdir() if p.name.endswith(".toml"))
    first = {name: (PRESETS / name).read_text(encoding="utf-8").partition("\n")[0] for name in found}
    return {name.removesuffix(".toml"): line.removeprefix("#").strip() for name, line in first.items()}


def read(source: str, /, **over: Any) -> Run:
    """A preset by its name, or a TOML file by its path; `over` is laid on top, section by section.

    Raises
    ------
    ConfigurationError
        Neither, not TOML, or a value is wrong: one line per fault, each with its key.
    """
    try:
        if source in presets():
            text = (PRESETS / f"{source}.toml").read_text(encoding="utf-8")
        else:
            text = Path(source).read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(
            f"{source}: neither a preset ({', '.join(presets())}) nor a file that can be read ({error.strerror})"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: not TOML: {error}") from error
    for key, value in over.items():
        section = values.get(key, {})
        values[key] = section | value if isinstance(value, dict) and isinstance(section, dict) else value
    try:
        return Run(**values)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(p) for p in e['loc']) or 'run'}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError(f"{source}: {len(lines)} fault(s)\n" + "\n".join(lines)) from error


def outputs(model: Model) -> tuple[tuple[str, tuple[Label, ...]], ...]:
    """The multilabel network's outputs in order: a name, and the labels that it answers for.

    Without groups they are the 15 labels; a group stands where its first label would.
    """
    group_of = {label: name for name, group in model.groups.items() for label in group}
    named: dict[str, tuple[Label, ...]] = {}
    for label in LABELS:
        name = group_of.get(label, str(label))
        named[name] = (*named.get(name, ()), label)
    return tuple(named.items())


def _toml(values: dict[str, Any], path: str = "") -> str:
    """The few kinds of value that a run holds; JSON's strings, numbers and arrays are TOML's too."""
    plain, tables = [], []
    for key, value in values.items():
        quoted = key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
        if isinstance(value, dict):
            if value:
                tables.append(f"\n[{path}{quoted}]\n{_toml(value, f'{path}{quoted}.')}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables.extend(f"\n[[{path}{quoted}]]\n{_toml(item, f'{path}{quoted}.')}" for item in value)
        else:
            plain.append(f"{quoted} = {json.dumps(value)}\n")
    return "".join(plain + tables)
