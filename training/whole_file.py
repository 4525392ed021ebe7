"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from schemas.errors import HilumError


class Unwritten(HilumError):
    """The disk did not take a file; what stood there before stands there still."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end of the block, fsynced, or not at all. Raises `Unwritten`."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise Unwritten(
            f"{path}: cannot be written ({error.strerror or error}); make room or mend the disk, then give the same "
            "command again: nothing that was finished is lost"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file: whoever reads it, even after a power cut, sees the old one or the new one. Raises `Unwritten`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
