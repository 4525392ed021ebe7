"""A log line is one line, and it says nothing of a patient."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from schemas.errors import SpoolFull
from worker.watch.logs import Line, configure


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    root, ours = logging.getLogger(), logging.getLogger("hilum")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    logging.captureWarnings(capture=False)


def record(name: str, message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord(name, logging.WARNING, "/somewhere/file.py", 7, message, args, exc_info)
    made.created = 1_700_000_000.25
    return made


def test_a_line_has_time_in_utc_level_logger_and_event() -> None:
    line = Line().format(record("hilum.intake", "stored study=%s ms=%.1f", "1.2.3", 4.25))
    assert line == "2023-11-14T22:13:20.250+00:00 warning hilum.intake stored study=1.2.3 ms=4.2"


@pytest.mark.parametrize("hostile", ["\n", "\r\n", "\x1b[2J", "\u2028", "\x00", "\x85"])
def test_a_peer_cannot_write_a_line_of_its_own(hostile: str) -> None:
    line = Line().format(record("hilum.receive", "refused calling=%s", f"EVIL{hostile}2026 info all is well"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom.acse", "highdicom", "sqlalchemy.engine"])
def test_text_of_libraries_that_handle_data_sets_is_withheld(library: str) -> None:
    line = Line().format(record(library, "Invalid value for VR PN: 'DOE^JANE'"))
    assert "DOE" not in line
    assert line.endswith("withheld at=file.py:7")


def test_text_of_foreign_exceptions_is_withheld_and_the_place_is_told() -> None:
    try:
        raise ValueError("PatientName 'DOE^JANE'")
    except ValueError as error:
        line = Line().format(record("hilum.reading", "fault", error=error))
    assert "DOE" not in line
    assert "error=ValueError at=test_logs.py:" in line


def test_text_of_our_own_errors_is_told() -> None:
    line = Line().format(record("hilum.receive", "refused", error=SpoolFull("12 MiB free")))
    assert "error=SpoolFull" in line
    assert "12 MiB free" in line


def test_configure_sets_our_level_and_keeps_libraries_at_warning(
    unconfigured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("DEBUG")
    configure("INFO")
    logging.getLogger("hilum.serve").info("started ms=3")
    logging.getLogger("hilum.serve").debug("quiet")
    logging.getLogger("library").info("chatter")
    warnings.warn_explicit("Invalid value 'DOE^JANE'", UserWarning, "valuerep.py", 440)
    sys.stderr.flush()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("info hilum.serve started ms=3")
    assert lines[1].endswith("py.warnings warning at=valuerep.py:440: UserWarning")
