"""`hilum models`: what is in the model store, whether it is what it says, and how it comes in and goes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.padding import Padding
from rich.table import Column, Table

from schemas.errors import BundleInvalid, ConfigurationError, ModelError
from schemas.figures import Figure, binary_auroc, macro_auroc, of_output
from schemas.findings import LABELS
from worker.cli.options import ConfigOption, clear_errors, complaints, console, plain, print_table, say, settings_from

if TYPE_CHECKING:
    from worker.infer.bundle import Bundle
    from worker.infer.store import Entry
    from worker.settings import Settings

PACKAGED: Final = Path(str(resources.files("worker"))) / "models"
OUTPUTS: Final = ("binary", *LABELS)

app = typer.Typer(
    no_args_is_help=True,
    help="The model bundles of this site: what there is, how good, whether it is whole, and how it comes and goes.\n\n"
    "A bundle is a folder with both models and a card that says what they are. Bundles live in the store "
    "([model] store, default var/models); one comes with the package. [model] bundle names the first that reads. From "
    "then on the registry says which does: `add` a bundle, let it read along in silence (`shadow`), `compare`, and "
    "`promote` it; `rollback` goes back. Every worker follows within seconds.",
)


class Format(StrEnum):
    """What `hilum models export` writes."""

    BUNDLE = "bundle"
    OPENVINO = "openvino"
    KERAS = "keras"


class RuntimeName(StrEnum):
    """What `hilum models verify` may replay the golden vectors on."""

    OPENVINO = "openvino"
    TENSORFLOW = "tensorflow"


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A name that `hilum models list` shows, or a bundle's folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def size_in_words(size: int) -> str:
    """Bytes for a person: "29.4 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _figure(figure: Figure | None) -> str:
    return "" if figure is None else str(figure)


def _json_figure(figure: Figure | None) -> dict[str, float | None] | None:
    return None if figure is None else figure.to_json()


def _stores(settings: Settings) -> list[Path]:
    return [settings.model.store, PACKAGED]


def _open(name: str, settings: Settings) -> Bundle:
    from worker.infer.bundle import open_bundle
    from worker.infer.store import check_content
    from worker.tensor import recipe

    bundle = open_bundle(str(_found(name, settings).folder.resolve()), [], recipe.fingerprint)
    check_content(bundle)
    return bundle


def _found(name: str, settings: Settings) -> Entry:
    """The entry by its name in a store or its folder, without hashing anything. Raises `BundleInvalid`."""
    from worker.infer.bundle import NAME
    from worker.infer.store import entry

    if NAME.fullmatch(name):
        entries = [entry for entry, _ in _all(settings) if entry.name == name]
        if not entries:
            have = ", ".join(dict.fromkeys(entry.name for entry, _ in _all(settings)))
            raise BundleInvalid(f"no model bundle named {name!r}; there are: {have or 'none'}")
        found = entries[0]
    else:
        found = entry(Path(name), Path(name).name)
    if found.card is None:
        raise BundleInvalid(found.fault)
    return found


def _all(settings: Settings) -> Iterator[tuple[Entry, str]]:
    """Every bundle and where it is: "store", "packaged", or "folder" for one in service that is in neither."""
    from worker.infer.bundle import NAME
    from worker.infer.store import entries, entry

    for store, where in zip(_stores(settings), ("store", "packaged"), strict=True):
        for found in entries(store):
            yield found, where
    served = settings.model.bundle
    if not NAME.fullmatch(served):
        yield entry(Path(served), served), "folder"


def _in_service(settings: Settings) -> Entry | None:
    """The bundle that reads: by the registry, or where nothing has read yet by `[model] bundle`."""
    from worker.reading_room import live_model

    live = live_model(settings)
    for found, _ in _all(settings):
        if found.name == settings.model.bundle if live is None else found.model_id == live.model_id:
            return found
    return None


@app.command(name="list")
@clear_errors
def list_models(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every bundle of the store and of the package; the one in service is marked.

    AUROC is on the test films of the bundle's own card, with its 95 % interval: how well films with a finding are told
    from films without one (binary), and the mean over the findings (macro). Nothing is hashed here: see `verify`.
    """
    settings = settings_from(config)
    served = _in_service(settings)
    found = list(_all(settings))
    if as_json:
        for entry, where in found:
            print(json.dumps(_row(entry, where, entry == served)), flush=True)  # noqa: T201  for programs
        return
    table = Table(
        "",
        "name",
        "version",
        Column("model", no_wrap=True),  # to be copied
        "architecture",
        "size",
        "binary AUROC",
        "macro AUROC",
        "where",
        box=None,
    )
    for entry, where in found:
        card = entry.card
        if card is None:
            table.add_row("[red]✗[/]", plain(entry.name), "", "", plain(entry.fault), "", "", "", where)
            continue
        table.add_row(
            "[green]●[/]" if entry == served else "",
            plain(entry.name),
            plain(card.version),
            entry.model_id,
            plain(f"{card.architecture}, {card.input_size} px"),
            size_in_words(entry.size),
            _figure(binary_auroc(card)),
            _figure(macro_auroc(card)),
            where,
        )
    print_table(table)
    if served is None:
        complaints.print(
            plain(
                f"neither the live model of the registry nor [model] bundle = {json.dumps(settings.model.bundle)} is "
                "among them: the worker cannot start"
            ),
            highlight=False,
            soft_wrap=True,
        )


def _row(found: Entry, where: str, in_service: bool) -> dict[str, Any]:
    card = found.card
    return {
        "name": found.name,
        "version": None if card is None else card.version,
        "model_id": found.model_id,
        "architecture": None if card is None else card.architecture,
        "input_size": None if card is None else card.input_size,
        "size": found.size,
        "binary": None if card is None else _json_figure(binary_auroc(card)),
        "macro": None if card is None else _json_figure(macro_auroc(card)),
        "in_service": in_service,
        "where": where,
        "folder": str(found.folder),
        "fault": found.fault,
    }


@app.command()
@clear_errors
def show(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """A bundle's card in words: what it is, what it was made of, how good it is at each finding, its limits."""
    settings = settings_from(config)
    found = _found(name, settings)
    card = found.card
    assert card is not None  # noqa: S101  `_found` saw to it
    if as_json:
        about = _row(found, "", found == _in_service(settings))
        del about["where"], about["fault"]
        print(json.dumps({**about, "card": json.loads(card.to_json())}))  # noqa: T201  for programs
        return
    facts = Table(Column(style="bold"), Column(overflow="fold"), box=None, show_header=False)
    for key, value in (
        ("model", f"{card.name} {card.version} ({found.model_id})"),
        ("folder", found.folder),
        ("architecture", f"{card.architecture}, films of {card.input_size} x {card.input_size} pixels"),
        ("binary AUROC", _figure(binary_auroc(card)) or "not told"),
        ("macro AUROC", _figure(macro_auroc(card)) or "not told"),
        ("films", _films(card.metrics, card.training)),
        ("intended use", card.intended_use),
        ("licence", card.licence),
        ("made of", card.provenance or "not told"),
        ("split", card.split_hash),
        ("tensor recipe", card.recipe_fingerprint),
    ):
        facts.add_row(key, plain(value))
    print_table(facts)
    table = Table(
        "output",
        "raised from",
        "AUROC",
        "sensitivity",
        "specificity",
        title="At each output's operating point, on the test films, with 95 % intervals",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for output in OUTPUTS:
        threshold = card.thresholds.get(output)
        table.add_row(
            "any finding" if output == "binary" else output.replace("_", " "),
            f"{threshold:.3f}" if isinstance(threshold, int | float) else "",
            *(_figure(of_output(card, output, measure)) for measure in ("auroc", "sensitivity", "specificity")),
        )
    console.print()
    print_table(table)
    console.print()
    console.print("[bold]Limits[/]")
    for limit in card.limits or ("The card names none; that is no recommendation.",):
        console.print(Padding(f"- {plain(limit)}", (0, 0, 0, 1)), highlight=False)


def _films(metrics: Any, training: Any) -> str:
    films = training.get("films")
    if isinstance(films, dict) and films:
        return ", ".join(f"{count} {side}" for side, count in films.items())
    test = metrics.get("test")
    count = test.get("films") if isinstance(test, dict) else None
    return "not told" if count is None else f"{count} test"


@app.command()
@clear_errors
def verify(
    name: NameArgument,
    config: ConfigOption = None,
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(
            help="Default: OpenVINO where it is installed, which takes seconds. `tensorflow` replays on TensorFlow "
            "too, and holds the two against each other where both are installed."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a bundle as the worker does before it opens its port: hashes, tensor recipe, golden vectors.

    Exit 0: it may be served. Exit 1: it must not, and the message says why.
    """
    settings = settings_from(config)
    done: list[dict[str, Any]] = []

    def say(what: str, fault: str, words: str) -> None:
        done.append({"check": what, "ok": not fault, "words": fault or words})
        if not as_json:
            mark = "[bold red]FAIL[/]" if fault else "[green]ok  [/]"
            console.print(f"{mark} {what}: {plain(fault or words)}", highlight=False, soft_wrap=True)

    bundle = None
    try:
        bundle = _open(name, settings)
    except ModelError as error:
        say("files", str(error), "")
    else:
        count = len(bundle.card.files)
        say("files", "", f"{count} files are what the card says (SHA-256), nothing in them is foreign")
        say("recipe", "", f"{bundle.card.recipe_fingerprint}, the tensors that this worker makes")
        try:
            for what, off in _prove(bundle, runtime, settings).items():
                say(what, "", f"golden probabilities within {off:.4f}")
        except ModelError as error:
            say("golden vectors", str(error), "")
    good = all(line["ok"] for line in done)
    if as_json:
        about = {"name": name, "model_id": None if bundle is None else bundle.model_id, "ok": good, "checks": done}
        print(json.dumps(about))  # noqa: T201  for programs
    if not good:
        raise typer.Exit(1)


def _prove(bundle: Bundle, runtime: RuntimeName | None, settings: Settings) -> dict[str, float]:
    from worker.infer.choose import choose_runtime
    from worker.infer.exports import installed_runtimes, prove

    installed = installed_runtimes()
    if runtime is not None:
        choose_runtime(runtime)  # says how to install it
    if runtime is RuntimeName.TENSORFLOW:
        names = installed
    elif runtime is RuntimeName.OPENVINO or "openvino" in installed:
        names = ("openvino",)
    else:
        names = (choose_runtime("auto"),)
    return prove(bundle, names, threads=settings.model.threads)


@app.command(name="import")
@clear_errors
def import_model(
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="A bundle's folder, .zip or .tar.gz.")],
    config: ConfigOption = None,
    name: Annotated[str | None, typer.Option(help="In the store; default: the name in its card.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of another bundle of that name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a bundle into the store, proven first as by `verify`: all of it or nothing.

    What reads is not changed by it. To let this one read, `hilum models add` it, then `shadow` and `promote`. Import
    only what you trust the maker of: hashes say that a bundle is whole, not that it reads films well.
    """
    from worker.infer.store import import_bundle
    from worker.tensor import recipe

    settings = settings_from(config)
    with complaints.status("checking the bundle"):
        taken = import_bundle(
            source,
            settings.model.store,
            fingerprint=recipe.fingerprint,
            prove=lambda bundle: _prove(bundle, None, settings),
            name=name,
            replace=replace,
            behind=[PACKAGED],
        )
    if as_json:
        about = {"name": taken.name, "model_id": taken.model_id, "outcome": taken.outcome, "folder": str(taken.folder)}
        print(json.dumps({**about, "ignored": list(taken.ignored)}))  # noqa: T201  for programs
        return
    words = {"new": "taken into the store", "same": "is in the store already", "replaced": "replaced the one before it"}
    what = f"{taken.name}: {taken.card.name} {taken.card.version} ({taken.model_id})"
    console.print(f"{plain(what)} {words[taken.outcome]}", highlight=False, soft_wrap=True)
    if taken.ignored:
        left = ", ".join(taken.ignored[:10]) + (", …" if len(taken.ignored) > 10 else "")
        console.print(f"not taken, for the card does not list it: {plain(left)}", highlight=False, soft_wrap=True)
    served = _in_service(settings)
    if served is not None and served.name == taken.name:
        console.print("It is the one in service: restart the worker to load it.")
    else:
        say(f"To let it read: `hilum models add {taken.name}`, then `shadow` and `promote`.")


def _file_name(bundle: Bundle) -> str:
    from worker.infer.bundle import NAME

    stem = f"{bundle.card.name}-{bundle.card.version}"  # a card may say what no file can be called
    return f"{stem if NAME.fullmatch(stem) else bundle.model_id}.zip"


@app.command()
@clear_errors
def export(
    name: NameArgument,
    to: Annotated[
        Path,
        typer.Option(
            help="bundle: the .zip to write, or a folder to write it into. openvino, keras: the folder to make."
        ),
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="bundle: one .zip that `import` takes, always the same bytes. openvino: IR of both models (.xml, "
            ".bin). keras: .keras files of both (needs TensorFlow).",
        ),
    ] = Format.BUNDLE,
    half: Annotated[bool, typer.Option("--half", help="openvino: weights in float16, half the size.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an earlier export.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a bundle for another site, or its models for another program.

    The bundle is verified first. Models are read back and must give the bundle's golden answers, with "logits" (before
    calibration; the card has the constants) and "maps" (class activation maps) as outputs; else nothing is left behind.
    """
    from worker.infer.exports import export_keras, export_openvino
    from worker.infer.store import pack

    if half and form is not Format.OPENVINO:
        raise ConfigurationError("--half is for --format openvino; the others keep the bundle's own precision")
    settings = settings_from(config)
    off = 0.0
    with complaints.status(f"exporting {plain(name)}"):
        bundle = _open(name, settings)
        if form is Format.BUNDLE:
            to = to / _file_name(bundle) if to.is_dir() else to
            if to.exists() and not replace:
                raise ConfigurationError(f"{to} is there already; choose another file, or give --replace")
            pack(bundle, to)
        elif form is Format.OPENVINO:
            off = export_openvino(bundle, to, half=half, replace=replace)
        else:
            off = export_keras(bundle, to, replace=replace)
    if as_json:
        about = {"name": bundle.card.name, "model_id": bundle.model_id, "format": form.value, "path": str(to)}
        print(json.dumps({**about, "golden_difference": off}))  # noqa: T201  for programs
        return
    proof = "" if form is Format.BUNDLE else f"; read back, golden probabilities within {off:.4f}"
    console.print(f"{plain(to)}: {plain(bundle.card.name)} ({bundle.model_id}){proof}", highlight=False, soft_wrap=True)
