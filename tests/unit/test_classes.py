"""The class table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.classes import DEFAULT_CLASSES, ROLE_COLOURS, ClassTable, Role
from weedseg.errors import ConfigError

SOIL = {"name": "soil", "role": "background"}


def test_the_default_is_background_crop_weed():
    assert DEFAULT_CLASSES.names == ("background", "crop", "weed")
    assert DEFAULT_CLASSES.colours == ((0, 0, 0), (0, 255, 0), (255, 0, 0))
    assert [DEFAULT_CLASSES.ids_of(role) for role in Role] == [(0,), (1,), (2,)]


@given(
    names=st.lists(
        st.text("abcdefgh ", min_size=1, max_size=8).map(str.strip).filter(bool),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    data=st.data(),
)
def test_a_table_comes_back_from_plain_data(names, data):
    roles = [data.draw(st.sampled_from(["crop", "weed", "background"])) for _ in names]
    rows = [{"name": "SOIL", "role": "background"}] + [
        {"name": name, "role": role} for name, role in zip(names, roles, strict=True)
    ]
    table = ClassTable.from_list(rows)
    assert ClassTable.from_list(table.to_list()) == table
    assert len(table) == len(rows)
    assert sorted(i for role in Role for i in table.ids_of(role)) == list(range(len(rows)))


def test_species_of_one_role_get_colours_of_their_own():
    rows = [SOIL, {"name": "beet", "role": "crop"}]
    rows += [{"name": f"weed {i}", "role": "weed"} for i in range(20)]
    colours = ClassTable.from_list(rows).colours
    assert len(set(colours)) == len(colours)
    assert colours[1] == ROLE_COLOURS[Role.CROP]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (None, "no list of classes"),
        ([SOIL], "1 classes; expected 2 to 254"),
        ([{"name": "beet", "role": "crop"}, SOIL], "class 0 'beet' has role crop"),
        ([SOIL, {"name": "soil", "role": "weed"}], "expected each name once"),
        ([SOIL, {"role": "weed"}], "class 1 without a name"),
        ([SOIL, "weed"], "class 1 without a name"),
        ([SOIL, {"name": "a", "role": "plant"}], "has role 'plant'"),
        ([SOIL, {"name": "a"}], "has role None"),
        ([SOIL, {"name": "a", "role": "weed", "color": [1, 2, 3]}], "unknown key 'color'"),
        ([SOIL, {"name": "a", "role": "weed", "colour": [1, 2]}], "has colour"),
        ([SOIL, {"name": "a", "role": "weed", "colour": [1, 2, 256]}], "has colour"),
        ([SOIL, {"name": "a", "role": "weed", "colour": [True, 2, 3]}], "has colour"),
        ([SOIL, {"name": "a", "role": "weed", "colour": "red"}], "has colour"),
    ],
)
def test_wrong_tables_are_refused_with_a_sentence(rows, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ClassTable.from_list(rows)
