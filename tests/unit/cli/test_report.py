"""`hilum report` and `hilum replay`, as a person and a program call them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import Label
from schemas.flag import Receipt
from schemas.identity import StudyContext
from schemas.outcome import Audience
from schemas.standing import Line, Standing
from schemas.tables import ReportRow
from tests.contract.record.given import Record, read
from tests.unit.infer.bundles import card
from worker.cli.main import app
from worker.cli.qucad import OperatingPoint, Site, operating_point, write
from worker.record.database import Database
from worker.record.destinations import Destinations
from worker.record.times import Arrivals

NOW = datetime.now(UTC)
AUDIENCES = tuple(Audience(name=name, when="analysed") for name in ("pacs", "shadow"))
CONFIG = """
[database]
url = "{url}"
[[destinations]]
name = "pacs"
kind = "dicom-sr"
ae_title = "PACS"
port = 11113
[[destinations]]
name = "shadow"
kind = "paper"
folder = "{folder}/paper"
"""


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    url = f"sqlite:///{tmp_path}/hilum.db"
    database = Database(url)
    database.migrate()
    (tmp_path / "hilum.toml").write_text(CONFIG.format(url=url, folder=tmp_path))
    yield Record(database, url)
    database.close()


def call(folder: Path, *words: str) -> str:
    run = CliRunner().invoke(app, [*words, "--config", str(folder / "hilum.toml")])
    assert run.exit_code == 0, run.output
    return run.output


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def film(record: Record, study: int, at: datetime, *, took: float) -> None:
    """Received, decided a second later, sent to the PACS `took` seconds after it came."""
    record.receive(1, study, context=StudyContext(accession_number=str(study), modality="DX"), at=at)
    record.conclude(record.claim(at=at), read(0.9), audiences=AUDIENCES, at=at + timedelta(seconds=1))
    delivery = record.deliver("pacs", at + timedelta(seconds=2))
    record.outbox.sent(delivery.id, "courier", Receipt(object_id="1.2", proof="0x0000"), at + timedelta(seconds=took))


def test_the_queue_shows_lines_backlogs_and_refusals_with_their_mend(record: Record, tmp_path: Path) -> None:
    now = datetime.now(UTC)  # not that of the import: a whole run takes its time
    for study in range(3):
        record.film(1, study, read(0.9), audiences=AUDIENCES, at=now - timedelta(minutes=30))
    refused = record.deliver("pacs", now)
    record.outbox.refuse(refused.id, "courier", "PACS does not know HILUM: add it [there]\x1b[2J", now)
    standing = Standing(
        destination="pacs",
        line=Line.OPEN,
        failures=4,
        since=now - timedelta(seconds=9),
        next_trial_at=now + timedelta(seconds=3000),
        last_error="nothing listens there: is it running?",
    )
    Destinations(record.database).note(standing)
    pacs, shadow, refusal = lines(call(tmp_path, "report", "queue", "--json"))
    assert (pacs["line"], pacs["failures"], pacs["pending"], pacs["refused"]) == ("open", 4, 2, 1)
    assert pacs["last_error"] == standing.last_error
    assert (shadow["line"], shadow["pending"], shadow["last_error"]) == (None, 3, "")
    assert (refusal["destination"], refusal["refused"], refusal["urgency"]) == ("pacs", 1, "STAT")
    words = " ".join(call(tmp_path, "report", "queue").split())
    trial = (now + timedelta(seconds=3000)).astimezone()
    for told in (
        f"down, tried again at {trial:%H:%M:%S}",
        "nothing",
        "30 min",
        "not yet served",
        "[there]",
        "hilum replay --state refused",
    ):
        assert told in words
    assert "\x1b[2J" not in words


def test_a_destination_that_was_taken_out_is_not_forgotten_while_something_waits(
    record: Record, tmp_path: Path
) -> None:
    record.film(1, 1, read(0.9), audiences=(Audience(name="gone", when="analysed"),))
    gone = lines(call(tmp_path, "report", "queue", "--json"))[-1]
    assert (gone["destination"], gone["configured"], gone["pending"]) == ("gone", False, 1)
    assert "nobody delivers" in call(tmp_path, "report", "queue")


def test_a_trial_that_is_overdue_is_told(record: Record, tmp_path: Path) -> None:
    standing = Standing(destination="pacs", line=Line.OPEN, since=NOW, next_trial_at=NOW - timedelta(seconds=60))
    Destinations(record.database).note(standing)
    assert "does a worker deliver?" in " ".join(call(tmp_path, "report", "queue").split())


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        ({"line": Line.CLOSED}, "up"),
        ({"line": Line.CLOSED, "failures": 1, "next_trial_at": NOW + timedelta(hours=1)}, "resting, tried again at "),
        ({"line": Line.CLOSED, "failures": 1}, "being tried"),
        ({"line": Line.OPEN, "failures": 4, "next_trial_at": NOW + timedelta(hours=1)}, "down, tried again at "),
        ({"line": Line.HALF_OPEN, "failures": 4}, "being tried"),
    ],
)
def test_how_a_destination_does_in_plain_words(
    record: Record, tmp_path: Path, standing: dict[str, Any], told: str
) -> None:
    Destinations(record.database).note(Standing(destination="pacs", since=NOW, **standing))
    words = call(tmp_path, "report", "queue")
    line = next(line for line in words.splitlines() if line.split()[0] == "pacs")
    assert told in line
    assert "closed" not in words
    assert "open" not in words


def test_a_site_without_destinations_is_told_so(record: Record, tmp_path: Path) -> None:
    (tmp_path / "hilum.toml").write_text(f'[database]\nurl = "{record.url}"\n')
    assert "nobody is told" in call(tmp_path, "report", "queue")


def test_times_by_destination_and_by_hour(record: Record, tmp_path: Path) -> None:
    for study, took in enumerate((2.0, 3.0, 4.0)):
        film(record, study, NOW - timedelta(hours=study + 1), took=took)
    film(record, 9, NOW - timedelta(days=30), took=500.0)
    rows = {(row["destination"], row["stage"]): row for row in lines(call(tmp_path, "report", "times", "--json"))}
    sent = rows["pacs", "sent"]
    assert (sent["flags"], rows["shadow", "sent"]["flags"], rows["shadow", "sent"]["p50_ms"]) == (3, 0, None)
    assert sent["p50_ms"] == pytest.approx(3000, rel=0.011)
    assert sent["p99_ms"] == pytest.approx(4000, rel=0.011)
    assert rows["pacs", "decided"]["p95_ms"] == pytest.approx(1000, rel=0.011)
    hours = {row["hour"] for row in lines(call(tmp_path, "report", "times", "--by", "hour", "--json"))}
    assert hours == {f"{(NOW - timedelta(hours=n)).astimezone():%H}" for n in (1, 2, 3)}
    assert "shadow" in call(tmp_path, "report", "times")
    early = (NOW - timedelta(days=400)).strftime("%Y-%m-%dT%H:%M:%S")
    assert "no flag" in call(tmp_path, "report", "times", "--until", early)


def test_replay_by_time_and_state(record: Record, tmp_path: Path) -> None:
    for study in range(4):
        film(record, study, NOW - timedelta(hours=study), took=2.0)
    until = (NOW - timedelta(hours=1, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S")
    refused = ["replay", "--until", until, "--state", "refused", "--config", str(tmp_path / "hilum.toml")]
    assert CliRunner().invoke(app, refused).exit_code == 1
    assert call(tmp_path, "replay", "--until", until, "--state", "sent").startswith("2 flag(s)")
    bare = CliRunner().invoke(app, ["replay", "--config", str(tmp_path / "hilum.toml")])
    assert bare.exit_code == 2


def read_qucad(file: Path) -> dict[str, str]:
    """As its inputHandler does: what comes before a "#", a key and one value."""
    kept = [line.split("#")[0].split() for line in file.read_text(encoding="utf-8").splitlines()]
    return {words[0]: words[1] for words in kept if words}


def site(**changes: Any) -> Site:
    point = OperatingPoint(sensitivity=0.9, specificity=0.8, prevalence=0.1, words="Pneumothorax: as given")
    arrivals = Arrivals(studies=101, first_at=NOW - timedelta(minutes=1000), last_at=NOW, films_read=120)
    values = {"radiologists": 1, "minutes": 5.0, "minutes_diseased": 8.0, "point": point, "arrivals": arrivals}
    return Site(since=NOW - timedelta(days=1), until=NOW, **{**values, **changes})


def test_qucad_gets_rates_in_its_own_form(tmp_path: Path) -> None:
    roc = write(tmp_path / "site.dat", site())
    told = read_qucad(tmp_path / "site.dat")
    assert float(told["traffic"]) == pytest.approx(0.1 * (0.1 * 8 + 0.9 * 5), abs=1e-5)
    assert (told["nRadiologists"], told["meanServiceTimeDiseasedMin"], told["meanServiceTimeNonDiseasedMin"]) == (
        "1",
        "8",
        "5",
    )
    assert (float(told["prevalence"]), float(told["TPFThresh"]), told["FPFThresh"]) == (0.1, 0.9, "None")
    assert told["rocFile"] == str(roc)
    assert set(told) == {
        *("traffic", "fractionED", "nRadiologists", "prevalence", "TPFThresh", "FPFThresh", "rocFile"),
        *("meanServiceTimeDiseasedMin", "meanServiceTimeNonDiseasedMin", "meanServiceTimeInterruptingMin"),
    }


def test_the_simulator_reads_the_same_specificity_off_the_curve(tmp_path: Path) -> None:
    """By its own way: a straight line through the normal quantiles of both columns."""
    rows = write(tmp_path / "site.dat", site()).read_text().split()
    quantile = NormalDist().inv_cdf
    x, y = zip(*([quantile(float(p)) for p in row.split(",")] for row in rows), strict=True)
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    offset = mean_y - slope * mean_x
    assert 1 - NormalDist().cdf((quantile(0.9) - offset) / slope) == pytest.approx(0.8, abs=1e-3)


def test_more_than_can_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--radiologists"):
        write(tmp_path / "site.dat", site(minutes=12.0))
    (tmp_path / "a b").mkdir()
    with pytest.raises(ConfigurationError, match="space"):
        write(tmp_path / "a b" / "site.dat", site())


def test_a_perfect_flag_has_a_curve_too(tmp_path: Path) -> None:
    point = OperatingPoint(sensitivity=1.0, specificity=1.0, prevalence=0.1, words="")
    assert write(tmp_path / "site.dat", site(point=point)).read_text().count("\n") > 2


def test_the_command_measures_arrivals_and_takes_the_reports(record: Record, tmp_path: Path) -> None:
    for study in range(6):
        film(record, study, NOW - timedelta(minutes=10 * study), took=2.0)
    file = str(tmp_path / "site.dat")
    options = ["--radiologists", "1", "--minutes", "4", "--days", "1"]
    assert "traffic 0.40" in call(tmp_path, "report", "qucad", file, *options).replace("\n", " ")
    assert float(read_qucad(Path(file))["TPFThresh"]) == pytest.approx(0.8852, abs=1e-3)
    said_at = NOW - timedelta(hours=1)
    verdicts = [("positive", "positive")] * 3 + [("positive", "negative")] + [("negative", "negative")] * 2
    rows = [report(study, said_at, *verdict) for study, verdict in enumerate(verdicts, 1)]
    record.database.write(lambda connection: connection.execute(insert(ReportRow), rows))
    words = call(tmp_path, "report", "qucad", file, *options, "--by-reports")
    assert "sensitivity by signed reports" in words.replace("\n", " ")
    told = read_qucad(Path(file))
    assert (float(told["TPFThresh"]), float(told["prevalence"])) == pytest.approx((0.75, 4 / 6), abs=1e-4)


def report(study: int, at: datetime, verdict: str, model: str) -> dict[str, Any]:
    empty = {"report_id": "", "corrected": False, "rule": "", "findings": [], "model_words": [], "disagrees": False}
    return {**empty, "study_id": study, "said_at": at, "received_at": at, "verdict": verdict, "model_verdict": model}


def test_the_operating_point_is_the_cards_unless_the_site_knows_better() -> None:
    figures = {"sensitivity": {"value": 0.88}, "specificity": {"value": 0.34}, "prevalence": 0.08}
    tested = card(metrics={"test": {"findings": {"Pneumothorax": figures}}})
    point = operating_point(Policy(), tested, None, {"specificity": (0.5, "as given")})
    assert (point.sensitivity, point.specificity, point.prevalence) == (0.88, 0.5, 0.08)
    assert point.words.startswith("Pneumothorax: sensitivity of the card's test films, specificity as given")
    with pytest.raises(ConfigurationError, match="card does not say"):
        operating_point(Policy(), tested, "Mass", {})
    with pytest.raises(ConfigurationError, match="choose among"):
        operating_point(Policy(), tested, "Nothing", {})
    own = Policy(findings={Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.7)})
    with pytest.raises(ConfigurationError, match="threshold of its own"):
        operating_point(own, tested, None, {})
