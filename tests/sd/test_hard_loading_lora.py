"""LoRAs: all that a file holds is added to the weights, by the formulas of kohya and peft, or it is refused."""

import re

import pytest
import real_layouts
import tiny_sd
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from toydiff.adapters.checkpoint import StableDiffusion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
K = Q.replace("to_q", "to_k")
CONV = "down_blocks.0.resnets.0.conv1"
ABSENT = Q.replace("down_blocks.0", "down_blocks.1")
"""A layer that the tiny UNet has not: its second block has no attention."""


def random(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


DOWN, UP = random(2, 16, seed=1), random(16, 2, seed=2)


def kohya(layer, down=DOWN, up=UP, prefix="lora_unet_", **numbers):
    name = prefix + layer.replace(".", "_")
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up} | {
        f"{name}.{key}": torch.as_tensor(value) for key, value in numbers.items()
    }


def peft(layer, down=DOWN, up=UP, prefix="unet."):
    return {f"{prefix}{layer}.lora_A.weight": down, f"{prefix}{layer}.lora_B.weight": up}


def text(name, width=16, out=16, seed=5, prefix="lora_te_"):
    return kohya(
        f"text_model.encoder.layers.0.{name}", random(2, width, seed=seed), random(out, 2, seed=seed + 1), prefix
    )


@pytest.fixture
def load(checkpoints, tmp_path):
    """The checkpoint with a LoRA of these tensors."""

    def loaded(tensors, kind="sd"):
        file = tmp_path / "lora.safetensors"
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, file)
        return StableDiffusion.load(checkpoints[kind], lora=file)

    return loaded


@pytest.fixture(scope="module")
def plain(checkpoints):
    return StableDiffusion.load(checkpoints["sd"])


def weight(checkpoint, layer=Q):
    return checkpoint.network.get_submodule(layer).weight


def same(ours, want):
    torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5)


def refused(load, tensors, kind="sd"):
    with pytest.raises(ValueError, match="does not fit this checkpoint, or cannot be read: ") as error:
        load(tensors, kind)
    line = str(error.value)
    assert "\n" not in line
    assert not re.search(r"infer state dict|KeyError|PeftModel|load_state_dict|adapter", line)
    return line


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_dora_by_kohya(load, plain, axis, alpha):
    """Its magnitudes are the norms of the columns, (1, in), or of the rows, (out, 1); peft has rows only."""
    new = weight(plain) + (0.5 if alpha else 1.0) * UP @ DOWN
    norm = new.norm(dim=axis, keepdim=True)
    numbers = {} if alpha is None else {"alpha": alpha}
    checkpoint = load(kohya(Q, dora_scale=1.7 * norm, **numbers) | kohya(K, **numbers))
    same(weight(checkpoint), 1.7 * new)
    scale = 0.3 + torch.rand(norm.shape, generator=torch.Generator().manual_seed(3))
    same(weight(load(kohya(Q, dora_scale=scale, **numbers))), new / norm * scale)
    same(weight(checkpoint, K), weight(plain, K) + (0.5 if alpha else 1.0) * UP @ DOWN)  # beside it, a plain one


def test_dora_of_a_convolution(load, plain):
    down, up = random(2, 16, 3, 3), random(16, 2, 1, 1)
    new = weight(plain, CONV) + torch.einsum("or,rikl->oikl", up[..., 0, 0], down)
    norm = new.movedim(1, 0).flatten(1).norm(dim=1).view(1, 16, 1, 1)
    same(weight(load(kohya(CONV, down, up, dora_scale=2 * norm)), CONV), 2 * new)


def test_dora_by_peft(load, plain):
    new = weight(plain) + UP @ DOWN
    checkpoint = load(peft(Q) | {f"unet.{Q}.lora_magnitude_vector": 1.3 * new.norm(dim=1)})
    same(weight(checkpoint), 1.3 * new)


def test_alphas_of_ones_own_ranks_and_types(load, plain):
    """A layer without alpha has the scale 1, whatever the others have; the same numbers may be in two layers."""
    other = random(4, 16, seed=7), random(16, 4, seed=8)
    checkpoint = load(kohya(Q, alpha=1.0) | kohya(K) | kohya(Q.replace("to_q", "to_v"), *other, alpha=2.0))
    same(weight(checkpoint), weight(plain) + 0.5 * UP @ DOWN)
    same(weight(checkpoint, K), weight(plain, K) + UP @ DOWN)
    v = Q.replace("to_q", "to_v")
    same(weight(checkpoint, v), weight(plain, v) + 0.5 * other[1] @ other[0])
    half = load({name: value.half() for name, value in kohya(Q).items()})
    same(weight(half), weight(plain) + UP.half().float() @ DOWN.half().float())


@pytest.mark.parametrize("names", [("q_proj",), ("out_proj",), ("k_proj", "v_proj")])
def test_some_layers_of_the_text_encoder(load, plain, names):
    """diffusers alone refuses those without out_proj."""
    layers = {f"self_attn.{name}": (16, 16) for name in names} | {"mlp.fc1": (16, 32)}
    tensors = {}
    for seed, (name, (width, out)) in enumerate(layers.items()):
        tensors |= text(name, width, out, seed=20 + seed)
    checkpoint = load(tensors | kohya(Q))
    same(weight(checkpoint), weight(plain) + UP @ DOWN)
    for seed, (name, (width, out)) in enumerate(layers.items()):
        ours, base = (
            next(
                value
                for key, value in c.pipe.text_encoder.named_parameters()
                if key.endswith(f"layers.0.{name}.weight")
            )
            for c in (checkpoint, plain)
        )
        same(ours, base + random(out, 2, seed=21 + seed) @ random(2, width, seed=20 + seed))


def test_both_text_encoders_of_sdxl(load, checkpoints):
    base = StableDiffusion.load(checkpoints["xl"])
    first, second = text("self_attn.q_proj", prefix="lora_te1_"), text("self_attn.q_proj", seed=9, prefix="lora_te2_")
    checkpoint = load(first | second, "xl")
    for part, seed in (("text_encoder", 5), ("text_encoder_2", 9)):
        ours, old = (
            next(
                value
                for key, value in getattr(c.pipe, part).named_parameters()
                if key.endswith("layers.0.self_attn.q_proj.weight")
            )
            for c in (checkpoint, base)
        )
        same(ours, old + random(16, 2, seed=seed + 1) @ random(2, 16, seed=seed))


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        (kohya(Q) | kohya(ABSENT), "1 of its 2 layers are not in this checkpoint, 'lora_unet_down_blocks_1"),
        (peft(Q) | peft(ABSENT), "1 of its 2 layers are not in this checkpoint, 'unet.down_blocks.1"),
        (kohya(Q) | text("self_attn.q_proj", prefix="lora_te2_"), "'lora_te2_text_model"),
        (kohya(Q) | kohya("text_model.encoder.layers.7.mlp.fc1", prefix="lora_te_"), "layers.7".replace(".", "_")),
        (
            kohya(Q) | peft("text_model.encoder.layers.0.mlp.fc2", prefix="text_encoder_3."),
            "are not in this checkpoint",
        ),
        (kohya(ABSENT), "not"),
        (kohya(Q, up=UP * float("nan")), "has numbers that are not finite"),
        (kohya(Q, alpha=float("inf")), "has numbers that are not finite"),
        ({f"unet.{Q}.lora_A.weight": DOWN}, "has not both factors"),
        (kohya(Q) | {f"lora_unet_{K.replace('.', '_')}.lora_up.weight": UP}, "has not both factors"),
        (kohya(Q) | {f"lora_unet_{K.replace('.', '_')}.alpha": torch.tensor(1.0)}, "has not both factors"),
        (kohya(Q, down=random(3, 16)), "do not fit each other"),
        (kohya(Q, down=random(2, 320), up=random(320, 2)), "other sizes"),
        (peft(Q, down=random(2, 320), up=random(320, 2)), "other sizes"),
        (kohya(Q, alpha=[1.0, 2.0]), "is no number"),
        (kohya(Q, dora_scale=torch.ones(3)), "the dora_scale of its layer"),
        (kohya(Q) | {"lora_unet_x.hada_w1_a": DOWN}, "which is no low-rank change of a layer"),
        (kohya(Q) | {"lora_unet_x.diff": DOWN}, "which is no low-rank change of a layer"),
        (kohya(Q) | {"lora_unet_x.lora_mid.weight": DOWN}, "which is no low-rank change of a layer"),
        ({"bundle_emb.x.string_to_param.*": DOWN} | kohya(Q), "which is no low-rank change of a layer"),
        ({}, "it holds nothing"),
    ],
)
def test_what_cannot_be_added_whole_is_refused(load, tensors, line):
    assert line in refused(load, tensors)


def test_which_file_of_a_folder(checkpoints, tmp_path, plain):
    for name in ("a", "b"):
        save_file(kohya(Q), tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="holds 2 files of weights; name the one"):
        StableDiffusion.load(checkpoints["sd"], lora=tmp_path)
    save_file(kohya(K), tmp_path / "pytorch_lora_weights.safetensors")
    same(weight(StableDiffusion.load(checkpoints["sd"], lora=tmp_path), K), weight(plain, K) + UP @ DOWN)
    torch.save(kohya(Q), tmp_path / "old.bin")
    with pytest.raises(ValueError, match="is a pickle, which can run code"):
        StableDiffusion.load(checkpoints["sd"], lora=tmp_path / "old.bin")
    same(
        weight(StableDiffusion.load(checkpoints["sd"], lora=tmp_path / "old.bin", unsafe=True)),
        weight(plain) + UP @ DOWN,
    )


def test_a_lora_that_overflows_is_named(load):
    with pytest.raises(ValueError, match=r"the unet of .* has weights that are not finite"):
        load(kohya(Q, down=torch.full((2, 16), 1e30), up=torch.full((16, 2), 1e30)))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        (
            "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        ("middle_block_1_transformer_blocks_1_attn2_to_v", "mid_block.attentions.0.transformer_blocks.1.attn2.to_v"),
        ("output_blocks_2_1_transformer_blocks_1_ff_net_2", "up_blocks.0.attentions.2.transformer_blocks.1.ff.net.2"),
        ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
    ],
)
@pytest.mark.parametrize("dora", [False, True])
def test_the_names_of_sdxls_original_code(sdxl, tmp_path, name, layer, dora):
    old = weight(StableDiffusion.load(sdxl), layer)
    kernel = [1] * (old.ndim - 2)
    down, up = random(2, old.shape[1], *(3 * k for k in kernel)), random(old.shape[0], 2, *kernel)
    tensors = kohya(name, down, up, alpha=1.0)
    new = old + 0.5 * torch.einsum("or,r...->o...", up.flatten(1), down)
    if dora:
        scale = 0.5 + torch.rand(1, old.shape[1], *kernel)
        tensors |= {f"lora_unet_{name}.dora_scale": scale}
        new = new / new.movedim(1, 0).flatten(1).norm(dim=1).view(scale.shape) * scale
    save_file(tensors, tmp_path / "lora.safetensors")
    same(weight(StableDiffusion.load(sdxl, lora=tmp_path / "lora.safetensors"), layer), new)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    return real_layouts.save(tmp_path_factory.mktemp("layouts") / "sdxl", "sdxl")


# ---- several, each with its strength


def test_strengths_are_those_of_set_adapters(checkpoints, tmp_path):
    tiny_sd.silent()
    of_text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer"
    first = peft(Q) | {f"{of_text}.down.weight": DOWN, f"{of_text}.up.weight": UP}
    second = peft(K, random(3, 16, seed=3), random(16, 3, seed=4)) | peft(Q, UP.T, DOWN.T)
    folder = tmp_path / "two:1.5"  # a name that looks like a strength
    folder.mkdir()
    for file, tensors in {tmp_path / "one": first, folder / "two": second}.items():
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, file.with_suffix(".safetensors"))
    given = [f"{tmp_path / 'one.safetensors'}:0.8", f"{folder}:-0.5"]
    checkpoint = StableDiffusion.load(checkpoints["sd"], lora=given)
    assert checkpoint.about["lora"] == given

    pipe = StableDiffusionPipeline.from_pretrained(checkpoints["sd"])
    pipe.load_lora_weights(tmp_path, weight_name="one.safetensors", adapter_name="one")
    pipe.load_lora_weights(folder, weight_name="two.safetensors", adapter_name="two")
    pipe.set_adapters(["one", "two"], [0.8, -0.5])
    pipe.fuse_lora(adapter_names=["one", "two"])
    pipe.unload_lora_weights()
    for part in ("unet", "text_encoder"):
        theirs = getattr(pipe, part).state_dict()
        for name, value in getattr(checkpoint.pipe, part).state_dict().items():
            same(value, theirs[name])
    whole = StableDiffusion.load(checkpoints["sd"], lora=folder)
    same(
        weight(whole, K) - weight(StableDiffusion.load(checkpoints["sd"]), K),
        random(16, 3, seed=4) @ random(3, 16, seed=3),
    )


@pytest.mark.parametrize(("strength", "line"), [("nan", "is a finite number"), ("0.8x", "there is no LoRA at")])
def test_strengths_that_are_none(checkpoints, tmp_path, strength, line):
    save_file(kohya(Q), tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=line):
        StableDiffusion.load(checkpoints["sd"], lora=f"{tmp_path / 'lora.safetensors'}:{strength}")


def test_a_dora_has_no_strength(checkpoints, tmp_path):
    save_file(kohya(Q, dora_scale=torch.ones(16, 1)), tmp_path / "dora.safetensors")
    with pytest.raises(ValueError, match="it has no strength but 1"):
        StableDiffusion.load(checkpoints["sd"], lora=f"{tmp_path / 'dora.safetensors'}:0.5")
