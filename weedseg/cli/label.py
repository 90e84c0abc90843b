"""``weedseg label``: a model labels photos beforehand, a person corrects them in a label tool."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.data.index import Photo
    from weedseg.edge.segmenter import Segmenter

label = typer.Typer(
    help="Pre-label photos with a model, for CVAT and Label Studio.",
    add_completion=False,
    rich_markup_mode=None,
)

PASSWORD_VARIABLE = "WEEDSEG_LABEL_PASSWORD"
"""Environment variable with the password of `label serve`."""

Model = Annotated[
    Path | None, typer.Option(help="A model.onnx or a run folder; the released one by default.")
]


@label.command()
def suggest(
    farm: Annotated[Path, typer.Argument(metavar="DIR", help="A farm folder.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the labels; new or empty.")],
    model: Model = None,
    num: Annotated[int, typer.Option("--num", min=0, help="How many photos; 0: all.")] = 20,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
) -> None:
    """Label the unlabelled photos that teach most: uncertain ones that differ from each other.

    Writes cvat/annotations.xml, labelstudio/tasks.json (predictions), png/ and suggestions.csv.

    Raises:
        FieldDataError: There is no unlabelled photo.
        ModelFileError: The model is not one that weedseg may run.
        OutputError: The folder is not empty or cannot be written.
    """
    from weedseg.data.index import index_farm
    from weedseg.pipeline import suggest as suggesting

    found = index_farm(farm)
    segmenter = _segmenter(model, threads)
    chosen, lost = suggesting.suggest(found, segmenter, out, num, _progress)
    for sentence in lost:
        typer.echo(f"left out: {sentence}", err=True)
    for rank, suggestion in enumerate(chosen, start=1):
        typer.echo(f"{rank:4} {suggestion.photo.name}: uncertainty {suggestion.uncertainty:.4f}")
    typer.echo(f"{len(chosen)} of {len(found.unlabelled)} unlabelled photos pre-labelled in {out}")
    typer.echo(
        f"import {out}/cvat/annotations.xml (CVAT for images 1.1) or {out}/labelstudio/tasks.json"
    )


@label.command()
def serve(
    photos: Annotated[
        Path, typer.Argument(metavar="DIR", help="What Label Studio serves as local files.")
    ],
    *,
    uploads: Annotated[Path | None, typer.Option(help="Label Studio's media/upload.")] = None,
    model: Model = None,
    host: Annotated[str, typer.Option(help="Others than this machine need a password.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 9090,
    user: Annotated[str, typer.Option(help="User name, if there is a password.")] = "weedseg",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
) -> None:
    """Answer Label Studio's requests for predictions; add http://HOST:PORT as its ML backend.

    The password is read from the environment variable WEEDSEG_LABEL_PASSWORD.

    Raises:
        ConfigError: Others may reach it and there is no password.
        ModelFileError: The model is not one that weedseg may run.
    """
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password and host != "localhost" and not host.startswith("127.") and host != "::1":
        raise ConfigError(
            f"--host {host} without a password", f"{PASSWORD_VARIABLE}", "set it, or use 127.0.0.1"
        )
    import uvicorn

    from weedseg.serve.label_studio import BackendOptions, create_backend

    options = BackendOptions(photos=photos, uploads=uploads, user=user, password=password)
    app = create_backend(_segmenter(model, threads), options)
    typer.echo(f"Label Studio: Settings, Model, Connect: http://{host}:{port}")
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)


def _segmenter(model: Path | None, threads: int) -> Segmenter:
    from weedseg.edge.released import default_model
    from weedseg.edge.segmenter import Segmenter

    path = model or default_model()
    return Segmenter(path / "model.onnx" if path.is_dir() else path, threads=threads)


def _progress(photos: Sequence[Photo]) -> Iterable[Photo]:
    """Show a bar on standard error while photos are segmented."""
    from rich.console import Console
    from rich.progress import track

    return track(photos, "photos", console=Console(stderr=True), transient=True)
