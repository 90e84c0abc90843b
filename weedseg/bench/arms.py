"""The arms of the controlled comparison, by the letters of selective-masking.md section 5.

U: with practice in fine-tuning (weedseg/finetuning/consistency.py), K: on the labelled
photos alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One way to get first weights."""

    title: str
    """What tables and plots call it."""
    recipe: str | None
    """Recipe of the pretraining; None does none."""
    init: str = "none"
    settings: tuple[str, ...] = ()
    """What the arm changes in its recipe, before the settings of the benchmark."""
    consistency: str = ""
    """On which photos fine-tuning agrees with its teacher under hidden patches: '' none, all, or,
    as a control, labelled: those that it is trained on anyway."""


ARMS = {
    "N": Arm("scratch", None),
    "I": Arm("ImageNet, no masking", None, "imagenet"),
    "R": Arm("random masking", "default"),
    "P": Arm("random masking, staged", "random-staged"),
    "Q": Arm(
        "structured noise",
        "selective",
        settings=(
            "scoring.source=noise",
            "selection.hard_share=1",
            "selection.rising=false",
            "selection.beta=inf",
            "selection.hint_share=0",
            "selection.cut_choices=1",
        ),
    ),
    "G": Arm("edges", "selective", settings=("scoring.source=gradient",)),
    "V": Arm("green", "selective", settings=("scoring.source=vegetation",)),
    "H": Arm("scores shuffled", "selective", settings=("scoring.order=shuffled",)),
    "L": Arm("easiest", "selective", settings=("scoring.order=easiest",)),
    "F": Arm("selective, as published", "faithful"),
    "S+": Arm("selective, ours", "selective"),
    "I+R": Arm("ImageNet + random", "default", "imagenet"),
    "I+S+": Arm("ImageNet + selective", "selective", "imagenet"),
    "N+U": Arm("scratch, practice on all photos", None, consistency="all"),
    "I+K": Arm(
        "ImageNet, practice on the labelled photos", None, "imagenet", consistency="labelled"
    ),
    "I+U": Arm("ImageNet, practice on all photos", None, "imagenet", consistency="all"),
    "I+R+U": Arm("ImageNet + random, practice", "default", "imagenet", consistency="all"),
    "I+S++U": Arm("ImageNet + selective, practice", "selective", "imagenet", consistency="all"),
}
"""In the order of the tables."""
