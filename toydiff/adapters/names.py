"""What diffusers calls things that have another name here: samplers, and kinds of prediction."""

COMPARABLE = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "ddim",
    "EulerAncestralDiscreteScheduler": "ddpm",
    "HeunDiscreteScheduler": "heun",
    "DPMSolverMultistepScheduler": "dpm++2m",
    "UniPCMultistepScheduler": "unipc2",
    "PNDMScheduler": "plms",
    "DEISMultistepScheduler": "deis2",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
}
"""The schedulers that a solver can be compared with, and that solver."""
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""How the noise levels of a scheduler's table rise, by the `beta_schedule` of its configuration."""
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
"""What a UNet of a checkpoint may predict, by the `prediction_type` of a scheduler's configuration."""
