"""`make bench`: every figure beside its goal, as measured on this machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    bench_corridor,
    bench_decode,
    bench_delivery,
    bench_doors,
    bench_infer,
    bench_page,
    bench_policy,
    bench_receive,
    bench_sr,
    bench_train,
    bench_worklist,
)

BENCHES: dict[str, Callable[[], list[tuple[str, str, str]]]] = {
    "corridor": bench_corridor.run,
    "decode": bench_decode.run,
    "delivery": bench_delivery.run,
    "doors": bench_doors.run,
    "infer": bench_infer.run,
    "page": bench_page.run,
    "policy": bench_policy.run,
    "receive": bench_receive.run,
    "sr": bench_sr.run,
    "train": bench_train.run,
    "worklist": bench_worklist.run,
}


def processor() -> str:
    """The processor's own name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor()


def main() -> None:
    """Run all, or those named on the command line."""
    console = Console(width=120)
    table = Table("figure", "measured", "goal", title=f"hilum on {os.cpu_count()} cores, {processor()}")
    for name in sys.argv[1:] or BENCHES:
        console.print(f"measuring: {name}", style="dim")
        for row in BENCHES[name]():
            table.add_row(*row)
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
