"""Dark-matter maps compressed 32 times and reconstructed by a flow: the paper CosmoFlow, explained and implemented."""

from importlib.metadata import version as _version

__version__ = _version("cosmoflow")
__all__ = ["CosmoFlow"]


def __getattr__(name: str):
    """Loads the model on first use, so that `cosmoflow --help` need not wait for torch."""
    if name == "CosmoFlow":
        from cosmoflow.model import CosmoFlow
        return CosmoFlow
    raise AttributeError(f"module 'cosmoflow' has no attribute {name!r}")
