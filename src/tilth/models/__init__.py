"""Models: references, safe loading, chat templates, and the engines that answer.

>>> from tilth.models import Sampling, engine                                # doctest: +SKIP
>>> writer = engine("seedling:small")                                        # doctest: +SKIP
>>> writer.chat([[{"role": "user", "content": "How much is 2 and 3?"}]])     # doctest: +SKIP

Importing this package imports no torch; using a local model does.
"""

from tilth.models.chat import Encoded, chat_format, encode_chat
from tilth.models.engine import Completion, Engine, Sampling, Score, require
from tilth.models.engines import engine
from tilth.models.load import load, load_tokenizer
from tilth.models.reference import Reference, digest, resolve

__all__ = [
    "Completion",
    "Encoded",
    "Engine",
    "Reference",
    "Sampling",
    "Score",
    "chat_format",
    "digest",
    "encode_chat",
    "engine",
    "load",
    "load_tokenizer",
    "require",
    "resolve",
]
