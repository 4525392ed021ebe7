"""Rules of the tree that import-linter does not know; each is a function, and each is seen to catch a violation."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "worker", "training")
TOP_LEVEL = {
    *(".ci", ".editorconfig", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"),
    *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("requirements.lock", "requirements-dev.lock"),
    *("deploy", "schemas", "tests", "training", "worker"),
}
NAMELESS = {"common", "helper", "helpers", "misc", "util", "utils"}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}
EXCUSES = {"skip", "skipif", "skipIf", "skipUnless", "skipTest", "xfail", "importorskip"}
# In halves, so that this file does not name them itself.
INDEX_HOSTS = ("pypi" + ".org", "python" + "hosted.org", "--index" + "-url", "--find" + "-links", "npmjs" + ".org")
MACHINE_PATHS = ("/work" + "/", "/root" + "/")

Found = Iterator[str]


def modules(root: Path, *packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            yield path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"), str(path))


def committed(root: Path) -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in names.split("\0") if name and (root / name).is_file()]


def environment_outside_settings(root: Path) -> Found:
    for name, tree in modules(root, *PACKAGES):
        if name == "worker/settings.py":
            continue
        for node in ast.walk(tree):
            taken = (isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT) or (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and any(alias.name in ENVIRONMENT for alias in node.names)
            )
            if taken:
                yield f"{name}:{node.lineno}: only worker.settings looks at the environment"


def nameless_modules(root: Path) -> Found:
    for package in (*PACKAGES, "tests"):
        for path in sorted((root / package).rglob("*")):
            if "node_modules" in path.parts:  # not ours, and not committed
                continue
            if path.stem in NAMELESS and (path.is_dir() or path.suffix == ".py"):
                yield f"{path.relative_to(root)}: a module is named for what it does"


def talkative_inits(root: Path) -> Found:
    for name, tree in modules(root, *PACKAGES, "tests"):
        if not name.endswith("/__init__.py"):
            continue
        rest = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
        if name == "worker/__init__.py":  # the one place of the version
            rest = [n for n in rest if not (isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__version__")]
        if rest:
            yield f"{name}:{rest[0].lineno}: holds a docstring or nothing"


def excused_tests(root: Path) -> Found:
    for name, tree in modules(root, "tests"):
        for node in ast.walk(tree):
            attribute = isinstance(node, ast.Attribute) and node.attr in EXCUSES
            imported = isinstance(node, ast.ImportFrom) and any(alias.name in EXCUSES for alias in node.names)
            if attribute or imported:
                yield f"{name}:{node.lineno}: a test runs, or fails; it is not excused"


def committed_images(root: Path) -> Found:
    for path in committed(root):
        head = path.read_bytes()[:132]
        if path.suffix.lower() in {".dcm", ".dicom", ".webp"} or head[128:] == b"DICM" or head[8:12] == b"WEBP":
            yield f"{path.relative_to(root)}: films are never part of the repository"


def committed_places(root: Path) -> Found:
    for path in committed(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for words in (*INDEX_HOSTS, *MACHINE_PATHS):
            if words in text:
                yield f"{path.relative_to(root)}: names {words}"


def strangers_at_the_top(root: Path) -> Found:
    for name in sorted({path.relative_to(root).parts[0] for path in committed(root)} - TOP_LEVEL):
        yield f"{name}: has no place at the top level"


Rule = Callable[[Path], Found]
CANARIES: list[tuple[Rule, str, bytes]] = [
    (environment_outside_settings, "worker/cli/canary.py", b"import os\nHOME = os.environ['HOME']\n"),
    (environment_outside_settings, "training/canary.py", b"from os import getenv\n"),
    (nameless_modules, "worker/decode/utils.py", b""),
    (nameless_modules, "worker/helpers/__init__.py", b""),
    (talkative_inits, "worker/decode/__init__.py", b'"""Decode."""\n\nfrom worker.decode import film\n'),
    (talkative_inits, "schemas/__init__.py", b"__version__ = '1'\n"),
    (excused_tests, "tests/test_canary.py", b"import pytest\n\n@pytest.mark.skip\ndef test_a(): ...\n"),
    (excused_tests, "tests/test_canary.py", b"from pytest import importorskip\n"),
    (committed_images, "tests/film", b"\0" * 128 + b"DICM"),
    (committed_images, "tests/film.webp", b""),
    (committed_places, "deploy/Dockerfile", b"RUN pip install " + INDEX_HOSTS[2].encode() + b" x\n"),
    (committed_places, "README.md", b"cd " + MACHINE_PATHS[0].encode() + b"main\n"),
    (strangers_at_the_top, "notes.txt", b""),
]
RULES = [rule for rule, _, _ in CANARIES]


@pytest.mark.parametrize("rule", dict.fromkeys(RULES), ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    assert list(rule(ROOT)) == []


@pytest.mark.parametrize(("rule", "file", "content"), CANARIES)
def test_a_planted_violation_is_found(rule: Rule, file: str, content: bytes, tmp_path: Path) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_bytes(content)
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "--all"], cwd=tmp_path, check=True)
    assert len(list(rule(tmp_path))) == 1
