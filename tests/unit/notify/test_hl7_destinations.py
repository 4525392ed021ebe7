"""From `[[destinations]]` to a channel: what is asked for, and what is wrong with it before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigurationError
from worker import assemble
from worker.notify.hl7_order import Hl7Order
from worker.notify.hl7_oru import Hl7Oru
from worker.ports import Channel
from worker.settings import Settings


def channel(**keys: Any) -> Channel:
    try:
        settings = Settings.model_validate({"destinations": [{"name": "ris", "port": 2575, **keys}]})
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return assemble.channel(settings.destinations[0], settings)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"kind": "hl7-oru"}, Hl7Oru),
        ({"kind": "hl7-oru", "character_set": "8859/1", "priority_in": "TQ1-9", "processing_id": "T"}, Hl7Oru),
        ({"kind": "hl7-order"}, Hl7Order),
        ({"kind": "hl7-order", "message": "ORM^O01", "priority_in": "OBR-27"}, Hl7Order),
        ({"kind": "hl7-oru", "tls": True}, Hl7Oru),
    ],
)
def test_channels(keys: dict[str, Any], kind: type[Channel]) -> None:
    made = channel(**keys)
    assert isinstance(made, kind)
    assert made.name == "ris"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "hl7-order", "message": "ORM^O01", "priority_in": "TQ1-9"}, "has no TQ1"),
        ({"kind": "hl7-oru", "ca_file": "ca.pem"}, "need tls = true"),
        ({"kind": "hl7-oru", "tls": True, "key": "key.pem"}, "key needs certificate"),
        ({"kind": "hl7-oru", "character_set": "UTF-8"}, "UNICODE UTF-8"),
        (
            {"kind": "hl7-oru", "tls": True, "ca_file": "/nowhere/ca.pem"},
            r"ris: ca_file: /nowhere/ca.pem: cannot be read",
        ),
        (
            {"kind": "hl7-order", "tls": True, "certificate": "/nowhere/us.pem"},
            r"ris: certificate, key: /nowhere/us.pem",
        ),
    ],
)
def test_what_is_wrong_is_said(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        channel(**keys)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nno\n")
    for keys in ({"ca_file": file}, {"certificate": file}):
        with pytest.raises(ConfigurationError, match=r"ca\.pem.*not what it should be"):
            channel(kind="hl7-oru", tls=True, **keys)


@pytest.mark.parametrize("kind", ["hl7-oru", "hl7-order"])
def test_no_hl7_destination_is_told_of_a_report(kind: str) -> None:
    settings = Settings.model_validate({"destinations": [{"name": "ris", "port": 2575, "kind": kind}]})
    assert not settings.destinations[0].audience().keeps_tasks
