"""What a candidate says in silence is kept beside what was said aloud, and compared study by study."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.decision import Urgency
from schemas.outcome import ModelRef, Read
from schemas.registry import ModelState, ShadowFilm
from tests.contract.record.given import NOW, Record, after, not_read, read
from tests.contract.record.test_record_registry import LIVE, NEW, PROOFS, A, B
from worker.record.registry import Registry
from worker.record.shadow import Shadows
from worker.record.side_by_side import compare


@pytest.fixture
def shadows(record: Record) -> Shadows:
    """One model is live, another reads along."""
    registry = Registry(record.database)
    registry.first("starter", LIVE, NOW, PROOFS)
    registry.add("new", NEW, who="anna", why="", now=NOW, proofs=PROOFS)
    registry.move(B, ModelState.SHADOW, who="anna", why="", now=NOW)
    return Shadows(record.database)


def by(model: str, outcome: Read) -> Read:
    return replace(outcome, prediction=replace(outcome.prediction, model_id=model))


def film(record: Record, shadows: Shadows, study: int, live: float, shadow: float, *, number: int = 1) -> int:
    """One film, as both say it of pneumothorax, a minute to a study."""
    at = after(60 * study)
    record.receive(number, study, at=at)
    job = record.claim(at=at)
    aloud, silent = by(A, read(live)), by(B, read(shadow))
    record.conclude(job, aloud, at=at)
    shadows.keep(job.id, (silent.prediction, silent.decision), (aloud.prediction, aloud.decision), at)
    return job.id


def test_flags_gained_and_lost(record: Record, shadows: Shadows) -> None:
    for study, (live, shadow) in enumerate([(0.9, 0.9), (0.1, 0.9), (0.9, 0.1), (0.1, 0.1), (0.1, 0.1)]):
        film(record, shadows, study, live, shadow)
    found = compare(shadows.films(B, NOW, after(3600)))
    assert (found.films, found.studies, found.both, found.neither) == (5, 5, 1, 2)
    assert [pair.study_uid for pair in found.gained] == ["1.2.3.1"]
    assert [pair.study_uid for pair in found.lost] == ["1.2.3.2"]
    assert found.agreement == pytest.approx(3 / 5)
    assert found.kappa == pytest.approx((0.6 - 0.52) / 0.48)
    assert [(f.finding, f.live, f.shadow, f.both) for f in found.findings] == [("Pneumothorax", 2, 2, 1)]
    assert found.urgencies[Urgency.ROUTINE, Urgency.STAT] == 1


def test_a_study_is_as_urgent_as_its_most_urgent_film(record: Record, shadows: Shadows) -> None:
    film(record, shadows, 1, live=0.9, shadow=0.1)
    film(record, shadows, 1, live=0.1, shadow=0.9, number=2)
    found = compare(shadows.films(B, NOW, after(3600)))
    assert (found.films, found.studies, found.both) == (2, 1, 1)


def test_only_the_window_and_no_more_than_asked_for(record: Record, shadows: Shadows) -> None:
    for study in range(5):
        film(record, shadows, study, 0.1, 0.1)
    assert len(shadows.films(B, after(60), after(180))) == 2
    latest = shadows.films(B, NOW, after(3600), limit=2)
    assert [f.study_uid for f in latest] == ["1.2.3.4", "1.2.3.3"]
    spell = shadows.spell(B)
    assert (spell.films, spell.first_at, spell.last_at) == (5, NOW, after(240))
    assert shadows.films(A, NOW, after(3600)) == []
    assert shadows.spell(A).films == 0


def test_a_film_that_is_read_again_counts_once(record: Record, shadows: Shadows) -> None:
    job = film(record, shadows, 1, 0.1, 0.1)
    aloud, silent = by(A, read(0.1)), by(B, read(0.9))
    shadows.keep(job, (silent.prediction, silent.decision), (aloud.prediction, aloud.decision), after(100))
    (found,) = shadows.films(B, NOW, after(3600))
    assert found.urgency is Urgency.STAT


def test_what_nobody_read_compares_nothing() -> None:
    found = compare([])
    assert (found.films, found.agreement, found.kappa, found.waits) == (0, None, None, ())


def test_the_shadow_does_not_touch_what_is_told(record: Record, shadows: Shadows) -> None:
    film(record, shadows, 1, live=0.1, shadow=0.9)
    (row,) = record.worklist.rows(10)
    assert row.urgency is Urgency.ROUTINE


def test_a_gained_flag_waits_less_and_what_it_overtakes_waits_longer() -> None:
    """Two bursts of ten studies, an hour apart; the last of the first is flagged by the shadow alone."""
    quiet = ShadowFilm(
        study_uid="",
        received_at=NOW,
        order_urgency=Urgency.ROUTINE,
        live_urgency=Urgency.ROUTINE,
        urgency=Urgency.ROUTINE,
        live_findings=frozenset(),
        findings=frozenset(),
    )
    films = [
        replace(quiet, study_uid=f"{burst}.{n}", received_at=after(3600 * burst + n))
        for burst in range(2)
        for n in range(10)
    ]
    films[9] = replace(films[9], urgency=Urgency.STAT)
    found = compare(films)
    pace = 0.9 * 3609 / 19
    assert found.pace == pytest.approx(pace / 60)
    waits = {w.group: w for w in found.waits}
    assert set(waits) == {"all studies", "flags gained"}
    gained, everybody = waits["flags gained"], waits["all studies"]
    assert gained.live_median == pytest.approx((9 * pace - 9) / 60)
    assert gained.median == pytest.approx((pace - 9) / 60)  # behind the one that was open already
    assert everybody.studies == 20
    assert everybody.live_longest == pytest.approx((9 * pace - 9) / 60)
    assert everybody.longest == pytest.approx((9 * pace - 8) / 60)  # the last but one is overtaken


def test_a_standing_order_goes_before_a_flag_of_less_urgency() -> None:
    film = ShadowFilm(
        study_uid="1",
        received_at=NOW,
        order_urgency=Urgency.STAT,
        live_urgency=Urgency.ROUTINE,
        urgency=Urgency.URGENT,
        live_findings=frozenset(),
        findings=frozenset(),
    )
    others = [replace(film, study_uid=str(n), order_urgency=Urgency.ROUTINE) for n in range(2, 12)]
    waits = {w.group: w for w in compare([*others, film]).waits}
    assert waits["all studies"].live_longest == waits["all studies"].longest


def test_what_was_not_read_keeps_the_name_of_the_model_that_spoke(record: Record) -> None:
    """A lateral film that comes after a change of the live model is no word of the new one."""
    record.film(1, outcome=read(0.9))
    record.receive(2, at=after(1))
    new = ModelRef(id=B, name="new", version="2")
    record.conclude(record.claim(at=after(1)), not_read(), model=new, at=after(1))
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    assert [(r["revision"], r["model_name"]) for r in results["revisions"]] == [(1, "starter"), (2, "starter")]
