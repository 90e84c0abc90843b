"""Sentences and table rows of the report, from the plain data of a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from weedseg.classes import ClassTable

Values = Mapping[str, Any]

BASELINE_NAMES = {
    "exg_otsu_all_weed": "ExG + Otsu, every plant is a weed",
    "exg_otsu_all_crop": "ExG + Otsu, every plant is crop",
    "colour_threshold": "colour threshold",
}
NO_NUMBER = "n/a"


def percent(value: Any, digits: int = 1) -> str:
    """Write a share as per cent, "n/a" when it is unknown."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return NO_NUMBER
    return f"{100 * value:.{digits}f} %"


def interval(bounds: Any) -> str:
    """Write an interval of shares, [low, high], in per cent; "" when there is none."""
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        return ""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def points(value: Any, signed: bool = False) -> str:
    """Write a difference of shares in percentage points."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return NO_NUMBER
    return f"{100 * value:+.2f} points" if signed else f"{100 * value:.2f} points"


def duration(seconds: Any) -> str:
    """Write a time span: 45 s, 12 min 5 s, 3 h 20 min."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return NO_NUMBER
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def headline(evaluation: Values) -> list[dict[str, str]]:
    """Return the big numbers, each with its name, its interval and what it means."""
    roles, intervals = evaluation["roles"], evaluation["intervals"]
    cover = weed_cover_error(evaluation)
    rows = [
        ("Weed IoU", roles["weed_iou"], intervals["weed_iou"], "overlap of true and found weed"),
        ("Crop IoU", roles["crop_iou"], intervals["crop_iou"], "overlap of true and found crop"),
        ("Mean IoU", evaluation["miou"], intervals["miou"], "mean over the classes in the test"),
        ("Weed found", roles["weed_recall"], None, "share of the true weed area"),
    ]
    numbers = [
        {"name": name, "value": percent(value), "interval": interval(bounds), "meaning": meaning}
        for name, value, bounds, meaning in rows
        if value is not None
    ]
    if cover is not None:
        meaning = "typical error of a photo's weed cover"
        numbers.append(
            {"name": "Cover error", "value": points(cover), "interval": "", "meaning": meaning}
        )
    return numbers


def grower_sentence(evaluation: Values) -> str:
    """Say in one sentence what the numbers mean in the field."""
    roles = evaluation["roles"]
    recall, precision = roles["weed_recall"], roles["weed_precision"]
    if not evaluation["num_photos"]:
        return "Accuracy unknown: no labelled photo was left to test the model, so check its maps."
    if recall is None:
        return "No test photo shows a weed, so nothing can be said about how well weeds are found."
    if recall == 0:
        return (
            "In photos it was not trained on, the model finds no weed: do not rely on it; train it "
            "longer, or label more photos with weeds."
        )
    sentence = f"In photos it was not trained on, the model finds {percent(recall, 0)} of the weed"
    sentence += f" area, and {percent(precision, 0)} of what it marks as weed is weed"
    cover = weed_cover_error(evaluation)
    if cover is None:
        return sentence + "."
    typical = f"{100 * cover:.2f} percentage points"
    return sentence + f"; the weed cover it states for a photo is typically off by {typical}."


def weed_cover_error(evaluation: Values) -> float | None:
    """Return the root mean square error of weed cover per photo, a share; None without photos."""
    weeds = [c["name"] for c in evaluation["classes"] if c["role"] == "weed"]
    errors = [
        sum(photo["predicted_coverage"][name] - photo["true_coverage"][name] for name in weeds)
        for photo in evaluation["photos"]
        if photo["true_coverage"] is not None
    ]
    if not errors or not weeds:
        return None
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


def class_rows(evaluation: Values) -> list[dict[str, str]]:
    """Return the table of scores per class."""
    intervals = evaluation["intervals"]
    rows = []
    for field_class in ClassTable.from_list(evaluation["classes"]).classes:
        name = field_class.name
        row = {"name": name, "role": field_class.role.value}
        row["colour"] = "rgb({}, {}, {})".format(*field_class.colour)
        for score in ("iou", "precision", "recall"):
            row[score] = percent(evaluation[score][name])
            row[f"{score}_interval"] = interval(intervals[score][name])
        row["f1"] = percent(evaluation["f1"][name])
        row["bias"] = points(evaluation["cover"][name]["bias"], signed=True)
        row["rmse"] = points(evaluation["cover"][name]["rmse"])
        rows.append(row)
    return rows


def baseline_rows(evaluation: Values) -> list[dict[str, str]]:
    """Return the model beside the baselines, by role; empty without baselines."""
    if not evaluation["baselines"]:
        return []
    rows = {"this model": evaluation["roles"]}
    rows |= {BASELINE_NAMES.get(k, k): v for k, v in evaluation["baselines"].items()}
    scores = ("weed_iou", "crop_iou", "miou")
    return [
        {"name": name} | {score: percent(values.get(score)) for score in scores}
        for name, values in rows.items()
    ]


def photo_rows(evaluation: Values) -> list[dict[str, str]]:
    """Return weed and crop cover, true and predicted, of each photo, and its weed IoU."""
    rows = []
    for photo in evaluation["photos"]:
        row = {"photo": photo["photo"], "weed_iou": percent(photo["weed_iou"])}
        for role in ("weed", "crop"):
            names = [c["name"] for c in evaluation["classes"] if c["role"] == role]
            for kind in ("true", "predicted"):
                cover = photo[f"{kind}_coverage"]
                known = cover is not None and names
                row[f"{kind}_{role}"] = percent(sum(cover[n] for n in names) if known else None)
        rows.append(row)
    return rows


def weed_free_sentence(evaluation: Values) -> str:
    """Say how much weed the model sees where there is none; "" without such photos."""
    found = evaluation["weed_free"]
    num = found["num_photos"]
    if not num:
        return ""
    photos = "1 photo without a weed" if num == 1 else f"{num} photos without a weed"
    mean, most = (
        percent(found["mean_false_weed_cover"], 2),
        percent(found["max_false_weed_cover"], 2),
    )
    return f"On {photos} the model marks {mean} of the area as weed on average, {most} at most."


def calibration_sentence(evaluation: Values) -> str:
    """Say how far the stated confidence can be believed; "" when unknown."""
    ece = evaluation["calibration"]["ece"]
    if ece is None:
        return ""
    sentence = (
        f"Stated confidence and true accuracy differ by {points(ece)} on average (expected"
        " calibration error, 15 bins)."
    )
    found = evaluation.get("temperature", {})
    if "ece_before" not in found:
        return sentence
    return (
        f"{sentence} Logits are divided by {found['temperature']:.2f}, fitted on"
        f" {found['fitted_on']}; on {found['photos']} test photos the error is"
        f" {points(found['ece_after'])}, without that {points(found['ece_before'])}."
    )


def plants_sentence(evaluation: Values) -> str:
    """Say which plants a sprayer would hit; "" when unknown."""
    found = evaluation.get("plants", {})
    if not found.get("weeds"):
        return ""
    sentence = (
        f"A sprayer that treats every cell ({found['cell']}) with a trace of weed would hit"
        f" {percent(found['weed_hit'])} of {found['weeds']} weeds"
    )
    if found["crops"]:
        sentence += f" and {percent(found['crop_hit'])} of {found['crops']} crop plants"
    return (
        f"{sentence}, and spray {percent(found['area_treated'])} of the area; a plant is a"
        f" connected part of the mask and is hit when at least"
        f" {percent(found['hit_share'], 0)} of it is sprayed."
    )
