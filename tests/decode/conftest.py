"""A family of tiny random models of one vocabulary: large, small, and two adapters on small."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import tiny_adapter, tiny_model


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by name."""
    root = tmp_path_factory.mktemp("family")
    small = tiny_model(root / "small", hidden=32, layers=1, seed=1)
    return {
        "large": tiny_model(root / "large", hidden=48, layers=2, seed=2),
        "small": small,
        "other": tiny_model(root / "other", hidden=32, layers=1, seed=3),
        "adapter": tiny_adapter(root / "adapter", small, seed=4),
        "second": tiny_adapter(root / "second", small, seed=5),
    }


@pytest.fixture(scope="session")
def eft(family: dict[str, Path]) -> str:
    """Large, with what the adapter changed in small."""
    return (
        f"eft:base={family['large']},expert={family['small']}+{family['adapter']},"
        f"anti={family['small']}"
    )
