"""Who holds a lease: a name that tells, on the same host, whether its process still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def _started(pid: int) -> str | None:
    # Field 22 of /proc/PID/stat, start time in clock ticks since boot: tells a process from a later one of equal id.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "0"


def name() -> str:
    """The lease owner's name of this process: host/boot/pid/start."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{_boot()}/{pid}/{_started(pid)}"


def is_dead(owner: str) -> bool:
    """Whether `owner` was a process of this host that no longer runs. Owners of other hosts are never called dead."""
    try:
        host, boot, pid, started = owner.rsplit("/", 3)
        number = int(pid)
    except ValueError:
        return False
    if host != socket.gethostname():
        return False
    return boot != _boot() or _started(number) != started
