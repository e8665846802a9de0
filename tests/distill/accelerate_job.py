"""What several processes run in a test: a few updates on points, images and clips, whole, and interrupted and resumed.

By hand: torchrun --standalone --nproc_per_node 2 tests/distill/accelerate_job.py FOLDER/2
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from tiny import TinyClips, TinyDigits, TinyMixture

from toydiff import runs

CHANGES = {"batch": 16, "updates": 10, "lr": 1e-2, "warmup": 2}


def main(folder: Path, processes: int) -> None:
    torch.set_default_dtype(torch.float64)  # rounding is then far below what a wrong part of the batch would show
    accelerator = Accelerator(cpu=True) if processes > 1 else None
    assert accelerator is None or accelerator.num_processes == processes
    for what, method, problem, own in (
        ("points", "diffusion", TinyMixture(), {}),
        ("images", "diffusion", TinyDigits(), {}),
        ("clips", "animatelcm", TinyClips(), {"batch": 4, "frames": 2, "updates": 8, "given": 0.5}),
    ):

        def train(name, resume=False, what=what, method=method, problem=problem, own=own):
            return runs.train(
                method,
                problem,
                out=folder / f"{name}-{what}",
                changes=CHANGES | own,
                resume=resume,
                every=2,
                accelerator=accelerator,
            )

        train("whole").finish()
        for record in train("cut"):
            if record.step == 5:
                break
        if accelerator is not None:
            accelerator.wait_for_everyone()
        train("cut", resume=True).finish()
    if accelerator is not None:
        accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(Path(sys.argv[1]).name))
