"""The sizes that SDXL's UNet sees beside a prompt (arXiv 2307.01952, sec. 2.2): six numbers, all in pixels.

They are the height and width of the original picture, the place (top, left) of the corner of what was cut out of the
scaled picture, and the height and width of that.
"""

from collections.abc import Sequence

from ..support.checks import check_count

Six = tuple[int, int, int, int, int, int]


def sizes_of_call(
    original_size: Sequence[int] | None,
    crops_coords_top_left: Sequence[int] | None,
    target_size: Sequence[int] | None,
    pixels: tuple[int, int],
) -> Six | None:
    """The six numbers of an image of `pixels` = (height, width), by the arguments of diffusers' pipelines; None where
    none of them is given. Both sizes are by default those of the image, and the corner is (0, 0). `ValueError` for what
    is not two whole numbers, of a size at least 1, of a corner at least 0."""
    given = (
        ("original_size", original_size, pixels, 1),
        ("crops_coords_top_left", crops_coords_top_left, (0, 0), 0),
        ("target_size", target_size, pixels, 1),
    )
    if all(value is None for _, value, _, _ in given):
        return None
    found: list[int] = []
    for name, value, usual, least in given:
        two = usual if value is None else value
        if not isinstance(two, list | tuple) or len(two) != 2:
            raise ValueError(f"{name} is two numbers of pixels, vertical and horizontal, got {two!r}")
        found += [check_count(side, name, least) for side in two]
    return found[0], found[1], found[2], found[3], found[4], found[5]
