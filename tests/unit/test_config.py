"""Recipes: every shipped one loads, and whatever is wrong is said."""

import dataclasses
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.config import (
    FinetuneConfig,
    PretrainConfig,
    Recipe,
    load_recipe,
    override,
    read_toml,
    recipe_names,
)
from weedseg.errors import ConfigError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_comes_back_from_plain_data(name):
    recipe = load_recipe(name)
    assert Recipe.from_dict(recipe.to_dict(), name) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())), name) == recipe


def test_the_four_masking_modes_are_recipes():
    assert {"default", "selective", "faithful", "random-staged"} == set(recipe_names())
    default, selective, staged = map(load_recipe, ("default", "selective", "random-staged"))
    assert default == Recipe()
    assert default.pretrain.stages == 1
    assert [recipe.uses_scores for recipe in (default, selective, staged)] == [False, True, False]
    assert replace(staged, selection=selective.selection) == selective
    assert math.isinf(load_recipe("faithful").selection.beta)


def test_unknown_key_names_file_and_suggestion(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[finetune]\nstepz = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'finetune\.stepz'.*did you mean 'steps'"):
        load_recipe(str(path))


def test_unknown_section_is_refused():
    with pytest.raises(ConfigError, match=r"unknown key 'finetun'.*did you mean 'finetune'"):
        Recipe.from_dict({"finetun": {"steps": 3}}, "a.toml")


def test_a_value_where_a_table_belongs_is_refused():
    with pytest.raises(ConfigError, match=r"a\.toml: finetune = 3; expected a table"):
        Recipe.from_dict({"finetune": 3}, "a.toml")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("finetune.steps=1.5", "expected a whole number"),
        ("finetune.steps=true", "expected a whole number"),
        ("finetune.lr='fast'", "expected a number"),
        ("finetune.lr=true", "expected a number"),
        ("selection.rising=1", "expected true or false"),
        ("net.encoder=3", "expected text in quotes"),
        ("data.palette=3", "expected a table"),
        ("data.classes={}", "expected a list"),
        ("data.palette={'#000000' = 3}", "expected a class name"),
    ],
)
def test_wrong_types_are_named_in_plain_words(setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_recipe(settings=[setting])


@pytest.mark.parametrize(
    "setting",
    [
        "pretrain.hidden_share=1",
        "pretrain.hidden_share=nan",
        "pretrain.batch=0",
        "pretrain.tile_px=100",
        "pretrain.patch_px=2",
        "finetune.lr=0",
        "finetune.lr=inf",
        "finetune.jitter=-0.1",
        "export.overlap_px=300",
        "scoring.time_share=2",
        "selection.beta=-1",
        "data.scale=1.5",
    ],
)
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        load_recipe(settings=[setting])


def test_a_tile_size_is_corrected_in_the_message():
    with pytest.raises(ConfigError, match="use 256"):
        PretrainConfig(tile_px=250)


def test_a_near_choice_is_suggested():
    with pytest.raises(ConfigError, match="did you mean 'lite0'"):
        load_recipe(settings=["net.encoder=lite"])
    with pytest.raises(ConfigError, match="did you mean 'faithful'"):
        load_recipe("faithfull")


def test_settings_apply_in_order_and_leave_the_rest():
    recipe = load_recipe(
        settings=["finetune.steps=3", "finetune.steps = 5", "net.encoder=resnet34"]
    )
    assert recipe.finetune == dataclasses.replace(FinetuneConfig(), steps=5)
    assert recipe.net.encoder == "resnet34"
    assert recipe.pretrain == Recipe().pretrain


@pytest.mark.parametrize("setting", ["steps", "steps=3", "finetune.steps", "=3"])
def test_settings_of_another_form_are_refused(setting):
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        override(Recipe(), setting)


@given(steps=st.integers(1, 10**8), lr=st.floats(1e-7, 1))
def test_any_value_in_range_is_taken_as_it_is(steps, lr):
    recipe = load_recipe(settings=[f"finetune.steps={steps}", f"finetune.lr={lr!r}"])
    assert (recipe.finetune.steps, recipe.finetune.lr) == (steps, lr)


def test_missing_and_broken_files_are_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_toml(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(ConfigError, match="valid TOML"):
        read_toml(broken)
    broken.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="valid TOML"):
        read_toml(broken)
