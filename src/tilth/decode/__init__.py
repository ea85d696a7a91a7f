"""Behaviour changed while a model answers; methods register under ``tilth.decode``."""
