"""Shadow mode: what would be sent, written down instead."""

from __future__ import annotations

import json
import os
from datetime import UTC
from pathlib import Path
from typing import Any

from schemas.errors import TransientFailure
from schemas.flag import Flag, Receipt
from worker.notify.uids import derive_uid
from worker.notify.wording import sentences

FILE = "flags.jsonl"


class Paper:
    """A channel that appends one line of JSON for each flag to `folder/flags.jsonl`, fsynced.

    The same flag again writes nothing. Patients are not named unless `identify` says so.
    """

    def __init__(self, *, name: str, folder: Path, identify: bool = False) -> None:
        self.name = name
        self._path = folder / FILE
        self._identify = identify
        self._written: set[str] | None = None  # object ids on paper; read from the file when first needed

    def send(self, flag: Flag) -> Receipt:
        """Write the flag down. Raises `TransientFailure` when the disk refuses."""
        object_id = derive_uid("paper", flag.study_uid, flag.model_id, flag.revision)
        try:
            written = self._on_paper()
            if object_id not in written:
                line = json.dumps({"object_id": object_id, **self._record(flag)}, ensure_ascii=False) + "\n"
                self._append(line.encode("utf-8", "replace"))
                written.add(object_id)
        except OSError as error:
            self._written = None
            raise TransientFailure(
                f"{self._path}: cannot be written ({error.strerror}); make room or mend it"
            ) from error
        return Receipt(object_id=object_id, proof="written and synced")

    def check(self) -> str:
        """Whether the folder can be written to."""
        try:
            self._on_paper()
            with self._path.open("ab"):
                pass
        except OSError as error:
            raise TransientFailure(f"{self._path}: cannot be written ({error.strerror})") from error
        return f"writes to {self._path}"

    def close(self) -> None:
        """Nothing is kept open."""

    def _on_paper(self) -> set[str]:
        if self._written is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._written = set(self._object_ids())
        return self._written

    def _object_ids(self) -> list[str]:
        ids = []
        for line in self._path.read_bytes().splitlines() if self._path.exists() else ():
            try:
                ids.append(str(json.loads(line)["object_id"]))
            except (ValueError, KeyError, TypeError):
                continue  # a line that a crash cut short: its flag was never acknowledged and comes again
        return ids

    def _append(self, line: bytes) -> None:
        with self._path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
                line = b"\n" + line  # the last writer died in the middle of its line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if not end:
            self._sync_name()

    def _sync_name(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _record(self, flag: Flag) -> dict[str, Any]:
        record: dict[str, Any] = {
            "study_uid": flag.study_uid,
            "revision": flag.revision,
            "urgency": flag.urgency.name,
            "reasons": [reason.words for reason in flag.reasons],
            "not_analysed": {f.instance.sop_uid: f.not_analysed.value for f in flag.films if f.not_analysed},
            "model": f"{flag.model_name} {flag.model_version}",
            "model_id": flag.model_id,
            "decided_at": flag.decided_at.astimezone(UTC).isoformat(),
            "words": list(sentences(flag)),
        }
        if self._identify:
            record["patient_name"] = flag.context.patient_name
            record["patient_id"] = flag.context.patient_id
            record["accession_number"] = flag.context.accession_number
        return record
