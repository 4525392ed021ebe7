"""From what is recorded to what a person reads; the templates' filters and tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from schemas.decision import Consistency
from schemas.flag import WITHDRAWN, Withdrawal
from schemas.lifecycle import OutboxState, StudyState
from schemas.not_analysed import WORDS, NotAnalysed

_LONGEST: Final = 200  # characters of a text that somebody sent

STATES: Final = {
    StudyState.RECEIVING: "being read",
    StudyState.READ: "settled",
    StudyState.FINAL: "final",
}

DELIVERIES: Final = {
    OutboxState.PENDING: "waiting",
    OutboxState.SENDING: "being sent",
    OutboxState.SENT: "told",
    OutboxState.REFUSED: "refused",
    OutboxState.SUPERSEDED: "overtaken",
}

CONSISTENCIES: Final = {
    Consistency.AGREE: "",
    Consistency.LABELS_ONLY: "the two models disagree",
    Consistency.BINARY_ONLY: "the two models disagree",
}


def waited(since: datetime, now: datetime) -> str:
    """ "41 min", "3 h 05", "2 d 4 h"; the page's script counts on in the same words."""
    minutes = max(0, int((now - since).total_seconds() // 60))
    if minutes < 1:
        return "< 1 min"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d}" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def after(begin: datetime, end: datetime) -> str:
    """ "0.08 s", "41 s", then as `waited`."""
    seconds = max(0.0, (end - begin).total_seconds())
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 60 else waited(begin, end)


def at(written: str) -> datetime:
    """A moment out of the record's JSON."""
    return datetime.fromisoformat(written)


def sent(text: str) -> str:
    """A text as somebody sent it, fit for a line: no control or direction marks, not endless."""
    visible = "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})
    return visible if len(visible) <= _LONGEST else visible[: _LONGEST - 1] + "…"


def date(written: str) -> str:
    """A DA (PS3.5 6.2) as "1961-04-12"; what is none stays as it was sent."""
    whole = len(written) == 8 and written.isdecimal()
    return f"{written[:4]}-{written[4:6]}-{written[6:]}" if whole else sent(written)


def person(name: str) -> str:
    """A Person Name (PS3.5 6.2) as it is read: "PHANTOM, One"; of its groups the first that holds anything."""
    group = next((g for g in name.split("=") if g.strip(" ^")), "")
    family, _, rest = group.partition("^")
    given = " ".join(rest.replace("^", " ").split())
    return sent(", ".join(part for part in (family.strip(), given) if part))


def finding(words: str) -> str:
    """The first half of a reason: "pneumothorax 0.91"."""
    return words.partition(", ")[0]


def threshold(words: str) -> str:
    """The second half of a reason: "threshold 0.62"."""
    return words.partition(", ")[2]


def not_analysed(codes: Iterable[str]) -> str:
    """ "lateral view, blank image"."""
    return ", ".join(WORDS[NotAnalysed(code)] for code in codes)


def withdrawn(why: str) -> str:
    """ "flag withdrawn on a person's decision"."""
    words = WITHDRAWN[Withdrawal(why)]
    return f"flag withdrawn{'' if words.startswith('on ') else ':'} {words}"


def films(count: int) -> str:
    """ "1 film", "3 films"."""
    return f"{count} film" if count == 1 else f"{count} films"


def size(count: float) -> str:
    """Bytes for a person: "18.3 GiB"."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    unit = 0
    while count >= 1024 and unit < len(units) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f} {units[unit]}" if unit else f"{count:.0f} B"


FILTERS: Final = {
    f.__name__: f
    for f in (waited, after, at, sent, date, person, finding, threshold, not_analysed, withdrawn, films, size)
}
