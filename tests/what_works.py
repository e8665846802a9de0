"""What works with which family of checkpoints: the table of the adapter's README, each cell of which is a test
(tests/sd/test_what_works.py). It imports nothing heavy, so that the table can be made without networks.
"""

from dataclasses import dataclass, field

from toydiff.adapters.families import FAMILIES

COLUMNS = {
    "sd": "SD 1, SD 2",
    "xl": "SDXL",
    "sd3": "SD3, SD3.5",
    "flux-dev": "FLUX.1-dev",
    "flux-schnell": "FLUX.1-schnell",
    "animatediff": "AnimateDiff",
}
"""Kinds of tiny checkpoints (tiny_sd.KINDS, tiny_families.KINDS), and what each stands for."""
KINDS_OF = {"UNets": ("sd", "xl"), "SD3": ("sd3",), "Flux": ("flux-dev", "flux-schnell")}
"""The kinds of each family, by its class. One that is not here has the kind of its class's name in small letters."""

FLOWS = ("sd3", "flux-dev", "flux-schnell")


@dataclass(frozen=True)
class Feature:
    """A row of the table."""

    title: str
    """What it is, for people."""
    check: str
    """The function of tests/sd/test_what_works.py that uses it, on one checkpoint."""
    refused: dict[str, str] = field(default_factory=dict)
    """The kinds that refuse it in one line, and a part of that line."""
    untested: tuple[str, ...] = ()
    """The kinds of which no test says it."""


FEATURES = [
    Feature("images; any solver on a grid of the library", "sampled"),
    Feature("parallel samplers", "in_parallel"),
    Feature(
        "spacings of a table's timesteps (`trailing`, ...), `--scheduler`",
        "spacing",
        dict.fromkeys(FLOWS, "is of a table's timesteps"),
    ),
    Feature(
        "the grid `shifted`",
        "shifted",
        dict.fromkeys(("sd", "xl", "animatediff"), "is of a flow"),
    ),
    Feature("`--image`, `--strength`", "from_image", {"animatediff": "takes no image"}),
    Feature("`--mask`", "inpainted", {"animatediff": "takes no image"}),
    Feature("`--negative-prompt`", "negative", {"flux-dev": "has the guidance scale as an input"}),
    Feature(
        "prompts longer than CLIP reads, `--prompt-parts`",
        "parts",
        dict.fromkeys(("sd3", "flux-dev", "flux-schnell"), "by SD 1.x, SD 2.x and SDXL only"),
    ),
    Feature(
        "`--original-size`, `--crop`, `--target-size`",
        "sizes",
        dict.fromkeys(("sd", "sd3", "flux-dev", "flux-schnell", "animatediff"), "sees no sizes"),
    ),
    Feature("`--vae-tiling`, `--vae-slicing`", "switched"),
    Feature("`--preview`", "previewed"),
    Feature("`--frames`: clips", "frames", dict.fromkeys(("sd", "xl", "sd3", "flux-dev", "flux-schnell"), "of clips")),
    Feature("`--guidance-rescale`, `--guidance-interval`", "rescaled", {"flux-dev": "guidance"}),
    Feature("`--vae`", "another_vae"),
    Feature("`--unet`: another network", "another_network"),
    Feature(
        "a single `.safetensors` file",
        "single",
        dict.fromkeys(("flux-dev", "flux-schnell"), "from single files"),
        untested=("xl", "animatediff"),
    ),
    Feature("a student with a LoRA; its export; `--lora`", "lora"),
    Feature("a student of all weights; its export", "whole"),
    Feature("a student that has the guidance scale as an input (`lcm`, `guided`)", "guided"),
    Feature(
        "its export",
        "guided_export",
        {"sd3": "SD3Transformer2DModel has none", "animatediff": "UNetMotionModel has none"},
    ),
    Feature("`toydiff doctor`", "doctor"),
]


def columns() -> dict[str, str]:
    """Kind and title of each column, a family of the registry that has none of its own included."""
    found = {}
    for family in FAMILIES:
        name = type(family).__name__
        found |= {kind: COLUMNS.get(kind, family.title) for kind in KINDS_OF.get(name, (name.lower(),))}
    return found


def rows() -> list[list[str]]:
    """The cells of the table, without its head."""
    return [
        [f.title, *("no" if kind in f.refused else "untested" if kind in f.untested else "yes" for kind in columns())]
        for f in FEATURES
    ]
