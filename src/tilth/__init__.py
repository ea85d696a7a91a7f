"""tilth: a workbench for tuning models, with evidence.

The top level stays light: torch and transformers are imported by the modules that need them.
"""

__version__ = "0.1.0"
