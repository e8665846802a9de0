"""What the files of a checkpoint's folder say it is, before anything of it is read.

A checkpoint is data from a stranger. Its JSON names classes, and diffusers would import whatever is named there. Here a
component is one of a few known classes, and a folder that brings code along is refused.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..support.checks import unknown
from ..support.words import with_article
from .families import SUPPORTED, Family, family_of
from .families.base import named

NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder", "controlnet")
LIBRARIES = ("diffusers", "transformers")

CODE = ("auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines", "custom_components")
"""Keys by which a configuration names code of its own."""
MOST = {
    "num_train_timesteps": 100_000,
    "num_hidden_layers": 256,
    "num_layers": 256,
    "num_decoder_layers": 256,
    "pos_embed_max_size": 1024,
    "layers_per_block": 64,
    "transformer_layers_per_block": 256,
    "mid_block_layers": 64,
}
"""What a configuration may ask for: beyond it, making the network would take all memory or all time."""
MOST_BYTES = 64 * 2**20
"""The size of a JSON file that is read: a tokenizer's has a few megabytes."""

WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)(\.(?P<variant>\w+))?(?P<shard>-\d{5}-of-\d{5})?"
    r"(\.(?P<later>\w+))?\.(?P<kind>safetensors|bin)"
)
"""The name of a file of weights. A variant stands before the number of a shard, or, in older files, after it."""
VARIANTS = ("", "fp32", "fp16", "bf16")
"""The variants of weights, by preference: whole precision first."""


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; `ValueError` naming the file for anything else."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"{str(file)!r} is too large for what it should be ({file.stat().st_size / 1e6:.0f} MB)")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{str(file)!r} cannot be read, or is not what it should be in JSON")
    return found


def parts_of(folder: Path | str, model: str) -> tuple[Family, dict[str, Any]]:
    """The family of a checkpoint, and what it is made of, by the model_index.json in its folder.

    model: how the checkpoint is called in messages. `ValueError` for a pipeline of no family, for a component that is
    not one of the known ones, or for code of its own.
    """
    parts = read_json(Path(folder) / "model_index.json")
    kind = parts.get("_class_name")
    refuse_code(parts, f"the model_index.json of {model!r}")
    if not isinstance(kind, str):
        raise ValueError(f"the model_index.json of {model!r} does not say which pipeline it is of: {kind!r}")
    family = family_of(kind)
    if family is None:
        raise ValueError(f"{model!r} is {with_article(kind[:80])}; {SUPPORTED}, and their plain pipelines")
    for name, class_ in parts.items():
        if not isinstance(class_, list):
            continue
        if len(class_) != 2 or not all(isinstance(word, str | None) for word in class_):
            raise ValueError(f"the model_index.json of {model!r} should say library and class of {name!r}: {class_!r}")
        library, word = class_
        known = LIBRARIES if name not in NOT_LOADED else (*LIBRARIES, "stable_diffusion")
        if library is None:
            continue
        if library not in known:
            raise ValueError(
                f"the {name} of {model!r} is {with_article(str(word))} of {library[:80]!r}, which is not known here: "
                f"components are "
                f"those of {' and '.join(LIBRARIES)}, and a checkpoint's own code is not run"
            )
        if name in NOT_LOADED:
            continue
        if name not in (*family.classes, "scheduler"):
            raise ValueError(f"{model!r} has a component {name!r} ({word}) that is not known here; {SUPPORTED}")
        if word is None or (name == "scheduler" and not is_scheduler(word)):
            raise ValueError(f"the scheduler of {model!r} is {with_article(str(word))}, which is none of diffusers'")
        if word not in family.classes.get(name, (word,)):
            raise ValueError(
                f"the {name} of {model!r} is {with_article(str(word))}, "
                f"not {with_article(' or '.join(family.classes[name]))}; {SUPPORTED}"
            )
    if family.part not in named(parts):
        raise ValueError(f"{model!r} is {with_article(kind)} without a {family.part}; {SUPPORTED}")
    if task := family.other_task(parts):
        raise ValueError(f"{model!r} is {with_article(kind)} that {task}; {SUPPORTED}")
    return family, parts


def is_scheduler(name: str) -> bool:
    """Whether diffusers has a scheduler of this name."""
    import diffusers

    found = getattr(diffusers, name, None) if name.isidentifier() and name.endswith("Scheduler") else None
    return isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)


def refuse_code(settings: dict[str, Any], of: str) -> None:
    """`ValueError` where a configuration names code that would be run."""
    for key in CODE:
        if settings.get(key):
            raise ValueError(f"{of} names code of its own ({key}), which is not run")
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(settings.get(key, "")):
            raise ValueError(f"{of} names code of its own ({key}: {settings[key]!r}), which is not run")


def refuse_scripts(folder: Path) -> None:
    """`ValueError` where the folder of a checkpoint, or of one of its components, has Python files: they could be code
    that its JSON names."""
    for file in sorted([*folder.glob("*.py"), *folder.glob("*/*.py")]):
        raise ValueError(
            f"{str(file)!r} is code, which is not run; a checkpoint is JSON and weights, remove the file to use it"
        )


def settings_of(file: Path) -> dict[str, Any]:
    """A component's configuration. `ValueError` for code of its own, or for a number that no checkpoint has."""
    settings = read_json(file)
    refuse_code(settings, repr(str(file)))
    for key, most in MOST.items():
        numbers = settings.get(key)
        for number in _flat(numbers):
            if isinstance(number, int | float) and not 0 <= number <= most:
                raise ValueError(f"{str(file)!r} has {key} = {numbers!r}"[:200] + f"; {most} is the most")
    return settings


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def choose(names: Iterable[str], component: str, unsafe: bool) -> tuple[str, list[str]]:
    """Which of a component's files are its weights: (variant, names), where the variant without a name is "".

    names: the files of its folder. Safetensors go before pickles, and whole precision before half. unsafe: pickles may
    be read, too. `ValueError` where there are none.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        if matched := WEIGHTS.fullmatch(name):
            variant = matched["variant"] or matched["later"] or ""
            found.setdefault((matched["kind"], variant), []).append(name)
    kinds = ["safetensors", "bin"] if unsafe else ["safetensors"]
    for kind in kinds:
        variants = [variant for of, variant in found if of == kind]
        known = [variant for variant in VARIANTS if variant in variants]
        if not known and len(variants) > 1:
            raise ValueError(
                f"the component {component!r} has weights of several variants, {', '.join(sorted(variants))}, "
                f"and none of {', '.join(VARIANTS[1:])}; keep one of them"
            )
        for variant in [*known, *variants][:1]:
            return variant, found[kind, variant]
    pickles = any(kind == "bin" for kind, _ in found)
    raise ValueError(
        f"the component {component!r} has no weights in safetensors"
        + (
            ", only pickles (.bin), which can run code; convert them, or allow that (--unsafe-weights)"
            if pickles
            else ""
        )
    )


def scheduler_class(name: object) -> Any:
    """The class of a scheduler; `ValueError` where diffusers has none of this name."""
    import diffusers

    if not isinstance(name, str) or not is_scheduler(name):
        known = [word for word in dir(diffusers) if word.endswith("Scheduler") and not word.startswith("Flax")]
        raise unknown("scheduler", str(name)[:80], known)
    return getattr(diffusers, name)
