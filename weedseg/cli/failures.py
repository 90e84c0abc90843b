"""The edge where errors become one line on standard error and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import Any

import typer

from weedseg.cli.packages import is_known, missing_package
from weedseg.errors import OutputError, WeedsegError
from weedseg.logs import set_up_logging

DEBUG_VARIABLE = "WEEDSEG_DEBUG"
"""Set to 1, the environment variable that shows tracebacks, as ``--debug`` does."""

EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_MEMORY = 71
EXIT_FILE = 74
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_ClickException: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""The base of all usage errors; typer brings its own click or uses the package, by version."""

_OUT_OF_MEMORY = (
    "memory ran out; expected enough for the batch; use a smaller one, e.g. "
    "--set pretrain.batch=4 --set finetune.batch=4"
)

_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run an app; whatever goes wrong becomes one line and an exit code.

    Args:
        app: The command line.
        arguments: What follows the program's name.

    Returns:
        The exit code.
    """
    set_up_logging()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="weedseg", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _say("interrupted", EXIT_INTERRUPTED)
    except typer.Abort:
        return _say("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        return _hush()
    except Exception as error:  # noqa: BLE001 - the outer edge: nothing may end in a traceback
        if os.environ.get(DEBUG_VARIABLE) == "1":
            traceback.print_exc()
        return _say(*describe(error))


def describe(error: Exception) -> tuple[str, int]:
    """Put an error into one sentence.

    Returns:
        The sentence and the exit code.
    """
    if isinstance(error, WeedsegError):
        return str(error), error.exit_code
    if isinstance(error, _ClickException):
        return _usage(error), EXIT_USAGE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _OUT_OF_MEMORY, EXIT_MEMORY
    if isinstance(error, OSError):
        return _file_error(error)
    if isinstance(error, ModuleNotFoundError) and is_known(error.name):
        missing = missing_package(str(error.name))
        return str(missing), missing.exit_code
    found = f"internal error ({type(error).__name__}: {error})"
    return f"{found}; expected none; please report it with what --debug shows", EXIT_BUG


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "weedseg"
    return f"{error.format_message().rstrip('.')}; see {path} --help"


def _file_error(error: OSError) -> tuple[str, int]:
    name = f"{error.filename}: " if error.filename else ""
    found = f"{name}{error.strerror or error}"
    if error.errno in _FULL:
        remedy = "make room and run the same command again"
        return f"{found}; expected room on the disk; {remedy}", OutputError.exit_code
    expected = "a file or folder that weedseg may use"
    return f"{found}; expected {expected}; check the path and its permissions", EXIT_FILE


def _say(sentence: str, code: int) -> int:
    try:
        sys.stderr.write(f"weedseg: {' '.join(sentence.split())}\n")
    except BrokenPipeError:
        return _hush()
    return code


def _hush() -> int:
    """Point both streams to nowhere, so that Python's last flush does not complain either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return EXIT_BROKEN_PIPE
