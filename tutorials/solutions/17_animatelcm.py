"""Solutions of lesson 17.

3. theta-minus starts with the teacher's weights in every part: the base without the LoRA, and the temporal layers that
were trained on it. These fit each other, so the first targets are the teacher's own clips, and the LoRA's share in the
average grows only as the student's temporal layers learn to live with it. A theta-minus that has the LoRA at once is
the unfinished pair of line 4 alone: temporal layers made for the base and for many steps, on layers made for few. Its
errors are then what the student is asked to reproduce. On the ring the difference is small
(`--set target_start=student`), since the LoRA changes little.
"""


def lag_correlation(clips):
    early, late = (part.reshape(-1, clips.shape[2]).double() for part in (clips[:, :-1], clips[:, 1:]))
    early, late = early - early.mean(0), late - late.mean(0)
    size = (early.square().mean(0) * late.square().mean(0)).sqrt()
    return ((early * late).mean(0) / size).mean()


def trained_in(stage, names):
    if stage == 3:
        return {name for name in names if name.endswith((".up", ".down"))}
    return {name for name in names if not name.startswith("image.")}
