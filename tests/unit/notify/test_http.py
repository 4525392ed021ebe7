"""What an answer means, and for how long a server is left alone."""

from __future__ import annotations

from http.client import HTTPMessage

import pytest

from schemas.errors import PermanentFailure, TransientFailure
from worker.notify.http import LONGEST_REST, Answer, HttpLine, _retry_after, refusal


def answer(status: int, **headers: str) -> Answer:
    message = HTTPMessage()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Answer(status=status, headers=message, body=b"")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_passes(status: int) -> None:
    assert isinstance(refusal(answer(status), "host:1", {}), TransientFailure)


@pytest.mark.parametrize(
    "status", [101, 204, 301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 499]
)
def test_what_a_person_must_mend_says_where(status: int) -> None:
    failure = refusal(answer(status), "host:1", {})
    assert isinstance(failure, PermanentFailure)
    where, _, mend = str(failure).partition(f": it answers HTTP {status}: ")
    assert where == "host:1"
    assert mend


def test_a_channel_has_words_and_passing_statuses_of_its_own() -> None:
    assert str(refusal(answer(404), "host:1", {404: "mend it"}, "not-found")).endswith("404 (not-found): mend it")
    assert isinstance(refusal(answer(409), "host:1", {}, passing={409}), TransientFailure)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "-7"}, 0),
        ({"Retry_After": "9" * 30}, 0),
        ({"Retry_After": "soon"}, 0),
        ({"Retry_After": "Fri, 02 Jan 2026 10:00:30 GMT"}, 0),  # whose clock?
        ({"Retry_After": "Fri, 02 Jan 2026 10:00:30 GMT", "Date": "Fri, 02 Jan 2026 10:00:00 GMT"}, 30),
        ({"Retry_After": "Fri, 02 Jan 2026 10:00:30 GMT", "Date": "Fri, 02 Jan 2026 10:00:00"}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert _retry_after(answer(429, **headers).headers) == seconds


def test_the_longest_rest_is_bounded() -> None:
    assert _retry_after(answer(429, Retry_After="999999999").headers) > LONGEST_REST  # so the line has to


def test_a_line_that_is_closed_asks_nobody() -> None:
    line = HttpLine("http://127.0.0.1:1", timeout=1)
    line.close()
    with pytest.raises(TransientFailure, match="closed"):
        line.ask("GET", "/")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
def test_a_name_that_cannot_be(host: str) -> None:
    with pytest.raises(TransientFailure, match="host name is not known"):
        HttpLine(f"http://{host}", timeout=1).ask("GET", "/")


def test_the_environment_is_not_asked_for_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    line = HttpLine("http://127.0.0.1:1", timeout=1)
    with pytest.raises(TransientFailure, match=r"127\.0\.0\.1:1: nothing listens there"):
        line.ask("GET", "/")
