"""A record with its configuration beside it, and `hilum` called on both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from tests.unit.worklist.ward import Ward
from worker.cli.main import app


@contextmanager
def configured(folder: Path, more: str = "") -> Iterator[Ward]:
    """A ward whose `hilum.toml` names its database, and says `more`."""
    ward = Ward(folder)
    (folder / "hilum.toml").write_text(f'[database]\nurl = "sqlite:///{folder}/hilum.db"\n{more}')
    yield ward
    ward.close()


def call(ward: Ward, *words: str, code: int = 0) -> str:
    """What `hilum WORDS` prints, on lines of 200 columns; fails where it ends otherwise than with `code`."""
    command = [*words, "--config", str(ward.folder / "hilum.toml")]
    run = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert run.exit_code == code, run.output
    return run.output
