from __future__ import annotations

import time
from pathlib import Path

import pytest

from schemas.decision import Urgency
from schemas.errors import ConfigurationError
from schemas.findings import Label
from worker.settings import load, phrase


def write(folder: Path, text: str) -> Path:
    path = folder / "hilum.toml"
    path.write_text(text)
    return path


def test_defaults_are_a_working_configuration() -> None:
    settings = load(None)
    assert (settings.dicom.ae_title, settings.dicom.port, settings.web.port) == ("HILUM", 11112, 8080)
    assert settings.policy.policy().findings[Label.PNEUMOTHORAX].urgency is Urgency.STAT


def test_every_fault_is_named_with_its_key_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [dicom]
        ae_title = "A TITLE THAT IS TOO LONG"
        prot = 1
        [web]
        port = 99999
        [policy.findings.Pneumothorax]
        urgency = "NOW"
        [[destinations]]
        name = "pacs"
        kind = "dicom-sr"
        """,
    )
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    words = str(caught.value)
    for key in ("dicom.ae_title", "dicom.prot", "web.port", "policy.findings.Pneumothorax.urgency", "destinations.0"):
        assert key in words
    assert "6 fault(s)" in words
    assert "STAT, URGENT, ROUTINE" in words


def test_the_environment_comes_before_the_file_and_keeps_the_rest_of_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_DICOM__PORT", "4242")
    path = write(tmp_path, '[dicom]\nae_title = "GATE"\nport = 1\n')
    settings = load(path)
    assert (settings.dicom.ae_title, settings.dicom.port) == ("GATE", 4242)


def test_the_policy_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path, '[policy.findings."Mass"]\nurgency = "URGENT"\nthreshold = 0.4\n')
    findings = load(path).policy.policy().findings
    assert set(findings) == {Label.MASS}
    assert findings[Label.MASS].threshold == 0.4


@pytest.mark.parametrize(
    "text",
    [
        "[dicom\n",
        '[policy.findings."No Finding"]\nurgency = "STAT"\n',
        '[[dicom.also]]\nae_title = "HILUM"\n',
        '[[destinations]]\nname = "a"\nkind = "paper"\n[[destinations]]\nname = "a"\nkind = "paper"\n',
    ],
)
def test_contradictions_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        load(write(tmp_path, text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        load(Path("nowhere.toml"))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("dicom.accept.0.address", '[dicom]\naccept = [{ address = "10.0.0.999" }]\n'),
        ("dicom.network_timeout", "[dicom]\nnetwork_timeout = inf\n"),
        ("spool.keep_days", "[spool]\nkeep_days = 1e12\n"),
        ("reading.lease_seconds", "[reading]\nlease_seconds = 0.01\n"),
        ("reading.quiet_seconds", "[reading]\nquiet_seconds = 1e300\n"),
        ("gate.minimum_age_years", "[gate]\nminimum_age_years = nan\n"),
    ],
)
def test_what_would_only_fail_later_is_refused_now(tmp_path: Path, key: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        load(write(tmp_path, text))


def test_an_environment_that_is_no_json_is_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_DESTINATIONS", '[{"name": "secret"')
    with pytest.raises(ConfigurationError, match="destinations") as caught:
        load(None)
    assert "secret" not in str(caught.value)


def test_an_unknown_name_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_WBE__PORT", "3")
    with pytest.raises(ConfigurationError, match="HILUM_WBE__PORT"):
        load(None)


def test_what_is_looked_for_in_reports_is_compiled_at_start_and_faults_are_named(tmp_path: Path) -> None:
    codes = "codes = [{ code = 'RID1', finding = 'Mass' }]"
    settings = load(write(tmp_path, f"[hl7]\nnegative = ['no (evidence of )?acute']\n{codes}\n"))
    assert [(coded.code, coded.finding) for coded in settings.hl7.codes] == [("RID1", Label.MASS)]
    assert phrase(settings.hl7.negative[0]).search("There is No Acute process") is not None
    path = write(
        tmp_path,
        """
        [hl7]
        positive = ["fine", "(", '(a)\\1', " "]
        codes = [{ code = "RID1", finding = "Cold" }, { code = "RID2", finding = "No Finding" }]
        accept = ["nowhere"]
        accession_in = ["PID-3"]
        """,
    )
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    numbered = ("positive.1", "positive.2", "positive.3", "accept.0", "accession_in.0")
    for key in (*numbered, "codes.0.finding", "codes.1.finding"):
        assert f"hl7.{key}: " in str(caught.value)
    assert "7 fault(s)" in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"hl7: .*tls needs certificate"):
        load(write(tmp_path, "[hl7]\ntls = true\n"))


def test_a_phrase_takes_time_in_proportion_to_the_text() -> None:
    began = time.perf_counter()
    assert phrase("(a+)+b").search("a" * 200_000) is None
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("[dicom]\nport = 8080\n", "dicom.port and web.port"),
        ('[dicom]\nport = 8080\nhost = "0.0.0.0"\n', "dicom.port and web.port"),
        ('[web]\nport = 11112\nhost = "::"\n', "dicom.port and web.port"),
        ('[web]\nport = 11112\nhost = "localhost"\n', "dicom.port and web.port"),
        ("[hl7]\nenabled = true\nport = 11112\n", "dicom.port and hl7.port"),
        ("[hl7]\nenabled = true\nport = 8080\n", "web.port and hl7.port"),
    ],
)
def test_two_listeners_on_one_port_are_named(tmp_path: Path, text: str, pair: str) -> None:
    with pytest.raises(ConfigurationError, match=pair):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "[dicom]\nport = 0\n[web]\nport = 0\n",  # any free port
        '[dicom]\nport = 8080\nhost = "10.0.0.1"\n',
        "[hl7]\nport = 11112\n",  # not listened on
    ],
)
def test_ports_that_are_apart_are_not(tmp_path: Path, text: str) -> None:
    load(write(tmp_path, text))


@pytest.mark.parametrize(
    "url",
    [
        "https://pacs.example/viewer?study={study_uid}&accession={accession_number}",
        "http://pacs.example:8042/#/patients/{patient_id}/studies/{study_uid}",
        "https://pacs.example/worklist",
        "",
    ],
)
def test_a_link_into_the_viewer(tmp_path: Path, url: str) -> None:
    web = load(write(tmp_path, f'[web]\nviewer_url = "{url}"\n')).web
    assert (web.viewer_url, web.research) == (url, False)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "pacs.example/{study_uid}",
        "https://{patient_id}.example/",
        "https://pacs.example/{study_uid.__class__}",
        "https://pacs.example/{name}",
        "https://pacs.example/{{study_uid}}",
        "https://pacs.example/{study_uid",
        "https://pacs.example/a b/{study_uid}",
        "https://pacs.example/#a b",
    ],
)
def test_what_is_no_link_into_a_viewer(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"web\.viewer_url"):
        load(write(tmp_path, f'[web]\nviewer_url = "{url}"\n'))
