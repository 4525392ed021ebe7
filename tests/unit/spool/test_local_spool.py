"""What is the local spool's own: watermark, a disk that refuses, grace, who may read."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import SpoolError, SpoolFull
from schemas.identity import InstanceRef
from worker.spool import local
from worker.spool.local import LocalSpool

INSTANCE = InstanceRef(
    study_uid="1.1", series_uid="1.2", sop_uid="1.2.3", sop_class="1.4", transfer_syntax="1.2.840.10008.1.2.1"
)


def files(spool: LocalSpool) -> list[Path]:
    return [path for path in spool.root.rglob("*") if path.is_file()]


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int = errno.ENOSPC) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(local.os, call, refused)


def test_below_the_watermark_no_film_is_begun(tmp_path: Path) -> None:
    spool = LocalSpool(tmp_path / "spool", watermark_bytes=1 << 62)
    with pytest.raises(SpoolFull, match="watermark"):
        spool.begin(b"")
    assert files(spool) == []


def test_an_endless_film_does_not_pass_the_watermark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_LOOK_EVERY", 1000)
    spool = LocalSpool(tmp_path / "spool", watermark_bytes=1000)
    free = iter([2000, 1500, 999])
    monkeypatch.setattr(spool, "free_bytes", lambda: next(free))
    incoming = spool.begin(b"")
    incoming.write(bytes(1000))
    with pytest.raises(SpoolFull):
        incoming.write(bytes(1000))
    assert files(spool) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync"])
def test_whatever_the_disk_refuses_is_spool_full_and_leaves_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    spool = LocalSpool(tmp_path / "spool")
    incoming = spool.begin(b"DICM")
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - not a folder of paths
    refuse(monkeypatch, call, code)
    with pytest.raises(SpoolFull):
        incoming.write(b"data")
        incoming.commit(INSTANCE)
    assert list(spool.incoming.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) < descriptors  # noqa: PTH208


def test_a_disk_that_takes_only_some_of_the_bytes_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = LocalSpool(tmp_path / "spool")
    write = os.write
    monkeypatch.setattr(local.os, "write", lambda descriptor, chunk: write(descriptor, chunk[:3]))
    incoming = spool.begin(b"DICM")
    incoming.write(b"0123456789")
    assert spool.path_of(incoming.commit(INSTANCE).path).read_bytes() == b"DICM0123456789"


def test_a_disk_that_is_full_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = LocalSpool(tmp_path / "spool")
    refuse(monkeypatch, "open")
    with pytest.raises(SpoolFull):
        spool.begin(b"DICM")


def test_bytes_and_names_are_fsynced_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = LocalSpool(tmp_path / "spool")
    done: list[str] = []
    fdatasync, fsync = os.fdatasync, os.fsync

    def say(what: str, call: Any) -> Any:
        return lambda descriptor: (
            done.append(f"{what} {Path(f'/proc/self/fd/{descriptor}').readlink()}"),
            call(descriptor),
        )

    monkeypatch.setattr(local.os, "fdatasync", say("bytes", fdatasync))
    monkeypatch.setattr(local.os, "fsync", say("name", fsync))
    incoming = spool.begin(b"DICM")
    file = incoming.commit(INSTANCE)
    assert len(done) == 2
    assert done[0].startswith(f"bytes {spool.incoming}/")
    assert done[1] == f"name {spool.path_of(file.path).parent}"


def test_sweep_leaves_young_files_to_whoever_may_still_be_writing_them(tmp_path: Path) -> None:
    spool = LocalSpool(tmp_path / "spool", grace=timedelta(hours=1))
    spool.begin(b"DICM")
    orphan = spool.path_of(spool.begin(b"DICM").commit(INSTANCE).path)
    assert spool.sweep(set()) == 0
    long_ago = orphan.stat().st_mtime - 3601
    os.utime(orphan, (long_ago, long_ago))
    assert spool.sweep(set()) == 1


def test_patient_data_is_its_owners_alone(tmp_path: Path) -> None:
    spool = LocalSpool(tmp_path / "spool")
    file = spool.path_of(spool.begin(b"DICM").commit(INSTANCE).path)
    assert file.stat().st_mode & 0o077 == 0
    assert spool.root.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match="cannot be a spool"):
        LocalSpool(tmp_path / "file" / "spool")
