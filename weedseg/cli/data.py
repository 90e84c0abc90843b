"""``weedseg data``: bring field data in, look for faults, split it honestly, hand labels out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.data.importers.items import Item

data = typer.Typer(
    help="Field data in, checked and split honestly.", add_completion=False, rich_markup_mode=None
)

Pairs = Annotated[
    list[str] | None, typer.Option(help="'label=crop|weed|background|ignore'; may be given again.")
]
FarmFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A farm folder.")]


@data.command("import")
def import_(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="See `weedseg data formats`.")],
    src: Annotated[Path, typer.Argument(metavar="SRC", help="File or folder to read.")],
    *,
    out: Annotated[Path, typer.Option(help="Farm folder to write; new or empty.")],
    photos: Annotated[Path | None, typer.Option(help="Photos, if not beside the labels.")] = None,
    mapping: Annotated[str, typer.Option(help="Another reading of the labels.")] = "",
    nir: Annotated[bool, typer.Option("--nir", help="Take near-infrared twins along.")] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Photos that no annotation names show bare soil.")
    ] = False,
    role: Pairs = None,
    palette: Annotated[
        list[str] | None, typer.Option(help="'#rrggbb=class'; may be given again.")
    ] = None,
    column: Annotated[str, typer.Option(help="geotiff: attribute that names the class.")] = "",
    classes: Annotated[
        list[str] | None, typer.Option(help="geotiff: 'value=class'; may be given again.")
    ] = None,
    window: Annotated[int, typer.Option(min=0, help="geotiff: side of the windows, px.")] = 0,
    field: Annotated[str, typer.Option(help="Field of photos that name none.")] = "",
    date: Annotated[str, typer.Option(help="Date of photos that name none.")] = "",
    mm_per_px: Annotated[float, typer.Option(min=0, help="Ground resolution, if known.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence, for the manifest.")] = "",
) -> None:
    """Turn a published data set or the export of a label tool into a farm folder.

    Raises:
        ConfigError: Format, mapping, role or palette is wrong.
        FieldDataError: The source is faulty.
        OutputError: The folder is not empty or cannot be written.
    """
    from dataclasses import replace

    from weedseg.data.importers import collect
    from weedseg.data.importers.items import ImportOptions
    from weedseg.data.writing import write_collection

    options = ImportOptions(
        photos=photos,
        mapping=mapping,
        nir=nir,
        empty=empty,
        roles=_pairs("--role", role),
        palette=_pairs("--palette", palette),
        column=column,
        values=_pairs("--classes", classes),
        window_px=window,
        field=field,
        date=date,
        mm_per_px=mm_per_px or None,
    )
    collection = collect(kind, src, options)
    if licence:
        collection = replace(collection, facts={**collection.facts, "licence": licence})
    _say_imported(write_collection(collection, out, kind, _progress), out)


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set, or a manifest .toml.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder; NAME here by default.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read the licence and accept it.")
    ] = False,
) -> None:
    """Download a published data set; a stopped download goes on where it was.

    Raises:
        ConfigError: The data set is unknown, has no address, or its licence is not accepted.
        FieldDataError: A file cannot be had, is damaged or not what was published.
        OutputError: There is no room, or the folder cannot be written.
        RuntimeUnavailableError: A package, or a program that unpacks RAR, is missing.
    """
    from weedseg.data import fetch as fetching

    published = fetching.read_published(name)
    typer.echo(fetching.licence_text(published))
    with _DownloadBar() as bar:
        root = fetching.fetch(
            published,
            out or Path(published.name),
            accepted=accept_licence,
            report=bar.update,
            say=typer.echo,
        )
    typer.echo(f"next: weedseg data import {published.name} {root} --out FARM")


@data.command()
def export(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="coco, cvat, labelstudio, png.")],
    farm: FarmFolder,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the labels; new or empty.")],
) -> None:
    """Hand the masks of a farm folder to a label tool; photos stay where they are.

    Raises:
        ConfigError: The format is unknown.
        FieldDataError: The farm is faulty.
        OutputError: The folder is not empty or cannot be written.
    """
    from weedseg.data.exporters import export_farm
    from weedseg.data.index import index_farm

    found = index_farm(farm)
    export_farm(found, kind, out)
    typer.echo(f"{len(found.labelled)} of {len(found.photos)} photos have labels in {out}")
    typer.echo(f"back: weedseg data import {kind} {out} --photos {farm} --out NEW")


@data.command()
def check(
    farm: FarmFolder,
    *,
    json: Annotated[Path | None, typer.Option(help="Also write the faults as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write them as a web page.")] = None,
) -> None:
    """Name every fault of a farm folder; the exit code is 0 if training may start.

    Raises:
        FieldDataError: The folder has no photo, or errors were found.
        OutputError: A file cannot be written.
    """
    from weedseg.data.check import raise_on_errors
    from weedseg.data.check_report import check_page, check_summary
    from weedseg.data.index import index_farm
    from weedseg.data.look import full_check
    from weedseg.data.writing import write_json
    from weedseg.imaging import write_bytes

    found = index_farm(farm)
    faults, pixels = full_check(found)
    summary = check_summary(found, faults, pixels)
    for note in found.notes:
        typer.echo(note)
    for fault in faults:
        typer.echo(f"{fault.severity}: {fault.sentence}")
    if json is not None:
        write_json(json, summary)
    if html is not None:
        write_bytes(html, check_page(summary).encode("utf-8", "backslashreplace"))
    typer.echo(
        f"{summary['photos']} photos, {summary['labelled']} labelled: "
        f"{summary['errors']} errors, {summary['warnings']} warnings"
    )
    raise_on_errors(faults)


@data.command()
def split(
    farm: FarmFolder,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same split.")] = 0,
    subsets: Annotated[str, typer.Option(help="Numbers of labels, e.g. 10,20,50; nested.")] = "",
    at_random: Annotated[bool, typer.Option("--random", help="Split photo by photo.")] = False,
    force_random: Annotated[
        bool, typer.Option("--force-random", help="The same though groups are known: it leaks.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file; DIR/split.json by default.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an old split.")] = False,
) -> None:
    """Choose training, validation and test photos by field, visit and likeness.

    Beside the JSON file comes test.txt, for ``--set data.test_photos=...`` of training.

    Raises:
        ConfigError: --subsets holds no numbers.
        SplitError: A random split is wanted though groups are known.
        OutputError: There is a split already, or it cannot be written.
    """
    from weedseg.data.index import index_farm
    from weedseg.data.splitting import split_document
    from weedseg.data.writing import SPLIT_FILE, TEST_FILE, write_json
    from weedseg.errors import OutputError
    from weedseg.imaging import write_bytes

    path = out or farm / SPLIT_FILE
    if path.exists() and not replace:
        raise OutputError(f"{path} is there already", "no split", "add --replace or --out FILE")
    texts = [text.strip() for text in subsets.split(",") if text.strip()]
    if not all(text.isdigit() and int(text) > 1 for text in texts):
        raise ConfigError(f"--subsets {subsets}", "numbers above 1 such as 10,20", "correct it")
    mode = "forced" if force_random else "random" if at_random else "grouped"
    document = split_document(index_farm(farm), seed, [int(t) for t in texts], mode)
    write_json(path, document)
    names = "".join(f"{name}\n" for name in document["test"])
    write_bytes(path.with_name(TEST_FILE), names.encode("utf-8", "surrogateescape"))
    counts = ", ".join(f"{len(document[part])} {part}" for part in ("train", "val", "test"))
    typer.echo(f"{document['kind']} by {document['basis']}: {counts}; {document['note']}")
    typer.echo(f"written: {path}")


@data.command()
def formats() -> None:
    """List what `import` reads, `export` writes and `fetch` downloads."""
    from weedseg.data.exporters import EXPORTS
    from weedseg.data.facts import manifests, published_facts
    from weedseg.data.importers import FORMATS

    sets = {name: str(published_facts(name).get("title", "")) for name in manifests()}
    for verb, table in (("import", FORMATS), ("export", EXPORTS), ("fetch", sets)):
        for name, text in table.items():
            typer.echo(f"{verb:6} {name:16}{text}")


def _say_imported(manifest: dict[str, Any], out: Path) -> None:
    for note in manifest["notes"]:
        typer.echo(note)
    shares = ", ".join(f"{name} {100 * s:.2f} %" for name, s in manifest["shares"].items())
    typer.echo(f"{manifest['photos']} photos, {manifest['labelled']} labelled: {shares}")
    typer.echo(f"licence: {manifest['licence']}; next: weedseg data check {out}")


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """Read 'a=b' texts.

    Raises:
        ConfigError: One has no equals sign.
    """
    pairs = {}
    for text in texts or []:
        key, equals, value = text.rpartition("=")
        if not equals or not key.strip() or not value.strip():
            raise ConfigError(f"{option} '{text}'", "'name=meaning'", "put it in quotes")
        pairs[key.strip()] = value.strip()
    return pairs


def _progress(items: Iterable[Item]) -> Iterable[Item]:
    """Show a bar on standard error while photos are written."""
    from rich.console import Console
    from rich.progress import track

    return track(items, "photos", console=Console(stderr=True), transient=True)


class _DownloadBar:
    """A bar a file, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _DownloadBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, name: str, done: int, total: int | None) -> None:
        """Show how far a file is, bytes."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)
