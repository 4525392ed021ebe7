"""What a flag says to a person; the same sentences in every dialect.

No sentence is an all-clear: what is not raised has not been called healthy (see `CAUTION`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas.decision import Reason, Urgency
from schemas.flag import WITHDRAWN, FilmResult, Flag
from schemas.not_analysed import WORDS, NotAnalysed

CAUTION: Final = "For triage only, not for diagnosis. The absence of a flag is not an all-clear."
NOTHING_RAISED: Final = "No finding of the site's policy reached its threshold."


def headline(flag: Flag) -> str:
    """What hilum did with the study, in one sentence: "hilum raised this study: STAT."."""
    if flag.withdrawn is not None:
        return f"hilum withdrew its flag, {WITHDRAWN[flag.withdrawn]}: the study is back in its standing order."
    if flag.urgency > Urgency.ROUTINE:
        return f"hilum raised this study: {flag.urgency.name}."
    if any(film.not_analysed is None for film in flag.films):
        return "hilum read this study and left it in its standing order."
    return "hilum could not analyse this study; it keeps its standing order."


def because(reasons: Sequence[Reason]) -> str:
    """The reasons in one sentence, empty without any: "Pneumothorax 0.91, threshold 0.62; ..."."""
    words = "; ".join(reason.words for reason in reasons)
    return f"{words[0].upper()}{words[1:]}." if words else ""


def not_analysed(films: Sequence[FilmResult]) -> tuple[str, ...]:
    """One sentence per reason: "Not analysed: lateral view (2 films)."."""
    count: dict[NotAnalysed, int] = {}
    for film in films:
        if film.not_analysed is not None:
            count[film.not_analysed] = count.get(film.not_analysed, 0) + 1
    return tuple(f"Not analysed: {WORDS[code]} ({_films(n)})." for code, n in count.items())


def made_by(flag: Flag) -> str:
    """Which model said so."""
    return f"Model {flag.model_name} {flag.model_version} ({flag.model_id}), revision {flag.revision}."


def sentences(flag: Flag) -> tuple[str, ...]:
    """The whole message, sentence by sentence, the caution last."""
    read = sum(film.not_analysed is None for film in flag.films)
    why = because(flag.reasons) or (NOTHING_RAISED if read and flag.withdrawn is None else "")
    spoken = (headline(flag), why, *not_analysed(flag.films), made_by(flag), CAUTION)
    return tuple(sentence for sentence in spoken if sentence)


def _films(n: int) -> str:
    return "1 film" if n == 1 else f"{n} films"
