"""Write small data sets in the published layouts; all show the same two masks.

Each writer takes an empty folder and returns what `collect` needs, and the masks to expect by the
end of the photo's name (None: unlabelled).
"""

import base64
import io
import json
import zlib
from dataclasses import dataclass, field

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from PIL import Image as PillowImage

from weedseg.data.importers.items import ImportOptions
from weedseg.data.rle import runs_of, to_brush, to_coco
from weedseg.imaging import write_png

HEIGHT, WIDTH = 40, 50
BOXES = [
    [(1, (4, 5, 20, 15)), (2, (10, 20, 40, 30))],
    [(2, (0, 0, 50, 8))],
]
"""Class, and left, top, right, bottom, for each labelled photo."""
NAMES = {1: "crop", 2: "weed"}
COLOURS = np.array([(0, 0, 0), (0, 255, 0), (255, 0, 0)], np.uint8)


@dataclass
class Fixture:
    src: object
    expected: dict
    options: ImportOptions = field(default_factory=ImportOptions)


def mask_of(number):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value, (left, top, right, bottom) in BOXES[number]:
        mask[top:bottom, left:right] = value
    return mask


def photo_of(number, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def corners(box):
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def expect(*stems, unlabelled=()):
    masks = {stem: mask_of(i % 2) for i, stem in enumerate(stems)}
    return masks | dict.fromkeys(unlabelled)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(pixels).save(path)


def photos(root, *names):
    for i, name in enumerate(names):
        write_png(root / f"{name}.png", photo_of(i))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def cwfid(root):
    photos(root / "images", "001_image", "002_image")
    for i in (1, 2):
        write_png(root / "annotations" / f"{i:03d}_annotation.png", COLOURS[mask_of(i - 1)])
    write_text(root / "train_test_split.yaml", "train: [1, 2]\ntest: [2]\n")
    return Fixture(root, expect("001_image", "002_image"))


def peanut(root):
    photos(root / "images", "0001", "0002")
    for i in (1, 2):
        write_png(root / "labels" / f"{i:04d}.png", COLOURS[mask_of(i - 1)])
    return Fixture(root, expect("0001", "0002"))


SUGARBEET_IDS = {0: [0, 1, 97], 1: [10000, 10001, 10002], 2: [2, 20003, 20105]}
SUGARBEET_NAMES = [f"bonirob_2016-05-23-10-{37 + i}-10_0_frame{i}" for i in range(4)]


def sugarbeets2016(root):
    """Write frames 0 and 2 as ids and as colours; frame 3 lacks its labels."""
    folder = root / "CKA_160523"
    for i, name in enumerate(SUGARBEET_NAMES):
        write_png(folder / "images" / "rgb" / f"{name}.png", photo_of(i))
        write_png(folder / "images" / "nir" / f"{name}.png", photo_of(i)[..., 0])
        rng = np.random.default_rng(i)
        ids = np.zeros((HEIGHT, WIDTH), np.uint16)
        for value, choices in SUGARBEET_IDS.items():
            ids = np.where(mask_of(i % 2) == value, rng.choice(choices, ids.shape), ids)
        if i < 2:
            save(folder / "annotations/dlp/iMapCleaned" / f"{name}.png", ids.astype(np.uint16))
        elif i == 2:
            save(folder / "annotations/dlp/colorCleaned" / f"{name}.png", COLOURS[mask_of(0)])
    return Fixture(root, expect(*SUGARBEET_NAMES[:3]))


def nassar2020(root):
    tiles = root / "tiled_dataset" / "train"
    for i, stem in enumerate(["a_1", "a_2", "b_1"]):
        write_png(tiles / "data" / f"{stem}.png", photo_of(i))
        write_png(tiles / "mask" / f"{stem}.png", mask_of(i % 2))
    for part, stems in (("train", "a_1\na_2\n"), ("val", ""), ("test", "b_1\n")):
        write_text(tiles / "data_list" / f"{part}.txt", stems)
    photos(root / "ortho_tiles", "nassar_00007", "nassar_12", "nassar_8")
    write_text(root / "ortho_tiles" / "datalist.txt", "nassar_7\nnassar_00012\n")
    unlabelled = ("nassar_00007", "nassar_12")
    return Fixture(root, expect("a_1", "a_2", "b_1", unlabelled=unlabelled))


def phenobench(root):
    for i, (part, name) in enumerate([("train", "p0"), ("val", "p1"), ("test", "p2")]):
        write_png(root / part / "images" / f"{name}.png", photo_of(i))
        if part != "test":
            mask = mask_of(i)
            mask[0, 0], mask[-1, -1] = mask[0, 0] or 0, 0
            partial = np.where(mask > 0, mask + 2, 0).astype(np.uint8)
            partial[:, ::2] = mask[:, ::2]
            save(root / part / "semantics" / f"{name}.png", partial)
    return Fixture(root, expect("p0", "p1", unlabelled=["p2"]))


def write_mosaic(path, pixels, **profile):
    """Write pixels (H, W, bands) as a tiled GeoTIFF of 2.5 mm per px in UTM 32N."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    given = {
        "crs": "EPSG:32632",
        "transform": Affine(0.0025, 0, 365_000, 0, -0.0025, 5_610_000),
        "dtype": pixels.dtype,
        **profile,
    }
    size = {"height": height, "width": width, "count": count}
    with rasterio.open(path, "w", driver="GTiff", **size, **given) as file:
        file.write(np.moveaxis(pixels, 2, 0))


def write_outlines(path, shapes, names, crs="EPSG:32632", column="class"):
    """Write shapely shapes with one attribute, as GeoPackage or GeoJSON by the path's ending."""
    kinds = {shape.geom_type for shape in shapes}
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(s) for s in shapes], object),
        [np.array(names, object)],
        [column],
        geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown",
        crs=crs,
        driver={".gpkg": "GPKG", ".geojson": "GeoJSON"}[path.suffix],
    )


def on_map(points, left=0):
    """Move pixel coordinates of the mosaic to its map."""
    return [(365_000 + 0.0025 * (x + left), 5_610_000 - 0.0025 * y) for x, y in points]


def geotiff(root):
    """Write three photos side by side; the polygons of the last one only touch its edge."""
    mosaic = np.concatenate([photo_of(i) for i in range(3)], axis=1)
    write_mosaic(root / "field.tif", mosaic)
    shapes = [
        (v, shapely.Polygon(on_map(corners(b), WIDTH * i)))
        for i, boxes in enumerate(BOXES)
        for v, b in boxes
    ]
    write_outlines(root / "field.gpkg", [s for _, s in shapes], [NAMES[v] for v, _ in shapes])
    masks = expect("000000_000000", "000000_000050", unlabelled=["000000_000100"])
    return Fixture(root, masks, ImportOptions(window_px=WIDTH))


def png(root):
    photos(root / "images", "a", "b", "c")
    for i, stem in enumerate("ab"):
        write_png(root / "masks" / f"{stem}.png", mask_of(i))
    return Fixture(root, expect("a", "b", unlabelled=["c"]))


def rgb(root):
    photos(root, "a", "b", "c")
    for i, stem in enumerate("ab"):
        write_png(root / f"{stem}_mask.png", COLOURS[mask_of(i)][..., ::-1])
    palette = {"#000000": "background", "#00ff00": "crop", "#0000ff": "weed"}
    return Fixture(root, expect("a", "b", unlabelled=["c"]), ImportOptions(palette=palette))


def coco(root):
    """Write photo a as polygons, b as run lengths (compressed and not), c without annotation."""
    photos(root / "images", "a", "b", "c")
    images = [
        {"id": 10 + i, "file_name": f"{s}.png", "height": HEIGHT, "width": WIDTH}
        for i, s in enumerate("abc")
    ]
    shapes = [(10, v, [np.ravel(corners(b)).tolist()]) for v, b in BOXES[0]]
    whole = mask_of(1) == 2
    plain = {"size": [HEIGHT, WIDTH], "counts": runs_of(whole.ravel(order="F"))}
    shapes += [(11, 2, to_coco(whole)), (11, 2, plain)]
    annotations = [
        {"id": i, "image_id": image, "category_id": value, "segmentation": shape}
        for i, (image, value, shape) in enumerate(shapes)
    ]
    categories = [{"id": 1, "name": "crop: beta vulgaris"}, {"id": 2, "name": "weed: UNSPECIFIED"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(root / "labels.json", json.dumps(content))
    return Fixture(root, expect("a", "b", unlabelled=["c"]))


def cvat(root):
    """Write photo a as polygons, b as a mask."""
    photos(root, "a", "b", "c")
    polygons = "".join(
        f'<polygon label="{NAMES[v]}" z_order="{i}" points="'
        + ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(b))
        + '"/>'
        for i, (v, b) in enumerate(BOXES[0])
    )
    mask = '<mask label="weed" rle="0, 400" left="0" top="0" width="50" height="8" z_order="0"/>'
    images = "".join(
        f'<image id="{i}" name="{n}.png" width="{WIDTH}" height="{HEIGHT}">{inside}</image>'
        for i, (n, inside) in enumerate([("a", polygons), ("b", mask), ("c", "")])
    )
    labels = "".join(f"<label><name>{n}</name></label>" for n in ("crop", "weed"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    write_text(root / "annotations.xml", f"<annotations>{meta}{images}</annotations>")
    return Fixture(root, expect("a", "b", unlabelled=["c"]))


def cvat_masks(root):
    photos(root / "JPEGImages", "a", "b")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrop:0,255,0::\nweed:255,0,0::\n"
    write_text(root / "labelmap.txt", lines)
    for i, stem in enumerate("ab"):
        write_png(root / "SegmentationClass" / f"{stem}.png", COLOURS[mask_of(i)])
    return Fixture(root, expect("a", "b"))


def labelstudio(root):
    """Write photo a as polygons, b as a brush stroke, c as not annotated."""
    photos(root, "a", "b", "c")

    def region(kind, name, value):
        size = {"original_width": WIDTH, "original_height": HEIGHT}
        return {"type": kind, "value": {**value, kind: [name]}, **size}

    scale = np.array([100 / WIDTH, 100 / HEIGHT])
    first = [
        region("polygonlabels", NAMES[v], {"points": (np.array(corners(b)) * scale).tolist()})
        for v, b in BOXES[0]
    ]
    brush = {"format": "rle", "rle": to_brush(mask_of(1) == 2)}
    tasks = [
        {"data": {"image": "/data/upload/3/0a1b2c3d-a.png"}, "annotations": [{"result": first}]},
        {
            "data": {"image": "/data/local-files/?d=b.png"},
            "annotations": [{"result": [region("brushlabels", "weed", brush)]}],
        },
        {"data": {"image": "c.png"}, "annotations": []},
    ]
    write_text(root / "export.json", json.dumps(tasks))
    return Fixture(root, expect("a", "b", unlabelled=["c"]))


def labelme(root):
    """Write photo a as polygons, b as a mask."""
    photos(root / "images", "a", "b")
    shapes = [
        {"label": NAMES[v], "shape_type": "polygon", "points": corners(b)} for v, b in BOXES[0]
    ]
    sheet = io.BytesIO()
    PillowImage.fromarray(np.ones((8, WIDTH), bool)).save(sheet, "PNG")
    mask = {
        "label": "weed",
        "shape_type": "mask",
        "points": [(0, 0), (WIDTH - 1, 7)],
        "mask": base64.b64encode(sheet.getvalue()).decode(),
    }
    for stem, drawn in (("a", shapes), ("b", [mask])):
        content = {
            "imagePath": f"..\\images\\{stem}.png",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
            "shapes": drawn,
        }
        write_text(root / "labels" / f"{stem}.json", json.dumps(content))
    return Fixture(root / "labels", expect("a", "b"), ImportOptions(photos=root / "images"))


def yolo(root):
    photos(root / "images" / "train", "a", "c")
    photos(root / "images" / "val", "b")
    write_text(root / "data.yaml", "path: .\nnames:\n  0: crop\n  1: weed\n")
    for part, stem, boxes in (("train", "a", BOXES[0]), ("val", "b", BOXES[1])):
        lines = [
            " ".join(map(str, [v - 1, *(np.array(corners(b)) / (WIDTH, HEIGHT)).ravel()]))
            for v, b in boxes
        ]
        write_text(root / "labels" / part / f"{stem}.txt", "\n".join(lines))
    return Fixture(root, expect("a", "b", unlabelled=["c"]))


def supervisely(root):
    """Write photo a as bitmaps, b as a polygon; c has no sheet, a has a near-infrared twin."""
    photos(root / "img", "a__rgb", "a__nir", "b", "c")
    titles = [{"title": "weed"}, {"title": "sugar beet"}]
    write_text(root / "meta.json", json.dumps({"classes": titles}))
    bitmaps = []
    for value, (left, top, right, bottom) in BOXES[0]:
        sheet = io.BytesIO()
        PillowImage.fromarray(np.ones((bottom - top, right - left), bool)).save(sheet, "PNG")
        data = base64.b64encode(zlib.compress(sheet.getvalue())).decode()
        title = {1: "sugar beet", 2: "weed"}[value]
        bitmap = {"origin": [left, top], "data": data}
        bitmaps.append({"classTitle": title, "geometryType": "bitmap", "bitmap": bitmap})
    points = {"exterior": corners(BOXES[1][0][1]), "interior": []}
    polygon = [{"classTitle": "weed", "geometryType": "polygon", "points": points}]
    for stem, objects in (("a__rgb", bitmaps), ("b", polygon)):
        size = {"height": HEIGHT, "width": WIDTH}
        write_text(
            root / "ann" / f"{stem}.png.json", json.dumps({"size": size, "objects": objects})
        )
    swapped = [np.array([0, 2, 1], np.uint8)[mask_of(i)] for i in (0, 1)]
    return Fixture(root, {"a__rgb": swapped[0], "b": swapped[1], "c": None})


LAYOUTS = {
    f.__name__: f
    for f in (
        *(cwfid, peanut, sugarbeets2016, nassar2020, phenobench, geotiff, png, rgb, coco, cvat),
        *(cvat_masks, labelstudio, labelme, yolo, supervisely),
    )
}
