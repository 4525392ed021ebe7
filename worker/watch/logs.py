"""Logging: one line for each event, with opaque ids and durations; never patient data, never free text of a film.

A line is `TIME LEVEL LOGGER EVENT key=value …`. Peers choose AE titles and UIDs, so that no character of theirs may
start a new line. Libraries that handle data sets put values of elements into their messages, and so do exceptions:
their text stays out, and the place in the code is told instead.
"""

from __future__ import annotations

import logging
import re
import traceback
from datetime import UTC, datetime
from pathlib import Path

from schemas.errors import HilumError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HANDLES_PATIENT_DATA = frozenset({"pydicom", "pynetdicom", "highdicom", "gdcm", "sqlalchemy"})
_FRAMES = 8  # innermost frames of a traceback that are worth a place on the line


class Line(logging.Formatter):
    """Formats a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """`2026-01-31T22:10:00.123+00:00 info hilum.intake stored study=…`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{time} {record.levelname.lower()} {record.name} {_text(record)}"
        if record.exc_info is not None and record.exc_info[1] is not None:
            line += _error(record.exc_info[1])
        return _CONTROL.sub(lambda c: f"\\x{ord(c.group()):02x}", line)


def _text(record: logging.LogRecord) -> str:
    if record.name == "py.warnings":  # "file:line: Category: text"
        return "warning at=" + ": ".join(record.getMessage().split(": ", 2)[:2])
    if record.name.partition(".")[0] in _HANDLES_PATIENT_DATA:
        return f"withheld at={Path(record.pathname).name}:{record.lineno}"
    return record.getMessage()


def _error(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = "<".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    words = f" text={str(error)!r}" if isinstance(error, HilumError) else ""  # ours never carry patient data
    return f" error={type(error).__name__} at={places}{words}"


def configure(level: str) -> None:
    """Send every logger's lines to standard error; `level` holds for hilum's own, WARNING for libraries.

    Called once by a command, again to change the level.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hilum").setLevel(level)
    logging.captureWarnings(capture=True)
