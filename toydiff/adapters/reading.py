"""Reading a checkpoint's files by diffusers and transformers, whole or not at all. Whatever is wrong is a `ValueError`
of one line."""

import math
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..support.checks import unknown
from ..support.words import with_article
from . import hub, layout
from .families import Family, family_of
from .families.animatediff import ADAPTER, ANIMATED, NEEDED, AnimateDiff
from .families.base import named
from .families.unets import XL
from .lora import add_lora, with_strength
from .names import BETA_SCHEDULES, COMPARABLE, PREDICTION_TYPES
from .network_file import load_network_file
from .quiet import naming, one_line, quietly
from .weights import Header, check_weights, header_of, metadata_of, pickle_error, read_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SINGLE = (".safetensors", ".ckpt")
EXPORTED = "toydiff.json"
"""A folder with this file was written by `toydiff export`."""
AS_ADAPTER = (
    "a motion adapter, the layers between the frames of a clip; give a checkpoint of SD as --model, and this as "
    "--motion-adapter"
)
"""What is said of one in the place of a checkpoint."""
FOR_FILES = "a configuration (--config) is for a single file; a folder has its own"
INSTALL = "Stable Diffusion checkpoints need the extra `sd`: pip install 'toydiff[sd]'"
JSON_FILES = ("*.json", "*.txt")
"""What says how a checkpoint is built: the configurations, and the words of the tokenizers."""


Making = Callable[[Path, str, bool], Any]
"""What makes a network of a folder, the name of its class, and whether pickles may be read."""


def whole(path: str | Path) -> str:
    """The absolute path, where there is a file or folder. Anything else, such as a hub id, is returned as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else str(path)


def read(
    model: str,
    config: str | None,
    lora: Sequence[str],
    unet: str | None,
    local_only: bool,
    unsafe: bool,
    scheduler: str | None = None,
    prediction_type: str | None = None,
    vae: str | None = None,
    motion_adapter: str | None = None,
    beta_schedule: str | None = None,
) -> "DiffusionPipeline":
    """The pipeline of a checkpoint, in float32 on the processor. The arguments, and the errors, are those of
    `StableDiffusion.load`."""
    _check_packages()
    if scheduler is not None and scheduler not in COMPARABLE:
        raise unknown("scheduler", scheduler, COMPARABLE)
    if prediction_type is not None and prediction_type not in PREDICTION_TYPES:
        raise unknown("prediction type", prediction_type, PREDICTION_TYPES)
    if beta_schedule is not None and beta_schedule not in BETA_SCHEDULES:
        raise unknown("beta schedule", beta_schedule, BETA_SCHEDULES)
    path, ignored = Path(model), False
    if config is not None and path.suffix not in SINGLE:
        raise ValueError(FOR_FILES)
    with quietly():
        if path.suffix in SINGLE and not path.is_dir():
            family, pipe = _from_file(path, config, local_only, unsafe)
        else:
            folder = path if path.is_dir() else hub.checkpoint(model, local_only, unsafe)
            family, pipe, ignored = _from_folder(folder, model, unsafe, _network)
        if motion_adapter is not None:
            family, pipe = _animated(pipe, motion_adapter, local_only, unsafe)
        pipe.set_progress_bar_config(disable=True)
        if unet is not None:
            pipe.register_modules(**{family.part: _other_network(pipe, family, unet, local_only, unsafe)})
        if vae is not None:
            pipe.register_modules(vae=other_vae(pipe, family, vae, local_only, unsafe))
        _fits(pipe, family, model)
        for one in lora:
            _add_lora(pipe, family, one, local_only, unsafe)
        for student in (unet, motion_adapter, *(with_strength(one)[0] for one in lora)):
            _follow_scheduler(pipe, student)
        _override(pipe, model, scheduler, prediction_type=prediction_type, beta_schedule=beta_schedule)
        for name in family.networks:
            if (network := getattr(pipe, name, None)) is not None:
                check_weights(network, f"the {name} of {model!r}")
    if ignored:
        warnings.warn(f"the ControlNet of {model!r} is ignored: images are made without it", stacklevel=3)
    return pipe


def outline(
    model: str, config: str | None, motion_adapter: str | None = None
) -> "tuple[DiffusionPipeline, dict[str, Header]]":
    """The pipeline of a checkpoint without its weights, whose networks are on the device "meta", and the headers of the
    files of weights, by component; of a single file by what it calls its parts.

    model, config: a folder, or a single .safetensors file and the folder that says what it holds. motion_adapter: the
    folder of one. JSON files, tokenizers and headers are read, and no weight. The errors are those of `read`, but for
    what only values tell.
    """
    _check_packages()
    path = Path(model)
    held: dict[str, Header] = {}

    def network(folder: Path, class_: str, unsafe: bool) -> Any:
        made, held[ADAPTER if class_ == "MotionAdapter" else folder.name] = _outlined(folder, class_)
        return made

    with quietly():
        if path.is_dir():
            if config is not None:
                raise ValueError(FOR_FILES)
            family, pipe, _ = _from_folder(path, model, False, network)
        else:
            family, pipe, held = _outlined_file(path, config)
        if motion_adapter is not None:
            family, pipe = _animated(pipe, motion_adapter, True, False, network)
        _fits(pipe, family, model)
    return pipe, held


def _unreadable(what: str, error: ValueError) -> ValueError:
    """The error of what cannot be read, of which an error inside may say the same."""
    inner, found, why = str(error).partition(" cannot be read: ")
    same = found and what.endswith(inner)
    return ValueError(f"{what} cannot be read: {why if same else f'{inner}: {why}' if found else inner}")


def _check_packages() -> None:
    """`ValueError` where a package of the extra `sd` is missing."""
    try:
        import accelerate  # noqa: F401
        import diffusers  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        raise ValueError(INSTALL) from None


def _from_folder(path: Path, model: str, unsafe: bool, network: Making) -> "tuple[Family, DiffusionPipeline, bool]":
    """The family and the pipeline of a folder, and whether it has a ControlNet, which is not read. model: its name in
    messages. network(folder, class, unsafe) makes a network, as `_network` does."""
    if not (path / "model_index.json").exists():
        single = next(path.glob("*.safetensors"), None)
        hint = ""
        if any(_is_adapter(place / "config.json") for place in (path, path / ADAPTER)):
            by = "was written by `toydiff export` and holds" if (path / EXPORTED).exists() else "holds"
            raise ValueError(f"the folder {model!r} {by} {AS_ADAPTER}")
        if (path / "config.json").exists():
            hint = "; a UNet or transformer alone goes on top of a whole checkpoint, with --unet"
        elif (path / "unet").is_dir() or (path / "transformer").is_dir():
            hint = "; it has a network's folder, but a checkpoint also says in model_index.json what it is made of"
        elif single is not None:
            hint = f"; for a single file give the file itself, {str(single)!r}, for a LoRA --lora"
        raise ValueError(
            f"the folder {model!r} is not a checkpoint in diffusers' layout: it has no model_index.json{hint}"
        )
    family, parts = layout.parts_of(path, model)
    layout.refuse_scripts(path)
    needed = family.needed(parts)
    for name in needed:
        if name not in named(parts) or not (path / name).is_dir():
            raise ValueError(
                f"the checkpoint {model!r} lacks the component {name!r}; needed are {', '.join(needed)}, a folder each"
            )
        if name.startswith("tokenizer") and not any(
            (path / name / file).exists() for file in ("tokenizer.json", "vocab.json")
        ):
            raise ValueError(f"the {name} of {model!r} has no vocabulary: neither tokenizer.json nor vocab.json")
    try:
        made = {name: _component(path / name, parts[name][1], family, unsafe, network) for name in needed}
        pipe = family.pipeline(parts, made)
    except ValueError as error:
        raise _unreadable(f"the checkpoint {model!r}", error) from None
    return family, pipe, "controlnet" in named(parts)


def _is_adapter(config: Path) -> bool:
    """Whether a configuration is that of a motion adapter."""
    return config.is_file() and layout.read_json(config).get("_class_name") == "MotionAdapter"


def _component(folder: Path, class_: str, family: Family, unsafe: bool, network: Making) -> Any:
    """A component of a checkpoint, from its folder. `ValueError`, naming the folder, for whatever is wrong."""
    if folder.name in family.networks:
        return network(folder, class_, unsafe)
    tokenizer = folder.name.startswith("tokenizer")
    file = folder / ("tokenizer_config.json" if tokenizer else "scheduler_config.json")
    if file.exists() or not tokenizer:
        layout.settings_of(file)
    with naming(folder):
        if tokenizer:
            import transformers

            return getattr(transformers, class_).from_pretrained(folder, local_files_only=True)
        return layout.scheduler_class(class_).from_pretrained(folder, local_files_only=True)


def _network(folder: Path, class_: str, unsafe: bool) -> Any:
    """A network of a checkpoint. `ValueError` where a weight is not in its files: the libraries would fill in random
    numbers, and go on."""
    import diffusers
    import transformers

    layout.settings_of(folder / "config.json")
    variant, files = layout.choose((file.name for file in folder.iterdir()), folder.name, unsafe)
    for file in files:
        if file.endswith(".safetensors"):
            metadata_of(folder / file)
    kind = getattr(diffusers if hasattr(diffusers, class_) else transformers, class_)
    with naming(folder):
        made, info = kind.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            variant=variant or None,
            use_safetensors=files[0].endswith(".safetensors"),
            torch_dtype=torch.float32,
        )
    _refuse_missing(info["missing_keys"], folder.name)
    return made


def _refuse_missing(missing: Iterable[str], component: str) -> None:
    """`ValueError` where there are weights that a component lacks."""
    if names := sorted(missing):
        raise ValueError(
            f"its {component} lacks {len(names)} weights, {names[0]!r} for one: "
            "they are of another model, or of another version"
        )


def _empty(folder: Path, class_: str) -> Any:
    """A network of the configuration in a folder, on the device "meta"."""
    import diffusers
    import transformers

    layout.settings_of(folder / "config.json")
    text = not hasattr(diffusers, class_)
    kind = getattr(transformers if text else diffusers, class_)
    with naming(folder), torch.device("meta"):
        if text:
            return kind(kind.config_class.from_pretrained(folder, local_files_only=True))
        return kind.from_config(kind.load_config(folder))


def _outlined(folder: Path, class_: str) -> tuple[Any, Header]:
    """A network without its weights, and the header of its files. `ValueError` where they lack weights: a name that
    they have not, and no tensor of this size under an older name either."""
    made = _empty(folder, class_)
    held: Header = {}
    _, files = layout.choose((file.name for file in folder.iterdir()), folder.name, False)
    for file in files:
        held |= header_of(folder / file)
    wanted = {name: tuple(value.shape) for name, value in made.named_parameters()}
    absent = [name for name, size in wanted.items() if name not in held or held[name][1] != size]
    older = Counter(math.prod(size) for name, (_, size) in held.items() if wanted.get(name) != size)
    missing = []
    for name in absent:
        size = math.prod(wanted[name])
        if not older[size]:
            missing.append(name)
        older[size] -= older[size] > 0
    _refuse_missing(missing, folder.name)
    return made, held


def _fits(pipe: "DiffusionPipeline", family: Family, model: str) -> None:
    """`ValueError` where a component wants what the others do not give."""
    family.check_fit(pipe, model)
    factor = pipe.vae.config.scaling_factor
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise ValueError(f"the vae of {model!r} has the scaling_factor {factor!r}, which is no positive number")
    for name, encoder, _ in family.readers(pipe):
        tokenizer, reads = getattr(pipe, name), getattr(pipe, encoder).config
        if max([*tokenizer("").input_ids, tokenizer.pad_token_id or 0]) >= reads.vocab_size:
            raise ValueError(f"the {name} of {model!r} has tokens beyond the {reads.vocab_size} of its text encoder")
        if (most := getattr(reads, "max_position_embeddings", None)) is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, most)


# ---- single files


def check_single(path: Path, unsafe: bool) -> None:
    """`ValueError` where there is no such file, or where it is a pickle, which is not to be read."""
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    if path.suffix != ".safetensors" and not unsafe:
        raise pickle_error(path, repr(str(path)))


def _from_file(path: Path, config: str | None, local_only: bool, unsafe: bool) -> "tuple[Family, DiffusionPipeline]":
    check_single(path, unsafe)
    if config is not None and Path(config).is_dir() and not (Path(config) / "model_index.json").exists():
        raise ValueError(f"the folder {config!r} says nothing of a checkpoint: it has no model_index.json")
    try:
        says = metadata_of(path) if path.suffix == ".safetensors" else {}
        tensors = {name: value.to("meta") for name, value in read_tensors(path, unsafe).items()}  # names and shapes
    except ValueError as error:
        raise ValueError(f"{error}; it cannot be read as a checkpoint") from None
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary)
        family, parts = _configuration(path, config, tensors, local_only, plain)
        try:
            pipe = _convert(path, tensors, family, parts, plain)
            _say_kind(pipe, tensors, says)
        except ValueError as error:
            raise ValueError(f"the file {str(path)!r} cannot be read as a checkpoint: {error}") from None
    return family, pipe


def _configuration(
    path: Path, config: str | None, tensors: dict[str, Tensor], local_only: bool, into: Path
) -> tuple[Family, dict[str, Any]]:
    """The family of a single file, and what the model_index.json says that it holds. The JSON files and the words of
    the tokenizers are copied into the folder, so that neither weights nor code beside them are used."""
    refuse_flux(path, tensors)
    refuse_motion(path, tensors)
    if config is None:
        folder = hub.configuration(usual_configuration(tensors), local_only, f"the file {str(path)!r}")
    elif Path(config).is_dir():
        folder = Path(config)
    else:
        folder = hub.configuration(config, local_only)
    name = str(config or folder)
    family, parts = layout.parts_of(folder, name)
    if not family.single_files:
        raise ValueError(
            f"the file {str(path)!r} is of a {parts['_class_name']} by its configuration, which is not read from "
            "single files; give a folder in diffusers' layout"
        )
    for part in ("", *family.needed(parts)):
        (into / part).mkdir(exist_ok=True)
        for pattern in JSON_FILES:
            for file in (folder / part).glob(pattern):
                shutil.copyfile(file, into / part / file.name)
        for file in (into / part).glob("*config.json"):
            layout.settings_of(file)
    return family, parts


OF_SD3, OF_FLUX = "joint_blocks.", "double_blocks."
"""What the names of the layers of these transformers hold in single files."""
OF_MOTION = "motion_modules"
"""What the names of the layers between frames hold."""


def refuse_flux(path: Path, names: Collection[str]) -> None:
    """`ValueError` for a single file of FLUX.1, by the names of its tensors: diffusers converts the published sizes
    alone, and takes the text encoders from elsewhere."""
    if any(OF_FLUX in key for key in names):
        raise ValueError(
            f"the file {str(path)!r} holds a transformer of FLUX.1, which is not read from single files; "
            "give a folder in diffusers' layout, or a hub id"
        )


def refuse_motion(path: Path, names: Collection[str]) -> None:
    """`ValueError` for the file of a motion adapter, by the names of its tensors, in the place of a checkpoint."""
    if names and all(OF_MOTION in key for key in names):
        raise ValueError(f"the file {str(path)!r} holds {AS_ADAPTER}")


def usual_configuration(names: Collection[str]) -> str:
    """The hub id of the checkpoint whose configuration a single file whose tensors have these names usually has."""
    if any(key.startswith("conditioner.embedders.1") for key in names):
        return "stabilityai/stable-diffusion-xl-base-1.0"
    if any(OF_SD3 in key for key in names):
        return "stabilityai/stable-diffusion-3-medium-diffusers"
    if any(key.startswith("cond_stage_model.model") for key in names):
        return "stabilityai/stable-diffusion-2-1"
    return "stable-diffusion-v1-5/stable-diffusion-v1-5"


def _convert(
    path: Path, tensors: dict[str, Tensor], family: Family, parts: dict[str, Any], plain: Path
) -> "DiffusionPipeline":
    """The pipeline of a single file. `ValueError` where it lacks a weight of what the configuration says."""
    from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

    _check_converted(tensors, parts, plain)
    kind: Any = StableDiffusionXLPipeline if parts["_class_name"] in XL else StableDiffusionPipeline
    extra = {"feature_extractor": None, "image_encoder": None}
    if "transformer" in parts:
        kind = StableDiffusion3Pipeline
        extra |= {name: None for name in family.classes if name not in family.needed(parts)}  # T5, where it is absent
    if kind is StableDiffusionPipeline:
        extra["safety_checker"] = None
    with naming(path, what="it"):
        pipe = kind.from_single_file(
            str(path), config=str(plain), local_files_only=True, torch_dtype=torch.float32, **extra
        )
    for name in family.networks:
        if (network := getattr(pipe, name, None)) is not None:
            check_weights(network, f"its {name}")
    return pipe


def _check_converted(tensors: dict[str, Tensor], parts: dict[str, Any], plain: Path) -> None:
    """`ValueError` where a single file lacks a weight of the network or the VAE that its configuration says."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import (
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
        convert_sd3_transformer_checkpoint_to_diffusers,
    )

    if parts["vae"][1] != "AutoencoderKL":
        raise ValueError(f"its configuration has a {parts['vae'][1]}, and a single file an AutoencoderKL")
    converters: tuple[tuple[str, Any, Any], ...] = (
        ("transformer", SD3Transformer2DModel, convert_sd3_transformer_checkpoint_to_diffusers)
        if "transformer" in parts
        else ("unet", UNet2DConditionModel, convert_ldm_unet_checkpoint),
        ("vae", AutoencoderKL, convert_ldm_vae_checkpoint),
    )
    for name, kind, convert in converters:
        with naming(plain / name, what=f"the {name} of its configuration"):
            config = kind.load_config(plain / name)
            with init_empty_weights():
                expected = kind.from_config(config).state_dict()
        try:
            found = convert(dict(tensors), config=dict(config))
            missing = sorted(repr(key) for key in expected if found.get(key) is None)
        except (KeyError, AttributeError, TypeError, IndexError, RuntimeError) as error:
            missing = [one_line(error)]
        if missing:
            raise ValueError(f"it lacks weights of the {name} of its configuration, {missing[0]} for one")


def _outlined_file(path: Path, config: str | None) -> "tuple[Family, DiffusionPipeline, dict[str, Header]]":
    """The family and the pipeline of a single file without its weights, and its header, by the parts of `parted`."""
    check_single(path, False)
    header = header_of(path)
    tensors = {name: torch.empty(size, device="meta") for name, (_, size) in header.items()}
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary)
        family, parts = _configuration(path, config, tensors, True, plain)
        try:
            _check_converted(tensors, parts, plain)
            made = {
                name: _component(
                    plain / name, parts[name][1], family, False, lambda folder, class_, _: _empty(folder, class_)
                )
                for name in family.needed(parts)
            }
            pipe = family.pipeline(parts, made)
            _say_kind(pipe, tensors, metadata_of(path))
        except ValueError as error:
            raise ValueError(f"the file {str(path)!r} cannot be read as a checkpoint: {error}") from None
    return family, pipe, parted(header)


PREFIXES: dict[str, str | tuple[str, ...]] = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text encoders": ("cond_stage_model.", "conditioner.", "text_encoders."),
}
"""How the names in a single file begin, by its parts."""


def parted(header: Header) -> dict[str, Header]:
    """The header of a single file by its parts, as `PREFIXES` calls them; SD3's network is a transformer."""
    return {
        "transformer" if part == "unet" and any(OF_SD3 in name for name in header) else part: {
            name: value for name, value in header.items() if name.startswith(prefix)
        }
        for part, prefix in PREFIXES.items()
    }


SAID = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "sample": "sample",
}
"""Kinds of prediction by what a file's metadata calls them (modelspec.prediction_type)."""


def _say_kind(pipe: Any, tensors: dict[str, Tensor], says: dict[str, str]) -> None:
    """Give the scheduler the kind of prediction and the table that a single file itself speaks of, by its keys v_pred
    and ztsnr or in its metadata. `ValueError` where it contradicts itself or the configuration."""
    from diffusers import DDIMScheduler

    config = pipe.scheduler.config
    kinds = {"its key v_pred": "v_prediction"} if "v_pred" in tensors else {}
    said = says.get("modelspec.prediction_type")
    if said is not None:
        if said.lower() not in SAID:
            raise unknown("modelspec.prediction_type in its metadata", said[:80], SAID)
        kinds["its metadata (modelspec.prediction_type)"] = SAID[said.lower()]
    if len(set(kinds.values())) > 1:
        raise ValueError("it contradicts itself: " + ", ".join(f"{by} says {kind}" for by, kind in kinds.items()))
    zero = "ztsnr" in tensors
    for by, kind in kinds.items():
        flow = "FlowMatch" in type(pipe.scheduler).__name__ or config.get("use_flow_sigmas")
        configured = "flow_prediction" if flow else config.get("prediction_type", "epsilon")
        if configured not in (kind, "epsilon"):  # every configuration says epsilon where nothing else was meant
            raise ValueError(f"{by} says {kind}, and its configuration {configured}")
    own: dict[str, Any] = {"prediction_type": next(iter(kinds.values()))} if kinds else {}
    own |= {"rescale_betas_zero_snr": True} if zero else {}
    if own:
        rescales = not zero or "rescale_betas_zero_snr" in config
        pipe.scheduler = (type(pipe.scheduler) if rescales else DDIMScheduler).from_config(config, **own)


# ---- what is added


def _other_network(pipe: "DiffusionPipeline", family: Family, unet: str, local_only: bool, unsafe: bool) -> Any:
    """A UNet or transformer alone: a published student of PeRFlow or Rectified Diffusion, one that `toydiff export`
    wrote, or the weights of one in a file, as those of SDXL-Lightning, for the checkpoint's own configuration."""
    part = family.part
    path, network = Path(unet), getattr(pipe, part)
    if path.is_file() or (path.suffix in SINGLE and not path.is_dir()):
        try:
            check_single(path, unsafe)
            load_network_file(network, family, path, unsafe)
        except ValueError as error:
            raise _unreadable(f"the {_called(part)} {unet!r}", error) from None
        return network
    found, what = _other(family, part, _called(part), unet, local_only, unsafe)
    for name in family.fitting:
        theirs, ours = found.config.get(name), network.config.get(name)
        if theirs != ours:
            raise ValueError(f"{what} does not fit this checkpoint: its {name} is {theirs}, not {ours}")
    return family.fitted(found, getattr(pipe, part))


def _animated(
    pipe: "DiffusionPipeline", adapter: str, local_only: bool, unsafe: bool, network: Making | None = None
) -> "tuple[Family, DiffusionPipeline]":
    """The pipeline with the layers between frames of a motion adapter, in place of its own if there are any, and its
    family. `ValueError` for pipelines of other families than SD 1.x and 2.x, and where the two do not fit."""
    if type(pipe).__name__ not in ANIMATED:
        raise ValueError(
            f"a motion adapter is for SD 1.x, SD 2.x and AnimateDiff, and this checkpoint is "
            f"{with_article(type(pipe).__name__)}"
        )
    family = family_of(AnimateDiff.pipelines[0])
    assert family is not None  # it is one of `FAMILIES`
    if Path(adapter).is_file():
        raise ValueError(
            f"the motion adapter {adapter!r} is a file, and a folder is needed; Python makes one, with diffusers: "
            f"MotionAdapter.from_single_file({adapter!r}).save_pretrained('adapter')"
        )
    found, what = _other(family, ADAPTER, "motion adapter", adapter, local_only, unsafe, network)
    try:
        return family, family.pipeline({}, {name: pipe.components[name] for name in NEEDED} | {ADAPTER: found})
    except ValueError as error:
        raise ValueError(f"{what} does not fit this checkpoint: {error}") from None


def _called(part: str) -> str:
    """How messages call a family's network."""
    return "UNet" if part == "unet" else part


def other_vae(pipe: "DiffusionPipeline", family: Family, vae: str, local_only: bool, unsafe: bool) -> Any:
    """A VAE alone. `ValueError` where its latents are others than those of the checkpoint's VAE: of another shape, in
    the same class scaled or shifted otherwise, or, in another one, without the checkpoint's own mean."""
    found, what = _other(family, "vae", "VAE", vae, local_only, unsafe)
    for name, theirs, ours in zip(("channels", "scale"), latents_of(found), latents_of(pipe.vae), strict=True):
        if theirs != ours:
            raise ValueError(f"{what} does not fit this checkpoint: the {name} of its latents is {theirs}, not {ours}")
    same = ("scaling_factor", "shift_factor", "latents_mean", "latents_std") if type(found) is type(pipe.vae) else ()
    if not same and any(pipe.vae.config.get(name) is not None for name in ("latents_mean", "latents_std")):
        raise ValueError(
            f"{what} does not fit this checkpoint, whose VAE has a mean of its latents (latents_mean): "
            f"{with_article(type(found).__name__)} knows none"
        )
    for name in same:
        theirs, ours = found.config.get(name), pipe.vae.config.get(name)
        if theirs != ours:
            raise ValueError(f"{what} does not fit this checkpoint: its {name} is {theirs}, not {ours}")
    return found


def latents_of(vae: Any) -> tuple[int, int]:
    """(channels, scale) of a VAE's latents, whose places are `scale` pixels wide."""
    blocks = vae.config.get("block_out_channels") or vae.config.encoder_block_out_channels
    return int(vae.config.latent_channels), 2 ** (len(blocks) - 1)


def _other(
    family: Family, part: str, what: str, place: str, local_only: bool, unsafe: bool, network: Making | None = None
) -> tuple[Any, str]:
    """A component alone, from its folder, a folder with one of its name, or a hub id; and how messages call it.
    network makes it; None is `_network`."""
    path, classes = Path(place), family.classes[part]
    inside = not (path / "config.json").exists() and (path / part / "config.json").exists()
    if path.exists() and not inside and not (path / "config.json").exists():
        raise ValueError(
            f"{place!r} holds no {what}: a folder with config.json and weights is needed, "
            f"or one with such a folder named {part}"
        )
    if not path.exists() and not hub.is_id(place):
        raise ValueError(f"there is no {what} at {place!r}")
    try:
        folder = (path / part if inside else path) if path.exists() else hub.network(place, part, local_only, unsafe)
        layout.refuse_scripts(folder)
        kind = layout.settings_of(folder / "config.json").get("_class_name", classes[0])
        if kind not in classes:
            raise ValueError(
                f"it is {with_article(str(kind)[:80])}, and {with_article(' or '.join(classes))} is needed"
            )
        return (network or _network)(folder, kind, unsafe), f"the {what} {place!r}"
    except ValueError as error:
        raise _unreadable(f"the {what} {place!r}", error) from None


def _add_lora(pipe: "DiffusionPipeline", family: Family, lora: str, local_only: bool, unsafe: bool) -> None:
    """Add a LoRA to the weights for good, with the strength behind its place, if there is one: LCM-LoRA, PCM-LoRA, or
    one that `toydiff export` wrote. `ValueError` if it is not there or does not fit."""
    lora, strength = with_strength(lora)
    path = Path(lora)
    if not path.exists() and not hub.is_id(lora):
        raise ValueError(f"there is no LoRA at {lora!r}")
    if path.is_file() and path.suffix != ".safetensors" and not unsafe:
        raise pickle_error(path, f"the LoRA {lora!r}")
    if path.is_dir():
        names = [file.name for file in path.iterdir()]
        path = path / lora_file(names, f"the folder {lora!r}", unsafe)
    elif not path.exists():
        try:
            path = hub.file(lora, lora_file(hub.names(lora, local_only), "it", unsafe), local_only)
        except ValueError as error:
            raise ValueError(f"the LoRA {lora!r} cannot be had from the hub: {error}") from None
    add_lora(pipe, family, path, lora, unsafe, strength)


def lora_file(names: Sequence[str], where: str, unsafe: bool) -> str:
    """Which of the files in a folder is the LoRA."""
    usual = "pytorch_lora_weights.safetensors"
    found = [name for name in names if name.endswith(".safetensors")]
    if not found and unsafe:
        usual, found = "pytorch_lora_weights.bin", [name for name in names if name.endswith(".bin")]
    if usual in found or len(found) == 1:
        return usual if usual in found else found[0]
    if found:
        raise ValueError(f"{where} holds {len(found)} files of weights; name the one that is the LoRA")
    raise ValueError(f"{where} holds no LoRA: it has no .safetensors file")


def _follow_scheduler(pipe: "DiffusionPipeline", student: str | None) -> None:
    """Use the scheduler of a student that `toydiff export` wrote. A flow, say, has another schedule and kind than the
    checkpoint that it was made of."""
    if student is None or not (Path(student) / EXPORTED).exists():
        return
    folder = Path(student) / "scheduler"
    try:
        name = layout.settings_of(folder / "scheduler_config.json").get("_class_name")
        with naming(folder):
            pipe.register_modules(scheduler=layout.scheduler_class(name).from_pretrained(folder))
    except ValueError as error:
        raise _unreadable(f"the scheduler of the student {student!r}", error) from None


def _override(pipe: "DiffusionPipeline", model: str, scheduler: str | None, **own: str | None) -> None:
    """Give the pipeline another scheduler of the same configuration, or its own other settings: `own` that are not
    None."""
    own = {name: value for name, value in own.items() if value is not None}
    own |= {"trained_betas": None} if "beta_schedule" in own else {}
    if scheduler is None and not own:
        return
    theirs = pipe.scheduler
    if "FlowMatch" in type(theirs).__name__ or theirs.config.get("use_flow_sigmas"):
        raise ValueError(f"{model!r} is a flow: its scheduler and what it predicts cannot be overridden")
    kind = type(theirs) if scheduler is None else layout.scheduler_class(scheduler)
    try:
        pipe.register_modules(scheduler=kind.from_config(theirs.config, **own))
    except Exception as error:  # of several kinds: the settings contradict one another, or need another package
        raise ValueError(f"{kind.__name__} cannot have the configuration of {model!r}: {one_line(error)}") from None
