"""The promotion gate: what a candidate must show before it reads for patients.

It is no worse than the live model on test films that both were measured on, as far as the intervals can tell; it was
proven here; its operating points are its own. Better it need not be: a model may be wanted for other reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.card import ModelCard, model_id
from schemas.figures import Figure, figure_at, of_output
from schemas.findings import FINDINGS, LABELS
from schemas.registry import COMMAND_LINE, PARITY, Check

OUTPUTS: Final = ("binary", *LABELS)
# Fourteen findings are looked at, and one of fourteen equal ones falls out of its 95 % interval often. Widened by this
# the intervals hold all of them together (Bonferroni: 2.91 standard errors for 1.96).
TOGETHER: Final = 1.49
MEASURE_AGAINST: Final = "measure it against the live model (`hilum train --against`), and add it again"


def gate(
    candidate: ModelCard, live: ModelCard, *, proofs: Sequence[Check], who: str, other_than: str | None = None
) -> list[Check]:
    """Every condition of promotion, met or not, in the order in which a person asks.

    Parameters
    ----------
    proofs:
        What was proven of the candidate when it came in: its golden vectors on each runtime, and parity between two.
    who:
        Wants to promote it.
    other_than:
        Who brought it into the shadow, where two people are needed; None: one is enough.
    """
    checks = [
        _measured(candidate, live),
        _no_worse("any finding", [("any finding", *_pair(candidate, live, "binary"))], 1.0),
        _no_worse("findings together", [("the mean over the findings", *_macro(candidate, live))], 1.0),
        _no_worse("each finding", [(_name(f), *_pair(candidate, live, f)) for f in FINDINGS], TOGETHER),
        _golden(proofs),
        _parity(proofs),
        _refitted(candidate, live),
    ]
    return checks if other_than is None else [*checks, _second_person(who, other_than)]


def _name(output: str) -> str:
    return output.replace("_", " ").lower()


def _paired(candidate: ModelCard, live: ModelCard) -> Mapping[str, Any] | None:
    """The comparison film by film, where the candidate's card has one with this very model."""
    against = candidate.metrics.get("against")
    if isinstance(against, Mapping) and against.get("model_id") == model_id(live):
        comparison = against.get("comparison")
        return comparison if isinstance(comparison, Mapping) else None
    return None


def _measured(candidate: ModelCard, live: ModelCard) -> Check:
    paired = _paired(candidate, live)
    if paired is not None:
        words = f"both on the same {paired.get('films', '')} films of the candidate's test set, film by film"
        return Check(name="test set", passed=True, words=words)
    same = candidate.split_hash == live.split_hash
    films = [card.metrics.get("test", {}).get("films") for card in (candidate, live)]
    if same and films[0] == films[1] and films[0] is not None:
        words = f"both cards tell the same {films[0]} films of split {candidate.split_hash}"
        return Check(name="test set", passed=True, words=words)
    return Check(name="test set", passed=False, words=f"the cards tell of different films; {MEASURE_AGAINST}")


# The candidate's figure, the live model's, and the candidate's lead where it was measured film by film.
_Pair = tuple[Figure | None, Figure | None, Figure | None]


def _pair(candidate: ModelCard, live: ModelCard, output: str) -> _Pair:
    paired = _paired(candidate, live)
    if paired is None:
        return of_output(candidate, output, "auroc"), of_output(live, output, "auroc"), None
    at = paired.get("binary_auroc") if output == "binary" else paired.get("findings", {}).get(output)
    return figure_at(at, "mine"), figure_at(at, "other"), figure_at(at, "difference")


def _macro(candidate: ModelCard, live: ModelCard) -> _Pair:
    paired = _paired(candidate, live)
    if paired is None:
        mine, other = (figure_at(card.metrics.get("test"), "macro_auroc") for card in (candidate, live))
        return mine, other, None
    at = paired.get("macro_auroc")
    return figure_at(at, "mine"), figure_at(at, "other"), figure_at(at, "difference")


def _no_worse(
    name: str, pairs: Sequence[tuple[str, Figure | None, Figure | None, Figure | None]], wide: float
) -> Check:
    worse, unknown, told = [], [], []
    for what, mine, other, lead in pairs:
        if other is None:
            continue  # of what the live model was not measured at, nothing can be lost
        if mine is None:
            unknown.append(what)
            continue
        words = f"{what}: AUROC {mine}, live {other}"
        told.append(words)
        if lead is not None:
            bad = _reach(lead, wide, upwards=True) < 0
        else:
            bad = mine.value < _reach(other, wide, upwards=False)
        if bad:
            worse.append(words)
    if worse:
        return Check(name=name, passed=False, words=f"worse than chance explains: {'; '.join(worse)}")
    if unknown or not told:
        return Check(name=name, passed=False, words=f"not measured: {', '.join(unknown) or name}; {MEASURE_AGAINST}")
    return Check(name=name, passed=True, words=told[0] if len(told) == 1 else f"none of {len(told)} is worse")


def _reach(figure: Figure, wide: float, *, upwards: bool) -> float:
    """The end of an interval, made `wide` times as wide; the figure itself where it has none."""
    end = figure.high if upwards else figure.low
    return figure.value if end is None else figure.value + wide * (end - figure.value)


def _golden(proofs: Sequence[Check]) -> Check:
    proven = [f"{proof.name}: {proof.words}" for proof in proofs if proof.name != PARITY]
    good = bool(proven) and all(proof.passed for proof in proofs)
    words = "; ".join(proven) or "never replayed here; add it again"
    return Check(name="golden vectors", passed=good, words=words)


def _parity(proofs: Sequence[Check]) -> Check:
    for proof in proofs:
        if proof.name == PARITY:
            return Check(name=PARITY, passed=proof.passed, words=proof.words)
    words = "one runtime is installed here; its golden vectors hold it to the one that trained it"
    return Check(name=PARITY, passed=bool(proofs), words=words if proofs else "nothing was proven here")


def _refitted(candidate: ModelCard, live: ModelCard) -> Check:
    lacking = [_name(output) for output in OUTPUTS if output not in candidate.thresholds]
    if lacking:
        words = f"the card has none for {', '.join(lacking)}; export the run again"
        return Check(name="operating points", passed=False, words=words)
    if dict(candidate.thresholds) == dict(live.thresholds) and model_id(candidate) != model_id(live):
        words = "those of the live model to the last digit: set for other scores; calibrate the run and export it again"
        return Check(name="operating points", passed=False, words=words)
    return Check(name="operating points", passed=True, words=f"{len(OUTPUTS)}, its own")


def _second_person(who: str, other_than: str) -> Check:
    good = bool(other_than) and _person(who) != _person(other_than)
    words = f"{other_than or 'nobody'} brought it into the shadow, {who} promotes it"
    return Check(name="two people", passed=good, words=words if good else f"{words}; somebody else must")


def _person(who: str) -> str:
    """Whether on a page or at the command line."""
    return who.removesuffix(COMMAND_LINE)
