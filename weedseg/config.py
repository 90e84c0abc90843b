"""Recipes: frozen settings with units and ranges, read from TOML that may hold no unknown key."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from weedseg.errors import ConfigError
from weedseg.ranges import check_choice, check_range, check_shares, check_tile
from weedseg.toml_files import parse_toml, read_toml


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How photos and masks are read."""

    scale: float = 0.0
    """Working resolution as a share of the photo's, 0-1; 0 chooses: 1 up to 1600 px, less above."""
    mm_per_px: float = 0.0
    """Ground resolution of every photo that names none, mm; 0 is unknown."""
    crop: str = ""
    """Crop that grows on the photos, e.g. peanut; the model file says that it was tested on it."""
    palette: dict[str, str] = field(default_factory=dict)
    """Mask colours, '#rrggbb' -> class name (or 'ignore')."""
    classes: list[dict[str, Any]] = field(default_factory=list)
    """Classes with name, role, colour, as in classes.toml; empty: background, crop, weed."""
    test_photos: str = ""
    """Text file with the names of the test photos, one a line; '' lets weedseg choose them."""
    cache_mib: int = 2048
    """Memory for decoded photos, MiB."""
    bad_photo_share: float = 0.05
    """Share of photos that may turn out unreadable during training before it stops, 0-1."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A value is out of its range, or the palette names no class.
        """
        check_shares("data", self, "scale bad_photo_share")
        check_range("data.mm_per_px", self.mm_per_px, 0, 1000)
        check_range("data.cache_mib", self.cache_mib, 16, 1 << 20)
        for colour, name in self.palette.items():
            if not isinstance(name, str):
                raise ConfigError(
                    f"data.palette: '{colour}' = {name!r}", "a class name or 'ignore'", "correct it"
                )


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The network."""

    encoder: str = "lite0"
    """lite0, mobilenetv3 or resnet34."""
    decoder_channels: int = 64
    """Width of the decoder at stride 4 and deeper, 8-512; at stride 2 three eighths of it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_choice("net.encoder", self.encoder, ("lite0", "mobilenetv3", "resnet34"))
        check_range("net.decoder_channels", self.decoder_channels, 8, 512)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Reconstruction of hidden patches."""

    steps: int = 6000
    """Optimiser steps over all stages, >= 0."""
    batch: int = 8
    """Tiles per step."""
    tile_px: int = 128
    """Side of a tile, px at working resolution, a multiple of 32: small ones give more steps in the
    same time and let the hardest places be chosen."""
    patch_px: int = 16
    """Side of a patch, px."""
    hidden_share: float = 0.5
    """Share of the patches that are hidden, 0-1."""
    stages: int = 1
    """Stages, the random one included; 1 is random masking alone."""
    first_stage_share: float = 0.1
    """Share of the steps spent in the random stage, 0-1."""
    disjoint_photos: bool = False
    """Every stage sees its own part of the photos only."""
    lr: float = 1e-3
    """Peak learning rate."""
    optimiser: str = "adamw"
    """adamw or adam."""
    weight_decay: float = 0.01
    """Weight decay (adamw)."""
    warmup_share: float = 0.05
    """Share of the steps (of a stage, with restarts) in which the learning rate rises."""
    restart_lr: bool = False
    """Start warm-up and cosine anew in every stage."""
    min_cut_share: float = 0.25
    """Smallest area of a cut as a share of the largest tile-shaped one, 0-1; 1 never resizes."""
    jitter: float = 0.3
    """Strength of brightness, contrast and saturation jitter, on input and target alike."""
    visible_weight: float = 0.1
    """Weight of visible pixels in the loss, 0-1."""
    clean_share: float = 0.125
    """Share of each batch that is only lightly masked, 0-1."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range("pretrain.steps", self.steps, 0, 10**8)
        check_range("pretrain.batch", self.batch, 1, 4096)
        check_tile("pretrain.tile_px", self.tile_px)
        check_range("pretrain.patch_px", self.patch_px, 4, self.tile_px // 2)
        check_range("pretrain.hidden_share", self.hidden_share, 0.05, 0.95)
        check_range("pretrain.stages", self.stages, 1, 100)
        shares = "first_stage_share warmup_share min_cut_share visible_weight clean_share jitter"
        check_range("pretrain.lr", self.lr, 1e-7, 1)
        check_choice("pretrain.optimiser", self.optimiser, ("adamw", "adam"))
        check_shares("pretrain", self, shares)


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How the model trained so far scores the patches of a photo."""

    source: str = "error"
    """error: what the model reconstructs badly; the controls gradient, vegetation and noise use no
    model: edges, excess green, and band-passed noise drawn for every tile."""
    order: str = "hardest"
    """hardest; as controls easiest, or shuffled within the photo."""
    error: str = "colour"
    """colour: how wrong the colour of a hidden patch is, brightness aside; structure: L1 +
    (1 - SSIM) as published; reducible: that at half resolution, divided by contrast."""
    masks: str = "training"
    """training: those that training steps drew, whose errors are known at no cost; pair: two
    complementary masks of whole photos; random: num_masks independent ones."""
    num_masks: int = 5
    """Masks per photo when masks = 'random'."""
    hidden_only: bool = True
    """Count a patch's error only while it was hidden."""
    teacher: str = "ema"
    """ema or model: which weights score."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average per step."""
    time_share: float = 0.06
    """Share of pretraining time that scoring may take, 0-1; photos beyond it keep random masks."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_choice("scoring.source", self.source, ("error", "gradient", "vegetation", "noise"))
        check_choice("scoring.order", self.order, ("hardest", "easiest", "shuffled"))
        check_choice("scoring.error", self.error, ("colour", "structure", "reducible"))
        check_choice("scoring.masks", self.masks, ("training", "pair", "random"))
        check_range("scoring.num_masks", self.num_masks, 1, 100)
        check_choice("scoring.teacher", self.teacher, ("ema", "model"))
        check_shares("scoring", self, "ema_decay time_share")

    @property
    def has_own_passes(self) -> bool:
        """Tell whether scoring runs the model over photos, beside the training steps."""
        return self.source == "error" and self.masks != "training"


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which patches are hidden, given their scores."""

    hard_share: float = 0.25
    """Share of the hidden patches chosen by score at the end of pretraining, 0-1; 0 is random."""
    rising: bool = True
    """The hard share rises from 0 over pretraining; otherwise it is constant after stage 0."""
    beta: float = 3.0
    """Sharpness of the Gumbel-top-k draw; inf takes exactly the hardest."""
    hint_share: float = 0.1
    """Share of the hardest tenth that stays visible as a hint, 0-1."""
    cut_choices: int = 8
    """Cuts drawn per tile, of which the hardest is taken; 1 draws cuts evenly. Stages before the
    second selective one have no scores that are old enough and draw evenly."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_shares("selection", self, "hard_share hint_share")
        check_range("selection.beta", self.beta, 0, math.inf)
        check_range("selection.cut_choices", self.cut_choices, 1, 64)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Training on the few labels."""

    steps: int = 600
    """Optimiser steps, whatever the number of labels, >= 1."""
    batch: int = 8
    """Tiles per step."""
    tile_px: int = 256
    """Side of a tile, px at working resolution, a multiple of 32."""
    labelled: int = 0
    """Use only so many labels for training and validation together; 0 uses all."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Weight decay."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises."""
    min_cut_share: float = 0.4
    """Smallest area of a cut as a share of the largest tile-shaped one, 0-1."""
    jitter: float = 0.3
    """Strength of brightness, contrast, saturation and hue jitter, 0-1."""
    rare_share: float = 0.5
    """Share of the cuts that are centred on a pixel of a class drawn evenly, 0-1."""
    evaluations: int = 10
    """How often the validation photos are scored."""
    consistency_weight: float = 1.0
    """Weight of agreeing with a moving average of the network under hidden patches, 0-10."""
    consistency_hidden_share: float = 0.5
    """Share of the patches that are hidden there, 0-1."""
    consistency_sure: float = 0.9
    """Smallest probability with which a class of the average counts there, 0-1."""
    consistency_min_steps: int = 200
    """Shorter trainings leave it out, >= 0: the average then lacks rare classes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range("finetune.steps", self.steps, 1, 10**8)
        check_range("finetune.batch", self.batch, 1, 4096)
        check_tile("finetune.tile_px", self.tile_px)
        check_range("finetune.labelled", self.labelled, 0, 10**7)
        check_range("finetune.lr", self.lr, 1e-7, 1)
        check_range("finetune.evaluations", self.evaluations, 1, 1000)
        check_range("finetune.consistency_weight", self.consistency_weight, 0, 10)
        check_range("finetune.consistency_min_steps", self.consistency_min_steps, 0, 10**8)
        shares = "warmup_share min_cut_share jitter rare_share"
        check_shares("finetune", self, f"{shares} consistency_hidden_share consistency_sure")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The exported model."""

    tile_px: int = 512
    """Side of the model's input, px, a multiple of 32."""
    overlap_px: int = 64
    """Smallest overlap of neighbouring tiles at prediction, px."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_tile("export.tile_px", self.tile_px)
        check_range("export.overlap_px", self.overlap_px, 0, self.tile_px // 2)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run, but for folder, device and seed."""

    data: DataConfig = DataConfig()
    net: NetConfig = NetConfig()
    pretrain: PretrainConfig = PretrainConfig()
    scoring: ScoringConfig = ScoringConfig()
    selection: SelectionConfig = SelectionConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    export: ExportConfig = ExportConfig()

    @property
    def uses_scores(self) -> bool:
        """Tell whether scores choose what pretraining hides."""
        return self.pretrain.stages > 1 and self.selection.hard_share > 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON, which knows no infinity: it is the text 'inf'."""
        values = dataclasses.asdict(self)
        for section in values.values():
            section.update({key: "inf" for key, value in section.items() if value == math.inf})
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Recipe:
        """Build a recipe from nested plain data.

        Args:
            values: Section -> key -> value; missing ones keep their defaults.
            source: Name of the file, for messages.

        Raises:
            ConfigError: A key is unknown, or a value has the wrong type or range.
        """
        sections = {f.name: f.default for f in dataclasses.fields(cls)}
        built = {}
        for name, section in values.items():
            default = sections.get(name)
            if default is None:
                raise _unknown(source, name, sections)
            if not isinstance(section, Mapping):
                raise ConfigError(f"{source}: {name} = {section!r}", "a table", f"write [{name}]")
            built[name] = _replace(default, section, source, name)
        return cls(**built)


def _unknown(source: str, key: str, known: Any) -> ConfigError:
    near = difflib.get_close_matches(key.rsplit(".", maxsplit=1)[-1], list(known), 1)
    remedy = f"did you mean '{near[0]}'?" if near else "remove it"
    return ConfigError(f"{source}: unknown key '{key}'", f"one of {', '.join(known)}", remedy)


def _replace(default: Any, values: Mapping[str, Any], source: str, section: str) -> Any:
    hints = get_type_hints(type(default))
    known = [f.name for f in dataclasses.fields(default)]
    changed = {}
    for key, value in values.items():
        if key not in known:
            raise _unknown(source, f"{section}.{key}", known)
        changed[key] = _typed(value, hints[key], f"{source}: {section}.{key}")
    return dataclasses.replace(default, **changed)


def _typed(value: Any, kind: Any, name: str) -> Any:
    """Return a value of the wanted type; an int, or the text 'inf', passes as a float.

    Raises:
        ConfigError: The value is of another type.
    """
    wanted = get_origin(kind) or kind
    if wanted is float and (value == "inf" or type(value) is int):
        return float(value)
    if (wanted is int and isinstance(value, bool)) or not isinstance(value, wanted):
        raise ConfigError(f"{name} = {value!r}", _TYPE_WORDS[wanted], "correct the value")
    return value


_TYPE_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    list: "a list",
    dict: "a table",
}


def recipe_names() -> list[str]:
    """List the recipes that come with weedseg."""
    folder = resources.files("weedseg") / "recipes"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(name: str = "default", settings: list[str] | None = None) -> Recipe:
    """Read a recipe and change single values.

    Args:
        name: A recipe that comes with weedseg, or the path of a TOML file.
        settings: ``section.key=value`` each, the value in TOML notation (a bare word is a string).

    Raises:
        ConfigError: The recipe is unknown, or a key or value is wrong.
    """
    if name.endswith(".toml"):
        values = read_toml(Path(name))
    else:
        check_choice("recipe", name, tuple(recipe_names()))
        text = (resources.files("weedseg") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        values = parse_toml(text)
        name = f"{name}.toml"
    values.pop("description", None)
    return override(Recipe.from_dict(values, name), *(settings or []))


def override(recipe: Recipe, *settings: str) -> Recipe:
    """Change values of a recipe by ``section.key=value``, all at once: their order is no matter.

    Raises:
        ConfigError: A text has another form, or a key or value is wrong.
    """
    sections, changes = vars(recipe), dict[str, dict[str, Any]]()
    for section, key, value in map(_parse_setting, settings):
        if section not in sections:
            raise _unknown("--set", section, sections)
        changes.setdefault(section, {})[key] = value
    changed = {s: _replace(sections[s], changes[s], "--set", s) for s in changes}
    return dataclasses.replace(recipe, **changed)


def _parse_setting(setting: str) -> tuple[str, str, Any]:
    """Take ``section.key=value`` apart, the value in TOML notation or a bare word."""
    path, equals, text = setting.partition("=")
    section, dot, key = path.strip().partition(".")
    if not equals or not dot:
        raise ConfigError(f"--set {setting}", "section.key=value", "e.g. finetune.steps=300")
    try:
        return section, key, parse_toml(f"value = {text}")["value"]
    except ValueError:
        return section, key, text.strip()
