"""`hilum requeue`, `replay` and `withdraw` of something and of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.flag import Withdrawal
from schemas.not_analysed import NotAnalysed
from tests.unit.cli.commands import call, configured
from tests.unit.worklist.ward import MODEL, PNEUMOTHORAX, Ward, not_read, read

PACS = """
[[destinations]]
name = "pacs"
kind = "paper"
when = "analysed"
"""


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """Study 1 is raised and its flag delivered; 2 was read, 3 was not analysed, and both wait to be told of."""
    with configured(tmp_path, PACS) as ward:
        ward.study(1, read(PNEUMOTHORAX))
        ward.deliver()
        ward.study(2, read())
        ward.study(3, not_read(NotAnalysed.NOT_CHEST))
        yield ward


def test_what_is_there_is_done(ward: Ward) -> None:
    assert "1 flag(s) will be sent again" in call(ward, "replay", "--study", "2.25.1")
    assert "1 film(s) back" in call(ward, "requeue", "--study", "2.25.3", "--state", "not-analysed")
    assert "the flag of 2.25.1 is withdrawn" in call(ward, "withdraw", "2.25.1")


def test_that_nothing_has_failed_is_no_fault(ward: Ward) -> None:
    assert "nothing to read again" in call(ward, "requeue")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("requeue", "--study", "2.25.9"), ("study 2.25.9 is not known here", "hilum worklist --json")),
        (("requeue", "--study", "2.25.1"), ("no film of study 2.25.1", "failed", "--state")),
        (("requeue", "--state", "failed"), ("failed", "--state")),
        (("replay", "--study", "[red]9"), ("study [red]9 is not known here",)),
        (("replay", "--study", "2.25.2"), ("nothing matches", "hilum report queue")),
        (("replay", "--destination", "pacs", "--state", "refused"), ("nothing matches", "state refused")),
        (("replay", "--until", "2001-01-01"), ("nothing matches",)),
        (("withdraw", "2.25.9"), ("study 2.25.9 is not known here", "hilum worklist --json")),
        (("withdraw", "2.25.3"), ("no flag of 2.25.3 is out", "hilum results 2.25.3")),
        (("withdraw", "--model", "starter"), ("model starter has raised no study", "hilum models list")),
    ],
)
def test_what_matches_nothing_is_told_with_the_mend(ward: Ward, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    output = call(ward, *words, code=1)
    for word in told:
        assert word in output


def test_a_recalled_model_and_the_same_again(ward: Ward) -> None:
    assert "1 flag(s) withdrawn" in call(ward, "withdraw", "--model", MODEL.id)
    assert "has raised no study that is open" in call(ward, "withdraw", "--model", MODEL.id, code=1)


def test_what_is_reported_leaves_the_worklist_flag_or_none(ward: Ward) -> None:
    assert "2.25.3 counts as reported" in call(ward, "withdraw", "2.25.3", "--because", "reported")
    withdrawn = {row.study_uid: row.withdrawn for row in ward.worklist.rows(9)}
    assert withdrawn.get("2.25.3", Withdrawal.REPORTED) is Withdrawal.REPORTED


def test_films_that_wait_already_are_no_choice(ward: Ward) -> None:
    assert "spooled" in call(ward, "requeue", "--state", "spooled", code=2)
