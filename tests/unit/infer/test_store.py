"""What comes into the store comes whole and proven, or not at all; what is hostile stays outside."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.card import read_card
from schemas.errors import BundleInvalid, ConfigurationError, GoldenMismatch, HilumError, RecipeMismatch
from tests.unit.infer.bundles import FakeRuntime, write_bundle
from worker.infer import store as room
from worker.infer.bundle import Bundle, open_bundle
from worker.infer.store import Imported, check_content, entries, import_bundle, pack, placed

FILES = {"binary.json", "binary.npz", "card.json", "golden.npz", "multilabel.json", "multilabel.npz"}


def recipe(size: int) -> str:
    return f"recipe-{size}"


def replay(bundle: Bundle) -> None:
    bundle.replay(FakeRuntime())


def take(source: Path, tmp_path: Path, **options: Any) -> Imported:
    return import_bundle(source, tmp_path / "store", fingerprint=recipe, **{"prove": replay, **options})


def inside(tmp_path: Path) -> set[str]:
    """What the store shows and what it hides, but for its lock."""
    folder = tmp_path / "store"
    return {path.name for path in folder.iterdir()} - {".lock"} if folder.exists() else set()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "source")
    return tmp_path / "source"


def zipped(source: Path, target: Path, prefix: str = "fake/") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(source.iterdir()):
            archive.write(path, prefix + path.name)
    return target


def tarred(source: Path, target: Path, prefix: str = "fake/", mode: str = "w:gz") -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for path in sorted(source.iterdir()):
            archive.add(path, prefix + path.name)
    return target


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "folder": lambda source, _: source,
    "zip": lambda source, out: zipped(source, out / "b.zip"),
    "zip-at-the-top": lambda source, out: zipped(source, out / "b.zip", ""),
    "tar.gz": lambda source, out: tarred(source, out / "b.tar.gz"),
    "tar.gz-dotted": lambda source, out: tarred(source, out / "b.tar.gz", "./"),
    "misnamed": lambda source, out: tarred(source, out / "b.zip"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_comes_in_by_any_form(tmp_path: Path, source: Path, form: str) -> None:
    (source / "README.md").write_text("beside it")
    taken = take(FORMS[form](source, tmp_path), tmp_path)
    assert (taken.name, taken.outcome) == ("fake", "new")
    assert [Path(name).name for name in taken.ignored] == ["README.md"]
    assert {path.name for path in taken.folder.iterdir()} == FILES
    assert stat.S_IMODE(taken.folder.stat().st_mode) == 0o755
    assert inside(tmp_path) == {"fake"}
    replay(open_bundle("fake", [tmp_path / "store"], recipe))
    (entry,) = entries(tmp_path / "store")
    assert (entry.name, entry.model_id, entry.fault) == ("fake", taken.model_id, "")
    assert entry.size == sum((taken.folder / file).stat().st_size for file in FILES)
    assert take(source, tmp_path).outcome == "same"


def test_another_bundle_of_the_name_is_not_overwritten_unasked(tmp_path: Path, source: Path) -> None:
    take(source, tmp_path)
    write_bundle(tmp_path / "other", version="2")
    with pytest.raises(ConfigurationError, match=r"another bundle under the name 'fake': 1 .*--replace"):
        take(tmp_path / "other", tmp_path)
    assert take(tmp_path / "other", tmp_path, name="second").outcome == "new"
    assert read_card(tmp_path / "store" / "fake").version == "1"
    assert take(tmp_path / "other", tmp_path, replace=True).outcome == "replaced"
    assert read_card(tmp_path / "store" / "fake").version == "2"
    assert inside(tmp_path) == {"fake", "second"}


def test_a_packaged_bundle_is_not_hidden_unasked(tmp_path: Path, source: Path) -> None:
    write_bundle(tmp_path / "packaged" / "fake", version="packaged")
    with pytest.raises(ConfigurationError, match="packaged has another bundle"):
        take(source, tmp_path, behind=[tmp_path / "packaged"])
    assert take(source, tmp_path, behind=[tmp_path / "packaged"], replace=True).outcome == "new"


def test_a_damaged_copy_is_mended_by_the_same_bundle(tmp_path: Path, source: Path) -> None:
    taken = take(source, tmp_path)
    (taken.folder / "binary.npz").write_bytes(b"rust")
    assert take(source, tmp_path).outcome == "replaced"
    open_bundle("fake", [tmp_path / "store"], recipe)


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path, source: Path) -> None:
    (tmp_path / "store" / "fake").mkdir(parents=True)
    (tmp_path / "store" / "fake" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="is no bundle"):
        take(source, tmp_path, replace=True)
    assert (tmp_path / "store" / "fake" / "thesis.txt").exists()


def test_what_is_refused_leaves_nothing(tmp_path: Path, source: Path) -> None:
    def refuse(_: Bundle) -> None:
        raise GoldenMismatch("off by 0.2")

    def fill(_: Bundle) -> None:
        raise MemoryError

    with pytest.raises(GoldenMismatch, match=r"off by 0\.2"):
        take(source, tmp_path, prove=refuse)
    with pytest.raises(BundleInvalid, match="memory"):
        take(source, tmp_path, prove=fill)
    with pytest.raises(RecipeMismatch):
        import_bundle(source, tmp_path / "store", fingerprint=lambda _: "another", prove=replay)
    with pytest.raises(ConfigurationError, match="give --name"):
        take(source, tmp_path, name="../up")
    (source / "golden.npz").write_bytes(b"changed")
    with pytest.raises(BundleInvalid, match="SHA-256"):
        take(source, tmp_path)
    (source / "golden.npz").unlink()
    with pytest.raises(BundleInvalid, match=r"golden\.npz: missing"):
        take(source, tmp_path)
    for nothing in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(BundleInvalid):
            take(nothing, tmp_path)
    assert inside(tmp_path) == set()
    assert not (tmp_path / "up").exists()


def test_what_a_killed_import_left_is_put_right_by_the_next(tmp_path: Path, source: Path) -> None:
    take(source, tmp_path)
    store = tmp_path / "store"
    (store / ".incoming-abc").mkdir()
    (store / "fake").rename(store / ".replaced-fake")  # killed between the two renames
    assert entries(store) == []
    take(source, tmp_path, name="second")
    assert inside(tmp_path) == {"fake", "second"}


def test_a_disk_that_says_no_is_told_and_leaves_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left on device; nothing was imported"):
        take(source, tmp_path)
    assert inside(tmp_path) == set()
    with pytest.raises(ConfigurationError, match="No space left on device; nothing was exported"):
        pack(open_bundle(str(source), [], recipe), tmp_path / "out" / "b.zip")
    assert list((tmp_path / "out").iterdir()) == []


def members(target: Path, *names: str, content: bytes = b"{}") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return target


def tar_of(target: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "name", ["../card.json", "/etc/card.json", "a/../../card.json", "..\\card.json", "C:/card.json"]
)
def test_no_member_points_out_of_the_archive(tmp_path: Path, name: str) -> None:
    hostile = [members(tmp_path / "a.zip", "card.json", name), tar_of(tmp_path / "a.tgz", member(name))]
    for archive in hostile:
        with pytest.raises(BundleInvalid, match="points out of the archive"):
            take(archive, tmp_path)
    assert inside(tmp_path) == set()


def test_links_and_devices_are_refused(tmp_path: Path, source: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with pytest.raises(BundleInvalid, match="link or a device"):
            take(tar_of(tmp_path / "a.tar.gz", member("card.json", kind, "/etc/passwd")), tmp_path)
    link = zipfile.ZipInfo("card.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleInvalid, match="link or a device"):
        take(tmp_path / "a.zip", tmp_path)
    (source / "binary.npz").rename(tmp_path / "elsewhere.npz")
    (source / "binary.npz").symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(BundleInvalid, match="not an ordinary file"):
        take(source, tmp_path)
    assert inside(tmp_path) == set()


def test_bombs_do_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.json", b"{}")
        archive.writestr("binary.npz", b"\0" * (64 << 20))
    many = members(tmp_path / "many.zip", *(f"f{i}" for i in range(1001)), "card.json")
    huge = tar_of(tmp_path / "huge.tar.gz", member("binary.npz", size=64 << 20))
    for bomb, words in ((tmp_path / "bomb.zip", "no bundle does that"), (many, "members"), (huge, "no bundle does")):
        with pytest.raises(BundleInvalid, match=words):
            take(bomb, tmp_path)
    monkeypatch.setattr(room, "LARGEST_CARD", 1000)
    large = members(tmp_path / "card.zip", "card.json", content=b" " * 2000)
    with pytest.raises(BundleInvalid, match="larger than 1000 bytes"):
        take(large, tmp_path)
    assert inside(tmp_path) == set()


def test_one_archive_is_one_bundle(tmp_path: Path) -> None:
    for names, words in (
        (("a/card.json", "b/card.json"), "2 bundles"),
        (("a/b/card.json",), r"no card\.json"),
        (("film.png",), r"no card\.json"),
    ):
        with pytest.raises(BundleInvalid, match=words):
            take(members(tmp_path / "a.zip", *names), tmp_path)


def test_broken_archives_are_said_to_be_broken(tmp_path: Path, source: Path) -> None:
    whole = {"a.zip": zipped(source, tmp_path / "a.zip"), "a.tar.gz": tarred(source, tmp_path / "a.tar.gz")}
    for name, path in whole.items():
        content = path.read_bytes()
        for cut in (0, 10, len(content) // 2, len(content) - 30):
            (tmp_path / f"cut-{name}").write_bytes(content[:cut])
            with pytest.raises(BundleInvalid):
                take(tmp_path / f"cut-{name}", tmp_path)
        spoiled = bytearray(content)
        spoiled[len(content) // 2] ^= 0xFF
        (tmp_path / f"spoiled-{name}").write_bytes(spoiled)
        with pytest.raises(BundleInvalid):
            take(tmp_path / f"spoiled-{name}", tmp_path)
    assert inside(tmp_path) == set()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("files", ["binary.json", "binary.npz", "multilabel.json", "multilabel.npz", "golden.npz"]),
        ("files", {"binary.json": 7}),
        ("name", 7),
        ("name", None),
        ("metrics", []),
        ("thresholds", "high"),
        ("input_size", 10**9),
        ("input_size", "224"),
        ("input_size", -1),
    ],
)
def test_a_card_of_the_wrong_kind_is_one_clear_fault(tmp_path: Path, source: Path, field: str, value: object) -> None:
    raw = json.loads((source / "card.json").read_text())
    (source / "card.json").write_text(json.dumps({**raw, field: value}))
    with pytest.raises(BundleInvalid, match=f"{field}: not what a card has there"):
        take(source, tmp_path)
    (entry,) = (e for e in entries(tmp_path) if e.name == "source")
    assert entry.card is None
    assert field in entry.fault


def rewritten(source: Path, file: str, content: bytes) -> Bundle:
    """The bundle with another file in it, and a card that agrees."""
    import hashlib

    raw = json.loads((source / "card.json").read_text())
    raw["files"][file] = hashlib.sha256(content).hexdigest()
    (source / file).write_bytes(content)
    (source / "card.json").write_text(json.dumps(raw))
    return open_bundle(str(source), [], recipe)


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {}},
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"module": "os", "class_name": "system", "config": "true"},
        {"module": "keras_evil.layers", "class_name": "Dense", "config": {}},
    ],
)
def test_a_graph_that_names_foreign_code_is_refused(source: Path, layer: object) -> None:
    graph = json.dumps({"class_name": "Functional", "config": {"layers": [{"config": {"inner": [layer]}}]}})
    with pytest.raises(BundleInvalid, match="no plain Keras layer"):
        check_content(rewritten(source, "binary.json", graph.encode()))


def test_arrays_without_end_and_graphs_that_are_none_are_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=np.zeros(1 << 20, np.uint8))
    bundle = rewritten(source, "multilabel.npz", buffer.getvalue())
    check_content(bundle)
    monkeypatch.setattr(room, "LARGEST_FILE", 1 << 19)
    with pytest.raises(BundleInvalid, match=r"multilabel\.npz.*when unpacked"):
        check_content(bundle)
    monkeypatch.undo()
    for graph in (b"[" * 100_000, b"\xff", b"{"):
        with pytest.raises(BundleInvalid, match="not a network's graph"):
            check_content(rewritten(source, "multilabel.json", graph))


def test_a_packed_bundle_is_the_same_bytes_whenever_and_comes_in_again(tmp_path: Path, source: Path) -> None:
    bundle = open_bundle(str(source), [], recipe)
    pack(bundle, tmp_path / "one.zip")
    for path in source.iterdir():
        os.utime(path, (1e9, 1e9))
        path.chmod(0o600)
    pack(bundle, tmp_path / "sub" / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "sub" / "two.zip").read_bytes()
    assert {p.name for p in (tmp_path / "sub").iterdir()} == {"two.zip"}
    taken = take(tmp_path / "one.zip", tmp_path)
    assert taken.model_id == bundle.model_id
    assert (taken.folder / "card.json").read_bytes() == (source / "card.json").read_bytes()


def test_a_name_that_no_file_can_have_is_not_packed_as_one(tmp_path: Path) -> None:
    write_bundle(tmp_path / "source", name="../../up")
    pack(open_bundle(str(tmp_path / "source"), [], recipe), tmp_path / "b.zip")
    assert {name.partition("/")[0] for name in zipfile.ZipFile(tmp_path / "b.zip").namelist()} == {"bundle"}


def test_an_export_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out" / "ir"

    def fill(fault: HilumError | None = None, *, replace: bool = False) -> None:
        with placed(target, replace=replace) as folder:
            (folder / "card.json").write_text("{}")
            if fault is not None:
                raise fault

    with pytest.raises(GoldenMismatch):
        fill(GoldenMismatch("off"))
    assert list((tmp_path / "out").iterdir()) == []
    fill()
    with pytest.raises(ConfigurationError, match="there already"):
        fill()
    with pytest.raises(GoldenMismatch):
        fill(GoldenMismatch("off"), replace=True)
    assert (target / "card.json").exists()
    fill(replace=True)
    (target / "thesis.docx").touch()
    with pytest.raises(ConfigurationError, match="more than an earlier export"):
        fill(replace=True)
    assert (target / "thesis.docx").exists()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"ir"}


def test_a_store_shows_its_bundles_and_says_what_is_wrong_with_others(tmp_path: Path) -> None:
    assert entries(tmp_path / "none") == []
    write_bundle(tmp_path / "store" / "good")
    (tmp_path / "store" / "empty").mkdir()
    (tmp_path / "store" / ".incoming-x").mkdir()
    (tmp_path / "store" / "file").touch()
    empty, good = entries(tmp_path / "store")
    assert (empty.name, empty.card) == ("empty", None)
    assert "cannot be read" in empty.fault
    assert good.card is not None
