from __future__ import annotations

import subprocess
import sys
import threading

from worker.corridor import owner
from worker.corridor.bell import Bell


def test_a_living_process_is_not_dead() -> None:
    assert not owner.is_dead(owner.name())


def test_a_process_that_ended_is_dead() -> None:
    script = "from worker.corridor import owner; print(owner.name())"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert owner.is_dead(out.stdout.strip())


def test_a_later_process_with_the_same_id_does_not_stand_in() -> None:
    host, boot, pid, started = owner.name().rsplit("/", 3)
    assert owner.is_dead(f"{host}/{boot}/{pid}/{int(started) - 1}")
    assert owner.is_dead(f"{host}/00000000/{pid}/{started}")


def test_other_hosts_are_left_to_the_lease() -> None:
    assert not owner.is_dead("elsewhere/00000000/1/1")
    assert not owner.is_dead("free text")


def test_a_ring_between_look_and_wait_is_not_missed() -> None:
    bell = Bell()
    seen = bell.rung
    bell.ring()
    assert bell.wait(seen, 0)
    assert not bell.wait(bell.rung, 0)


def test_a_ring_wakes_every_waiter() -> None:
    bell = Bell()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(bell.wait(0, 10))) for _ in range(3)]
    for t in threads:
        t.start()
    bell.ring()
    for t in threads:
        t.join()
    assert woken == [True] * 3
