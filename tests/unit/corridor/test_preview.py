"""Past studies under an edited policy; and the same films under it when it has come into force."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import Label
from schemas.gate import GateRules
from schemas.identity import StudyContext
from tests.contract.record.given import NOW, SENDER, Record, after, instance
from tests.unit.corridor.past import CARD, MODEL, drawn, said, take, week
from worker.corridor.bell import Bell
from worker.corridor.in_force import PolicyWatch
from worker.corridor.live import Live, Reader
from worker.corridor.preview import MOST_DAYS, Previews
from worker.corridor.reading import Reading, ReadingRules
from worker.ports import SpooledFile
from worker.record.database import Database
from worker.record.history import History
from worker.record.judged import Judged
from worker.record.policies import Policies
from worker.simulate import phantom

EDITED = Policy(
    findings={
        Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.06),
        Label.EFFUSION: Rule(urgency=Urgency.STAT),
        Label.MASS: Rule(urgency=Urgency.URGENT, threshold=0.08),
        Label.NODULE: Rule(urgency=Urgency.ROUTINE, threshold=0.5),
    },
    binary=Rule(urgency=Urgency.URGENT, threshold=0.97),
)


def opened(folder: Path) -> Record:
    url = f"sqlite:///{folder}/hilum.db"
    database = Database(url)
    database.migrate()
    return Record(database, url)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = opened(tmp_path)
    yield made
    made.database.close()


def previews(record: Record, now: datetime = NOW, keep: float = 300.0) -> Previews:
    return Previews(History(record.database), Judged(record.database), lambda: CARD, lambda: now, keep=keep)


def test_the_policy_in_force_beside_itself_changes_nothing(record: Record) -> None:
    week(record, 60)
    seen = previews(record).preview(Policy(), Policy(), 7)
    assert (seen.studies, seen.films) == (60, 80)
    assert seen.before == seen.after
    assert seen.before.raised > 10
    assert (seen.gained, seen.lost, seen.other_urgency, seen.changed) == (0, 0, 0, ())
    assert all(span.before == span.after for span in (*seen.days, *seen.hours))
    assert all(share.before == share.after for share in seen.shares.values())


def test_what_was_really_raised_is_what_the_policy_of_then_gives(record: Record) -> None:
    week(record, 60)
    seen = previews(record).preview(Policy(), Policy(), 7)
    raised = {row.study_uid: row for row in record.worklist.rows(100) if row.urgency > Urgency.ROUTINE}
    assert seen.flags.keys() == raised.keys()
    for uid, flag in seen.flags.items():
        assert (flag.urgency, tuple(r.words for r in flag.reasons)) == (raised[uid].urgency, raised[uid].reasons)


def test_gained_lost_and_other_urgency_are_told_with_their_studies(record: Record) -> None:
    take(record, 1, said(MASS=0.3), at=after(-3600))
    take(record, 2, said(PNEUMOTHORAX=0.05), at=after(-7200))
    take(record, 3, said(EFFUSION=0.3), at=after(-10800))
    take(record, 4, said(PNEUMOTHORAX=0.9), at=after(-14400))
    take(record, 5, said(), at=after(-14400))
    seen = previews(record).preview(EDITED, Policy(), 7)
    assert (seen.gained, seen.lost, seen.other_urgency) == (1, 1, 1)
    kinds = [(c.study_uid, c.before and c.before.urgency, c.after and c.after.urgency) for c in seen.changed]
    assert kinds == [
        ("1.2.3.1", None, Urgency.URGENT),
        ("1.2.3.2", Urgency.STAT, None),
        ("1.2.3.3", Urgency.URGENT, Urgency.STAT),
    ]
    gained = seen.changed[0].after
    assert gained is not None
    assert (gained.at, [r.words for r in gained.reasons]) == (after(-3600), ["mass 0.300, threshold 0.080"])
    shares = {o: (s.reached, s.before, s.after) for o, s in seen.shares.items() if s.reached}
    assert shares == {"Pneumothorax": (1, 2, 1), "Effusion": (1, 1, 1), "Mass": (1, 0, 1)}
    assert seen.before.urgencies == {Urgency.STAT: 2, Urgency.URGENT: 1}
    assert seen.after.urgencies == {Urgency.STAT: 2, Urgency.URGENT: 1}


def test_flags_are_counted_by_day_and_by_hour(record: Record) -> None:
    for study, hours in enumerate((1, 1.2, 25, 73), 1):
        take(record, study, said(PNEUMOTHORAX=0.9), at=NOW - timedelta(hours=hours))
    seen = previews(record).preview(Policy(), Policy(), 7)
    assert len(seen.days) == 8
    assert sum(day.after for day in seen.days) == 4
    days = 73 / 24  # from the first film on: before it nobody was there to raise anything
    assert seen.after.per_hour == pytest.approx(4 / 73)
    assert len(seen.hours) == 24
    at = (NOW - timedelta(hours=1)).astimezone().hour
    assert seen.hours[at].after == pytest.approx(3 / days)
    assert sum(hour.after for hour in seen.hours) == pytest.approx(4 / days)
    assert seen.after.busiest == 1


def test_curves_count_each_finding_alone(record: Record) -> None:
    for study, p in enumerate((0.01, 0.2, 0.2, 0.7), 1):
        take(record, study, said(MASS=p), at=NOW - timedelta(hours=10))
    curve = previews(record).curves(7)["Mass"]
    flags = dict(zip(curve.thresholds, curve.flags_per_hour, strict=True))
    assert list(curve.thresholds) == sorted(curve.thresholds)
    assert max(v for t, v in flags.items() if t > 0.2) == pytest.approx(0.1)
    assert max(flags.values()) == pytest.approx(0.4)
    assert min(flags.values()) == 0
    assert curve.card_threshold == CARD.thresholds["Mass"]
    assert len(curve.goodness) == len(curve.thresholds)


def test_studies_are_read_once_and_anew_for_a_dry_run(record: Record) -> None:
    take(record, 1, said(MASS=0.3), at=after(-100))
    asked = previews(record)
    assert asked.preview(Policy(), Policy(), 7).studies == 1
    take(record, 2, said(MASS=0.3), at=after(-50))
    assert asked.preview(EDITED, Policy(), 7).studies == 1
    assert asked.preview(EDITED, Policy(), 7, fresh=True).studies == 2
    assert asked.preview(EDITED, Policy(), 7).studies == 2


@pytest.mark.parametrize("days", [0, -1, MOST_DAYS + 1])
def test_more_than_a_month_is_not_looked_at(record: Record, days: float) -> None:
    with pytest.raises(ConfigurationError, match="days"):
        previews(record).preview(Policy(), Policy(), days)


def test_an_empty_record_raises_nothing(record: Record) -> None:
    seen = previews(record).preview(EDITED, Policy(), 7)
    assert (seen.studies, seen.after.raised, seen.after.per_hour, seen.after.busiest) == (0, 0, 0, 0)


def test_a_preview_changes_nothing(record: Record, tmp_path: Path) -> None:
    week(record, 10)
    before = (tmp_path / "hilum.db").read_bytes(), (tmp_path / "hilum.db-wal").read_bytes()
    asked = previews(record)
    asked.preview(EDITED, Policy(), 7)
    asked.curves(7)
    assert ((tmp_path / "hilum.db").read_bytes(), (tmp_path / "hilum.db-wal").read_bytes()) == before


def test_a_weeks_two_thousand_studies_follow_a_threshold_that_is_dragged(record: Record) -> None:
    """Issue: within 300 ms. Machines that run tests are busy: the best of some counts."""
    week(record, 300)
    asked = previews(record)
    past = asked._past(7)
    copies = [study for study in past.studies for _ in range(7)][:2000]
    object.__setattr__(past, "studies", copies)
    asked.preview(Policy(), Policy(), 7)
    took = []
    for step in range(5):
        edited = Policy(findings={Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.03 + step / 100)})
        began = time.perf_counter()
        assert asked.preview(edited, Policy(), 7).studies == 2000
        took.append(time.perf_counter() - began)
    assert min(took) < 0.3


class ByPixels:
    """An engine whose answer is drawn from the film's pixels: the same film, the same answer."""

    @contextmanager
    def expect(self) -> Iterator[None]:
        yield

    def submit(self, tensor: Any, urgency: Urgency) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(drawn(random.Random(hashlib.sha256(tensor.tobytes()).digest())))
        return future


class Folder:
    """A spool that is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, file: str) -> Path:
        return self._folder / file


def send(record: Record, films: Path, studies: range) -> None:
    """The films of these studies come in."""
    for path in sorted(films.iterdir()):
        study, _, film = path.stem.partition("-")
        if int(study) in studies:
            file = SpooledFile(path=path.name, size=1, sha256=path.stem)
            context = StudyContext(modality="DX")
            record.instances.receive(
                instance(int(film), int(study)), file, SENDER, context, Urgency.ROUTINE, after(-60)
            )


@contextmanager
def readers(record: Record, films: Path) -> Iterator[Callable[[], None]]:
    """Readers that decide by whatever is in force in this record; what is given waits until every film is read."""
    watch = PolicyWatch(Policies(record.database), Policy(), lambda: NOW, every=0.05)
    engine: Any = ByPixels()
    reading = Reading(
        jobs=record.jobs,
        spool=Folder(films),  # type: ignore[arg-type]
        live=Live(Reader(engine=engine, model=MODEL, card=CARD)),
        gate=GateRules(),
        policy=watch.in_force,
        route=lambda news, told: ["pacs"],
        work=Bell(),
        news=Bell(),
        owner="me",
        rules=ReadingRules(look_every=0.01),
        clock=lambda: NOW,
        readers=2,
    )

    def wait() -> None:
        until = time.monotonic() + 60
        while any(record.worklist.counts().films.values()):
            assert time.monotonic() < until
            time.sleep(0.02)

    reading.start()
    yield wait
    reading.stop()


def raised(record: Record) -> dict[str, tuple[Urgency, tuple[str, ...]]]:
    """What the list has of it, by study."""
    return {row.study_uid: (row.urgency, row.reasons) for row in record.worklist.rows(1000) if row.urgency}


def read_films(record: Record, films: Path) -> dict[str, tuple[Urgency, tuple[str, ...]]]:
    """Every film comes in and is read; what was raised."""
    send(record, films, range(1000))
    with readers(record, films) as wait:
        wait()
    return raised(record)


def decided_by(record: Record, study: int) -> set[int]:
    """Numbers of the policies that decided the study's films."""
    story = record.worklist.results(f"1.2.3.{study}")
    assert story is not None
    return {said["policy"] for film in story["films"] for said in film["predictions"]}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve studies of one to three films, one film of them a lateral, which is not read."""
    folder = tmp_path_factory.mktemp("films")
    for study in range(1, 13):
        for film in range(1, 1 + (1, 2, 1, 3)[study % 4]):
            view: Any = "LL" if (study, film) == (5, 2) else "PA"
            made = phantom.dataset(100 * study + film, rows=256, columns=224, view=view)
            made.save_as(folder / f"{study}-{film}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    "edited", [EDITED, Policy(findings={}), Policy(on_disagreement="hold", binary=Rule(urgency=Urgency.STAT))]
)
def test_the_dry_run_is_what_then_happens(tmp_path: Path, films: Path, edited: Policy) -> None:
    """The same films, in another hospital where the edited policy is in force: exactly the flags of the dry run."""
    here, there = opened(tmp_path / "here"), opened(tmp_path / "there")
    before = read_films(here, films)
    dry = previews(here, after(60)).preview(edited, Policy(), 7)
    assert dry.before.raised == len(before) > 0

    policies = Policies(there.database)
    proposed = policies.propose(edited, made_by="chief", note="", now=after(-120))
    policies.enact(proposed.number, enacted_by="chief", because="as the dry run shows", over=0, now=after(-100))
    then = read_films(there, films)

    assert {uid: (f.urgency, tuple(r.words for r in f.reasons)) for uid, f in dry.flags.items()} == then
    assert before != then
    assert dry.gained == len(then.keys() - before.keys())
    assert dry.lost == len(before.keys() - then.keys())
    assert decided_by(there, 1) == {proposed.number}
    for record in (here, there):
        record.database.close()


def test_what_is_enacted_decides_the_films_that_follow(tmp_path: Path, films: Path) -> None:
    """In readers that run: within a second or two, and each film keeps the number of what decided it."""
    record = opened(tmp_path)
    policies = Policies(record.database)
    with readers(record, films) as wait:
        send(record, films, range(1, 7))
        wait()
        before = raised(record)
        made = policies.propose(Policy(findings={}), made_by="chief", note="", now=NOW)
        policies.enact(made.number, enacted_by="chief", because="nobody reads at night", over=0, now=NOW)
        time.sleep(0.2)  # four times as long as between two looks
        send(record, films, range(7, 13))
        wait()
    assert before
    assert raised(record) == before  # what was raised stays raised, what followed is silent
    assert [decided_by(record, study) for study in (1, 6, 7, 12)] == [{0}, {0}, {made.number}, {made.number}]
    record.database.close()
