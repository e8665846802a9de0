"""The pages, in the order of the menu: a page is one file and one entry here."""

from . import consistency, digits, lines, orders, paths, picard, reflow, scores, stable_diffusion

LESSONS = (
    paths.LESSON,
    orders.LESSON,
    picard.LESSON,
    lines.LESSON,
    reflow.LESSON,
    consistency.LESSON,
    scores.LESSON,
    digits.LESSON,
    stable_diffusion.LESSON,
)
