"""A hospital around the process under test: a PACS that receives, phantoms for patients."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from tests.acceptance.harness import Hilum, free_port
from worker.simulate import phantom
from worker.simulate.pacs import Pacs


def phantom_films(folder: Path, count: int) -> list[Path]:
    """`count` studies of one phantom film each, small enough to send quickly."""
    folder.mkdir(parents=True, exist_ok=True)
    findings = ("none", "pneumothorax", "effusion")
    paths = []
    for seed in range(count):
        path = folder / f"{seed:04}.dcm"
        film = phantom.dataset(seed, finding=findings[seed % 3], rows=512, columns=448)
        film.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@dataclass
class Hospital:
    """The receiving PACS and every worker started for a test."""

    folder: Path
    port: int = field(default_factory=free_port)
    workers: list[Hilum] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart_pacs()

    def restart_pacs(self) -> None:
        """The PACS is there (again), with what it had."""
        self.pacs = Pacs(self.folder / "pacs", ae_title="PACS", host="127.0.0.1", port=self.port)
        self.pacs.start()

    def hilum(self, database: str = "", extra: str = "") -> Hilum:
        """A worker that reports to this PACS."""
        worker = Hilum(self.folder / f"hilum-{len(self.workers)}", self.port, database=database, extra=extra)
        self.workers.append(worker)
        return worker

    def reports(self) -> dict[str, list[pydicom.Dataset]]:
        """The SRs that the PACS holds, by study."""
        held: dict[str, list[pydicom.Dataset]] = defaultdict(list)
        for path in sorted((self.folder / "pacs").rglob("*.dcm")):
            report = pydicom.dcmread(path)
            held[str(report.StudyInstanceUID)].append(report)
        return dict(held)

    def arrivals(self) -> list[str]:
        """Studies in the order in which their first SR came."""
        paths = sorted((self.folder / "pacs").rglob("*.dcm"), key=lambda p: p.stat().st_mtime_ns)
        studies = [str(pydicom.dcmread(p, stop_before_pixels=True).StudyInstanceUID) for p in paths]
        return list(dict.fromkeys(studies))

    def close(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.stop()
        self.pacs.stop()
