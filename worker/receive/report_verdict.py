"""What a signed report says of its films, as far as that is certain without reading it as a person would.

Three ways, the surer before the other: findings that are coded (OBX-5), abnormal flags (OBX-8, table 0078), and the
site's own phrases in the text. Where phrases of both kinds are met, or none, the verdict is not known; nor is it where
the text is longer than any report, for what is not looked at may say the opposite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from schemas.context import Verdict
from schemas.findings import FINDINGS, SNOMED, Label
from worker.receive.hl7_in import Segment

OWN: Final = "HILUM"  # as OBX-18 of our own observations names whose they are
LONGEST_TEXT: Final = 256 * 1024  # characters of a report that phrases are looked for in
STUDY_UID: Final = "113014"  # DCM: the observation is the study's UID

_STANDING: Final = frozenset({"", "F", "C", "U"})  # OBX-11, table 0085: a result, and final
_CODED: Final = frozenset({"CE", "CWE", "CNE"})
_TEXTS: Final = frozenset({"TX", "FT", "ST"})
_ABNORMAL: Final = frozenset({"A", "AA"})


class Phrase(Protocol):
    """A compiled regular expression whose search takes time in proportion to the text."""

    def search(self, text: str) -> object | None:
        """Something, where it is found."""


@dataclass(frozen=True, kw_only=True)
class VerdictRules:
    """What the site says of its reports."""

    positive: Sequence[Phrase] = ()
    negative: Sequence[Phrase] = ()
    codes: Mapping[str, Label] = field(default_factory=dict)  # besides SNOMED CT's


class Said(NamedTuple):
    """The verdict, the rule that gave it, and the findings that are coded."""

    verdict: Verdict | None
    rule: str
    findings: tuple[Label, ...] = ()


_SNOMED: Final = {SNOMED[finding].value: finding for finding in FINDINGS}


def is_own(observation: Segment) -> bool:
    """Whether an OBX is what we said ourselves, come back inside of another's message."""
    return any(OWN in observation.subcomponents(device, 2) for device in observation.repetitions(18))


def verdict_of(observations: Sequence[Segment], rules: VerdictRules) -> Said:
    """What the OBX segments of a signed report say."""
    standing = [o for o in observations if o.text(11) in _STANDING and not is_own(o)]
    flags = {flag for o in standing for repetition in o.repetitions(8) for flag in [o.part(repetition, 1)]}
    codes = _codes(standing, {**_SNOMED, **rules.codes})
    if codes:
        return Said(Verdict.POSITIVE, f"code {next(iter(codes))}", tuple(dict.fromkeys(codes.values())))
    if flags & _ABNORMAL:
        return Said(Verdict.POSITIVE, f"OBX-8 {min(flags & _ABNORMAL)}")
    if "N" in flags:
        return Said(Verdict.NEGATIVE, "OBX-8 N")
    return _by_phrases([o for o in standing if o.text(2) in _TEXTS], rules)


def _by_phrases(texts: Sequence[Segment], rules: VerdictRules) -> Said:
    if sum(len(o.raw(5)) for o in texts) > LONGEST_TEXT:
        return Said(None, "text too long")
    text = _text(texts)
    positive = _first(rules.positive, text)
    negative = _first(rules.negative, text)
    if positive is not None and negative is not None:
        return Said(None, f"positive.{positive} and negative.{negative}")
    if positive is not None:
        return Said(Verdict.POSITIVE, f"positive.{positive}")
    return Said(None, "") if negative is None else Said(Verdict.NEGATIVE, f"negative.{negative}")


def _codes(observations: Sequence[Segment], known: Mapping[str, Label]) -> dict[str, Label]:
    """The codes of findings, in order; not those that are flagged as not found."""
    found: dict[str, Label] = {}
    for o in observations:
        if o.text(2) in _CODED and o.text(8) != "N":
            for repetition in o.repetitions(5):
                found |= {c: known[c] for c in (o.part(repetition, 1), o.part(repetition, 4)) if c in known}
    return found


def _text(observations: Sequence[Segment]) -> str:
    """The report's text on one line, so that a phrase may run over the end of one."""
    return " ".join(" ".join(o.unescape(o.raw(5)) for o in observations).split())


def _first(phrases: Sequence[Phrase], text: str) -> int | None:
    return next((number for number, phrase in enumerate(phrases) if phrase.search(text) is not None), None)
