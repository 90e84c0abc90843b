"""The outer edge: one line on standard error and an exit code for whatever goes wrong."""

import errno
import os
import subprocess
import sys
import types

import pytest
import typer

from weedseg import errors
from weedseg.cli import VERBS, failures, load_verb, main, packages


def _run(function, *arguments):
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return failures.run(app, list(arguments))


def _raising(error):
    def verb() -> None:
        raise error

    return verb


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    monkeypatch.setenv(failures.DEBUG_VARIABLE, "0")


@pytest.mark.parametrize(
    "kind", [errors.ConfigError, errors.MaskError, errors.ParityError, errors.ModelFileError]
)
def test_an_error_is_one_line_and_its_exit_code(kind, capsys):
    code = _run(_raising(kind("a\nb", "c", "do d")))
    assert code == kind.exit_code
    assert capsys.readouterr().err == "weedseg: a b; expected c; do d\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 6, "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 74, "/x/y: Permission denied"),
        (MemoryError(), 71, "memory ran out"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 71, "memory ran out"),
        (ModuleNotFoundError("No module", name="torch"), 9, "python -m pip install"),
        (ModuleNotFoundError("No module", name="onnxruntime"), 9, "no ONNX Runtime"),
        (ModuleNotFoundError("No module", name="weedseg.nope"), 70, "please report"),
        (KeyError("x"), 70, "please report"),
    ],
)
def test_other_failures_are_one_line_too(error, code, words, capsys):
    assert _run(_raising(error)) == code
    err = capsys.readouterr().err
    assert err.startswith("weedseg: ")
    assert words in err
    assert err.count("\n") == 1


def test_an_interrupt_ends_with_130_and_no_traceback(capsys):
    assert _run(_raising(KeyboardInterrupt())) == failures.EXIT_INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv(failures.DEBUG_VARIABLE, "1")
    assert _run(_raising(KeyError("x"))) == failures.EXIT_BUG
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("weedseg: internal error (KeyError")


def test_exit_codes_pass_through():
    assert _run(_raising(typer.Exit(143))) == 143
    with pytest.raises(SystemExit) as stopped:
        _run(_raising(SystemExit(143)))
    assert stopped.value.code == 143


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "see weedseg --help"),
        (["synth"], "--out"),
        (["synth", "--out", "x", "--nope"], "see weedseg synth --help"),
        (["synth", "--out", "x", "--photos", "many"], "--photos"),
    ],
)
def test_wrong_usage_is_one_line(arguments, words, capsys):
    assert main(arguments) == failures.EXIT_USAGE
    err = capsys.readouterr().err
    assert err.startswith("weedseg: ")
    assert err.count("\n") == 1
    assert words in err


def test_help_lists_every_verb_in_full(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for verb, text in VERBS.items():
        assert f"{verb} " in out
        assert text in out
    assert main(["--version"]) == 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_loads_and_explains_itself(verb, capsys):
    assert load_verb(verb).name == verb
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: weedseg {verb}" in out
    assert "Raises:" not in out


def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m weedseg --help | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.returncode in {0, 1, failures.EXIT_BROKEN_PIPE}


def test_synth_refuses_what_it_would_overwrite(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["synth", "--out", str(tmp_path)]) == errors.OutputError.exit_code
    assert main(["synth", "--out", str(tmp_path / "new"), "--photos", "2"]) == 2
    assert os.listdir(tmp_path) == ["mine.txt"]
    assert capsys.readouterr().err.count("\n") == 2


def test_synth_calls_the_painter(tmp_path, monkeypatch, capsys):
    calls = []
    painter = types.ModuleType("weedseg.data.synthetic")
    painter.write_farm = lambda out, **options: calls.append((out, options))
    monkeypatch.setitem(sys.modules, "weedseg.data.synthetic", painter)
    farm = tmp_path / "farm"
    assert main(["synth", "--out", str(farm), "--photos", "3", "--labelled", "1"]) == 0
    assert calls == [(farm, {"seed": 0, "num_photos": 3, "num_labelled": 1})]
    assert f"weedseg train --farm-images {farm}" in capsys.readouterr().out


def test_a_missing_package_names_all_that_the_verb_needs(monkeypatch):
    monkeypatch.setattr(
        packages, "absent", lambda table: [n for n in ("torch", "timm") if n in table]
    )
    error = packages.missing_package("torch.nn")
    assert error.remedy == "run: python -m pip install torch timm"
