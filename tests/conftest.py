"""Fixtures shared by all tests; this file also puts ``tests/`` on the import path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_models import ARCHITECTURES, Architecture, tiny_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take as long as a small, busy machine needs: half an hour each."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Architecture, Path]:
    """A tiny random model of each architecture, with a chat template."""
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_model(root / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def tiny(models: dict[Architecture, Path]) -> Path:
    """The folder of a tiny Llama with a chat template."""
    return models["llama"]
