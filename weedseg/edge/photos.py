"""Which photos a person means by a photo, a folder or a glob, and what their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from weedseg.errors import ImageError, OutputError
from weedseg.imaging import IMAGE_SUFFIXES

CLASS_MAP_END, CONFIDENCE_END, OVERLAY_END = "_classes.png", "_confidence.png", "_overlay.jpg"
"""What is put behind a photo's name for its class map, confidence and overlay."""
RESULT_ENDS = (CLASS_MAP_END, CONFIDENCE_END, OVERLAY_END)


@dataclass(frozen=True, kw_only=True)
class FoundPhoto:
    """A photo that is to be segmented."""

    path: Path
    name: str
    """Posix path below the folder that was given; names the photo in tables."""
    output: str
    """Posix path of its results below the output folder, without ending."""


def find_photos(inputs: str | Path | Sequence[str | Path], out: Path) -> list[FoundPhoto]:
    """Find all photos.

    Folders are searched to any depth, without masks (folders ``masks``, files ``*_mask.png``),
    hidden files and the output folder. Names keep the folders below what was given, so
    ``a/1.jpg`` and ``b/1.jpg`` stay apart.

    Args:
        inputs: A photo, a folder or a glob, or several of these.
        out: The output folder.

    Returns:
        Photos in the order of their names.

    Raises:
        ImageError: Nothing is found, or two photos of different folders have one name.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    found: dict[str, Path] = {}
    for item in given:
        for name, path in _expand(str(item), out):
            if found.setdefault(name, path).resolve() != path.resolve():
                raise ImageError(
                    f"{found[name]} and {path}: two photos named {name}",
                    "each name once",
                    "give the folder above both, or two --out folders",
                )
    if not found:
        raise ImageError(
            f"no photo in {', '.join(str(item) for item in given) or 'an empty list'}",
            f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
            "check the path",
        )
    return _name_outputs(found)


def _name_outputs(found: dict[str, Path]) -> list[FoundPhoto]:
    """Name results after the photo's stem, or after its whole name where stems are the same."""
    stems = Counter(_stem(name).casefold() for name in found)
    used: set[str] = set()
    photos = []
    for name in sorted(found):
        output = _stem(name) if stems[_stem(name).casefold()] == 1 else name
        while output.casefold() in used:
            output += "_"
        used.add(output.casefold())
        photos.append(FoundPhoto(path=found[name], name=name, output=output))
    return photos


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _expand(item: str, out: Path) -> list[tuple[str, Path]]:
    """Return (name, path) of the photos that one input means.

    Raises:
        ImageError: The input does not exist, or is no photo.
    """
    path = Path(item)
    if path.is_dir():
        return _in_folder(path, sorted(path.rglob("*")), out)
    if path.exists():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ImageError(
                f"{path}: ends in '{path.suffix}'",
                f"a photo ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
                "convert or rename it",
            )
        return [(_readable(path.name), path)]
    if not glob.has_magic(item):
        raise ImageError(f"{item} does not exist", "a photo, a folder or a glob", "check the path")
    base = Path(path.anchor)
    for part in path.parts[len(base.parts) : -1]:
        if glob.has_magic(part):
            break
        base /= part
    rows: set[Path] = set()
    for match in map(Path, glob.glob(item, recursive=True)):
        rows.update(match.rglob("*") if match.is_dir() else [match])
    return _in_folder(base, sorted(rows), out)


def _in_folder(folder: Path, paths: Iterable[Path], out: Path) -> list[tuple[str, Path]]:
    """Keep the photos among paths, named from `folder` on."""
    own = out.resolve()
    into_itself = own == folder.resolve()
    kept = []
    for path in paths:
        inner = path.relative_to(folder)
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file() or _is_aside(inner):
            continue
        is_result = (
            path.name.endswith(RESULT_ENDS) if into_itself else own in path.resolve().parents
        )
        if not is_result:
            kept.append((_readable(inner.as_posix()), path))
    return kept


def _is_aside(inner: Path) -> bool:
    """Tell whether a file is a mask or hidden."""
    is_mask = "masks" in inner.parts[:-1] or inner.stem.lower().endswith("_mask")
    return is_mask or any(part.startswith(".") for part in inner.parts)


def _readable(name: str) -> str:
    """Return a file name as valid text, odd bytes replaced."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def make_folder(out: Path) -> None:
    """Make an output folder, and those above it.

    Args:
        out: The folder; it may be there.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out}: {error.strerror}", "a folder that can be written", "choose another --out"
        ) from error
