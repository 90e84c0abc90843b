"""Turn a run into a released model folder: model, configuration, card, golden sample, checksums."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, ExportError
from weedseg.export.details import to_literal
from weedseg.imaging import read_image, write_bytes, write_png
from weedseg.pipeline.run_folder import RunFolder

NUM_FAILURES, NUM_TYPICAL = 2, 2


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
        ExportError: The model does not give its golden class map back.
    """
    folder = RunFolder(run)
    evaluation, facts = folder.read("evaluation.json"), folder.read("run.json")
    if not folder.model.is_file() or evaluation.get("miou") is None:
        raise ConfigError(
            f"{run} has no model with a measured accuracy", "a finished run with a test", "run it"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "SHA256SUMS").unlink(missing_ok=True)  # a stale one would refuse the new model
    for name in ("model.onnx", "golden/in.png", "golden/out.png"):
        write_bytes(out / name, (run / name).read_bytes())
    segmenter = Segmenter(out / "model.onnx", require_provider="cpu")
    _check_golden(segmenter, out)
    _write_configs(segmenter, folder, out)
    pictures = _copy_pictures(run, out)
    write_bytes(out / "LICENSE", notes.license_text.read_bytes())
    card = _card(notes, evaluation, facts, segmenter, pictures)
    write_bytes(out / "card.md", card.encode())
    _write_sums(out)
    return out


def _check_golden(segmenter: Segmenter, out: Path) -> None:
    """Check that the model gives its golden class map back.

    Raises:
        ExportError: It does not.
    """
    found = segmenter.segment(read_image(out / "golden" / "in.png")).class_map
    again = out / ".golden.png"
    write_png(again, found)
    same = read_image(again).tobytes() == read_image(out / "golden" / "out.png").tobytes()
    again.unlink()
    if not same:
        raise ExportError("another golden class map", "golden/out.png", "export the run again")


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
    pictures: list[str],
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
        pictures=pictures,
    )


def _write_sums(out: Path) -> None:
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out).as_posix()}\n"
        for path in files
    ]
    write_bytes(out / "SHA256SUMS", "".join(lines).encode())
