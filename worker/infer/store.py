"""The model store: what is in it, what is taken into it, and what leaves it as one file.

A store is a folder of bundles, one folder each (`schemas.card`). A bundle is proven in a staging folder beside the
others and then renamed into place: whoever looks sees all of it or nothing. Names that begin with a dot are no bundles.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, Literal

from schemas.card import CARD, MODELS, ModelCard, model_id, read_card
from schemas.errors import BundleInvalid, ConfigurationError, ModelError
from worker.infer.bundle import NAME, RESTORE, Bundle, open_bundle

LARGEST_CARD: Final = 4 << 20  # bytes
LARGEST_GRAPH: Final = 64 << 20
LARGEST_FILE: Final = 2 << 30  # of weights or golden vectors, also when unpacked
LARGEST_BUNDLE: Final = 4 << 30
MEMBERS: Final = 1000  # of an archive
RATIO: Final = 100  # unpacked against packed; real bundles are below 3
CHUNK: Final = 1 << 20
INCOMING: Final = ".incoming-"
REPLACED: Final = ".replaced-"
PARTS: Final = frozenset(  # of Keras, that a graph may name
    {"activations", "applications", "constraints", "dtype_policies", "initializers", "layers", "models", "regularizers"}
)
EXPORTED: Final = frozenset({".json", ".txt", ".xml", ".bin", ".keras"})  # all that an export leaves in its folder
EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time a ZIP can say

Prove = Callable[[Bundle], object]
Fingerprint = Callable[[int], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One folder of a store."""

    name: str  # by which `[model] bundle` finds it
    folder: Path
    card: ModelCard | None  # None: see `fault`
    model_id: str
    size: int  # bytes, of the files that the card lists
    fault: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What came of an import."""

    name: str
    folder: Path
    card: ModelCard
    model_id: str
    outcome: Literal["new", "same", "replaced"]  # same: nothing was done
    ignored: tuple[str, ...]  # what lay beside the bundle and was not taken


def entries(store: Path) -> list[Entry]:
    """Every bundle of a store by name; nothing is hashed. A store that is not there is an empty one."""
    if not store.is_dir():
        return []
    folders = sorted(path for path in store.iterdir() if path.is_dir() and NAME.fullmatch(path.name))
    return [entry(path, path.name) for path in folders]


def card_of(folder: Path) -> ModelCard:
    """The card in `folder`, if it is no larger than any card. Raises `BundleInvalid`."""
    path = folder / CARD
    try:
        if path.is_file() and path.stat().st_size > LARGEST_CARD:
            raise BundleInvalid(f"{path}: larger than any card; {RESTORE}")
        return read_card(folder)
    except RecursionError as error:
        raise BundleInvalid(f"{path}: not a model card; {RESTORE}") from error


def entry(folder: Path, name: str) -> Entry:
    """What the card in `folder` says, or why it says nothing."""
    try:
        card = card_of(folder)
    except BundleInvalid as error:
        return Entry(name=name, folder=folder, card=None, model_id="", size=0, fault=str(error))
    size = 0
    for file in (CARD, *card.files):
        with suppress(OSError):
            size += (folder / file).stat().st_size
    return Entry(name=name, folder=folder, card=card, model_id=model_id(card), size=size)


def check_content(bundle: Bundle) -> None:
    """What hashes cannot say: no array that would fill the memory, no layer that could run code of its own.

    Raises
    ------
    BundleInvalid
        Which file, and what is wrong with it.
    """
    for file in bundle.card.files:
        path = bundle.folder / file
        if path.suffix == ".npz":
            _check_arrays(path)
    for model in MODELS:
        path = bundle.folder / f"{model}.json"
        if path.stat().st_size > LARGEST_GRAPH:
            raise BundleInvalid(f"{path}: larger than any network's graph; {RESTORE}")
        try:
            _check_layers(json.loads(path.read_text(encoding="utf-8")), path)
        except (ValueError, RecursionError) as error:
            raise BundleInvalid(f"{path}: not a network's graph ({error}); {RESTORE}") from error


def import_bundle(
    source: Path,
    store: Path,
    *,
    fingerprint: Fingerprint,
    prove: Prove,
    name: str | None = None,
    replace: bool = False,
    behind: Sequence[Path] = (),
) -> Imported:
    """Take a bundle into the store: all of it, proven, or nothing.

    Parameters
    ----------
    source:
        The bundle's folder, or a .zip or .tar.gz that holds its files, at the top or in one folder.
    fingerprint:
        Of the worker's tensor recipe at an input size.
    prove:
        Called with the staged bundle, hashes and recipe already checked; raises `ModelError` to refuse it.
    name:
        In the store; default: the card's.
    replace:
        Put it in the place of another bundle of that name.
    behind:
        Stores that are looked into after this one: a name of theirs would be hidden.

    Raises
    ------
    ModelError
        Not a bundle, or it is not what its card says, or it was refused by `prove`.
    ConfigurationError
        Another bundle has the name, or the name cannot be a folder's, or the disk said no.
    """
    try:
        with _alone(store):
            staging = Path(tempfile.mkdtemp(prefix=INCOMING, dir=store))
            try:
                ignored = _fetch(source, staging)
                card_of(staging)
                bundle = open_bundle(str(staging.resolve()), [], fingerprint)
                check_content(bundle)
                ignored += _drop_unlisted(staging, bundle.card)
                name = bundle.card.name if name is None else name
                if not NAME.fullmatch(name) or len(name) > 63:
                    raise ConfigurationError(f"name {name[:80]!r}: letters, digits, . _ -, 63 at most; give --name")
                outcome = _compare(staging, name, [store, *behind], fingerprint, replace=replace)
                if outcome != "same":
                    try:
                        prove(bundle)
                    except MemoryError as error:
                        raise BundleInvalid(f"{source}: its arrays do not fit into memory; {RESTORE}") from error
                    _settle(staging, store / name)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or store}: {error.strerror or error}; nothing was imported"
        ) from error
    return Imported(
        name=name,
        folder=store / name,
        card=bundle.card,
        model_id=bundle.model_id,
        outcome=outcome,
        ignored=tuple(ignored),
    )


def pack(bundle: Bundle, target: Path) -> None:
    """One ZIP of the bundle's files in a folder named after the card, the same bytes wherever it is made.

    Stored, not compressed: weights do not shrink, and compressors differ between machines. Whole or not at all.

    Raises
    ------
    ConfigurationError
        The disk said no.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, staged = tempfile.mkstemp(prefix=INCOMING, dir=target.parent)
        fresh = Path(staged)
        try:
            home = bundle.card.name if NAME.fullmatch(bundle.card.name) else "bundle"
            with os.fdopen(descriptor, "wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for member in sorted((CARD, *bundle.card.files)):
                        about = zipfile.ZipInfo(f"{home}/{member}", EPOCH)
                        about.external_attr = (stat.S_IFREG | 0o644) << 16
                        about.create_system = 3  # Unix, also where it is not
                        about.file_size = (bundle.folder / member).stat().st_size  # else ZIP64 is not known in time
                        with (bundle.folder / member).open("rb") as content, archive.open(about, "w") as packed:
                            shutil.copyfileobj(content, packed, CHUNK)
                file.flush()
                os.fsync(file.fileno())
            fresh.chmod(0o644)
            fresh.replace(target)
            _sync_folder(target.parent)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or target}: {error.strerror or error}; nothing was exported"
        ) from error


@contextmanager
def placed(target: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to fill; it becomes `target` when the block ends well, and vanishes when not.

    Raises
    ------
    ConfigurationError
        `target` is there already (an empty folder does not count), or the disk said no.
    """
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise ConfigurationError(f"{target} is not a folder; choose another place")
        there = [path.name for path in target.iterdir()] if target.exists() else []
        if there and not replace:
            raise ConfigurationError(f"{target} is there already; choose another place, or give --replace")
        if there and (CARD not in there or any(Path(name).suffix not in EXPORTED for name in there)):
            raise ConfigurationError(f"{target} holds more than an earlier export; choose another place")
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=INCOMING, dir=target.parent))
        try:
            yield staging
            _settle(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or target}: {error.strerror or error}; nothing was exported"
        ) from error


def _check_arrays(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleInvalid(f"{path}: not an archive of arrays ({error}); {RESTORE}") from error
    if unpacked > LARGEST_FILE:
        raise BundleInvalid(f"{path}: {unpacked} bytes when unpacked, more than any model here; {RESTORE}")


def _check_layers(config: Any, path: Path) -> None:
    """Keras makes objects of whatever module and class a graph names: here only the parts of a network, no Lambda."""
    waiting = [config]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict):
            module, kind = at.get("module"), at.get("class_name")
            if (isinstance(module, str) and not _is_network(module)) or kind in ("Lambda", "function", "__lambda__"):
                raise BundleInvalid(f"{path}: holds {module or ''} {kind}, which is no plain Keras layer; {RESTORE}")
            waiting += at.values()
        elif isinstance(at, list):
            waiting += at


def _is_network(module: str) -> bool:
    root, *parts = [part for part in module.split(".") if part != "src"] or [""]
    return (root == "keras" and (not parts or parts[0] in PARTS)) or module == "builtins"


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """One import at a time; what a killed one left behind is put right first."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in store.glob(f"{INCOMING}*"):
            shutil.rmtree(left, ignore_errors=True)
        for old in store.glob(f"{REPLACED}*"):
            home = store / old.name.removeprefix(REPLACED)
            if home.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:  # killed between the two renames
                old.rename(home)
        yield


def _fetch(source: Path, staging: Path) -> list[str]:
    """Copy or unpack into `staging`, flat; returns what lay beside and was left. Raises `BundleInvalid`."""
    if source.is_dir():
        return _copy(source, staging)
    if not source.is_file():
        raise BundleInvalid(f"{source}: there is no such file or folder")
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return _unzip(source, archive, staging)
        with tarfile.open(source) as archive:
            return _untar(source, archive, staging)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, MemoryError) as error:
        raise BundleInvalid(f"{source}: not a whole .zip or .tar.gz ({error}); fetch it again") from error
    except OSError as error:
        if error.filename is None and error.errno is None:  # gzip's and lzma's way to say that it is broken
            raise BundleInvalid(f"{source}: not a whole .zip or .tar.gz ({error}); fetch it again") from error
        raise


def _copy(source: Path, staging: Path) -> list[str]:
    wanted = {CARD, *card_of(source).files}
    budget = LARGEST_BUNDLE
    for file in sorted(wanted):
        path = source / file
        if not NAME.fullmatch(file):
            raise BundleInvalid(f"{source / CARD}: {file!r} is not a file name; {RESTORE}")
        if not path.is_file() or path.is_symlink():
            raise BundleInvalid(f"{path}: missing, or not an ordinary file; {RESTORE}")
        with path.open("rb") as content:
            budget -= _write(content, staging / file, min(budget, LARGEST_FILE), path)
    return sorted(path.name for path in source.iterdir() if path.name not in wanted)


def _members(source: Path, names: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """(folder of the bundle, member → file name for all that lies in it, the rest). Raises `BundleInvalid`."""
    if len(names) > MEMBERS:
        raise BundleInvalid(f"{source}: {len(names)} members; a bundle has six")
    if len(set(names)) != len(names):
        raise BundleInvalid(f"{source}: holds a member twice; pack it again")
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or ":" in name.partition("/")[0]:
            raise BundleInvalid(f"{source}: member {name!r} points out of the archive; it was not unpacked")
    paths = {name: PurePosixPath(name) for name in names}
    homes = sorted({str(path.parent) for path in paths.values() if path.name == CARD and len(path.parts) <= 2})
    if len(homes) != 1:
        found = "no card.json" if not homes else f"{len(homes)} bundles"
        raise BundleInvalid(f"{source}: {found}, at the top or in one folder; one archive is one bundle")
    home = homes[0]
    inside = {name: path.name for name, path in paths.items() if str(path.parent) == home and NAME.fullmatch(path.name)}
    return home, inside, sorted(set(names) - set(inside))


def _unzip(source: Path, archive: zipfile.ZipFile, staging: Path) -> list[str]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    _, inside, rest = _members(source, [info.filename for info in infos])
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BundleInvalid(f"{source}: member {info.filename!r} is a link or a device; it was not unpacked")
        if info.flag_bits & 1:
            raise BundleInvalid(f"{source}: is encrypted; unpack it and import the folder")
    budget = _budget(source, sum(info.file_size for info in infos))
    for info in infos:
        if info.filename in inside:
            with archive.open(info) as content:
                file = inside[info.filename]
                budget -= _write(content, staging / file, min(budget, _limit(file)), f"{source}: {file}")
    return rest


def _untar(source: Path, archive: tarfile.TarFile, staging: Path) -> list[str]:
    infos: list[tarfile.TarInfo] = []
    declared = 0
    for info in archive:  # one by one: a bomb is noticed before all of it was read
        if info.isdir():
            continue
        if not info.isreg():
            raise BundleInvalid(f"{source}: member {info.name!r} is a link or a device; it was not unpacked")
        declared += info.size
        _budget(source, declared)
        infos.append(info)
        if len(infos) > MEMBERS:
            break
    names = [info.name.removeprefix("./") for info in infos]
    _, inside, rest = _members(source, names)
    budget = _budget(source, declared)
    for info, name in zip(infos, names, strict=True):
        content = archive.extractfile(info) if name in inside else None
        if content is not None:
            with content:
                budget -= _write(
                    content, staging / inside[name], min(budget, _limit(inside[name])), f"{source}: {name}"
                )
    return rest


def _words(error: OSError, where: Path) -> str:
    return f"{error.filename or where}: {error.strerror or error}"


def _limit(file: str) -> int:
    return LARGEST_CARD if file == CARD else LARGEST_FILE


def _budget(source: Path, declared: int) -> int:
    """Bytes that may be unpacked. Raises `BundleInvalid` for what is no bundle by its size alone."""
    packed = source.stat().st_size
    if declared > LARGEST_BUNDLE or declared > RATIO * packed + CHUNK:
        raise BundleInvalid(f"{source}: {packed} bytes that unpack to {declared}; no bundle does that, so it was left")
    return min(LARGEST_BUNDLE, RATIO * packed + CHUNK)


def _write(content: IO[bytes], path: Path, limit: int, what: object) -> int:
    """Copy and fsync; returns how many bytes. What an archive declares is not believed."""
    written = 0
    with path.open("xb") as file:
        while chunk := content.read(CHUNK):
            written += len(chunk)
            if written > limit:
                raise BundleInvalid(f"{what}: larger than {limit} bytes; no bundle has such a file")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return written


def _drop_unlisted(staging: Path, card: ModelCard) -> list[str]:
    """What the card does not vouch for stays out; returns the names."""
    dropped = sorted(path.name for path in staging.iterdir() if path.name != CARD and path.name not in card.files)
    for name in dropped:
        (staging / name).unlink()
    return dropped


def _compare(
    staging: Path, name: str, stores: Sequence[Path], fingerprint: Fingerprint, *, replace: bool
) -> Literal["new", "same", "replaced"]:
    """What becomes of the first store's bundle of this name. Raises `ConfigurationError`."""
    home = stores[0] / name
    mine = (staging / CARD).read_bytes()
    there = next((store / name for store in stores if (store / name).exists()), None)
    if there is None:
        return "new"
    if not (there / CARD).is_file():
        raise ConfigurationError(f"{there} is no bundle and was not made here; move it away, or give another --name")
    if (there / CARD).read_bytes() == mine:
        try:
            open_bundle(str(home.resolve()), [], fingerprint)
        except ModelError:  # damaged, or only in a store behind: the same bundle, whole
            return "replaced" if home.exists() else "new"
        return "same"
    if not replace:
        found = entry(there, name)
        has = found.fault if found.card is None else f"{found.card.version} ({found.model_id})"
        raise ConfigurationError(
            f"{there.parent} has another bundle under the name {name!r}: {has}; give --replace, or another --name"
        )
    return "replaced" if home.exists() else "new"


def _settle(staging: Path, home: Path) -> None:
    """Rename into place; a folder cannot be renamed over a full one, so the old one steps aside first."""
    staging.chmod(0o755)
    for path in staging.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(staging)
    old = home.with_name(f"{REPLACED}{home.name}")
    if home.is_symlink():
        home.unlink()  # what it points to is not ours
    elif home.exists():
        shutil.rmtree(old, ignore_errors=True)
        home.rename(old)
    staging.rename(home)
    _sync_folder(home.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """The names in it are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
