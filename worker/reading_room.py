"""What a process that reads is made of: the live model of the registry, its shadow, and the readers. Part of the roof.

The configured bundle reads first. From then on the registry says which model does, and what it says takes effect in
every process within seconds (`worker.corridor.models`).
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import BundleInvalid, GoldenMismatch, RecordError
from schemas.outcome import ModelRef, Route
from schemas.registry import Check, RegisteredModel
from worker.corridor.bell import Bell
from worker.record.registry import Registry
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.corridor.in_force import PolicyWatch
    from worker.corridor.live import Live, Reader
    from worker.corridor.models import ModelWatch
    from worker.corridor.shadow import Shadow
    from worker.infer.bundle import Bundle
    from worker.infer.engine import Engine
    from worker.ports import Runtime, Spool
    from worker.record.database import Database
    from worker.worklist.web.models_desk import ModelsDesk

log = logging.getLogger("hilum.models")

HEARD: Final = timedelta(minutes=5)  # a process that was silent for longer is gone
PROOF_SECONDS: Final = 600.0  # in which golden vectors are replayed
NOBODY_READS: Final[Mapping[str, Any]] = {"model": None, "model_fault": "", "shadow": None}  # `ReadingRoom.status`
_FILE: Final = "sqlite:///"
_VERIFY: Final = "from worker.cli.main import main; main()"
PACKAGED: Final = Path(str(resources.files("worker"))) / "models"


def stores(settings: Settings) -> list[Path]:
    """Where bundles are looked for, the site's own first."""
    return [settings.model.store, PACKAGED]


def open_configured(settings: Settings) -> Bundle:
    """The bundle that `[model] bundle` names, hashes and recipe verified. Raises `ModelError`."""
    return _open(settings.model.bundle, settings)


def open_registered(settings: Settings, model: RegisteredModel) -> Bundle:
    """The bundle of a model of the registry, wherever in the stores it is now, with the card that was registered.

    A card that was changed on the disk since then changes nothing: what was promoted is what reads.

    Raises
    ------
    ModelError
        It is in no store, or not what it was.
    """
    from worker.infer.bundle import NAME
    from worker.infer.calibrate import Platt
    from worker.infer.store import entries, entry

    found = [entry(Path(model.bundle), model.bundle)] if not NAME.fullmatch(model.bundle) else []
    found += [there for store in stores(settings) for there in entries(store)]
    found.sort(key=lambda there: there.name != model.bundle)
    for there in found:
        if there.model_id == model.model_id:
            bundle = _open(str(there.folder.resolve()), settings)
            return replace(bundle, card=model.card, platt=Platt(model.card))
    looked = ", ".join(map(str, stores(settings)))
    raise BundleInvalid(
        f"{model.name} {model.version} ({model.model_id}), of the registry, is not in {looked}: bring its bundle back "
        "(`hilum models import`), or `hilum models rollback`"
    )


def engine(settings: Settings, model: Bundle) -> Engine:
    """Both models loaded and proven by the golden vectors. Raises `ModelError`."""
    from worker.infer.choose import choose_runtime, load_runtime
    from worker.infer.engine import Engine

    def load(name: str) -> Runtime:
        return load_runtime(name, model, threads=settings.model.threads, max_batch=settings.model.max_batch)

    name = choose_runtime(settings.model.runtime)
    return Engine(
        load(name),
        model.card,
        max_batch=settings.model.max_batch,
        gather_ms=settings.model.gather_ms,
        fallback=None if name == "openvino" else partial(load, "openvino"),
    )


def silent_engine(model: Bundle) -> Engine:
    """For a shadow: on the CPU where that can be, one film at a time, one thread for each of the two models."""
    from worker.infer.choose import choose_runtime, load_runtime
    from worker.infer.engine import Engine
    from worker.infer.exports import installed_runtimes

    name = "openvino" if "openvino" in installed_runtimes() else choose_runtime("auto")
    return Engine(load_runtime(name, model, threads=2, max_batch=1), model.card, max_batch=1, gather_ms=0.0)


def enter(settings: Settings, registry: Registry, source: str, *, who: str, why: str, now: datetime) -> RegisteredModel:
    """Take a bundle into the registry as a candidate, proven on every runtime that is installed here.

    Parameters
    ----------
    source:
        A name in the store, or a bundle's folder or archive, which is taken into the store first.

    Raises
    ------
    ModelError
        It is no bundle, not whole, or does not give its golden answers.
    ConfigurationError
        It cannot be taken into the store.
    RecordError
        It is in the registry already.
    """
    from worker.infer.bundle import NAME
    from worker.infer.store import check_content, import_bundle
    from worker.tensor import recipe

    proofs: list[Check] = []

    def prove(bundle: Bundle) -> None:
        proofs.extend(proven(bundle))

    name = source
    if not NAME.fullmatch(source):
        own = _name_of(Path(source))
        name = import_bundle(
            Path(source),
            settings.model.store,
            fingerprint=recipe.fingerprint,
            prove=prove,
            name=own,
            replace=own is not None,  # only ever by the same model with a new card
            behind=[PACKAGED],
        ).name
    bundle = _open(name, settings)
    if not proofs:
        check_content(bundle)
        prove(bundle)
    return registry.add(name, bundle.card, who=who, why=why, now=now, proofs=proofs)


def _name_of(folder: Path) -> str | None:
    """In the store, under which no other model can be; None: as its card says."""
    from worker.infer.store import entry

    found = entry(folder, folder.name)
    return None if found.card is None else f"{found.card.name[:40]}-{found.model_id}"


def proven(bundle: Bundle) -> list[Check]:
    """Golden vectors on every runtime that is installed here, and parity between them. Raises `GoldenMismatch`.

    In a process apart and of the lowest priority: a worker on a CPU never imports TensorFlow, and has films to read.
    """
    from worker.infer.exports import installed_runtimes

    runtime = "tensorflow" if "tensorflow" in installed_runtimes() else "openvino"  # the former is held to the latter
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    command = [*nice, sys.executable, "-c", _VERIFY, "models", "verify", str(bundle.folder), "--runtime", runtime]
    run = subprocess.run(  # noqa: S603  our own command
        [*command, "--json"], capture_output=True, text=True, check=False, timeout=PROOF_SECONDS
    )
    try:
        checks = json.loads(run.stdout)["checks"]
        found = [Check(name=each["check"], passed=each["ok"], words=each["words"]) for each in checks]
    except (ValueError, LookupError, TypeError) as error:
        raise GoldenMismatch(f"{bundle.folder}: could not be proven: {run.stderr.strip()[-500:]}") from error
    if failed := [f"{check.name}: {check.words}" for check in found if not check.passed]:
        raise GoldenMismatch(f"{bundle.folder}: {'; '.join(failed)}")
    return [check for check in found if check.name not in {"files", "recipe"}]


def open_live(settings: Settings) -> Bundle:
    """The bundle that reads: the live one of the registry, or where nothing has read yet the configured one.

    For commands that work beside the worker or without any. Raises `ModelError`.
    """
    live = live_model(settings)
    return open_configured(settings) if live is None else open_registered(settings, live)


def live_model(settings: Settings) -> RegisteredModel | None:
    """None where there is no registry, or nothing in it has ever read."""
    from worker.record.database import Database

    url = settings.database.url
    if url.startswith(_FILE) and not Path(url.removeprefix(_FILE)).is_file():
        return None  # looking would make one
    try:
        database = Database(url)
        try:
            service = Registry(database).service()
            return None if service is None else service.live
        finally:
            database.close()
    except RecordError:
        return None


def models_desk(settings: Settings, database: Database) -> ModelsDesk:
    """What the pages of the models are made of."""
    from worker.infer.store import entries
    from worker.record.shadow import Shadows
    from worker.worklist.web.models_desk import ModelsDesk

    registry = Registry(database)

    def offered() -> list[str]:
        return sorted({found.name for store in stores(settings) for found in entries(store) if found.card is not None})

    return ModelsDesk(
        registry=registry,
        shadows=Shadows(database),
        offered=offered,
        enter=lambda source, why, who: (
            enter(settings, registry, source, who=who, why=why, now=datetime.now(UTC)).model_id
        ),
        two_people=settings.model.two_people,
    )


def model_notices(database: Database, now: datetime) -> list[str]:
    """What whoever reads the list must know of the models: a process that cannot read as it should."""
    return [
        f"{reader.reader.partition('/')[0]} does not read with the live model: {reader.fault}"
        for reader in Registry(database).readers(now - HEARD)
        if reader.fault
    ]


def _open(name: str, settings: Settings) -> Bundle:
    from worker.infer.bundle import open_bundle
    from worker.tensor import recipe

    return open_bundle(name, stores(settings), recipe.fingerprint)


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the room gets from the worker."""

    spool: Spool
    work: Bell
    news: Bell
    owner: str
    route: Route
    clock: Callable[[], datetime]


class ReadingRoom:
    """Readers and the models that they read with."""

    def __init__(self, settings: Settings, database: Database, means: Means) -> None:
        """Find the bundle that is to read, and verify its hashes; nothing is loaded yet.

        Raises
        ------
        ModelError, RecordError
        """
        from worker.corridor.in_force import PolicyWatch
        from worker.record.policies import Policies

        self.registry = Registry(database)
        self._settings, self._database, self._means = settings, database, means
        self._policy: PolicyWatch = PolicyWatch(Policies(database), settings.policy.policy(), means.clock)
        service = self.registry.service()
        self._bundle = open_configured(settings) if service is None else open_registered(settings, service.live)
        self._live: Live | None = None
        self._watch: ModelWatch | None = None
        self._stops: list[Callable[[], object]] = []

    def load(self) -> None:
        """Load the models. Raises `ModelError`."""
        from worker.corridor.live import Live

        reader = self._reader(self._bundle, engine)
        self._live = Live(reader)
        self._stops.append(self._live.close)

    @property
    def live(self) -> Live:
        """Which model reads now."""
        assert self._live is not None, "loaded first"  # noqa: S101  the order in which a worker starts
        return self._live

    def start(self) -> None:
        """Enter the model in the registry where it is the first; read, and follow the registry."""
        from worker.corridor.models import ModelWatch
        from worker.corridor.reading import Reading, ReadingRules
        from worker.record.jobs import Jobs

        settings, means = self._settings, self._means
        self._enter_first()
        self._watch = ModelWatch(
            registry=self.registry,
            live=self.live,
            load=lambda model: self._reader(open_registered(settings, model), engine),
            shadow=self._shadow,
            owner=means.owner,
            clock=means.clock,
        )
        reading = Reading(
            jobs=Jobs(self._database),
            spool=means.spool,
            live=self.live,
            gate=settings.gate,
            policy=self._policy.in_force,
            route=means.route,
            work=means.work,
            news=means.news,
            owner=means.owner,
            rules=ReadingRules(
                lease=timedelta(seconds=settings.reading.lease_seconds), attempts=settings.reading.attempts
            ),
            clock=means.clock,
            readers=settings.reading.workers,
        )
        for part in (reading, self._watch):
            part.start()
            self._stops.append(part.stop)

    def stop(self) -> None:
        """Finish the films in hand, then close the models."""
        while self._stops:
            self._stops.pop()()

    def status(self) -> Mapping[str, Any]:
        """For the page and `/readyz`: the model that reads, the one that reads along, and what is wrong with them."""
        shadow = self.live.shadow
        return {
            "model": asdict(self.live.reader.model),
            "model_fault": "" if self._watch is None else self._watch.fault,
            "shadow": None if shadow is None else shadow.model_id,
        }

    def _enter_first(self) -> None:
        settings, bundle = self._settings, self._bundle
        loaded = Check(name="golden vectors", passed=True, words="replayed when the worker started")
        live = self.registry.first(settings.model.bundle, bundle.card, self._means.clock(), [loaded])
        if live.bundle != settings.model.bundle:
            log.info("model-of-registry bundle=%s configured=%s", live.bundle, settings.model.bundle)

    def _reader(self, bundle: Bundle, load: Callable[[Settings, Bundle], Engine]) -> Reader:
        from worker.corridor.live import Reader

        card = bundle.card
        self._policy.in_force(card.thresholds)  # both know every operating point, so that no film meets it
        return Reader(
            engine=load(self._settings, bundle),
            model=ModelRef(id=bundle.model_id, name=card.name, version=card.version),
            card=card,
        )

    def _shadow(self, model: RegisteredModel) -> Shadow:
        from worker.corridor.shadow import Shadow
        from worker.record.shadow import Shadows

        return Shadow(
            model.model_id,
            load=lambda: self._reader(
                open_registered(self._settings, model), lambda settings, bundle: silent_engine(bundle)
            ),
            keep=Shadows(self._database).keep,
            policy=self._policy.in_force,
            quiet=self.live.quiet,
            clock=self._means.clock,
        )
