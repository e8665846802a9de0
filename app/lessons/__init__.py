# ruff: noqa: F401, I001 - the order of the imports is that of the menu
"""The pages, in the order of the menu. A page is one file, such as orders.py, with its `Lesson`, and one line here.

Controls are in screen/controls.py.
"""

from screen.lesson import Lesson

from .paths import LESSON as paths
from .orders import LESSON as orders
from .grids import LESSON as grids
from .picard import LESSON as picard
from .halving import LESSON as halving
from .lines import LESSON as lines
from .reflow import LESSON as reflow
from .consistency import LESSON as consistency
from .scores import LESSON as scores
from .adversarial import LESSON as adversarial
from .digits import LESSON as digits
from .scoreboard import LESSON as scoreboard
from .tokens import LESSON as tokens
from .clips import LESSON as clips
from .stable_diffusion import LESSON as stable_diffusion

LESSONS = tuple(lesson for lesson in list(globals().values()) if isinstance(lesson, Lesson) and lesson.there)
