"""README.md tells the truth: its marked commands run, its verbs, options and files exist.

A fenced block of ``sh`` after the comment ``<!-- runs -->`` is run here, command by command, in
one folder for all blocks, with tiny settings in place of a budget of minutes.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"<!-- runs -->\s*```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(block):
    """Split a block into commands, without comments."""
    joined = block.replace("\\\n", " ")
    found = (shlex.split(line.removeprefix("$ "), comments=True) for line in joined.splitlines())
    return [words for words in found if words]


def shorten(words, tiny):
    """Let a command of the README do the same in seconds."""
    _, verb, *rest = words
    if verb == "synth":
        return [verb, *rest, "--photos", "6", "--labelled", "2"]
    if verb in ("train", "pretrain"):
        if "--minutes" in rest:
            place = rest.index("--minutes")
            del rest[place : place + 2]
        return [verb, *rest, *tiny]
    return [verb, *rest]


def test_the_marked_commands_run(cli, tmp_path, tiny):
    blocks = MARKED.findall(TEXT)
    assert blocks
    for block in blocks:
        for words in commands(block):
            assert words[0] == "weedseg", words
            cli(*shorten(words, tiny), cwd=tmp_path).ok()
    assert list(tmp_path.rglob("*_overlay.jpg"))


def test_the_python_runs(trained, holdout_farm, tmp_path):
    blocks = [block for language, block in FENCE.findall(TEXT) if language == "python"]
    assert blocks
    shutil.copyfile(trained / "model.onnx", tmp_path / "model.onnx")
    shutil.copyfile(sorted(holdout_farm.rglob("images/*.png"))[0], tmp_path / "photo.jpg")
    for block in blocks:
        command = [sys.executable, "-c", block]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "weed" in done.stdout


def test_every_verb_and_option_it_names_exists():
    from weedseg.cli import VERBS, load_verb

    named = re.findall(r"weedseg ([a-z]+)((?: [^`\n#|]*)?)", TEXT)
    verbs = {verb: rest for verb, rest in named if verb in VERBS}
    assert {"train", "predict", "synth", "doctor"} <= set(verbs)
    for verb, rest in named:
        if verb not in VERBS:
            continue
        command = load_verb(verb)
        known = {o for c in _with_children(command) for p in c.params for o in p.opts}
        unknown = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)) - known
        assert not unknown, f"weedseg {verb}: {unknown}"


def _with_children(command):
    children = getattr(command, "commands", {}).values()
    return [command, *(c for child in children for c in _with_children(child))]


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", TEXT, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("place", sorted(set(re.findall(r"\]\((?!https?:|#)([^)#\s]+)", TEXT))))
def test_every_file_it_links_exists(place):
    assert (ROOT / place).exists()
