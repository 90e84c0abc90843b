"""Turn a run into a released model folder: model, configuration, card, golden sample, checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, ExportError
from weedseg.export.details import to_literal
from weedseg.imaging import read_image, write_bytes
from weedseg.pipeline.run_folder import RunFolder

NUM_FAILURES, NUM_TYPICAL = 2, 2
VARIANTS = ("fp16", "int8", "int8-trt")
"""``model.VARIANT.onnx`` goes along when the run exported it."""
MIN_ALIKE_SHARE = 0.9
"""A variant must say about the same as ``model.onnx``, else it is of another training."""


@dataclass(frozen=True, kw_only=True)
class ReleaseNotes:
    """What no run can know."""

    name: str
    """Name of the model, also of its folder."""
    license: str
    """SPDX name of the licence of the weights."""
    license_text: Path
    """File with the licence, copied as LICENSE."""
    data: tuple[str, ...]
    """One sentence per source of data: title, licence, citation."""
    failures: str
    """What a person saw go wrong in the test pictures."""


def release(run: Path, out: Path, notes: ReleaseNotes) -> Path:
    """Write a released model folder from a finished run.

    Args:
        run: A run folder with a tested model.
        out: Where the folder goes; files in it are replaced.
        notes: Name, licence, data.

    Returns:
        The folder.

    Raises:
        ConfigError: The run has no measured accuracy.
        ExportError: A model does not give its golden class map back, or a variant is of another
            training.
    """
    folder = RunFolder(run)
    evaluation, facts = folder.read("evaluation.json"), folder.read("run.json")
    if not folder.model.is_file() or evaluation.get("miou") is None:
        raise ConfigError(
            f"{run} has no model with a measured accuracy", "a finished run with a test", "run it"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "SHA256SUMS").unlink(missing_ok=True)  # a stale one would refuse the new model
    variants = _copy_models(run, out)
    segmenter = _open_checked(out / "model.onnx")
    files = [_file_facts(segmenter, out / "model.onnx")]
    for path in variants:
        variant = _open_checked(path)
        _compare(segmenter, variant, out)
        files.append(_file_facts(variant, path))
    _write_configs(segmenter, folder, out)
    pictures = _copy_pictures(run, out)
    write_bytes(out / "LICENSE", notes.license_text.read_bytes())
    card = _card(notes, evaluation, facts, segmenter, {"pictures": pictures, "files": files})
    write_bytes(out / "card.md", card.encode())
    _write_sums(out)
    return out


def _copy_models(run: Path, out: Path) -> list[Path]:
    """Copy ``model.onnx``, its variants and their golden samples; returns the variants.

    Every variant has a golden class map of its own; photos that are the same are kept once.
    """
    _copy(run, out, ("model.onnx", "golden/in.png", "golden/out.png"))
    first = (out / "golden" / "in.png").read_bytes()
    paths = []
    for variant in VARIANTS:
        name, photo = f"model.{variant}.onnx", f"golden/in.{variant}.png"
        for stale in (name, photo, f"golden/out.{variant}.png"):
            (out / stale).unlink(missing_ok=True)
        if not (run / name).is_file():
            continue
        _copy(run, out, (name, f"golden/out.{variant}.png"))
        if (run / photo).read_bytes() != first:
            _copy(run, out, (photo,))
        paths.append(out / name)
    return paths


def _copy(run: Path, out: Path, names: Sequence[str]) -> None:
    """Copy files of a run.

    Raises:
        ExportError: One is missing.
    """
    for name in names:
        if not (run / name).is_file():
            raise ExportError(f"{run / name} is missing", "an exported model", "export it again")
        write_bytes(out / name, (run / name).read_bytes())


def _open_checked(path: Path) -> Segmenter:
    """Open a released model, which must give its golden class map back.

    Raises:
        ExportError: It does not.
    """
    segmenter = Segmenter(path, require_provider="cpu")
    test = segmenter.self_test()
    if not test.passed:
        raise ExportError(f"{path.name}: {test.reason}", "its golden class map", "export it again")
    return segmenter


def _compare(segmenter: Segmenter, variant: Segmenter, out: Path) -> None:
    """Compare a variant with ``model.onnx`` on the golden photo.

    Raises:
        ExportError: It is of another training.
    """
    photo = read_image(out / "golden" / "in.png")
    share = (segmenter.segment(photo).class_map == variant.segment(photo).class_map).mean()
    same = variant.metadata.classes == segmenter.metadata.classes
    if not same or share < MIN_ALIKE_SHARE:
        precision = variant.metadata.properties.get("quantisation")
        raise ExportError(
            f"{precision}: {100 * share:.1f} % of the golden photo as in model.onnx",
            f"at least {100 * MIN_ALIKE_SHARE:g} %",
            f"export it again: weedseg export RUN --format onnx-{precision}",
        )


def _file_facts(segmenter: Segmenter, path: Path) -> dict[str, Any]:
    """Return what the card tells about a model file."""
    properties = segmenter.metadata.properties
    return {
        "name": path.name,
        "mib": path.stat().st_size / 2**20,
        "forced": properties.get("forced"),
        **properties.get("parity", {}),
    }


def _write_configs(segmenter: Segmenter, folder: RunFolder, out: Path) -> None:
    metadata = segmenter.metadata
    inference = {
        "tile_px": metadata.tile_px,
        "overlap_px": metadata.overlap_px,
        "resize": {"kind": "scale", "scale": metadata.scale},
        "temperature": metadata.temperature,
        "input": "images float32 [batch, 3, H, W] RGB 0-1",
        "outputs": {"mask": "uint8 class ids", "confidence": "uint8 0-100"},
        "classes": metadata.classes.to_list(),
    }
    recipe = folder.read("recipe.json")
    for name, values in (("inference_config.json", inference), ("model_config.json", recipe)):
        write_bytes(out / name, (to_literal(values) + "\n").encode())
    names = "\n".join(metadata.classes.names) + "\n"
    write_bytes(out / "class_names.txt", names.encode())


def _copy_pictures(run: Path, out: Path) -> list[str]:
    """Copy the best result, two typical and two bad ones; the evaluation drew them in order."""
    found = sorted((run / "evaluation" / "pictures").glob("*.png"))
    rest = found[1:]
    chosen = {
        "best": found[:1],
        "typical": rest[:-NUM_FAILURES][:NUM_TYPICAL],
        "failure": rest[-NUM_FAILURES:],
    }
    names = []
    for kind, paths in chosen.items():
        for number, path in enumerate(paths, start=1):
            name = f"pictures/{kind}-{number}.png"
            write_bytes(out / name, path.read_bytes())
            names.append(name)
    return names


def _card(
    notes: ReleaseNotes,
    evaluation: dict[str, Any],
    facts: dict[str, Any],
    segmenter: Segmenter,
    lists: dict[str, Any],
) -> str:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    text = (resources.files("weedseg.pipeline") / "card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        notes=notes,
        evaluation=evaluation,
        facts=facts,
        metadata=segmenter.metadata,
        parity=segmenter.metadata.properties.get("parity", {}),
        **lists,
    )


def _write_sums(out: Path) -> None:
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out).as_posix()}\n"
        for path in files
    ]
    write_bytes(out / "SHA256SUMS", "".join(lines).encode())
