"""The inside of :mod:`tilth.sandbox`: a process that shuts itself in and runs hostile programs.

``warden.py`` is started as a script, with the standard library only; a folder of its own keeps
tilth's modules (``select`` is one) out of its import path.
"""
