"""Search for the best settings; methods register under ``tilth.optimize``."""
