"""``weedseg data split``: groups stay whole, subsets are nested, random splits are refused."""

import json

import numpy as np
import pytest

from weedseg.cli import main
from weedseg.data.index import index_farm
from weedseg.data.splits import LEAKS, Split
from weedseg.data.splitting import split_document
from weedseg.errors import ConfigError, OutputError, SplitError
from weedseg.imaging import write_png


def make_farm(root, fields, photos_each):
    for field in range(fields):
        for i in range(photos_each):
            rng = np.random.default_rng([field, i])
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            folder = root / f"field-{field}" if fields > 1 else root
            write_png(folder / "images" / f"{i}.png", np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
            mask = np.zeros((48, 48), np.uint8)
            mask[:9], mask[20:25] = 1, 2 * (i % 2)
            write_png(folder / "masks" / f"{i}.png", mask)
    return root


def field_of(name):
    return name.partition("/")[0]


def test_groups_stay_whole_and_subsets_are_nested(tmp_path, capsys):
    root = make_farm(tmp_path / "farm", 5, 6)
    assert main(["data", "split", str(root), "--subsets", "4,8,12"]) == 0
    assert "by field" in capsys.readouterr().out
    document = json.loads((root / "split.json").read_text())
    test = set(map(field_of, document["test"]))
    assert not test & set(map(field_of, document["train"] + document["val"]))
    four, eight, twelve = (set(document["subsets"][n]) for n in ("4", "8", "12"))
    assert four < eight < twelve
    assert [len(s) for s in (four, eight, twelve)] == [4, 8, 12]
    assert not {n for n in twelve if field_of(n) in test}
    assert Split.from_dict(document, index_farm(root)).basis == "field"
    assert (root / "test.txt").read_text().split() == document["test"]
    shows = {p.name: int(p.path.stem) % 2 for p in index_farm(root).photos}
    assert 3 <= sum(shows[n] for n in eight) <= 5
    assert main(["data", "check", str(root)]) == 0


def test_an_old_split_stays(tmp_path, capsys):
    root = make_farm(tmp_path / "farm", 1, 20)
    assert main(["data", "split", str(root)]) == 0
    before = (root / "split.json").read_bytes()
    assert main(["data", "split", str(root), "--seed", "3"]) == OutputError.exit_code
    assert (root / "split.json").read_bytes() == before
    assert main(["data", "split", str(root), "--seed", "3", "--replace"]) == 0
    assert (root / "split.json").read_bytes() != before
    assert (
        main(["data", "split", str(root), "--subsets", "a", "--replace"]) == ConfigError.exit_code
    )
    assert "numbers above 1" in capsys.readouterr().err


def test_random_splits_are_refused_where_groups_are_known(tmp_path, capsys):
    root = make_farm(tmp_path / "farm", 2, 5)
    assert main(["data", "split", str(root), "--random"]) == SplitError.exit_code
    assert "2 fields or visits" in capsys.readouterr().err
    assert main(["data", "split", str(root), "--force-random"]) == 0
    document = json.loads((root / "split.json").read_text())
    assert document["note"].endswith(LEAKS)
    assert (document["leaks"], document["within_field"]) == (True, True)
    assert main(["data", "check", str(root)]) == 0


def test_random_splits_and_duplicates(tmp_path):
    root = make_farm(tmp_path / "farm", 1, 10)
    farm = index_farm(root)
    document = split_document(farm, 0, mode="random")
    assert [len(document[part]) for part in ("train", "val", "test")] == [6, 2, 2]
    assert document == split_document(farm, 0, mode="random")
    (root / "images/3.png").write_bytes((root / "images/5.png").read_bytes())
    with pytest.raises(SplitError, match="1 photos that look like others"):
        split_document(index_farm(root), 0, mode="random")
    with pytest.raises(SplitError, match="subsets of a random split"):
        split_document(index_farm(root), 0, [3], "forced")
