"""The command line: one module per verb, each loaded only when its verb is called.

A verb lives in ``weedseg/cli/<verb>.py`` as a function of the same name, with `_` for `-`. `VERBS`
holds what ``weedseg --help`` says of it, so that help loads no verb and no library behind one.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import weedseg
from weedseg.cli.failures import DEBUG_VARIABLE, run

VERBS: dict[str, str] = {
    "train": "A folder of photos in, a model and its report out.",
    "predict": "Segment a photo, a folder or a glob.",
    "map": "Make a weed map of a field from an orthomosaic.",
    "prescribe": "Turn a weed map into a prescription for a sprayer.",
    "validate-map": "Check a map or prescription with other code.",
    "pretrain": "Learn from all photos, labelled or not.",
    "finetune": "Train the segmenter of a run on few labels.",
    "evaluate": "Score the segmenter on held-out photos.",
    "export": "Write model.onnx and prove that it is right.",
    "release": "Turn a finished run into a model folder with a card.",
    "data": "Bring field data in, check it, split it, hand labels out.",
    "label": "Pre-label photos with a model, for CVAT and Label Studio.",
    "synth": "Draw a small synthetic farm with masks.",
    "worker": "Work on the jobs of a service, as a further process.",
    "keys": "Make, list and revoke the service's API keys.",
    "backup": "Write the service's data folder into one archive.",
    "restore": "Write an archive back into an empty data folder.",
    "serve": "Serve photos and jobs over HTTP.",
    "bench": "Measure on real photos what the README claims.",
    "doctor": "Show what runs here and what to install.",
}


class VerbGroup(TyperGroup):
    """Lists every verb from `VERBS` and loads a verb's module when it is called."""

    def __init__(self, **attrs: Any) -> None:
        """Fill the list with verbs that are names and help only."""
        super().__init__(**attrs)
        for verb, text in VERBS.items():
            self.commands[verb] = TyperCommand(verb, callback=None, help=text, add_help_option=True)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Exchange the listed verb for the real one."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in VERBS:
            command = load_verb(name)
        return name, command, rest


def load_verb(verb: str) -> Any:
    """Import one verb and make it a command.

    Args:
        verb: A key of `VERBS`.

    Returns:
        The command, ready to be invoked.
    """
    name = verb.replace("-", "_")
    function = getattr(importlib.import_module(f"weedseg.cli.{name}"), name)
    if isinstance(function, typer.Typer):  # a verb with verbs of its own
        group = typer.main.get_command(function)
        group.name = verb
        return group
    text = inspect.getdoc(function) or VERBS[verb]
    for section in ("\n\nArgs:", "\n\nReturns:", "\n\nRaises:"):
        text = text.split(section, maxsplit=1)[0]
    single = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    single.command(name=verb, help=text)(function)
    return typer.main.get_command(single)


app = typer.Typer(
    name="weedseg",
    cls=VerbGroup,
    help="Few labels, many field photos, one small weed segmenter.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"weedseg {weedseg.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Few labels, many field photos, one small weed segmenter."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows ``weedseg``; None takes the process's own.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    return run(app, arguments or ["--help"])
