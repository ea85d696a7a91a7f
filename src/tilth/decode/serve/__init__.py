"""An OpenAI-compatible server for any model reference, and a page to talk to two models at once.

    tilth serve seedling:teacher
    tilth serve eft:base=seedling:large,expert=tuned,anti=seedling:small seedling:large

``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models`` speak the OpenAI protocol, with
streaming and log-probabilities; ``/`` is the page. Answers are written by one thread from a queue
of bounded length. It listens on loopback unless told otherwise, and then only with a key.
"""

from tilth.decode.serve.limits import Limits

__all__ = ["Limits"]
