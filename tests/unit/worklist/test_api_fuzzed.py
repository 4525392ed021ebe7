"""The API by its own description: whatever is sent, no 5xx, and no answer that is not described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.core.failures import FailureGroup

from schemas.person import Role
from tests.unit.worklist.policies import policy_desk
from tests.unit.worklist.ward import EFFUSION, PNEUMOTHORAX, Ward, read
from worker.worklist.web.desk import Rules
from worker.worklist.web.entry import digest, new_key


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """As an administrator's program sees it. Of the studies in it, one UID is easy to come by."""
    ward = Ward(tmp_path_factory.mktemp("api"))
    for number, reason in ((1, PNEUMOTHORAX), (2, EFFUSION)):
        ward.study(number, read(reason))
    key = new_key()
    ward.people.add_token(
        name="fuzz", role=Role.ADMINISTRATOR, digest=digest(key), created_by="dr one", now=ward.now, expires_at=None
    )
    headers = {"Authorization": f"Bearer {key}", "Host": "localhost"}
    app = ward.app(rules=Rules(research=True), policy=policy_desk(ward))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=headers)
    schema.config.update(headers=headers)
    yield schema
    ward.close()


# A calendar entry that no calendar has, a time without a zone: no schema can say all that is refused with a 422; and a
# number of seconds is taken for a time, which it does not say either.
NOT_DESCRIBED = [positive_data_acceptance, negative_data_rejection]
OWN_END = "POST /api/v1/keys/{number}/revoke"  # would end the key that all the others are sent with
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_whatever_is_sent_the_answer_is_one_that_is_described(api: Any, mode: GenerationMode) -> None:
    operations = [found.ok() for found in api.get_all_operations() if found.ok().label != OWN_END]
    assert len(operations) > 20
    wrong = {}
    for operation in operations:

        @settings(
            max_examples=15,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def whatever(case: Case[Any]) -> None:
            case.call_and_validate(excluded_checks=NOT_DESCRIBED)

        try:
            whatever()
        except FailureGroup as failures:
            wrong[operation.label] = " | ".join(str(failure) for failure in failures.exceptions)
        except Unsatisfiable:  # nothing that is wrong can be sent: it takes no values
            assert mode is GenerationMode.NEGATIVE
    assert wrong == {}
    client = TestClient(api.app, base_url="http://localhost", headers=api.config.headers)
    assert client.get("/api/v1/worklist").status_code == 200, "else nothing was tried but the door"


@pytest.mark.parametrize("value", [str(2**63), str(10**40), "-1", "%00", "%ED%A0%80", "9" * 5000, "%2e%2e%2f"])
def test_what_no_database_holds_is_refused(api: Any, value: str) -> None:
    client = TestClient(api.app, base_url="http://localhost", raise_server_exceptions=False)
    client.headers.update(api.config.headers)
    wrong = {}
    for operation in (found.ok() for found in api.get_all_operations()):
        if "{" in operation.path:
            path = re.sub(r"\{\w+\}", value, operation.path)
            answer = client.request(operation.method, path, json={} if operation.method == "post" else None)
            if answer.status_code not in {403, 404, 409, 422}:
                wrong[operation.label] = answer.status_code
    assert wrong == {}
