"""Search architecture and precision together for a device. The stages of the command line are functions here."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.candidates import run_search
    from nas.export import export_front, load_model
    from nas.finetuning.front import finetune_front
    from nas.profiling import profile_device
    from nas.results import load_results
    from nas.search import optimize
    from nas.training import train_supernet
    from nas.verify import verify_front

__version__ = version("hybridnas")

__all__ = [
    "export_front",
    "finetune_front",
    "load_model",
    "load_results",
    "optimize",
    "profile_device",
    "run_search",
    "train_supernet",
    "verify_front",
]

_MODULES = {
    "export_front": "nas.export",
    "finetune_front": "nas.finetuning.front",
    "load_model": "nas.export",
    "load_results": "nas.results",
    "optimize": "nas.search",
    "profile_device": "nas.profiling",
    "run_search": "nas.candidates",
    "train_supernet": "nas.training",
    "verify_front": "nas.verify",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch on first use, so that `nas --help` is quick."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
