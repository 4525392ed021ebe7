from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.decision import Urgency
from schemas.flag import Flag
from schemas.not_analysed import NotAnalysed
from tests.unit.notify.flags import EFFUSION, PNEUMOTHORAX, VALID, film, flag
from worker.notify.wording import CAUTION, headline, sentences


def test_a_raised_study() -> None:
    assert sentences(flag(film(reasons=[PNEUMOTHORAX, EFFUSION]))) == (
        "hilum raised this study: STAT.",
        "Pneumothorax 0.91, threshold 0.62; effusion 0.71, threshold 0.58.",
        "Model starter 1.0 (0123456789abcdef), revision 1.",
        "For triage only, not for diagnosis. The absence of a flag is not an all-clear.",
    )


def test_a_study_that_nothing_was_found_in_is_not_called_clear() -> None:
    assert sentences(flag(film()))[:2] == (
        "hilum read this study and left it in its standing order.",
        "No finding of the site's policy reached its threshold.",
    )


def test_what_was_not_analysed_is_counted_by_reason() -> None:
    lateral, child = NotAnalysed.LATERAL, NotAnalysed.CHILD
    films = [film(1, not_analysed=lateral), film(2, not_analysed=child), film(3, not_analysed=lateral)]
    said = sentences(flag(*films))
    assert said[0] == "hilum could not analyse this study; it keeps its standing order."
    assert said[1:3] == (
        "Not analysed: lateral view (2 films).",
        "Not analysed: patient below the age limit (1 film).",
    )


def test_a_study_raised_by_its_order_alone_gives_no_finding_as_the_reason() -> None:
    ordered = replace(flag(film()), urgency=Urgency.URGENT)
    assert headline(ordered) == "hilum raised this study: URGENT."


@pytest.mark.parametrize("example", VALID.values(), ids=VALID.keys())
def test_every_message_ends_with_the_caution_and_none_is_an_all_clear(example: Flag) -> None:
    said = sentences(example)
    assert said[-1] == CAUTION
    assert all(said)
    words = " ".join(said).lower()
    for forbidden in ("normal", "healthy", "no finding.", "negative", "unremarkable"):
        assert forbidden not in words
