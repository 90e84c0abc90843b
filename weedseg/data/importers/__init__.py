"""One module per published data set or label tool; each yields photos with masks.

A module of this package that `FORMATS` names has a function ``collect(src, options)`` and returns
a `Collection`. `weedseg.data.writing` turns it into a farm folder.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from weedseg.data.facts import published_facts
from weedseg.data.importers.items import Collection, ImportOptions
from weedseg.errors import ConfigError, FieldDataError, RuntimeUnavailableError

FORMATS: dict[str, str] = {
    "cwfid": "CWFID as downloaded",
    "peanut": "the peanut data set as downloaded",
    "sugarbeets2016": "Sugarbeets 2016, unpacked; --mapping paper, --nir",
    "nassar2020": "Nassar 2020, tiles or orthomosaic; --mapping paper",
    "phenobench": "PhenoBench; --mapping ignore-partial",
    "geotiff": "orthomosaics with GeoPackage or GeoJSON polygons; --column, --classes, --window",
    "png": "photos and PNG masks of class ids",
    "rgb": "photos and colour masks; --palette",
    "coco": "COCO JSON, polygons and run lengths",
    "cvat": "CVAT for images XML, or its mask export",
    "labelstudio": "Label Studio JSON, brush and polygons; --mapping predictions",
    "labelme": "LabelMe JSON files",
    "yolo": "YOLO segmentation, data.yaml or classes.txt",
    "supervisely": "Supervisely project, bitmaps and polygons; --nir",
}
"""Format -> what it reads."""

_MAPPINGS = {
    "sugarbeets2016": ("paper",),
    "nassar2020": ("paper",),
    "phenobench": ("ignore-partial",),
    "labelstudio": ("predictions",),
}


def collect(kind: str, src: Path, options: ImportOptions) -> Collection:
    """Read a data set where it lies; masks are drawn later, one at a time.

    Args:
        kind: A key of `FORMATS`.
        src: File or folder.
        options: What the person says of it.

    Returns:
        The data set, with at least one photo.

    Raises:
        ConfigError: Format or mapping is unknown.
        FieldDataError: It cannot be read, or holds no photo.
        RuntimeUnavailableError: A package that the format needs is not installed.
    """
    if kind not in FORMATS:
        raise ConfigError(f"format '{kind}'", f"one of {', '.join(FORMATS)}", "choose one")
    known = _MAPPINGS.get(kind, ())
    if options.mapping and options.mapping not in known:
        raise ConfigError(
            f"--mapping {options.mapping} for {kind}",
            " or ".join(known) or "no mapping",
            "leave it out",
        )
    if kind != "geotiff" and (options.column or options.values or options.window_px):
        raise ConfigError(
            f"--column, --classes or --window for {kind}", "geotiff", "leave them out"
        )
    if not src.exists():
        raise FieldDataError(f"{src} is not there", "a file or folder", "check the path")
    try:
        module = importlib.import_module(f"weedseg.data.importers.{kind}")
        collection: Collection = module.collect(src, options)
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"no package {error.name}",
            "what reads mosaics",
            "run: python -m pip install rasterio pyogrio shapely",
        ) from error
    if not collection.items:
        raise FieldDataError(f"no photo in {src}", f"{FORMATS[kind]}", "check the path")
    return dataclasses.replace(collection, facts={**published_facts(kind), **collection.facts})
