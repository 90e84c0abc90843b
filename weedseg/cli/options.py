"""Options that several verbs share."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.pipeline.run import RunOptions

FarmImages = Annotated[
    Path, typer.Option(help="Folder of field photos; masks may lie beside them.")
]
Labels = Annotated[Path | None, typer.Option(help="Folder of masks, if they lie elsewhere.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; a new one here by default.")]
RecipeName = Annotated[
    str, typer.Option(help="default, selective, faithful, random-staged, or a TOML file.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value; may be given again.")
]
Init = Annotated[
    str,
    typer.Option(
        help="First weights: none, imagenet, a run folder or weights file; auto: imagenet if here."
    ),
]
Minutes = Annotated[float, typer.Option(min=0, help="Wall-clock budget of the whole command.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same run (on one kind of machine).")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --out.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def run_options(
    farm_images: Path,
    out: Path | None,
    *,
    recipe: str,
    settings: list[str] | None,
    device: str,
    **others: object,
) -> RunOptions:
    """Turn the options of the command line into those of a run.

    Raises:
        ConfigError: --resume without --out, an unknown device, or a wrong recipe or setting.
    """
    from weedseg.config import load_recipe
    from weedseg.pipeline.run import RunOptions

    if others.get("resume") and out is None:
        raise ConfigError(
            "--resume without --out", "the folder of the stopped run", "add --out RUN"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}", "auto, cpu or cuda", "choose one of them")
    return RunOptions(
        farm_images=farm_images,
        out=out or new_run_folder(),
        recipe=load_recipe(recipe, settings),
        device=device,
        **others,  # type: ignore[arg-type]
    )


def new_run_folder() -> Path:
    """Name a run folder after the present moment."""
    return Path(f"weedseg-run-{datetime.now():%Y%m%d-%H%M%S}")
