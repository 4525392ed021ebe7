"""The whole corridor: real films at full size, real C-STORE, a real PACS (Orthanc) that receives.

Films: NIH films enlarged to 2500 x 2048, 16 bits allocated, uncompressed: 10 MB each, so that urgencies vary.
Time to flag: from the C-STORE answer at the sender to Orthanc's C-STORE answer for the SR, on one machine's clock.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from schemas.decision import Urgency
from tests.acceptance.harness import Hilum, until
from tests.conftest import films_folder
from tests.orthanc import Orthanc
from worker.simulate import modality, phantom

ROWS, COLUMNS = 2500, 2048


def write_films(folder: Path, count: int) -> list[Path]:
    """`count` studies of one 10 MB film each."""
    sources = sorted((films_folder() / "nih" / "256px").glob("*.webp"))
    chosen = sources[:: max(1, len(sources) // count)][:count]
    paths = []
    for number, source in enumerate(chosen):
        with Image.open(source) as image:
            grey = image.convert("L").resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)
        stored = np.asarray(grey, dtype=np.uint16) * 16
        film = phantom.dataset(number, rows=64, columns=64)
        film.Rows, film.Columns = ROWS, COLUMNS
        film.PixelData = stored.tobytes()
        path = folder / f"{number:04}.dcm"
        film.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@contextmanager
def corridor(extra: str = "") -> Iterator[tuple[Hilum, Path, float]]:
    """A worker and an Orthanc; yields the worker, a folder for films, and the seconds until the port was open."""
    folder = Path(tempfile.mkdtemp(prefix="hilum-bench-", dir="var" if Path("var").is_dir() else None))
    orthanc = Orthanc(folder / "orthanc", ae_title="PACS")
    hilum = Hilum(folder / "hilum", orthanc.port, extra=extra)
    (folder / "films").mkdir()
    try:
        hilum.start()  # once for the caches of the disk: the second start is the one that is told
        hilum.stop()
        opened = hilum.start()
        yield hilum, folder / "films", opened
    finally:
        hilum.stop()
        orthanc.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _sent_at(hilum: Hilum, study: str) -> float | None:
    deliveries = hilum.results(study)["deliveries"]
    times = [d["sent_at"] for d in deliveries if d["sent_at"]]
    return min(datetime.fromisoformat(t).timestamp() for t in times) if times else None


def time_to_flag(hilum: Hilum, films: Sequence[Path]) -> list[float]:
    """Milliseconds for each film, sent one at a time."""
    ae = AE("BENCH")
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.1.1", ExplicitVRLittleEndian)
    took = []
    for film in films:
        dataset = pydicom.dcmread(film)
        association = ae.associate("127.0.0.1", hilum.dicom_port, ae_title="HILUM", max_pdu=0)
        status = association.send_c_store(dataset)
        answered = time.time()
        assert status.Status == 0, status
        association.release()
        study = str(dataset.StudyInstanceUID)
        time.sleep(0.3)
        arrived = until("the SR", lambda s=study: _sent_at(hilum, s), 30, 0.1)
        took.append(1000 * (arrived - answered))
    return took


def burst(hilum: Hilum, films: Sequence[Path]) -> tuple[float, int, int]:
    """Films per second from the first byte to the last SR; flags sent while a more urgent one waited; films."""
    began = time.time()
    sent = modality.send(films, "HILUM", "127.0.0.1", hilum.dicom_port, "BENCH")
    assert not [s for s in sent if s.error]
    until("all to be read", hilum.settled, 120, 0.2)
    until("the outbox to be empty", lambda: hilum.undelivered() == 0, 120, 0.1)
    studies = [str(pydicom.dcmread(f, stop_before_pixels=True).StudyInstanceUID) for f in films]
    flags: list[dict[str, Any]] = []
    for study in studies:
        story = hilum.results(study)
        (delivery,) = (d for d in story["deliveries"] if d["sent_at"])
        flags.append(
            {
                "urgency": Urgency[story["urgency"]],
                "created": datetime.fromisoformat(delivery["created_at"]).timestamp(),
                "sent": datetime.fromisoformat(delivery["sent_at"]).timestamp(),
            }
        )
    flags.sort(key=lambda f: f["sent"])
    # A courier takes the next flag when the last is sent: whatever waited then and was more urgent was passed over.
    passed = sum(
        any(later["urgency"] > this["urgency"] and later["created"] < before["sent"] for later in flags[n + 2 :])
        for n, (before, this) in enumerate(pairwise(flags))
    )
    return len(films) / (flags[-1]["sent"] - began), passed, len(films)


def run() -> list[tuple[str, str, str]]:
    """Rows (figure, measured, goal)."""
    rows = []
    with corridor() as (hilum, folder, opened):
        assert hilum.process is not None
        films = write_films(folder, 330)
        process = psutil.Process(hilum.process.pid)
        time_to_flag(hilum, films[:10])
        took = sorted(time_to_flag(hilum, films[10:110]))
        rows.append(("start to open port", f"{opened:.1f} s", "≤ 5 s"))
        p50, p99 = statistics.median(took), took[-1 - len(took) // 100]
        rows.append((f"time to flag, one film, p50 of {len(took)}", f"{p50:.0f} ms", "≤ 100 ms"))
        rows.append((f"time to flag, one film, p99 of {len(took)}", f"{p99:.0f} ms", "≤ 250 ms"))
        rate, passed, count = burst(hilum, films[110:310])
        rows.append((f"burst of {count} films, C-STORE to SR", f"{rate:.1f} films/s", "≥ 12 films/s"))
        rows.append(("… flags sent while a more urgent one waited", str(passed), "0"))
        family = [process, *process.children(recursive=True)]
        rss = sum(p.memory_info().rss for p in family) / 2**20
        rows.append(("resident memory after the burst", f"{rss:.0f} MiB", "≤ 700 MB"))
    return rows


if __name__ == "__main__":
    for row in run():
        print(*row, sep=" | ")
