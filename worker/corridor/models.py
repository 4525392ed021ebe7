"""The model that reads follows the registry: looked at every second, loaded beside the old, changed between films."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from schemas.errors import RecordError
from schemas.registry import ModelAction, ModelReader, RegisteredModel, Service, kept_of
from worker.corridor.live import Live, Reader
from worker.corridor.shadow import Shadow

log = logging.getLogger("hilum.models")

EVERY: Final = 1.0  # seconds between looks
AGAIN: Final = 60.0  # seconds until a model that could not be loaded is tried again
SPARE: Final = 3600.0  # seconds for which the model before stays loaded: a roll back needs no loading, and cannot fail
REPORT: Final = timedelta(seconds=30)  # between words that all is as it was


class Known(Protocol):
    """What is asked of `worker.record.registry.Registry`."""

    def wanted(self) -> tuple[str | None, str | None]: ...

    def service(self) -> Service | None: ...

    def tell(self, reader: str, model: str, action: ModelAction, why: str, now: datetime) -> None: ...

    def report(self, reader: ModelReader) -> None: ...


class ModelWatch:
    """Keeps `live` and its shadow as the registry wants them.

    Where the new model cannot be loaded, or does not give its golden answers here, the old one goes on reading, and
    the registry is told why. Whatever happens here, films are read meanwhile. The model that was replaced stays loaded
    for an hour: to roll back to it takes no longer than a look.

    Parameters
    ----------
    load:
        A model's reader, proven by its golden vectors. Whatever it raises is a refusal.
    shadow:
        A shadow of a model, not started.
    """

    def __init__(
        self,
        *,
        registry: Known,
        live: Live,
        load: Callable[[RegisteredModel], Reader],
        shadow: Callable[[RegisteredModel], Shadow],
        owner: str,
        clock: Callable[[], datetime],
        every: float = EVERY,
        again: float = AGAIN,
        spare: float = SPARE,
    ) -> None:
        self._registry, self._live, self._load, self._make_shadow = registry, live, load, shadow
        self._owner, self._clock, self._every, self._again, self._keep = owner, clock, every, again, spare
        self._spare: tuple[Reader, float] | None = None  # the model before, and until when
        self._since = clock()
        self._shadow: Shadow | None = None
        self._refused: dict[str, tuple[float, str]] = {}  # model → when to try again, and why it was refused
        self._told: ModelReader | None = None
        self._untold: list[tuple[str, ModelAction, str, datetime]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    @property
    def fault(self) -> str:
        """Why films are not read as the registry wants it; empty: they are."""
        faults = [why for _, why in self._refused.values()]
        if self._shadow is not None and self._shadow.fault:
            faults.append(f"shadow {self._shadow.model_id}: {self._shadow.fault}")
        return "; ".join(faults)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Look no more; a model that is being loaded is not waited for longer than `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)
        self._end_shadow(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except RecordError as error:
                log.warning("registry-unknown error=%s", error)
            except Exception:
                log.error("models-failed", exc_info=True)
            self._stopping.wait(self._every)

    def look(self) -> None:
        """Once: take up what is wanted, close what is done, say how it stands. Raises `RecordError`."""
        live, shadow = self._registry.wanted()
        mine = self._live.reader.model.id
        self._refused = {model: when for model, when in self._refused.items() if model == live}
        if live is not None and live != mine and self._due(live):
            self._take_up(live)
        if shadow != (None if self._shadow is None else self._shadow.model_id):
            self._follow(shadow)
        if self._spare is not None and time.monotonic() > self._spare[1]:
            self._spare = None
        self._live.sweep(() if self._spare is None else (self._spare[0],))
        while self._untold:
            self._registry.tell(self._owner, *self._untold[0])
            del self._untold[0]
        self._report()

    def _due(self, model: str) -> bool:
        return model not in self._refused or time.monotonic() >= self._refused[model][0]

    def _take_up(self, wanted: str) -> None:
        service = self._registry.service()
        if service is None or service.live.model_id != wanted:
            return  # moved on while we looked
        model, first = service.live, wanted not in self._refused
        began = time.perf_counter()
        try:
            reader = self._again_or_new(model)
        except Exception as error:
            why = f"{model.name} {model.version} ({wanted}): {type(error).__name__}: {error}"
            self._refused[wanted] = (time.monotonic() + self._again, why)
            log.error("model-refused model=%s reads=%s error=%s", wanted, self._live.reader.model.id, error)
            log.debug("model-refused model=%s", wanted, exc_info=True)
            if first:
                self._untold.append((wanted, ModelAction.REFUSED, str(error), self._clock()))
            return
        self._spare = (self._live.reader, time.monotonic() + self._keep)
        self._live.replace(reader)
        self._since = self._clock()
        self._refused.pop(wanted, None)
        ms = 1000 * (time.perf_counter() - began)
        log.info("model-taken-up model=%s name=%s version=%s ms=%.0f", wanted, model.name, model.version, ms)
        self._untold.append((wanted, ModelAction.TAKEN_UP, f"within {ms:.0f} ms", self._since))

    def _again_or_new(self, model: RegisteredModel) -> Reader:
        spare = None if self._spare is None else self._spare[0]
        if spare is not None and spare.model.id == model.model_id and kept_of(spare.card) == kept_of(model.card):
            return spare
        return self._load(model)

    def _follow(self, wanted: str | None) -> None:
        self._end_shadow()
        service = self._registry.service()
        if wanted is None or service is None or service.shadow is None or service.shadow.model_id != wanted:
            return
        self._shadow = self._make_shadow(service.shadow)
        self._shadow.start()
        self._live.shadow = self._shadow

    def _end_shadow(self, timeout: float = 0.0) -> None:
        self._live.shadow = None
        if self._shadow is not None:
            self._shadow.stop(timeout)  # it ends by itself when its film, or its loading, is done
            self._shadow = None

    def _report(self) -> None:
        shadow = self._shadow
        now = self._clock()
        word = ModelReader(
            reader=self._owner,
            model_id=self._live.reader.model.id,
            since=self._since,
            shadow_id=None if shadow is None else shadow.model_id,
            fault=self.fault,
            dropped=0 if shadow is None else shadow.dropped,
            seen_at=now,
        )
        before = self._told
        same = before is not None and (before.model_id, before.shadow_id, before.fault) == (
            word.model_id,
            word.shadow_id,
            word.fault,
        )
        if before is None or not same or now - before.seen_at >= REPORT:
            self._registry.report(word)
            self._told = word
