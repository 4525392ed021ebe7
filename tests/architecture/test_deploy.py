"""The examples of `deploy` are true: the configuration is complete, and it says the defaults."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from schemas.errors import ConfigurationError
from worker.settings import Settings, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXAMPLE = DEPLOY / "hilum.toml"


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """The example with every setting switched on that is off in it ("#key = value", "#[table]")."""
    path = tmp_path / "hilum.toml"
    path.write_text(re.sub(r"(?m)^#(?=[\[a-z])", "", EXAMPLE.read_text()))
    return path


def shapes_in(kind: Any) -> list[Any]:
    """The models and dataclasses that a type is made of: `list[Caller] | None` holds `Caller`."""
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return [kind]
    return [shape for argument in get_args(kind) for shape in shapes_in(argument)]


def keys_of_shape(shape: Any, prefix: str = "") -> Iterator[str]:
    """Every key that a model takes; lists, and tables by free names, count as what they hold."""
    if issubclass(shape, BaseModel):
        fields = {name: field.annotation for name, field in shape.model_fields.items()}
    else:
        fields = {field.name: None for field in dataclasses.fields(shape)}
    for name, annotation in fields.items():
        shapes = shapes_in(annotation)
        for inner in shapes:
            yield from keys_of_shape(inner, f"{prefix}{name}.")
        if not shapes:
            yield f"{prefix}{name}"


def keys_of_file(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of a file, in the same spelling."""
    for name, value in table.items():
        tables = (
            [value]
            if isinstance(value, dict)
            else [v for v in value if isinstance(v, dict)]
            if isinstance(value, list)
            else []
        )
        if f"{prefix}{name}" == "policy.findings":
            tables = list(value.values())
        if f"{prefix}{name}" == "web.oidc.roles":
            tables = []  # by values of the provider's claim
        for inner in tables:
            yield from keys_of_file(inner, f"{prefix}{name}.")
        if not tables:
            yield f"{prefix}{name}"


def test_the_example_names_every_key_and_no_other(complete: Path) -> None:
    named = set(keys_of_file(tomllib.loads(complete.read_text())))
    assert named == set(keys_of_shape(Settings))


def test_the_example_loads_as_it_is_and_complete(complete: Path) -> None:
    assert [d.name for d in load(EXAMPLE).destinations] == ["pacs", "shadow"]
    everything = load(complete)
    assert everything.dicom.also[0].accept[0].ae_title == "ER1"
    assert everything.policy.binary is not None


def test_what_the_example_says_are_the_defaults() -> None:
    example, defaults = load(EXAMPLE), Settings()
    for name in Settings.model_fields:
        if name not in ("destinations", "policy"):
            assert getattr(example, name) == getattr(defaults, name), name
    assert example.policy.policy() == defaults.policy.policy()
    for shown, names in zip(
        example.destinations,
        (("host", "timeout", "commitment", "urgency", "called_ae", "modality", "findings"), ("folder",)),
        strict=True,
    ):
        for name in names:
            assert getattr(shown, name) == type(shown).model_fields[name].default


def test_a_fault_in_the_example_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "hilum.toml"
    path.write_text(EXAMPLE.read_text().replace("max_pdu =", "maximum_pdu ="))
    with pytest.raises(ConfigurationError, match=r"dicom\.maximum_pdu"):
        load(path)


def test_the_environment_of_the_composition_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, value in services["hilum"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{.*?\}", "secret", value))
    settings = load(EXAMPLE)
    assert settings.database.url == "postgresql+psycopg://hilum:secret@database/hilum"
    (destination,) = settings.destinations
    assert (destination.ae_title, destination.host) == (services["pacs"]["environment"]["ORTHANC__DICOM_AET"], "pacs")


def test_the_manifest_is_yaml_with_the_ports_of_the_image() -> None:
    stateful, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    exposed = re.search(r"EXPOSE (.*)", (DEPLOY / "Dockerfile").read_text())
    assert exposed is not None
    assert [str(p["containerPort"]) for p in container["ports"]] == exposed[1].split()
    assert service["spec"]["selector"] == stateful["spec"]["template"]["metadata"]["labels"]
