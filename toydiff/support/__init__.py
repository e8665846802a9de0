"""What everything uses and what knows nothing of diffusion: messages for people, whole files, seeds."""
