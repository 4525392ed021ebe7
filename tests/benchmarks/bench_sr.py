"""The report and the page: to build them, and to have them stored. `python -m tests.benchmarks.bench_sr`"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage
from pynetdicom import AE

from schemas.flag import Flag
from schemas.identity import InstanceRef
from schemas.image import GrayImage
from tests.orthanc import Orthanc, free_ports
from tests.unit.notify.flags import EFFUSION, PNEUMOTHORAX, film, flag
from worker.notify.association import Peer
from worker.notify.dicom_sc import DicomSc, build_sc
from worker.notify.dicom_sr import DicomSr
from worker.notify.sr import LADDER, build_sr
from worker.notify.summary_page import Shown, films_of
from worker.simulate.pacs import Pacs

REPEATS = 200
_PIXELS: GrayImage = np.random.default_rng(1).integers(0, 255, (2500, 2048), dtype=np.uint8)


def run() -> list[tuple[str, str, str]]:
    """Rows of figure, measured, goal."""
    one = flag(film(reasons=[PNEUMOTHORAX, EFFUSION]))
    three = flag(*(film(n, reasons=[PNEUMOTHORAX, EFFUSION]) for n in (1, 2, 3)))
    build_sr(one)
    rows = [
        ("SR built, 1 film, 2 findings", _figures(lambda: build_sr(one)), "p50 ≤ 10 ms"),
        ("SR built, 3 films, 6 findings", _figures(lambda: build_sr(three)), "p50 ≤ 10 ms"),
    ]
    for form in LADDER[1:]:
        rows.append(
            (f"{form.name.removesuffix(' Storage')} built", _figures(lambda f=form: build_sr(one, f)), "p50 ≤ 10 ms")
        )
    rows.append(("SC page drawn, a film of 2500 x 2048", _figures(lambda: _page(one), 50), "none set"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        orthanc = Orthanc(folder / "orthanc")
        try:
            rows.append(("SR built and stored, Orthanc, association kept", _sent("ORTHANC", orthanc.port), "none set"))
            rows.append(("SC drawn and stored, Orthanc, association kept", _pages_sent(orthanc.port), "none set"))
        finally:
            orthanc.stop()
        pacs = Pacs(folder / "pacs")
        pacs.start()
        try:
            rows.append(("SR built and stored, built-in PACS (same process)", _sent("PACS", pacs.port), "none set"))
        finally:
            pacs.stop()
        with _storescp(folder / "storescp") as port:
            rows.append(("SR built and stored, dcmtk storescp", _sent("PACS", port), "none set"))
            rows.append(("the same, an association for each", _sent("PACS", port, kept=False), "none set"))
            rows.append(("the same, kept association of pynetdicom's own", _sent_by_pynetdicom(port), "for comparison"))
    return rows


def _film(_: InstanceRef) -> GrayImage:
    return _PIXELS


def _page(example: Flag) -> Dataset:
    return build_sc(example, [Shown(of, _PIXELS) for of in films_of(example)])


def _pages_sent(port: int) -> str:
    revisions = count(1)
    peer = Peer(ae_title="ORTHANC", host="127.0.0.1", port=port, calling_ae_title="HILUM")
    with closing(DicomSc(name="page", peer=peer, film=_film)) as channel:
        return _figures(lambda: channel.send(flag(revision=next(revisions))), 50)


def _sent(ae_title: str, port: int, *, kept: bool = True) -> str:
    revisions = count(1)

    def channel() -> DicomSr:
        return DicomSr(name="pacs", peer=Peer(ae_title=ae_title, host="127.0.0.1", port=port, calling_ae_title="HILUM"))

    def once(channel: DicomSr) -> None:
        channel.send(flag(film(reasons=[PNEUMOTHORAX, EFFUSION]), revision=next(revisions)))

    def alone() -> None:
        with closing(channel()) as short:
            once(short)

    with closing(channel()) as long:
        once(long)
        return _figures((lambda: once(long)) if kept else alone)


def _sent_by_pynetdicom(port: int) -> str:
    """What one would write first."""
    ae = AE("HILUM")
    ae.add_requested_context(ComprehensiveSRStorage)
    association = ae.associate("127.0.0.1", port, ae_title="PACS")
    try:
        return _figures(lambda: association.send_c_store(build_sr(flag())), repeats=50)
    finally:
        association.release()


def _figures(act: Callable[[], object], repeats: int = REPEATS) -> str:
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        took.append(1000 * (time.perf_counter() - began))
    took.sort()
    return f"p50 {statistics.median(took):.1f} ms, p99 {took[int(0.99 * len(took))]:.1f} ms"


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    folder.mkdir()
    (port,) = free_ports(1)
    process = subprocess.Popen(
        ["/usr/bin/storescp", "--output-directory", folder, "--aetitle", "PACS", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
