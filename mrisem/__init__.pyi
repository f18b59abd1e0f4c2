from mrisem.api import masks as masks
from mrisem.api.comparison import score as score
from mrisem.api.comparison import show as show
from mrisem.api.methods import Result as Result
from mrisem.api.methods import cg_sense as cg_sense
from mrisem.api.methods import fit as fit
from mrisem.api.methods import grappa as grappa
from mrisem.api.methods import l1_wavelet as l1_wavelet
from mrisem.api.methods import tv as tv
from mrisem.api.methods import zero_filled as zero_filled
from mrisem.api.priors import PriorChoice as PriorChoice
from mrisem.api.priors import semantic_prior as semantic_prior
from mrisem.api.scan import Scan as Scan
from mrisem.api.scan import load as load
from mrisem.api.scan import undersample as undersample
from mrisem.api.simulation import simulate as simulate
from mrisem.config.compose import compose as compose
from mrisem.errors import InputError as InputError

__version__: str
