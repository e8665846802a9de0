"""AnimateDiff: clips from both layouts in which people have it. The oracle is diffusers' own pipeline."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import tiny_sd
import torch
from diffusers import DDIMScheduler, LCMScheduler, MotionAdapter, UNet2DConditionModel
from PIL import Image, ImageOps
from safetensors.torch import save_file

from toydiff import runs
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.export import export
from toydiff.adapters.families import SUPPORTED
from toydiff.adapters.sampling import sample_images
from toydiff.adapters.text import text_of
from toydiff.catalog import METHODS
from toydiff.cli import command as cli
from toydiff.problems import problem
from toydiff.problems.pairs import Recipe, make_pairs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
PROMPTS = ["a cat", "Two dogs"]
PERTURBED = 2


def starts(frames=8):
    """The noise of two clips, as both libraries draw it."""
    shape = (1, 4, frames, 8, 8)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(5 + k)) for k in range(2)])


@pytest.fixture(scope="module")
def pipes(clips):
    """What diffusers itself makes of both layouts."""
    return {
        "saved": tiny_families.pipeline_of_clips(clips["saved"]),
        "v1-5": tiny_families.pipeline_of_clips(clips["sd15"], clips["v1-5"]),
    }


@pytest.fixture
def two(clips):
    """Checkpoints by layout, in one process the same objects: a saved pipeline, and SD 1.5 with a motion adapter."""
    return {
        "saved": StableDiffusion.load(clips["saved"]),
        "v1-5": StableDiffusion.load(clips["sd15"], motion_adapter=clips["v1-5"]),
    }


def theirs(pipe, steps, guidance_scale=7.5, start=None, **settings):
    """Their pipeline's latents (2, 4, F, 8, 8)."""
    start = starts() if start is None else start
    settings = {"generator": [torch.Generator().manual_seed(5 + k) for k in range(2)]} | settings
    if guidance_scale > 1:
        settings = {"negative_prompt": ["ugly"] * 2} | settings
    made = pipe(
        PROMPTS,
        num_frames=start.shape[2],
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        latents=start,
        height=64,
        width=64,
        output_type="latent",
        **settings,
    )
    return made.frames


def ours(checkpoint, steps, guidance_scale=7.5, **settings):
    settings = {"frames": 8, "size": 64, "seed": 5} | settings
    if guidance_scale > 1:
        settings = {"negative_prompt": "ugly"} | settings
    return sample_images(checkpoint, PROMPTS, steps=steps, guidance_scale=guidance_scale, **settings)


def near(gap, want, run, start):
    """Whether a gap is at most 1e-4, or what a start that is one rounding away changes in theirs, run(start)."""
    if gap <= 1e-4:
        return True
    floor = 0.0
    for k in range(PERTURBED):
        up = torch.rand(want.shape, generator=torch.Generator().manual_seed(k)) < 0.5
        other = torch.nextafter(start, torch.where(up, torch.inf, -torch.inf))
        floor = max(floor, float((run(other) - want).abs().max()))
    return gap <= floor


@pytest.mark.parametrize(
    ("guidance_scale", "steps"), [(7.5, 1), (1.0, 4), pytest.param(3.0, 8, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("layout", "solver", "grid"),
    [("saved", "ddim", "leading"), ("v1-5", "plms", "leading")],  # the default scheduler of each
)
def test_clips_are_those_of_its_pipeline(two, pipes, layout, solver, grid, guidance_scale, steps):
    want = theirs(pipes[layout], steps, guidance_scale)
    made = ours(two[layout], steps, guidance_scale, solver=solver, grid=grid)
    gap = float((made.latents - want).abs().max())
    assert near(gap, want, lambda start: theirs(pipes[layout], steps, guidance_scale, start=start), starts())
    with torch.no_grad():
        video = pipes[layout].decode_latents(want)
    assert made.images.shape == (2, 8, 3, 64, 64)
    assert float((made.images - (video / 2 + 0.5).clamp(0, 1).transpose(1, 2)).abs().max()) <= 1 / 255


@pytest.mark.parametrize(
    ("guidance_scale", "steps"), [(1.5, 1), (1.0, 4), pytest.param(1.5, 8, marks=pytest.mark.slow)]
)
def test_animate_lcm(clips, guidance_scale, steps):
    """LCM on the linear table, as AnimateLCM is used: SD's folder has another scheduler and another table."""
    settings = {"scheduler": "LCMScheduler", "beta_schedule": "linear"}
    checkpoint = StableDiffusion.load(clips["sd15"], motion_adapter=clips["v1-5-2"], **settings)
    pipe = tiny_families.pipeline_of_clips(clips["sd15"], clips["v1-5-2"])
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config, beta_schedule="linear")

    def run(start):
        rng = [torch.Generator().manual_seed(5 + k) for k in range(2)]
        for one in rng:  # theirs has drawn the start by then
            torch.randn(1, 4, 8, 8, 8, generator=one)
        return theirs(pipe, steps, guidance_scale, start=start, generator=rng)

    want = run(starts())
    made = ours(checkpoint, steps, guidance_scale, solver="lcm", grid="lcm", decode=False)
    assert near(float((made.latents - want).abs().max()), want, run, starts())


@pytest.mark.parametrize("solver", ["picard:tolerance=none", "parareal:tolerance=none"])
def test_parallel_samplers_are_the_sequential_walk(animatediff, solver):
    checkpoint = StableDiffusion.load(animatediff)
    settings = {"steps": 10, "guidance_scale": 3.0, "size": 16, "grid": "trailing", "decode": False}
    walk = ours(checkpoint, solver="ddim", **settings)
    swept = ours(checkpoint, solver=solver, at_once=6, **settings)
    torch.testing.assert_close(swept.latents, walk.latents, rtol=0, atol=1e-4)


def test_a_clip_alone_and_frames_apart(animatediff):
    """Clip k has a stream of its own; frames share the time, and not the noise; each frame sees the others."""
    checkpoint = StableDiffusion.load(animatediff)
    settings = {"frames": 4, "steps": 2, "solver": "lcm", "guidance_scale": 1.0}
    two, alone = (
        sample_images(checkpoint, PROMPTS, seed=5, **settings),
        sample_images(checkpoint, PROMPTS[1], seed=6, **settings),
    )
    torch.testing.assert_close(two.latents[1:], alone.latents, rtol=0, atol=1e-4)
    assert two.images.shape == (2, 4, 3, 16, 16)
    assert float((alone.latents[:, :, 0] - alone.latents[:, :, 1]).abs().max()) > 0.1
    D, cond = checkpoint.denoiser(), checkpoint.prompts.add(PROMPTS)
    x, t = starts(4), torch.tensor([0.3, 0.9])
    one = D(x, t, cond).x0
    other = x.clone()
    other[:, :, 3] = torch.randn(2, 4, 8, 8)
    assert float((D(other, t, cond).x0 - one)[:, :, 0].abs().max()) > 1e-4
    for k in range(2):
        torch.testing.assert_close(D(x[k : k + 1], t[k], cond[k : k + 1]).x0, one[k : k + 1], rtol=0, atol=1e-4)


def test_frames_that_are_encoded_are_those_of_images(animatediff, checkpoints):
    """The VAE knows no time: (n, F, 3, H, W) to (n, C, F, h, w) and back."""
    images = torch.rand(2, 3, 3, 16, 16)
    checkpoint = StableDiffusion.load(animatediff)
    mean, std = checkpoint.encode(images)
    assert mean.shape == std.shape == (2, 4, 3, 8, 8)
    with torch.no_grad():
        law = checkpoint.vae.encode(2 * images[1] - 1).latent_dist
    scale = checkpoint.vae.config.scaling_factor
    torch.testing.assert_close(mean[1].transpose(0, 1), law.mean * scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(std[1].transpose(0, 1), law.std * scale, rtol=0, atol=1e-5)
    with torch.no_grad():
        decoded = checkpoint.vae.decode(law.mean)[0]
    torch.testing.assert_close(checkpoint.decode(mean)[1], (decoded / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


# ---- what is read


def change(file, **keys):
    """Change keys of a JSON file."""
    Path(file).write_text(json.dumps(json.loads(Path(file).read_text()) | keys))


def said(*args, **settings):
    """The one line that a checkpoint is refused with."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        StableDiffusion.load(*args, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_plain_unet_beside_its_motion_adapter(clips, pipes, tmp_path):
    """A folder with the two apart, as people who publish a style put it together."""
    folder = Path(shutil.copytree(clips["sd15"], tmp_path / "apart"))
    shutil.copytree(clips["v1-5"], folder / "motion_adapter")
    adapter = ["diffusers", "MotionAdapter"]
    change(folder / "model_index.json", _class_name="AnimateDiffPipeline", motion_adapter=adapter)
    assert same(StableDiffusion.load(folder).network, pipes["v1-5"].unet)
    shutil.rmtree(folder / "motion_adapter")
    assert "lacks the component 'motion_adapter'" in said(folder)


def test_another_motion_adapter_and_another_style(clips, pipes, tmp_path):
    """A motion adapter takes the place of those layers, and a plain UNet of all others."""
    other = StableDiffusion.load(clips["saved"], motion_adapter=clips["v1-5"])
    assert same(other.network, pipes["v1-5"].unet)
    assert other.latent_shape(64, 24) == (4, 24, 8, 8)
    with pytest.raises(ValueError, match="24 frames at most"):
        other.latent_shape(64, 25)
    style = UNet2DConditionModel.from_pretrained(clips["sd15"], subfolder="unet")
    torch.nn.init.normal_(style.conv_in.weight)
    style.save_pretrained(tmp_path / "text-style")
    made = StableDiffusion.load(clips["sd15"], motion_adapter=clips["v1-5"], unet=tmp_path / "text-style")
    ours, before = dict(made.network.named_parameters()), dict(pipes["v1-5"].unet.named_parameters())
    assert {name for name in ours if not torch.equal(ours[name], before[name])} == {"conv_in.weight"}
    assert torch.equal(made.network.conv_in.weight, style.conv_in.weight)


def test_frames_are_bounded(clips, two):
    checkpoint = two["saved"]
    assert checkpoint.latent_shape(64) == (4, 16, 8, 8)
    assert checkpoint.latent_shape(64, 32) == (4, 32, 8, 8)
    for frames, line in ((33, "32 frames at most"), (0, "frames must be"), (2.5, "frames must be")):
        with pytest.raises(ValueError, match=line):
            sample_images(checkpoint, "a", frames=frames, size=64)
    with pytest.raises(ValueError, match="32 frames at most"):
        checkpoint.denoiser()(torch.randn(1, 4, 33, 8, 8), torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"latents \(B, 4, F, H, W\), got"):
        checkpoint.denoiser()(torch.randn(1, 4, 8, 8), torch.tensor(0.5))
    with pytest.raises(ValueError, match="it takes no image to start from"):
        sample_images(checkpoint, "a", image=torch.rand(3, 64, 64), size=64)
    with pytest.raises(ValueError, match="this checkpoint makes images"):
        sample_images(StableDiffusion.load(clips["sd15"]), "a", frames=8, size=64)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"block_out_channels": [32, 32, 32, 64]},
            "s block_out_channels is [32, 32, 32, 64], and the unet's",
        ),
        (
            {"motion_layers_per_block": 2},
            "is [2, 2, 2, 2], and the unet's layers_per_block [1, 1, 1, 1]",
        ),
        ({"block_out_channels": [32, 32]}, "block_out_channels is [32, 32], and the unet's"),
    ],
)
def test_a_motion_adapter_that_does_not_fit(clips, tmp_path, changes, line):
    settings = {k: v for k, v in tiny_families.MOTION["v1-5"].items() if not k.startswith("_")}
    MotionAdapter(**settings | changes).save_pretrained(tmp_path / "other")
    assert line in said(clips["sd15"], motion_adapter=tmp_path / "other")


def test_what_is_no_motion_adapter(clips, checkpoints, families, tmp_path):
    assert "there is no motion adapter at 'nowhere'" in said(clips["sd15"], motion_adapter="nowhere")
    assert "holds no motion adapter" in said(clips["sd15"], motion_adapter=clips["sd15"])
    line = said(clips["sd15"], motion_adapter=clips["sd15"] / "unet")
    assert "it is a UNet2DConditionModel, and a MotionAdapter is needed" in line
    for other in (checkpoints["xl"], families["sd3"]):
        assert "a motion adapter is for SD 1.x, SD 2.x and AnimateDiff" in said(other, motion_adapter=clips["v1-5"])
    file = clips["v1-5"] / "diffusion_pytorch_model.safetensors"
    assert "is a file, and a folder is needed; Python makes one" in said(clips["sd15"], motion_adapter=file)
    broken = Path(shutil.copytree(clips["v1-5"], tmp_path / "broken"))
    [weights] = broken.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "is truncated" in said(clips["sd15"], motion_adapter=broken)
    weights.rename(weights.with_suffix(".bin"))
    assert "only pickles (.bin), which can run code" in said(clips["sd15"], motion_adapter=broken)
    (broken / "evil.py").write_text("open('ran', 'w')")
    assert "is code, which is not run" in said(clips["sd15"], motion_adapter=broken)


def test_other_pipelines_of_clips_are_refused_by_name(clips, tmp_path):
    folder = Path(shutil.copytree(clips["saved"], tmp_path / "other"))
    change(folder / "model_index.json", _class_name="AnimateDiffSDXLPipeline")
    line = said(folder)
    assert "is an AnimateDiffSDXLPipeline" in line
    assert SUPPORTED in line
    assert "AnimateDiffPipeline" in SUPPORTED


def test_another_table(clips):
    linear = StableDiffusion.load(clips["sd15"], beta_schedule="linear")
    want = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    alpha = float(linear.table.alpha(torch.tensor(0.5)))
    assert alpha**2 == pytest.approx(float(want.alphas_cumprod[499]), rel=1e-5)
    assert not linear.table.equals(StableDiffusion.load(clips["sd15"]).table)
    assert "unknown beta schedule 'lineal' (did you mean 'linear'?)" in said(clips["sd15"], beta_schedule="lineal")


# ---- the command


@pytest.fixture
def command(capsys):
    """(code, what it printed, what it complained of)."""

    def run(*args):
        code = cli.main([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return run


def test_a_gif_and_a_film_strip(command, animatediff, tmp_path):
    words = ["sample", "--problem", "sd", "--model", animatediff, "--prompt", "a cat", "--prompt", "Two dogs", "--n", 2]
    words += ["--frames", 5, "--steps", 2, "--seed", 3]
    for name in ("a.gif", "a.png", "a.npz"):
        code, out, err = command(*words, "--out", tmp_path / name)
        assert code == 0, err
        assert "4 5-frame clips of 2 prompts" in out
    want = sample_images(StableDiffusion.load(animatediff), PROMPTS, each=2, frames=5, steps=2, seed=3)
    images = (want.images.movedim(2, -1).numpy() * 255).round().astype(np.uint8)
    arrays = np.load(tmp_path / "a.npz")
    assert np.array_equal(arrays["images"], images)
    assert np.array_equal(arrays["latents"], want.latents.numpy())
    strip = Image.open(tmp_path / "a.png")
    assert json.loads(strip.text["toydiff"])["frames"] == 5
    assert strip.size == (5 * 16 + 4 * 4, 4 * 16 + 3 * 4)
    for clip in range(4):
        for k in range(5):  # a row a clip
            x, y = 20 * k, 20 * clip
            assert np.array_equal(np.asarray(strip)[y : y + 16, x : x + 16], images[clip, k])
    moving = Image.open(tmp_path / "a.gif")
    assert (moving.n_frames, moving.size, moving.info["loop"]) == (5, (36, 36), 0)
    settings = json.loads(moving.info["comment"])
    assert (settings["prompts"], settings["fps"], settings["dtype"]) == (PROMPTS, 8, "float32")
    assert json.loads(strip.text["toydiff"])["fps"] is None
    for k in range(5):
        moving.seek(k)
        assert moving.info["duration"] == (120, 130)[k % 2]  # 8 frames a second, in GIF's hundredths
        sheet = np.asarray(moving.convert("RGB")).astype(int)
        for clip in range(4):  # a row a prompt
            y, x = 20 * (clip // 2), 20 * (clip % 2)
            assert abs(sheet[y : y + 16, x : x + 16] - images[clip, k]).mean() < 12  # 256 colours


def test_what_the_command_refuses(command, animatediff, checkpoints, tmp_path, monkeypatch):
    out = tmp_path / "a.gif"
    words = ["sample", "--problem", "sd", "--prompt", "a", "--model"]
    for more, line in (
        ([animatediff, "--frames", 33, "--out", out], "a clip of this checkpoint has 32 frames at most"),
        ([animatediff, "--frames", 0, "--out", out], "argument --frames"),
        ([animatediff, "--out", tmp_path / "a.jpg"], "--out must end in .png or .npz or .gif or .mp4"),
        ([animatediff, "--fps", 9, "--out", tmp_path / "a.png"], "--fps is for clips that move (.gif, .mp4)"),
        ([animatediff, "--fps", 51, "--out", out], "argument --fps"),
        ([checkpoints["sd"], "--out", out], ".gif is for clips, and this checkpoint makes images"),
        ([checkpoints["sd"], "--frames", 3, "--out", tmp_path / "a.png"], "this checkpoint makes images"),
        ([checkpoints["sd"], "--motion-adapter", animatediff, "--out", out], "does not fit"),
    ):
        code, _, err = command(*words, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert line in err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    code, _, err = command(*words, animatediff, "--out", tmp_path / "a.mp4")
    assert (code, err.count("\n")) == (2, 1)
    assert "an .mp4 needs the extra `video`: pip install 'toydiff[video]'" in err


def test_a_video(command, animatediff, tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    words = ["sample", "--problem", "sd", "--model", animatediff, "--prompt", "a cat", "--n", 2, "--frames", 5]
    code, _, err = command(*words, "--steps", 1, "--size", 64, "--fps", 10, "--out", tmp_path / "a.mp4")
    assert code == 0, err
    made = imageio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert made.shape == (5, 64, 132, 3)
    assert imageio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")["fps"] == 10


# ---- LoRAs


def factors(unet, layers, rank=4):
    """Random factors of a LoRA, (down, up), by layer, of those whose names end so."""
    rng, found = torch.Generator().manual_seed(9), {}
    for name, module in unet.named_modules():
        if name.endswith(layers):
            n, m, *kernel = module.weight.shape
            down = torch.randn(rank, m, *kernel, generator=rng) / (m * rank) ** 0.5
            found[name] = down, torch.randn(n, rank, *[1] * len(kernel), generator=rng) / (4 * rank)
    return found


def by_kohya(changes):
    """As the spatial LoRA of AnimateLCM is written, which holds layers of SD's UNet alone."""
    tensors = {}
    for name, (down, up) in changes.items():
        layer = "lora_unet_" + name.replace(".", "_")
        tensors |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
        tensors[f"{layer}.alpha"] = torch.tensor(2.0)
    return tensors


def by_diffusers(changes):
    """As AnimateDiff's motion LoRAs are written."""
    pairs = {name: dict(zip(("down", "up"), both, strict=True)) for name, both in changes.items()}
    return {f"unet.{name}.lora.{side}.weight": value for name, two in pairs.items() for side, value in two.items()}


def by_peft(changes):
    """As `save_lora_weights` and `toydiff export` write them."""
    pairs = {name: dict(zip("AB", both, strict=True)) for name, both in changes.items()}
    return {f"unet.{name}.lora_{side}.weight": value for name, two in pairs.items() for side, value in two.items()}


@pytest.mark.parametrize(("layout", "strength"), [("saved", ""), ("v1-5", ":0.8")])
@pytest.mark.parametrize("write", [by_kohya, by_diffusers, by_peft])
def test_a_lora_is_that_of_its_pipeline(clips, tmp_path, write, layout, strength):
    adapter = None if layout == "saved" else clips[layout]
    folder = clips["saved" if adapter is None else "sd15"]
    pipe = tiny_families.pipeline_of_clips(folder, adapter)
    of_motion = write is by_diffusers
    # with a LoRA on proj_in between frames their own pipeline fails: it names the layer's argument
    changes = factors(pipe.unet, ("to_q", "to_v", "ff.net.2", *(() if of_motion else ("proj_in", "conv1"))))
    changes = {name: both for name, both in changes.items() if (".motion_modules." in name) == of_motion}
    save_file({name: value.contiguous() for name, value in write(changes).items()}, tmp_path / "one.safetensors")
    plain = StableDiffusion.load(folder, motion_adapter=adapter)
    lora = f"{tmp_path / 'one.safetensors'}{strength}"
    checkpoint = StableDiffusion.load(folder, motion_adapter=adapter, lora=[lora])
    pipe.load_lora_weights(tmp_path, weight_name="one.safetensors", adapter_name="one")
    pipe.set_adapters(["one"], [float(strength[1:] or 1)])
    hidden = checkpoint.prompts.rows(checkpoint.prompts.add(PROMPTS), starts()).hidden
    given = starts(), torch.tensor(500), hidden.repeat_interleave(8, 0)
    with torch.no_grad():
        want = pipe.unet(*given).sample
        found, before = (one.network(*given).sample for one in (checkpoint, plain))
    torch.testing.assert_close(found, want, rtol=0, atol=1e-4)
    assert float((before - found).abs().max()) > 0.01
    made = sample_images(checkpoint, PROMPTS, frames=8, size=64, steps=2, solver="ddim", grid="leading", seed=5)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with torch.no_grad():
        video = pipe.decode_latents(theirs(pipe, 2, negative_prompt=[""] * 2))
    assert float((made.images - (video / 2 + 0.5).clamp(0, 1).transpose(1, 2)).abs().max()) <= 1 / 255


def test_a_lora_of_layers_that_are_not_there(clips, tmp_path):
    """A motion LoRA on SD 1.5 without a motion adapter, and on a middle block that has no layers between frames."""
    unet = tiny_families.pipeline_of_clips(clips["saved"]).unet
    changes = {n: both for n, both in factors(unet, ("to_q",)).items() if "motion_modules" in n}
    save_file(by_diffusers(changes), tmp_path / "motion.safetensors")
    assert "LoRA" in said(clips["sd15"], lora=[tmp_path / "motion.safetensors"])
    line = said(clips["sd15"], motion_adapter=clips["v1-5"], lora=[tmp_path / "motion.safetensors"])
    assert "2 of its" in line
    assert "mid_block" in line


# ---- training


FEW = {"updates": 2, "batch": 2, "warmup": 0, "ema": 0.0, "lr": 1e-2}


def student(method, source, out, **settings):
    """A run of two updates on clips of 4 frames, and its problem."""
    on = problem(f"sd:{source}", settings={"rank": 4, "frames": 4} | settings)
    pairs = (
        make_pairs(on, on.teacher, Recipe(n=4, steps=2, solver="ddim")) if METHODS[method].needs == "pairs" else None
    )
    run = runs.train(method, on, changes=FEW, pairs=pairs, watch=0, out=out)
    losses = [value for record in run for value in record.losses.values()]
    assert torch.isfinite(torch.tensor(losses)).all()
    return on, run.finish()


def test_clips_of_a_folder(moving, animatediff, tmp_path):
    """Four of six frames, from the first to the last; the middle is cut out."""
    on = problem(f"sd:{animatediff}", settings={"data": str(moving), "frames": 4, "cache": str(tmp_path)})
    latents, labels = on.data(200, 0)
    assert latents.shape == (200, 4, 4, 8, 8)
    mean = on._latents[0](torch.arange(4))[0].float()
    with Image.open(moving / "1.gif") as file:
        frames = []
        for k in (0, 2, 3, 5):
            file.seek(k)
            frames.append(ImageOps.fit(file.convert("RGB"), (16, 16), Image.Resampling.LANCZOS))
    images = torch.stack([torch.from_numpy(np.array(frame)).permute(2, 0, 1) / 255 for frame in frames])
    want, _ = on.checkpoint.encode(images[None])
    torch.testing.assert_close(mean[1:2], want, rtol=0, atol=5e-3)  # kept in half precision
    assert [text_of(int(id_)) for id_ in on._latents[1]] == [*tiny_sd.PROMPTS, tiny_sd.PROMPTS[0]]
    assert set(labels.tolist()) == set(on.ids.tolist())
    assert len(list(tmp_path.glob("latents-*.rows"))) == 1
    with pytest.raises(ValueError, match=r"it holds 6 frames, and a clip has 7 here"):
        problem(f"sd:{animatediff}", settings={"data": str(moving), "frames": 7}).data(1)


@pytest.mark.parametrize("method", ["cd", "lcm", "vsd", "rectified-diffusion"])
def test_only_the_layers_between_frames_are_trained(animatediff, moving, tmp_path, method):
    """Stage 2 of AnimateLCM. Teacher, target and fake model share all other weights with the student."""
    settings = {"data": str(moving)} if METHODS[method].data else {"prompts": ["a cat", "a dog"]}
    on, model = student(method, animatediff, tmp_path / "run", trained="motion", **settings)
    ours, before = model.denoiser.net.network, on.checkpoint.network
    frozen = dict(before.named_parameters())
    own = {name for name, p in ours.named_parameters() if p is not frozen.get(name)} - {GUIDANCE}
    assert own == {name for name, _ in before.named_parameters() if "motion_modules" in name}
    assert any(not torch.equal(ours.get_parameter(name), before.get_parameter(name)) for name in own)
    loaded = runs.load(tmp_path / "run").denoiser.net.network
    assert same(loaded, ours)


GUIDANCE = "time_embedding.cond_proj.weight"


@pytest.fixture(scope="module")
def layouts(animatediff, tmp_path_factory):
    """By layout, a folder and the settings with which a problem on it makes clips."""
    plain = tiny_sd.save(tmp_path_factory.mktemp("plain"), "sd", block_out_channels=(32, 32))
    return {"saved": (animatediff, {}), "apart": (plain, {"motion_adapter": f"{animatediff}/motion_adapter"})}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("layout", ["saved", "apart"])
def test_a_motion_adapter_in_plain_diffusers(layouts, tmp_path, layout, lora):
    """The student's layers between frames leave as diffusers' MotionAdapter, and go with an SD folder and the spatial
    LoRA that was there."""
    folder, base = layouts[layout]
    if lora:
        unet = StableDiffusion.load(folder, **base).network
        changes = {n: both for n, both in factors(unet, ("to_q", "proj_in")).items() if "motion" not in n}
        save_file(by_kohya(changes), tmp_path / "one.safetensors")
        base = base | {"lora": [f"{tmp_path / 'one.safetensors'}:0.5"]}
    on, model = student("vsd", folder, tmp_path / "run", trained="motion", prompts=["a cat"], **base)
    made = export(model.denoiser, model.about, tmp_path / "student")
    assert made.what == "motion_adapter"
    files = {file.name for file in (tmp_path / "student" / "motion_adapter").iterdir()}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors"}
    how = {"frames": 4, "steps": max(made.steps), "seed": 5, "solver": "lcm", "guidance_scale": 1.0, "rounded": True}
    how |= {"grid": "uniform"}
    ours = sample_images(on.checkpoint, PROMPTS, denoiser=model.denoiser, **how)
    torch.testing.assert_close(by_its_own_code(made.code, "latent"), ours.latents, rtol=0, atol=1e-4)
    # what leaves by one door comes in by the other
    back = StableDiffusion.load(folder, **base | {"motion_adapter": tmp_path / "student"})
    torch.testing.assert_close(sample_images(back, PROMPTS, **how).latents, ours.latents, rtol=0, atol=1e-4)
    plain = sample_images(on.checkpoint, PROMPTS, **how)
    assert float((plain.latents - ours.latents).abs().max()) > 1e-2


def by_its_own_code(code, output_type):
    """Run the Python that an export prints, with our prompts and seed."""
    *lines, last = code.splitlines()
    assert "num_frames=4" in last
    last = last.replace('"a photograph of an astronaut riding a horse"', repr(PROMPTS)).replace(".frames[0]", ".frames")
    each = "[torch.Generator().manual_seed(5 + k) for k in range(2)]"
    last = last.replace("guidance_scale=", f'generator={each}, output_type="{output_type}", guidance_scale=')
    found = {"torch": torch}
    exec("\n".join([*lines, "pipe.set_progress_bar_config(disable=True)", last]), found)
    return found["clip"]


@pytest.mark.parametrize(
    ("layout", "method", "trained"),
    [
        *(("saved", method, "lora") for method in ("vsd", "rectified-diffusion", "rectified-flow")),
        ("saved", "vsd", "full"),
        ("apart", "vsd", "lora"),
        ("apart", "rectified-flow", "full"),
    ],
)
def test_a_student_in_plain_diffusers_makes_our_clips(layouts, tmp_path, layout, method, trained):
    folder, base = layouts[layout]
    on, model = student(method, folder, tmp_path / "run", trained=trained, prompts=["a cat"], **base)
    made = export(model.denoiser, model.about, tmp_path / "student")
    assert made.what == ("lora" if trained == "lora" else "unet")
    how = {"frames": 4, "seed": 5, "guidance_scale": 1.0, "grid": "uniform", "steps": max(made.steps)}
    how |= {"solver": model.about["sampler"]["solver"], "rounded": True}
    ours = sample_images(on.checkpoint, PROMPTS, denoiser=model.denoiser, **how)
    theirs = by_its_own_code(made.code, "pt")
    assert float((theirs - ours.images).abs().max()) <= 1 / 255
    without = sample_images(on.checkpoint, PROMPTS, **how | {"solver": "ddim"})
    assert float((without.images - theirs).abs().max()) > 2 / 255
    parts = {"lora": [made.folder]} if trained == "lora" else {"unet": made.folder}
    back = StableDiffusion.load(folder, **base, **parts)
    assert float((sample_images(back, PROMPTS, **how).images - ours.images).abs().max()) <= 1 / 255


def test_what_training_refuses(command, animatediff, checkpoints, moving, tmp_path):
    words = ["train", "cd", "--problem", "sd", "--out", tmp_path / "run", "--data", moving, "--model"]
    for more, line in (
        ([checkpoints["sd"], "--motion-only"], "it has no layers between frames to train"),
        ([animatediff, "--motion-only", "--full"], "give one of the two"),
        ([animatediff, "--motion-only", "--rank", 4], "--rank is that of a LoRA, and --motion-only trains none"),
        ([animatediff, "--full", "--rank", 4], "--rank is that of a LoRA, and --full trains none"),
        ([animatediff, "--frames", 40], "32 frames at most"),
        ([animatediff, "--frames", 7], "it holds 6 frames, and a clip has 7 here"),
    ):
        code, _, err = command(*words, *more)
        assert (code, err.count("\n")) == (2, 1), err
        assert line in err
        assert not (tmp_path / "run").exists()


def test_a_student_that_takes_the_scale_stays_here(animatediff, moving, tmp_path):
    _, model = student("lcm", animatediff, tmp_path / "run", data=str(moving))
    with pytest.raises(ValueError, match="AnimateDiffPipeline gives it none"):
        export(model.denoiser, model.about, tmp_path / "student")


def test_train_sample_and_export_by_command(command, animatediff, moving, tmp_path):
    words = ["train", "cd", "--problem", "sd", "--model", animatediff, "--data", moving, "--frames", 4, "--motion-only"]
    code, _, err = command(*words, "--updates", 2, "--batch", 2, "--out", tmp_path / "run")
    assert code == 0, err
    code, out, err = command("sample", tmp_path / "run", "--prompt", "a cat", "--out", tmp_path / "a.gif")
    assert code == 0, err
    assert "1 4-frame clip of 1 prompt" in out
    code, out, err = command("export", tmp_path / "run", "--out", tmp_path / "student")
    assert code == 0, err
    assert "wrote a motion adapter and LCMScheduler" in out
