"""What commands print of words that somebody else chose: file names, error messages, names of patients."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.table import Table

from schemas.errors import ConfigurationError, RecordError
from schemas.not_analysed import NotAnalysed
from worker.cli import options, predict
from worker.cli.options import clear_errors, plain, print_table, say
from worker.cli.predict import Scored
from worker.cli.send import parse_peer


def test_an_error_keeps_the_key_that_it_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "complaints", Console(stderr=True))

    @clear_errors
    def command() -> None:
        raise RecordError("[database] url: name a file")

    with pytest.raises(typer.Exit):
        command()
    assert "[database] url: name a file" in capsys.readouterr().err


def test_a_file_name_is_neither_markup_nor_a_command_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [Path("[/]"), Path("a\x1b[31m"), Path(os.fsdecode(b"\xff"))]
    monkeypatch.setattr(options, "console", Console(width=200))
    monkeypatch.setattr(
        predict, "_score_all", lambda *_: iter([Scored(name, None, NotAnalysed.UNREADABLE, "[x]") for name in names])
    )
    predict.predict(names)
    out = capsys.readouterr().out
    assert "[/]" in out
    assert "[x]" in out
    assert "\x1b[31m" not in out


UID = "1.2.840.113619." + "9" * 49  # 64 characters, as long as they come


def test_no_table_cuts_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(console: Console) -> str:
        table = Table("why", "study", "folder", box=None)
        table.add_row("words " * 20, UID, "/srv/" + "x" * 90)
        monkeypatch.setattr(options, "console", console)
        print_table(table)
        return capsys.readouterr().out

    assert UID in printed(Console(width=80)).splitlines()[1]
    on_terminal = printed(Console(width=80, force_terminal=True, color_system=None))
    assert all(len(line) <= 80 for line in on_terminal.splitlines())
    assert "\N{HORIZONTAL ELLIPSIS}" not in on_terminal
    assert on_terminal.count("9") == UID.count("9")


def test_a_long_line_stays_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(options, "console", Console(width=40, force_terminal=True, color_system=None))
    say(f"the flag of {UID} [is] out")
    assert capsys.readouterr().out == f"the flag of {UID} [is] out\n"


def test_lines_stay_lines() -> None:
    assert plain("2 faults\n  a: b") == "2 faults\n  a: b"


@pytest.mark.parametrize("text", ["HILUM@host:99999", "HILUM@host:0", "HILUM@host", "@host:104", "HILUM@:104"])
def test_a_peer_that_cannot_be_is_told_so(text: str) -> None:
    with pytest.raises(ConfigurationError, match="AET@HOST:PORT"):
        parse_peer(text)
