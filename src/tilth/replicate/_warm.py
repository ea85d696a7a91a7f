"""Imported once by the server that all cells are forked from, so that no cell waits for imports.

Only imports: no tensor is made and no thread is started here, so that every cell begins as a fresh
process would, several seconds earlier.
"""

import logging

__all__: list[str] = []

logging.disable(logging.WARNING)  # remarks of libraries on being imported; no cell has begun
try:
    import scipy.stats
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.trainer

    import tilth.decode.engine
    import tilth.evaluate._asking
    import tilth.models.local
    import tilth.tune._run  # noqa: F401
finally:
    logging.disable(logging.NOTSET)
