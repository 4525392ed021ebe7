"""`hilum trainer`: waits for requested runs, carries each out in a process of its own, and tells the database of it.

The child is `python -m training`; once a second it writes `progress.json` in the run's folder, which is copied into the
row. Whatever happens to the child, to this process or to the database, the folder with its checkpoints stays, and who
is given the run next goes on from there.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import json
import logging
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from schemas.card import model_id, read_card
from schemas.errors import ConfigurationError, HilumError, LeaseLost, ModelError, RecordError
from schemas.figures import binary_auroc, macro_auroc
from schemas.training_run import LOGGED, NAME, Curve, Progress, RunState, words_of
from training import description
from training.runs import Claimed, Runs
from training.whole_file import write_whole

LEASE: Final = timedelta(seconds=60)
BEAT: Final = 1.0  # seconds between two looks at the child; the row is written no more often
GRACE: Final = 30.0  # seconds that a child has to stop in; well within the lease
IDLE: Final = 2.0  # seconds between two looks for a requested run
STORE: Final = Path("var/models")  # of the site's bundles, as `hilum train` has it
LOCK: Final = "lock"  # files of a run's folder
DESCRIPTION: Final = "run.toml"
PROGRESS: Final = "progress.json"
HISTORY: Final = "history.json"  # of each stage, in a folder of its own
LOG: Final = "train.log"
REPORT: Final = "report.html"
LARGEST: Final = 4 << 20  # bytes of a progress file, and of a history
LARGEST_REPORT: Final = 32 << 20  # bytes; a longer one stays where it is
HELLO: Final = timedelta(seconds=15)  # how often a trainer says that it is there
TAIL: Final = 64 << 10  # bytes of the log in which the last words are looked for
ERROR: Final = re.compile(r"\Ahilum( train)?: ")  # how our commands begin an error's message
CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what a terminal would obey

log = logging.getLogger("hilum.trainer")

Clock: TypeAlias = Callable[[], datetime]
Command: TypeAlias = Callable[[Path, Path], list[str]]


def child_command(folder: Path, data: Path) -> list[str]:
    """What carries a run out: `folder` holds its locked description, `data` the films. Exit status 0: all is done.

    Values are tied to their options, so that a folder named "--help" is a folder.
    """
    options = (f"--run-folder={folder}", f"--data={data}", f"--preset={folder / DESCRIPTION}")
    return [sys.executable, "-m", "training", "--held", *options]


def rival(live: str | None, store: Path = STORE) -> list[str]:
    """The option by which a run is measured against the live model on its own test films, where that is here too.

    A candidate is promoted when it is no worse on the same films: without this nobody knows.
    """
    for folder in (*store.glob("*"), *description.PACKAGED.glob("*")) if live else ():
        with suppress(ModelError):
            if model_id(read_card(folder)) == live:
                return [f"--against={folder.resolve()}"]
    log.warning("no-rival live=%s mend=copy-its-bundle-into-%s", live, store)
    return []


def now() -> datetime:
    """The clock that is passed in everywhere."""
    return datetime.now(UTC)


class Trainer:
    """Takes runs from the queue, one at a time.

    Parameters
    ----------
    folder:
        Under which every run has a folder of its own, `<number>-<name>`.
    command:
        What is run for a folder and its data.
    stopping:
        Whether this trainer was told to stop: then the child is stopped and the run given back.
    """

    def __init__(
        self,
        runs: Runs,
        folder: Path,
        *,
        command: Command = child_command,
        stopping: Callable[[], bool] = lambda: False,
        clock: Clock = now,
        lease: timedelta = LEASE,
        beat: float = BEAT,
        grace: float = GRACE,
        idle: float = IDLE,
    ) -> None:
        self._runs = runs
        self._folder = folder.resolve()
        self._command = command
        self._stopping = stopping
        self._clock = clock
        self._lease = lease
        self._beat, self._grace, self._idle = beat, grace, idle
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._greeted: datetime | None = None

    def work(self, *, once: bool = False) -> None:
        """Carry out runs until told to stop; `once`: what waits now, then return.

        A database that goes away is waited for.
        """
        while not self._stopping():
            try:
                self._greet()
                rescued = self._runs.rescue(self._clock())
                run = self._runs.claim(self.name, self._lease, self._clock())
            except RecordError as error:
                if once:
                    raise
                log.warning("database-away error=%s", error)
                self._wait()
                continue
            if rescued:
                log.info("rescued runs=%d", rescued)
            if run is not None:
                self.carry_out(run)
            elif once:
                return
            else:
                self._wait()

    def _greet(self) -> None:
        """Say that this trainer is there, from time to time. Raises `RecordError`."""
        at = self._clock()
        if self._greeted is None or at - self._greeted >= HELLO:
            self._runs.here(self.name, description.presets(), at)
            self._greeted = at

    def carry_out(self, run: Claimed) -> RunState | None:
        """One run, to its end; the state it is left in, None when it became somebody else's."""
        log.info("run-began id=%d name=%s attempt=%d", run.id, run.name, run.attempt)
        try:
            state = self._carry_out(run)
        except LeaseLost:
            log.warning("run-lost id=%d", run.id)
            return None
        log.info("run-ended id=%d state=%s", run.id, state)
        return state

    def _carry_out(self, run: Claimed) -> RunState:
        try:
            folder = self._prepare(run)
            with held(folder) as lock:
                return self._watch(run, folder, lock)
        except RecordError:
            raise
        except HilumError as error:
            return self._fail(run, str(error))
        except OSError as error:
            return self._fail(run, f"{error.filename or self._folder}: {error.strerror or error}")

    def _prepare(self, run: Claimed) -> Path:
        """The run's folder with its locked description in it. Raises `ConfigurationError`, `OSError`."""
        if not NAME.fullmatch(run.name):
            raise ConfigurationError(f"name {run.name!r} cannot be a folder's; request the run under another")
        if not Path(run.data).is_dir():
            raise ConfigurationError(f"data: {run.data} is not a folder on {socket.gethostname()}, where training runs")
        known = Path(run.folder) if run.folder else None
        folder = known if known is not None and known.is_dir() else self._folder / f"{run.id:05}-{run.name}"
        folder.mkdir(parents=True, exist_ok=True)
        locked = _described(run, folder).to_toml()
        write_whole(folder / DESCRIPTION, locked)
        self._insist(lambda: self._runs.describe(run, folder=str(folder), description=locked))
        return folder

    def _live(self) -> str | None:
        try:
            return self._runs.live()
        except RecordError as error:  # the run can be measured against it later
            log.warning("live-model-unknown error=%s", error)
            return None

    def _watch(self, run: Claimed, folder: Path, lock: int) -> RunState:
        """The child, from start to end."""
        command = [*self._command(folder, Path(run.data).resolve()), *rival(self._live())]
        began = (folder / LOG).stat().st_size if (folder / LOG).exists() else 0
        relay = Relay(self._runs, run, folder, clock=self._clock, lease=self._lease)
        with _child(command, folder, lock, self._grace) as child:
            while child.poll() is None:
                if self._stopping():
                    _stop(child, self._grace)
                    self._insist(lambda: self._runs.give_back(run))
                    return RunState.REQUESTED
                with suppress(RecordError):  # `relay` says so
                    self._greet()
                if relay.cancel_asked():
                    _stop(child, self._grace)
                    relay.last()
                    self._insist(lambda: self._runs.cancelled(run, self._clock()))
                    return RunState.CANCELLED
                with suppress(subprocess.TimeoutExpired):
                    child.wait(self._beat)
        relay.last()
        if child.returncode != 0:
            return self._fail(run, last_words(folder / LOG, began, child.returncode))
        try:
            result = result_of(folder)
        except ModelError as error:
            return self._fail(run, f"training ended without a usable bundle: {error}")
        self._insist(lambda: self._runs.finish(run, result, self._clock(), report_of(folder)))
        return RunState.DONE

    def _fail(self, run: Claimed, words: str) -> RunState:
        self._insist(lambda: self._runs.fail(run, words, self._clock()))
        log.warning("run-failed id=%d", run.id)
        return RunState.FAILED

    def _insist(self, tell: Callable[[], None]) -> None:
        """Until the database has heard it, or this trainer is to stop. Raises `LeaseLost`."""
        while True:
            try:
                return tell()
            except LeaseLost:
                raise
            except RecordError as error:
                log.warning("database-away error=%s", error)
                if self._stopping():
                    raise
                self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + self._idle
        while not self._stopping() and time.monotonic() < until:
            time.sleep(min(0.2, self._idle))


class Relay:
    """From the child's progress file to the row, and back: whether somebody wants it to stop."""

    def __init__(self, runs: Runs, run: Claimed, folder: Path, *, clock: Clock, lease: timedelta) -> None:
        self._runs, self._run, self._folder = runs, run, folder
        self._clock, self._lease = clock, lease
        self._told: Progress | None = None
        self._alive = clock()

    def cancel_asked(self) -> bool:
        """Tell what is new, keep the lease, and ask. A database that is away is passed over. Raises `LeaseLost`."""
        try:
            self._tell()
            return self._runs.cancel_asked(self._run)
        except LeaseLost:
            raise
        except RecordError as error:
            log.warning("database-away error=%s", error)
            return False

    def last(self) -> None:
        """Tell what the child said last. Raises `LeaseLost`."""
        with suppress(RecordError):
            self._tell()

    def _tell(self) -> None:
        at = self._clock()
        news = read_progress(self._folder)
        if news is not None and news != self._told:
            self._runs.progress(self._run, news, self._lease, at)
            self._told, self._alive = news, at
        elif at - self._alive > self._lease / 4:
            self._runs.alive(self._run, self._lease, at)
            self._alive = at


def read_progress(folder: Path) -> Progress | None:
    """What a child wrote of itself, and the end of its log; None when there is nothing (yet) that can be understood."""
    said, logged = _json(folder / PROGRESS), log_end(folder / LOG)
    if said is None and not logged:
        return None
    return replace(Progress.of(said), curves=curves_of(folder), log=logged)


def curves_of(folder: Path) -> tuple[Curve, ...]:
    """How every stage of a run went so far, in the order in which they are trained.

    Each stage rewrites its own history after every epoch, so that nothing is lost when the run goes on elsewhere.
    """
    try:
        planned = tomllib.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    stages = ((task, str(stage["name"])) for task in ("multilabel", "binary") for stage in planned.get(task, ()))
    found = ((task, stage, _json(folder / task / stage / HISTORY)) for task, stage in stages)
    return tuple(Curve.of({"task": task, "stage": stage, "epochs": said}) for task, stage, said in found if said)


def _json(path: Path) -> Any:
    """None when there is none (yet) that can be understood."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None


def log_end(path: Path) -> str:
    """Its last lines, as many as are shown; "" where there are none."""
    try:
        text = words_of("\n".join(_lines(path, 0)), TAIL)
    except OSError:
        return ""
    return text if len(text) <= LOGGED else text[-LOGGED:].partition("\n")[2]


def report_of(folder: Path) -> str:
    """The page that training left, to be shown where its folder is not seen; "" where there is none."""
    path = folder / REPORT
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= LARGEST_REPORT else ""
    except (OSError, ValueError):
        return ""


def result_of(folder: Path) -> dict[str, Any]:
    """What a finished run is remembered by, from its bundle's card. Raises `BundleInvalid`."""
    card = read_card(folder / "bundle")
    macro, binary = macro_auroc(card), binary_auroc(card)
    report = folder / REPORT
    return {
        "bundle": str(folder / "bundle"),
        "model_id": model_id(card),
        "name": card.name,
        "version": card.version,
        "macro": None if macro is None else macro.to_json(),
        "binary": None if binary is None else binary.to_json(),
        "report": str(report) if report.is_file() else None,
    }


def last_words(path: Path, began: int, status: int) -> str:
    """Why a child ended, from the log that it wrote since byte `began`: its error message, else its last line."""
    lines = _lines(path, began)
    errors = [i for i, line in enumerate(lines) if ERROR.match(line)]
    said = ERROR.sub("", "\n".join(lines[errors[-1] :])) if errors else (lines[-1] if lines else "")
    if status < 0:
        cause = "; the machine ran out of memory?" if -status == signal.SIGKILL else ""
        said = f"killed by {_signal_name(-status)}{cause}" + (f" (its last line: {said})" if said else "")
    return words_of(said) or f"ended with status {status} and without a word; see {path}"


def _lines(path: Path, began: int) -> list[str]:
    """What a terminal would show of a log since byte `began`, its last `TAIL` bytes at most. Raises `OSError`."""
    with path.open("rb") as file:
        file.seek(max(began, path.stat().st_size - TAIL))
        text = CONTROL.sub("", file.read().decode("utf-8", "replace"))
    # A progress line is written over itself: what counts is what was left standing.
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line]


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Nobody else trains in this folder. The child inherits what is yielded, so that it holds it too, orphaned or not.

    Raises
    ------
    ConfigurationError
        Somebody does.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"{folder}: another process trains there; end it, then `hilum runs resume`") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def recorded(
    url: str,
    *,
    name: str,
    description: str,
    data: Path,
    folder: Path,
    clock: Clock = now,
    lease: timedelta = LEASE,
    beat: float = BEAT,
    on_cancel: Callable[[], object] = _thread.interrupt_main,
) -> Iterator[int]:
    """What is trained inside of this block, by this process, is a row of the database; yields its number.

    `progress.json` of `folder` is copied into the row as a trainer does it. The block's end is the row's: done with the
    bundle of `folder`, failed with the error's words, cancelled by `KeyboardInterrupt` or `SystemExit`; `on_cancel` is
    called (from a thread) when somebody asks for that, and by default interrupts the main thread. A database that goes
    away in the middle does not stop the training.

    Raises
    ------
    RecordError
        The database cannot be used at all.
    ConfigurationError
        Another process trains in this folder.
    """
    runs = Runs(url)
    runs.check()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        run = runs.begin(
            name=name,
            description=description,
            data=str(data.resolve()),
            folder=str(folder),
            requested_by=user(),
            trainer=f"{socket.gethostname()}/{os.getpid()}",
            lease=lease,
            now=clock(),
        )
        over = threading.Event()
        relay = Relay(runs, run, folder, clock=clock, lease=lease)

        def watch() -> None:
            with suppress(LeaseLost):
                while not over.wait(beat):
                    if relay.cancel_asked():
                        on_cancel()
                        return

        watcher = threading.Thread(target=watch, name="run-row", daemon=True)
        watcher.start()

        def end(tell: Callable[[], None]) -> None:
            over.set()
            watcher.join()
            try:
                relay.last()
                tell()
            except RecordError as error:
                log.warning("database-away error=%s", error)

        try:
            yield run.id
            result = result_of(folder)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            end(lambda: runs.cancelled(run, clock()))
            raise
        except BaseException as error:
            words = str(error) if isinstance(error, HilumError) else f"{type(error).__name__}: {error}"
            end(lambda: runs.fail(run, words, clock()))
            raise
        else:
            end(lambda: runs.finish(run, result, clock(), report_of(folder)))
        finally:
            runs.close()


def user() -> str:
    """Who runs this process, as the system knows them."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _described(run: Claimed, folder: Path) -> description.Run:
    """The run's description, looked up or read, under the name that was asked for. Raises `ConfigurationError`."""
    if run.description and (not run.preset or run.folder):  # in full, or locked by an earlier attempt
        requested = folder / "requested.toml"
        write_whole(requested, run.description)
        return description.read(str(requested), name=run.name)
    presets = description.presets()
    if run.preset not in presets:  # `read` would take it for a file's name
        raise ConfigurationError(f"preset {run.preset!r} is not known; there are: {', '.join(presets) or 'none'}")
    try:
        over = tomllib.loads(run.description)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"description: not TOML: {error}") from error
    return description.read(run.preset, **{**over, "name": run.name})


@contextmanager
def _child(command: list[str], folder: Path, lock: int, grace: float) -> Iterator[subprocess.Popen[bytes]]:
    """A child whose words go to the log; it does not outlive the block, nor (on Linux) this process."""

    def die_with_parent() -> None:
        # prctl(PR_SET_PDEATHSIG, SIGTERM): a trainer that is killed takes its child along, which then can be resumed.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)

    with (folder / LOG).open("ab") as output:
        child = subprocess.Popen(  # noqa: S603  our own module, and values tied to their options
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is this process's to hear
            pass_fds=(lock,),
            preexec_fn=die_with_parent,  # noqa: PLW1509  this process has one thread
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            _stop(child, grace)


def _stop(child: subprocess.Popen[bytes], grace: float) -> None:
    """Ask it to stop; after `grace` seconds it is not asked any more."""
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # its own helpers too
        child.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Stop:
    """Set by SIGTERM and Ctrl-C; a flag, because a second signal may come while the first is handled."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def trainer(
    database: Annotated[
        str,
        typer.Option(
            envvar="HILUM_DATABASE__URL",
            help="The worker's database: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME. "
            "The variable keeps a password out of the list of processes.",
        ),
    ] = "sqlite:///var/hilum.db",
    runs: Annotated[Path, typer.Option(help="Every run gets a folder of its own here.", file_okay=False)] = Path(
        "runs"
    ),
    once: Annotated[
        bool, typer.Option("--once", help="Carry out what is requested now, one after the other, and end.")
    ] = False,
) -> None:
    """Wait for training runs that the page or `hilum runs request` ask for, and carry them out one at a time.

    Start it where the films and, if there is one, the GPU are; several trainers share one PostgreSQL queue. SIGTERM or
    Ctrl-C stops it: the run in hand is given back and goes on from its last checkpoint, here or elsewhere. Watch with
    `hilum runs list` and `hilum runs show ID --follow`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = _Stop()
    try:
        queue = Runs(database)
        queue.check()
        worker = Trainer(queue, runs, stopping=lambda: stop.asked)
        worker.work(once=once)
        with suppress(RecordError):  # then it is forgotten after a while
            queue.left(worker.name)
    except HilumError as error:
        typer.echo(f"hilum: {words_of(str(error))}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from error
