"""What all rooms use, and what knows nothing of diffusion: checks with messages for people, whole files, seeds."""
