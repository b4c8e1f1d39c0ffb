"""Dark-matter maps, compressed 32 times and reconstructed by a flow.

The paper CosmoFlow, explained and implemented.
"""

from importlib import import_module as _import_module
from importlib.metadata import PackageNotFoundError as _NotInstalled
from importlib.metadata import version as _version
from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosmoflow.data import open_maps, split_simulations
    from cosmoflow.model import CosmoFlow

try:
    __version__ = _version("cosmoflow")
except _NotInstalled:  # a checkout, or a ZIP of one
    _settings = _Path(__file__).parents[1] / "settings.ini"
    _lines = _settings.read_text(encoding="utf-8").splitlines()
    __version__ = next(line.partition("=")[2].strip() for line in _lines
                       if line.startswith("version"))

__all__ = ["CosmoFlow", "open_maps", "split_simulations"]


def __getattr__(name: str):
    "Loads a module on first use, so that `cosmoflow --help` need not wait for torch."
    if name not in __all__:
        raise AttributeError(f"module 'cosmoflow' has no attribute {name!r}")
    module = "model" if name == "CosmoFlow" else "data"
    return getattr(_import_module(f"cosmoflow.{module}"), name)


def __dir__() -> list[str]: return [*globals(), *__all__]
