"""The plan of the house, held: no import goes up a floor, files stay small, imports stay light.

Floors from bottom to top; a module may import from its own floor and from those below, wherever in
the file the import stands (for type checking only excepted). Verbs do not import each other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilth
from tilth.registry import VERBS, methods

SOURCE = Path(tilth.__file__).parent
FLOORS: tuple[frozenset[str], ...] = (
    frozenset(
        {"__init__", "errors", "seeds", "cost", "stats", "artefacts", "sandbox", "method"}
        | {"marked_yaml", "_cell", "_disk", "_manifest", "_members", "_resampling", "_secrets"}
    ),
    frozenset({"data", "models"}),
    frozenset({"almanac"}),
    frozenset(VERBS),
    frozenset({"apps"}),
    frozenset({"recipe", "registry", "validate", "run"}),
    frozenset({"report", "replicate"}),
    frozenset({"cli", "__main__"}),
)
HEAVY = frozenset(
    {"torch", "transformers", "datasets", "peft", "trl", "accelerate"}
    | {"scipy", "sklearn", "matplotlib", "pandas", "pyarrow"}
)
LONGEST = 400
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a module of tilth."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def room_of(module: str) -> str:
    """The file or package directly below ``tilth`` that `module` belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor_of(module: str) -> int:
    """The number of the floor that `module` stands on, 0 is the ground."""
    for number, rooms in enumerate(FLOORS):
        if room_of(module) in rooms:
            return number
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def statements(tree: ast.AST, inside_functions: bool) -> Iterator[ast.stmt]:
    """Import statements, without those for type checking only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from statements(node, inside_functions)


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """Dotted names of everything that the file imports."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found: set[str] = set()
    for node in statements(ast.parse(path.read_bytes()), inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = package[: len(package) - node.level + 1]
                base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:  # `from tilth.report import numbers` names a module
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in NAMES else base)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_goes_up_a_floor(path: Path) -> None:
    here = name_of(path)
    for target in sorted(imports(path)):
        if target != "tilth" and not target.startswith("tilth."):
            continue
        assert floor_of(target) <= floor_of(here), f"{here} imports {target} from a floor above"
        both_verbs = room_of(here) in VERBS and room_of(target) in VERBS
        assert not both_verbs or room_of(here) == room_of(target), f"{here} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_is_small_and_named_by_what_it_does(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path.name} has {lines} lines: make it a folder"
    assert path.stem.strip("_") not in {"utils", "util", "misc", "common", "helpers", "helper"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_modules_say_what_they_are_and_offer(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    if not tree.body:
        return
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    if "._" in name_of(path) or path.stem in ("__init__", "__main__"):
        return
    listed = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node)
    ]
    assert listed, f"{name_of(path)} has no __all__"


def test_there_are_no_circles() -> None:
    graph = {
        name_of(path): {t for t in imports(path, inside_functions=False) if t.startswith("tilth.")}
        for path in MODULES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            if target != module:
                visit(target, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_methods_import_nothing_heavy() -> None:
    modules = sorted({entry.target.partition(":")[0] for entry in methods().values()})
    code = (
        f"import sys, importlib\nfor name in {modules}:\n"
        f"    importlib.import_module(name)\n"
        f"    heavy = {set(HEAVY)} & set(sys.modules)\n"
        f"    assert not heavy, f'{{name}} imports {{heavy}}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_method_modules_have_no_heavy_import_at_their_top(verb: str) -> None:
    for path in sorted((SOURCE / verb).glob("*.py")):
        if path.stem.startswith("_") and path.stem != "__init__":
            continue  # a private sibling is where the heavy part may live
        roots = {name.partition(".")[0] for name in imports(path, inside_functions=False)}
        assert not roots & HEAVY, f"{name_of(path)} imports {roots & HEAVY} at its top"
