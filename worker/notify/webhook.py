"""The channel that tells a program of the site's own, by HTTP POST.

The content is a CloudEvent (CloudEvents 1.0.2, JSON format, structured mode of the HTTP binding). Signature and
headers are those of Standard Webhooks 1.0: HMAC-SHA256 over id, timestamp and body, so that any of its libraries can
tell an event of hilum's from anybody else's, and an old one from a new one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from schemas.decision import Reason, Urgency
from schemas.errors import ConfigurationError
from schemas.flag import FilmResult, Flag, Receipt
from worker.notify.codes import finding_code
from worker.notify.http import Answer, HttpLine, refusal
from worker.notify.idle import IDLE_SECONDS
from worker.notify.uids import derive_uuid
from worker.notify.wording import sentences

SOURCE: Final = "/hilum"  # with the id, it names an event (CloudEvents 3.1.1)
_CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"
_SNOMED: Final = "http://snomed.info/sct"
_ID: Final = re.compile(r"[!-~]{1,200}")
_MENDS: Final = {
    400: "it finds the event wrong: look at its log",
    401: "it does not know the signature: mend the secret of this destination, or the clock of either machine",
    403: "it does not know the signature: mend the secret of this destination, or hilum's rights there",
    409: "it takes no event a second time: have it answer 2xx to an id that it knows",
    410: "nobody is there any more: mend the URL of this destination, or take the destination out",
}


class Webhook:
    """Kind `webhook`. The same flag twice is the same event, by its id. Patients are not named unless `identify`.

    Parameters
    ----------
    key:
        What `signing_key` makes of a secret; without it nothing is signed.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        clock: Callable[[], datetime],
        key: bytes | None = None,
        identify: bool = False,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.name = name
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._clock = clock
        self._key = key
        self._identify = identify
        self._line = HttpLine(url, tls=tls, timeout=timeout, idle=idle)

    def send(self, flag: Flag) -> Receipt:
        """Deliver; every 2xx says that it has arrived. Raises `TransientFailure` or `PermanentFailure`."""
        event = build_event(flag, identify=self._identify)
        body = json.dumps(event, separators=(",", ":")).encode()
        answer = self._line.ask("POST", self._target, body, self._headers(event["id"], body))
        if not 200 <= answer.status < 300:
            raise refusal(answer, self._line.where, _MENDS)
        return Receipt(object_id=event["id"], proof=_proof(answer))

    def check(self) -> str:
        """OPTIONS, which tells nothing of anybody. Raises `DeliveryError`."""
        answer = self._line.ask("OPTIONS", self._target)
        if answer.status in {404, 410} or 300 <= answer.status < 400 or answer.status >= 502:
            raise refusal(answer, self._line.where, _MENDS)
        said = f"it answers OPTIONS with HTTP {answer.status}, which is no fault: events go by POST"
        return f"{self._line.where} is reachable" + ("" if 200 <= answer.status < 300 else f" ({said})")

    def close(self) -> None:
        """Release the connection."""
        self._line.close()

    def _headers(self, event_id: str, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": _CONTENT_TYPE, "webhook-id": event_id}
        if self._key is not None:
            timestamp = str(int(self._clock().timestamp()))
            headers["webhook-timestamp"] = timestamp
            headers["webhook-signature"] = signature(self._key, event_id, timestamp, body)
        return headers


def signing_key(secret: str) -> bytes:
    """The key that a secret of the form "whsec_<base64>" holds. Raises `ConfigurationError` where it is none."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ConfigurationError('secret: "whsec_" and the base64 of 24 to 64 random bytes')
    return key


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """One signature of the scheme "v1", symmetric."""
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def build_event(flag: Flag, *, identify: bool = False) -> dict[str, Any]:
    """The CloudEvent of a flag. Equal flags give equal events."""
    decided = flag.decided_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {
        "specversion": "1.0",
        "id": str(derive_uuid("webhook", flag.study_uid, flag.model_id, flag.revision)),
        "source": SOURCE,
        "type": _type(flag),
        "subject": flag.study_uid,
        "time": decided,
        "datacontenttype": "application/json",
        "data": {
            "study_uid": flag.study_uid,
            "revision": flag.revision,
            "predecessor": flag.predecessor,
            "urgency": flag.urgency.name,
            "withdrawn": flag.withdrawn,
            "reasons": [_reason(reason) for reason in flag.reasons],
            "films": [_film(film) for film in flag.films],
            "model": {"id": flag.model_id, "name": flag.model_name, "version": flag.model_version},
            "decided_at": decided,
            "words": list(sentences(flag)),
            **({"patient": _patient(flag)} if identify else {}),
        },
    }


def _type(flag: Flag) -> str:
    if flag.withdrawn is not None:
        return "hilum.flag.withdrawn"
    if flag.urgency > Urgency.ROUTINE:
        return "hilum.flag.raised"
    if any(film.not_analysed is None for film in flag.films):
        return "hilum.study.left-in-order"
    return "hilum.study.not-analysed"


def _reason(reason: Reason) -> dict[str, Any]:
    code = finding_code(reason.finding)
    return {
        "finding": reason.finding,
        "code": {"system": _SNOMED, "code": code.value, "display": code.meaning},
        "probability": reason.probability,
        "threshold": reason.threshold,
        "urgency": reason.urgency.name,
    }


def _film(film: FilmResult) -> dict[str, Any]:
    """That it was read, or why not; never the probabilities that the policy is silent on."""
    return {"sop_uid": film.instance.sop_uid, "not_analysed": film.not_analysed}


def _patient(flag: Flag) -> dict[str, str]:
    context = flag.context
    told = {
        "name": context.patient_name,
        "id": context.patient_id,
        "issuer_of_id": context.issuer_of_patient_id,
        "birth_date": context.patient_birth_date,
        "sex": context.patient_sex,
        "accession_number": context.accession_number,
    }
    # A lone surrogate is text in no language, and no parser need take its escape in JSON.
    return {key: value.encode("utf-8", "replace").decode() for key, value in told.items()}


def _proof(answer: Answer) -> str:
    """The status, and the name under which it has arrived there, where one is told."""
    name = answer.headers.get("Location", "")
    if not name:
        try:
            said = json.loads(answer.body)
            name = str(said.get("id", "")) if isinstance(said, dict) else ""
        except (ValueError, RecursionError):
            name = ""
    return f"HTTP {answer.status}" + (f", {name}" if _ID.fullmatch(name) else "")
