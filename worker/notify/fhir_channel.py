"""The channel that tells a FHIR R4 server, in one transaction (http.html#transaction): all of it or nothing."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from schemas.errors import DeliveryError, PermanentFailure
from schemas.flag import Flag, Receipt
from worker.notify.fhir import build_transaction, object_id
from worker.notify.http import Answer, HttpLine, refusal
from worker.notify.idle import IDLE_SECONDS
from worker.notify.oauth import Access, GivenToken

_JSON: Final = "application/fhir+json"
_CAPABILITIES: Final = 16 << 20  # bytes; servers describe each of 150 kinds of resource
_LOCATION: Final = re.compile(r"(?:.*/)?([A-Z][A-Za-z]{1,40}/[A-Za-z0-9\-.]{1,64})(?:/_history/[^/]*)?")
_STATUS: Final = re.compile(r"([1-5][0-9]{2})(?: .*)?", re.DOTALL)
_CODE: Final = re.compile(r"[a-z\-]{1,40}")
_PASSING: Final = {409}  # another transaction was quicker (http.html#transaction)
_MENDS: Final = {
    400: "it does not understand the transaction: look at its log",
    401: "it does not take the token: mend token, or token_url and what belongs to it, of this destination",
    403: "the token does not allow it: mend scope of this destination, or hilum's rights there",
    404: "no FHIR server is there, or one that lacks what is referred to: mend url of this destination",
    405: "it takes no transaction there: mend url of this destination",
    412: "more than one resource bears hilum's identifier: remove the doubles there",
    422: "it finds the transaction against its rules: look at its log",
}


class Fhir:
    """Kind `fhir`. The same flag twice is the same report and the same task.

    Parameters
    ----------
    url:
        The server's base.
    access:
        Where tokens come from; none are sent when None.
    patient_system:
        URI of the hospital's patient numbers.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        access: Access | None = None,
        patient_system: str = "",
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.name = name
        self._base = urlsplit(url).path.rstrip("/")
        self._access = access or GivenToken()
        self._patient_system = patient_system
        self._line = HttpLine(url, tls=tls, timeout=timeout, idle=idle)

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        transaction = build_transaction(flag, self._patient_system)
        body = json.dumps(transaction, ensure_ascii=False, separators=(",", ":")).encode()
        answer = self._ask("POST", self._base or "/", body)
        if answer.status != 200:
            raise self._refusal(answer)
        kept = ", ".join(self._kept(answer, len(transaction["entry"])))
        return Receipt(object_id=object_id(flag), proof=f"HTTP 200: {kept}")

    def check(self) -> str:
        """Its capability statement (http.html#capabilities); with a token, where it has one. Raises `DeliveryError`."""
        answer = self._ask("GET", f"{self._base}/metadata", longest=_CAPABILITIES)
        if answer.status != 200:
            raise self._refusal(answer)
        said = _resource(answer.body, "CapabilityStatement")
        version = str(said.get("fhirVersion", ""))
        if not re.fullmatch(r"4\.[03]\.[0-9]+", version):
            raise PermanentFailure(f"{self._line.where}: no FHIR R4 server is there: mend url of this destination")
        rest = [each for each in _list(said.get("rest")) if isinstance(each, dict)]
        offered = {each.get("code") for one in rest for each in _list(one.get("interaction")) if isinstance(each, dict)}
        takes = "takes transactions" if "transaction" in offered else "does not say that it takes transactions"
        return f"{self._line.where} speaks FHIR {version} and {takes}"

    def close(self) -> None:
        """Release the connections."""
        self._access.close()
        self._line.close()

    def _ask(self, method: str, target: str, body: bytes | None = None, **more: int) -> Answer:
        headers = {"Accept": _JSON}
        if body is not None:
            headers |= {"Content-Type": f"{_JSON}; charset=utf-8", "Prefer": "return=minimal"}
        answer = self._line.ask(method, target, body, {**headers, **self._authorization()}, **more)
        if answer.status == 401 and self._access.refused():  # revoked before its time
            answer = self._line.ask(method, target, body, {**headers, **self._authorization()}, **more)
        return answer

    def _authorization(self) -> dict[str, str]:
        token = self._access.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _kept(self, answer: Answer, wanted: int) -> Iterator[str]:
        """Under which names the entries have arrived there. Raises where one of them has not."""
        entries = _list(_resource(answer.body, "Bundle").get("entry"))
        if len(entries) != wanted:
            raise PermanentFailure(
                f"{self._line.where}: its answer is not that to a transaction: mend url of this destination"
            )
        for entry in entries:
            said = entry.get("response") if isinstance(entry, dict) else None
            said = said if isinstance(said, dict) else {}
            status = _STATUS.fullmatch(str(said.get("status", "")))
            if status is None or not status[1].startswith("2"):
                failed = Answer(status=int(status[1]) if status else 422, headers=answer.headers, body=b"")
                raise refusal(failed, self._line.where, _MENDS, "a part of the transaction", passing=_PASSING)
            location = _LOCATION.fullmatch(str(said.get("location", "")))
            if location is not None:
                yield location[1]

    def _refusal(self, answer: Answer) -> DeliveryError:
        codes = (
            str(issue.get("code", ""))
            for issue in _list(_resource(answer.body, "OperationOutcome").get("issue"))
            if isinstance(issue, dict)
        )
        # The codes and no words: these may quote the resource, which holds a patient.
        said = ", ".join(dict.fromkeys(code for code in codes if _CODE.fullmatch(code)))
        return refusal(answer, self._line.where, _MENDS, said, passing=_PASSING)


def _resource(body: bytes, kind: str) -> dict[str, Any]:
    """The resource in an answer; empty where it is another, or none."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) and said.get("resourceType") == kind else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
