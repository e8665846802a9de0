# ruff: noqa: F401, I001 - the order of the imports is that of the tables
"""The catalog: one `Card` a method, beside the method itself. The command, the app and the tutorials read it: a new
method is one file and one line here."""

from .distill.base import Card
from .distill.diffusion import CARD as diffusion
from .distill.flow_matching import CARD as flow_matching
from .distill.naive import CARD as naive
from .distill.guided import CARD as guided
from .distill.progressive import CARD as progressive
from .distill.rectified_flow import CARD as rectified_flow
from .distill.instaflow import CARD as instaflow
from .distill.rectified_diffusion import CARD as rectified_diffusion
from .distill.perflow import CARD as perflow
from .distill.rectified_diffusion_phased import CARD as rectified_diffusion_phased
from .distill.cd import CARD as cd
from .distill.ct import CARD as ct
from .distill.ect import CARD as ect
from .distill.sct import CARD as sct
from .distill.multistep import CARD as multistep
from .distill.lcm import CARD as lcm
from .distill.pcm import CARD as pcm
from .distill.vsd import CARD as vsd
from .distill.swiftbrush import CARD as swiftbrush
from .distill.dmd import CARD as dmd
from .distill.dmd2 import CARD as dmd2
from .distill.sim import CARD as sim
from .distill.adversarial import CARD as adversarial
from .distill.discrete_flow_matching import CARD as discrete_flow_matching
from .distill.di4c import CARD as di4c
from .distill.animatelcm import CARD as animatelcm

_ALL = {card.id: card for card in list(globals().values()) if isinstance(card, Card)}

METHODS: dict[str, Card] = {name: card for name, card in _ALL.items() if not card.tokens}
"""The methods that train a denoiser of vectors, by name, in the order in which tables list them: of every card that is
imported above."""

TOKEN_METHODS: dict[str, Card] = {name: card for name, card in _ALL.items() if card.tokens}
"""Those that train a model of tokens."""
