"""Which of the processes that a launcher started together this one is. Imports nothing that takes time."""

import os

LAUNCHERS = {
    "WORLD_SIZE": "RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}
"""Where a launcher says how many processes it started, and which of them this is: torchrun and accelerate, Open MPI,
MPICH, MVAPICH, and a step of Slurm's srun. SLURM_NTASKS is of a whole job, whose shell is one process."""


def runs_with_others() -> bool:
    """Whether a launcher started several processes with this command."""
    return any(os.environ.get(name, "1") not in ("", "0", "1") for name in LAUNCHERS)


def is_first_process() -> bool:
    """Whether this process prints: it is the only one, or the first of those that a launcher such as `accelerate
    launch` started together."""
    return not runs_with_others() or all(os.environ.get(name, "0") == "0" for name in LAUNCHERS.values())
