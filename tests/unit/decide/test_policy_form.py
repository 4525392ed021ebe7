"""A policy as it is stored and as a person writes it: back again unchanged, or refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, Label
from schemas.policy import (
    BINARY,
    OUTPUTS,
    SILENT,
    Change,
    differences,
    made_of,
    policy_from_json,
    policy_to_json,
    rule_of,
)

rules = st.builds(
    Rule,
    urgency=st.sampled_from(Urgency),
    threshold=st.just("card") | st.floats(0, 1, exclude_min=True, exclude_max=True),
)
policies = st.builds(
    made_of,
    st.dictionaries(st.sampled_from(OUTPUTS), rules),
    st.sampled_from(["flag", "hold"]),
    st.none() | st.floats(0.01, 100),
)


@given(policies)
def test_what_is_stored_comes_back(policy: Policy) -> None:
    assert policy_from_json(json.loads(json.dumps(policy_to_json(policy)))) == policy


@given(policies, policies)
def test_what_differs_is_named_and_nothing_else(before: Policy, after: Policy) -> None:
    changed = differences(before, after)
    assert bool(changed) == (before != after)
    assert all(change.before != change.after for change in changed)


def test_a_rule_that_says_nothing_is_the_same_as_none() -> None:
    assert made_of(dict.fromkeys(OUTPUTS, SILENT)) == Policy(findings={})
    assert rule_of(Policy(findings={}), BINARY) == rule_of(Policy(findings={}), str(FINDINGS[0])) == SILENT


def test_differences_are_words() -> None:
    before = Policy()
    after = Policy(
        findings={
            Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.05),
            Label.PLEURAL_THICKENING: Rule(urgency=Urgency.ROUTINE, threshold=0.2),
        },
        binary=Rule(urgency=Urgency.URGENT),
        on_disagreement="hold",
        budget=6,
    )
    assert differences(before, after) == (
        Change(what="effusion", before="URGENT at the card's threshold", after="silent"),
        Change(what="pleural thickening", before="silent", after="silent from 0.2 on"),
        Change(what="pneumothorax", before="STAT at the card's threshold", after="STAT from 0.05 on"),
        Change(what="any finding", before="silent", after="URGENT at the card's threshold"),
        Change(what="a finding that the binary model does not see", before="raised all the same", after="kept silent"),
        Change(what="alert budget", before="none", after="6 flags an hour"),
    )


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (None, "not of the form"),
        ([], "not of the form"),
        ({"findings": None}, "not of the form"),
        ({"urgencies": {}}, "urgencies"),
        ({"findings": {"No Finding": {"urgency": "STAT"}}}, "No Finding"),
        ({"findings": {"binary": {"urgency": "STAT"}}}, "binary"),
        ({"findings": {"Mass": {"urgency": "SOON"}}}, "Mass: urgency"),
        ({"findings": {"Mass": {"urgency": ["STAT"]}}}, "Mass: urgency"),
        ({"findings": {"Mass": {"threshold": 0.5}}}, "Mass"),
        ({"findings": {"Mass": {"urgency": "STAT", "why": "x"}}}, "Mass"),
        ({"findings": {"Mass": {"urgency": "STAT", "threshold": 1}}}, "Mass: threshold"),
        ({"findings": {"Mass": {"urgency": "STAT", "threshold": True}}}, "Mass: threshold"),
        ({"findings": {"Mass": {"urgency": "STAT", "threshold": "nan"}}}, "Mass: threshold"),
        ({"findings": {"Mass": {"urgency": "STAT", "threshold": None}}}, "Mass: threshold"),
        ({"binary": 1}, "binary"),
        ({"on_disagreement": "ask"}, "on_disagreement"),
        ({"budget": 0}, "budget"),
        ({"budget": float("inf")}, "budget"),
        ({"budget": "many"}, "budget"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(raw: object, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        policy_from_json(raw)
