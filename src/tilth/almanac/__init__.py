"""The almanac: a small, fully controlled farming world that all methods share.

``world`` holds entities and graded facts, ``documents`` what is written about them, ``skills`` ten
abilities with verifiers, ``exams`` held-out questions, ``pool`` rows of known worth, ``teaching``
what generation methods ask of a teacher, ``corpus`` the pre-training text, and ``seedlings`` the
tiny language models that were trained on it.
"""
