"""Receive alone: 10 MB films by dcmtk's storescu, hilum beside dcmtk's `storescp --fork`.

hilum writes each film, hashes it, fsyncs bytes and name, and commits its row before it answers; storescp writes a file.
Both on the same disk, in turns, best of several: `python -m tests.benchmarks.bench_receive [rounds]`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.integration.raw_peer import film
from tests.orthanc import free_ports
from worker.corridor.bell import Bell
from worker.corridor.intake import Intake
from worker.decode.selftest import usable_transfer_syntaxes
from worker.receive.access import LocalAE
from worker.receive.listener import Listener, ListenerConfig
from worker.record.database import Database
from worker.record.instances import Instances
from worker.spool.local import LocalSpool

ROWS, COLUMNS = 2500, 2048
SENDERS = (1, 4, 16)
FILMS = 64  # in each run, whatever the number of senders
ROUNDS = 4
MAX_PDU = "131072"  # dcmtk's largest, for sender and both receivers


def serve(folder: Path) -> None:
    """The receiving half of the worker; its port on the first line of its output, until its input ends."""
    database = Database(f"sqlite:///{folder}/hilum.db")
    database.migrate()
    listener = Listener(
        ListenerConfig(host="127.0.0.1", port=0, local_aes=(LocalAE(ae_title="HILUM"),)),
        usable_transfer_syntaxes(),
        LocalSpool(folder / "spool", watermark_bytes=1 << 30),
        Intake(Instances(database), Bell(), lambda: datetime.now(UTC)),
        lambda rejection: None,
    )
    listener.start()
    sys.stdout.write(f"{listener.port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    listener.stop()
    database.close()


@contextmanager
def hilum(folder: Path) -> Iterator[int]:
    """Port of a hilum that receives into `folder`."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_receive", "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """Port of dcmtk's storescp that receives into `folder`."""
    (port,) = free_ports(1)
    command = ["/usr/bin/storescp", "-q", "--fork", "--max-pdu", MAX_PDU, "-od", str(folder), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        time.sleep(0.5)
        yield port
        process.terminate()


def write_films(folder: Path) -> list[Path]:
    """One film for each sender."""
    rng = np.random.default_rng(20260101)
    pixels = rng.integers(0, 1 << 12, (ROWS, COLUMNS), dtype=np.uint16)
    paths = []
    for number in range(max(SENDERS)):
        pixels[0, 0] = number
        dataset = film(f"1.2.3.{number}", pixels=pixels.tobytes())
        dataset.StudyInstanceUID, dataset.PatientID = f"1.2.4.{number}", f"P{number}"
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def films_per_second(port: int, ae_title: str, films: list[Path], senders: int) -> float:
    """Send `FILMS` films, each with a UID of its own, over one association for each of `senders`."""
    command = ["/usr/bin/storescu", "-q", "--invent-instance", "--max-pdu", MAX_PDU, "-aec", ae_title]
    began = time.monotonic()
    processes = [
        subprocess.Popen([*command, "127.0.0.1", str(port), *[str(path)] * (FILMS // senders)])
        for path in films[:senders]
    ]
    codes = [process.wait() for process in processes]
    seconds = time.monotonic() - began
    if any(codes):
        raise RuntimeError(f"storescu to {ae_title}: exit codes {codes}")
    return FILMS / seconds


def run(rounds: int = ROUNDS) -> list[tuple[str, str, str]]:
    """Rows of figure, measured, goal."""
    folder = Path(tempfile.mkdtemp(prefix="hilum-bench-", dir="var" if Path("var").is_dir() else None)).resolve()
    ours, theirs = folder / "hilum", folder / "storescp"
    best: dict[tuple[str, int], float] = {}
    try:
        ours.mkdir()
        theirs.mkdir()
        films = write_films(folder)
        with hilum(ours) as our_port, storescp(theirs) as their_port:
            for _ in range(rounds):
                for senders in SENDERS:
                    for name, port in (("HILUM", our_port), ("STORESCP", their_port)):
                        rate = films_per_second(port, name, films, senders)
                        best[name, senders] = max(rate, best.get((name, senders), 0.0))
                        for path in (*ours.rglob("*.dcm"), *theirs.iterdir()):
                            path.unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        (
            f"receive, 10 MB films, {senders} storescu at once",
            f"{best['HILUM', senders]:.0f} films/s",
            f"≥ storescp --fork: {best['STORESCP', senders]:.0f} films/s",
        )
        for senders in SENDERS
    ]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("--serve", type=Path)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    for figure, measured, goal in run(arguments.rounds):
        print(f"{figure:50} {measured:>15}   {goal}")


if __name__ == "__main__":
    main()
