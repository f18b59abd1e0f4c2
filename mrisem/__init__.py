"""mrisem: undersampled MRI reconstruction guided by a frozen vision-language model.

The functions of `mrisem.api` are offered here; each is imported when it is first used, so that
``import mrisem`` takes no time. Their types are in ``__init__.pyi``.
"""

from importlib import import_module

__version__ = "0.1.0"

# name -> module that has it; masks is a module itself
_EXPORTED = {
    **dict.fromkeys(("Scan", "load", "undersample"), "mrisem.api.scan"),
    **dict.fromkeys(("Result", "fit"), "mrisem.api.methods"),
    **dict.fromkeys(
        ("zero_filled", "cg_sense", "grappa", "tv", "l1_wavelet"), "mrisem.api.methods"
    ),
    **dict.fromkeys(("PriorChoice", "semantic_prior"), "mrisem.api.priors"),
    **dict.fromkeys(("score", "show"), "mrisem.api.comparison"),
    "simulate": "mrisem.api.simulation",
    "compose": "mrisem.config.compose",
    "InputError": "mrisem.errors",
    "masks": "mrisem.api.masks",
}


def __getattr__(name: str) -> object:
    if name not in _EXPORTED:
        raise AttributeError(f"module 'mrisem' has no attribute {name!r}")
    module = import_module(_EXPORTED[name])
    value = globals()[name] = module if name == "masks" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTED})
