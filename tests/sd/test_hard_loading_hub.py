"""A repository on the hub: what it is is read before its weights, and only what is used is fetched. The hub is a folder
here."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import tiny_sd
import torch
from safetensors.torch import load_file, save_file

from toydiff.adapters.checkpoint import StableDiffusion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


class Hub:
    """Repositories in folders, and what was fetched of them into a cache."""

    def __init__(self, folder):
        self.there, self.cache, self.reached = Path(folder) / "hub", Path(folder) / "cache", True
        self.fetched: list[str] = []

    def model_info(self, _api, repository, **settings):
        if not self.reached or not (self.there / repository).exists():
            raise OSError("404: no such repository")
        files = [file for file in sorted((self.there / repository).rglob("*")) if file.is_file()]
        names = [str(file.relative_to(self.there / repository)) for file in files]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def hf_hub_download(self, repository, name, local_files_only=False, **settings):
        there, here = self.there / repository / name, self.cache / repository / name
        if not here.exists():
            if local_files_only or not self.reached or not there.exists():
                raise OSError(f"{name} is not there")
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, here)
            self.fetched.append(name)
        return str(here)

    def snapshot_download(self, repository, local_files_only=False, **settings):
        if not (self.cache / repository).exists():
            raise OSError("not in the cache")
        return str(self.cache / repository)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda api, *args, **more: made.model_info(api, *args, **more)
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


@pytest.fixture
def repository(hub, checkpoints):
    return Path(shutil.copytree(checkpoints["sd"], hub.there / "org" / "sd"))


@pytest.mark.parametrize("kind", ["sd3", "flux-dev"])
def test_what_is_fetched_of_a_transformer(hub, families, kind):
    """All encoders are among it, and neither code nor a single file beside them."""
    there = Path(shutil.copytree(families[kind], hub.there / "org" / kind))
    (there / "whole.safetensors").write_bytes(b"not to be fetched")
    (there / "transformer" / "evil.py").write_text("raise SystemExit")
    checkpoint = StableDiffusion.load(f"org/{kind}")
    own = StableDiffusion.load(families[kind])
    assert all(
        torch.equal(a, b) for a, b in zip(checkpoint.network.parameters(), own.network.parameters(), strict=True)
    )
    assert {name.partition("/")[0] for name in hub.fetched} == {*own.family.classes, "scheduler", "model_index.json"}
    assert not [name for name in hub.fetched if name.endswith((".py", "whole.safetensors"))]


def test_what_is_fetched_of_clips(hub, clips):
    """What a saved pipeline's UNet holds is not fetched twice; a motion adapter alone is, and nothing beside it."""
    shutil.copytree(clips["saved"], hub.there / "org" / "saved")
    there = Path(shutil.copytree(clips["v1-5"], hub.there / "org" / "adapter"))
    (there / "lora.safetensors").write_bytes(b"not to be fetched")
    shutil.copytree(clips["sd15"], hub.there / "org" / "sd15")
    own = StableDiffusion.load(clips["saved"]).network
    assert torch.equal(StableDiffusion.load("org/saved").network.conv_in.weight, own.conv_in.weight)
    assert not [name for name in hub.fetched if "motion_adapter" in name]
    hub.fetched.clear()
    made = StableDiffusion.load("org/sd15", motion_adapter="org/adapter")
    want = StableDiffusion.load(clips["sd15"], motion_adapter=clips["v1-5"])
    same = zip(made.network.parameters(), want.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert {name for name in hub.fetched if "/" not in name} == {
        *("model_index.json", "config.json", "diffusion_pytorch_model.safetensors"),
    }


def said(*args, **settings):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        StableDiffusion.load(*args, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_only_what_is_used_is_fetched(hub, repository, checkpoints):
    for extra in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/model.onnx",
        "unet/evil.py",
        "sd-v1.ckpt",
        "safety_checker/model.safetensors",
        "README.md",
    ):
        (repository / extra).parent.mkdir(exist_ok=True)
        (repository / extra).write_bytes(b"a gigabyte")
    checkpoint = StableDiffusion.load("org/sd")
    assert torch.equal(
        checkpoint.network.conv_in.weight, StableDiffusion.load(checkpoints["sd"]).network.conv_in.weight
    )
    assert hub.fetched[0] == "model_index.json"
    assert not [name for name in hub.fetched if not name.endswith((".json", ".txt", ".safetensors")) or "fp16" in name]
    assert not [name for name in hub.fetched if "safety" in name]
    hub.reached, count = False, len(hub.fetched)
    del checkpoint
    assert StableDiffusion.load("org/sd").source == "org/sd"  # from the cache
    assert StableDiffusion.load("org/sd", local_only=True).kind == "eps"
    assert len(hub.fetched) == count


@pytest.mark.parametrize(
    ("index", "line"),
    [
        ({"_class_name": "PixArtSigmaPipeline"}, "'org/sd' is a PixArtSigmaPipeline; this adapter takes"),
        ({"_class_name": "StableDiffusionUpscalePipeline"}, "is a StableDiffusionUpscalePipeline"),
        ({"unet": ["evil", "Evil"]}, "of 'evil', which is not known here"),
        ({"_class_name": ["pipeline", "Evil"]}, "does not say which pipeline"),
    ],
)
def test_a_foreign_pipeline_is_refused_before_its_weights(hub, repository, index, line):
    file = repository / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | index))
    assert line in said("org/sd")
    assert hub.fetched == ["model_index.json"]


def test_a_repository_without_safetensors_says_so(hub, repository):
    for part in ("unet", "vae", "text_encoder"):
        [file] = (repository / part).glob("*.safetensors")
        torch.save(
            load_file(file),
            file.with_name(
                file.name.replace("model.safetensors", "model.bin") if part != "text_encoder" else "pytorch_model.bin"
            ),
        )
        file.unlink()
    line = said("org/sd")
    assert "'org/sd'" in line
    assert "only pickles (.bin), which can run code" in line
    assert hub.fetched == ["model_index.json"]
    assert StableDiffusion.load("org/sd", unsafe=True).kind == "eps"


@pytest.mark.parametrize("shards", [False, True])
def test_a_repository_in_half_precision_only(hub, repository, checkpoints, shards):
    whole = StableDiffusion.load(checkpoints["sd"])
    for part in ("unet", "vae", "text_encoder"):
        [file] = (repository / part).glob("*.safetensors")
        file.unlink()
        getattr(whole.pipe, part).save_pretrained(
            repository / part, variant="fp16", max_shard_size="150KB" if shards else "10GB"
        )
    assert torch.equal(StableDiffusion.load("org/sd").network.conv_in.weight, whole.network.conv_in.weight)


def test_what_is_no_checkpoint(hub, repository):
    (repository / "model_index.json").unlink()
    assert "it has no model_index.json" in said("org/sd")
    assert "the hub was not reached, or does not have it" in said("org/nothing")
    assert "it is neither a folder" in said("org/a/b")
    assert hub.fetched == []


def test_a_unet_and_a_lora_of_the_hub(hub, checkpoints, tmp_path):
    other = tiny_sd.pipeline(tmp_path / "words", "sd", seed=7).unet
    other.save_pretrained(hub.there / "org" / "unet")
    made = StableDiffusion.load(checkpoints["sd"], unet="org/unet")
    assert torch.equal(made.network.conv_in.weight, other.conv_in.weight)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    (hub.there / "org" / "lora").mkdir()
    (hub.there / "org" / "lora" / "README.md").write_text("a LoRA")
    tensors = {f"unet.{name}.lora_A.weight": torch.ones(1, 16), f"unet.{name}.lora_B.weight": torch.ones(16, 1)}
    save_file(tensors, hub.there / "org" / "lora" / "pytorch_lora_weights.safetensors")
    base, made = (StableDiffusion.load(checkpoints["sd"], lora=lora) for lora in ([], "org/lora"))
    torch.testing.assert_close(made.network.get_submodule(name).weight, base.network.get_submodule(name).weight + 1)
    assert "README.md" not in hub.fetched
    assert "cannot be read" in said(checkpoints["sd"], unet="org/nothing")
    assert "org/nothing" in said(checkpoints["sd"], lora="org/nothing")


def test_the_configuration_of_a_single_file_from_the_hub(hub, repository, checkpoints, tmp_path):
    file = tiny_sd.single_file(checkpoints["sd"], tmp_path / "one.safetensors")
    assert StableDiffusion.load(file, config="org/sd").kind == "eps"
    assert not [name for name in hub.fetched if name.endswith(".safetensors")]
    assert "'org/nothing' is neither a folder" in said(file, config="org/nothing")
    assert "give --config a folder" in said(file)
    repository.rename(hub.there / "org" / "usual")
    (hub.there / "stable-diffusion-v1-5").mkdir()
    (hub.there / "org" / "usual").rename(hub.there / "stable-diffusion-v1-5" / "stable-diffusion-v1-5")
    assert StableDiffusion.load(file).kind == "eps"
