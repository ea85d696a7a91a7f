"""Imported once by the server that all cells are forked from, so that no cell waits for imports.

Only imports: no tensor is made and no computing thread started here, so that every cell begins as a
fresh process would, several seconds earlier.
"""

import logging
from importlib import import_module

__all__ = ["MODULES"]

MODULES = (
    "scipy.stats",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "tilth.decode.engine",
    "tilth.evaluate._asking",
    "tilth.models.local",
    "tilth.tune._run",
)
"""What most cells import, and what takes long."""

logging.disable(logging.WARNING)  # remarks that libraries make on being imported
try:
    for name in MODULES:
        import_module(name)
finally:
    logging.disable(logging.NOTSET)
