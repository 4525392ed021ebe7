"""`hilum predict`: what the models say of files, without a network or a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.table import Column, Table

from schemas.decision import Urgency
from schemas.errors import ConfigurationError, NotAnalysable
from schemas.findings import FINDINGS
from schemas.image import Tensor
from schemas.not_analysed import WORDS, NotAnalysed
from schemas.prediction import Prediction
from worker.cli.options import ConfigOption, clear_errors, complaints, plain, print_table, settings_from
from worker.cli.send import files_below

if TYPE_CHECKING:
    from schemas.gate import GateRules


@dataclass(frozen=True, slots=True)
class Scored:
    """One line of the answer."""

    file: Path
    prediction: Prediction | None
    not_analysed: NotAnalysed | None
    detail: str = ""

    def to_json(self) -> str:
        """`{"file", "binary": p, "findings": {label: p}, "not_analysed": code or null}`."""
        p = self.prediction
        return json.dumps(
            {
                "file": str(self.file),
                "binary": None if p is None else round(p.binary, 6),
                "findings": {} if p is None else {str(k): round(v, 6) for k, v in p.findings.items()},
                "not_analysed": self.not_analysed,
            }
        )


def _is_image_file(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"\x89PNG" or head[:3] == b"\xff\xd8\xff" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def tensor_of(path: Path, rules: GateRules, size: int) -> Tensor:
    """The tensor of a DICOM file (gated) or of a plain image file (whatever its size). Raises `NotAnalysable`."""
    from worker.decode.film import read_film
    from worker.tensor.image_file import open_image
    from worker.tensor.recipe import to_tensor

    if _is_image_file(path):
        return to_tensor(open_image(path), size)
    return to_tensor(read_film(path, rules).pixels, size)


def _score_all(paths: list[Path], config: Path | None) -> Iterator[Scored]:
    from worker.assemble import bundle, engine

    settings = settings_from(config)
    model = bundle(settings)
    running = engine(settings, model)

    def score(path: Path) -> Scored:
        try:
            tensor = tensor_of(path, settings.gate, model.card.input_size)
            return Scored(path, running.submit(tensor, Urgency.ROUTINE).result(), None)
        except NotAnalysable as error:
            return Scored(path, None, error.code, error.detail)
        except OSError as error:
            return Scored(path, None, NotAnalysed.UNREADABLE, error.strerror or type(error).__name__)

    try:
        with ThreadPoolExecutor(settings.model.max_batch) as pool:
            yield from pool.map(score, paths)
    finally:
        running.close()


@clear_errors
def predict(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="DICOM, PNG, WebP or JPEG files, or folders of them.")
    ],
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and file.")] = False,
) -> None:
    """Score films with the configured bundle; nothing is stored or sent.

    DICOM files pass the same gate as received ones (a lateral view or a child's film gets a reason, not a score);
    plain image files are taken for frontal chest films. For research: the probabilities are no diagnosis.
    """
    paths = list(files_below(files))
    if not paths:
        raise ConfigurationError("no files there")
    scored = track(
        _score_all(paths, config),
        "reading",
        total=len(paths),
        console=complaints,
        transient=True,
        disable=len(paths) < 9 or not complaints.is_terminal,
    )
    if as_json:
        for line in scored:
            print(line.to_json(), flush=True)  # noqa: T201  for programs: no wrapping, no colour
        return
    table = Table(
        Column("file", overflow="fold"),
        "any finding",
        "highest findings",
        "not analysed",
        box=None,
        header_style="bold",
    )
    for line in scored:
        if line.prediction is None:
            assert line.not_analysed is not None  # noqa: S101
            words = WORDS[line.not_analysed] + (f" ({line.detail})" if line.detail else "")
            table.add_row(plain(line.file), "", "", plain(words))
            continue
        p = line.prediction.findings
        top = sorted(FINDINGS, key=lambda f: -p[f])[:3]
        highest = ", ".join(f"{f.replace('_', ' ').lower()} {p[f]:.2f}" for f in top)
        table.add_row(plain(line.file), f"{line.prediction.binary:.2f}", highest, "")
    print_table(table)
