"""A verb's package offers its methods by name, and importing them stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "torch transformers datasets peft scipy sklearn matplotlib"


def test_a_method_is_found_by_its_name() -> None:
    from tilth.generate import SelfInstruct
    from tilth.select import Length

    assert Length.full_name() == "select.length"
    assert SelfInstruct.full_name() == "generate.self_instruct"


def test_an_unknown_name_is_an_ordinary_import_error() -> None:
    import tilth.select

    with pytest.raises(ImportError, match="Longest"):
        from tilth.select import Longest  # noqa: F401
    with pytest.raises(AttributeError, match="shuffle"):
        _ = tilth.select.shuffle


def test_the_first_methods_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tilth.generate import SelfInstruct, Shuffled\n"
        "from tilth.select import Length, Random\n"
        "from tilth.evaluate import Answers, Compare, Exams\n"
        f"print([name for name in '{HEAVY}'.split() if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
