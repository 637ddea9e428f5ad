"""Imports run against the flow of data only, and scikit-learn's private names enter at one place."""

import ast
from pathlib import Path

import pytest

import skmm

ROOT = Path(skmm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Lower floors first; a package may import from its own floor's helpers and from the floors below.
FLOORS = [
    {
        "_array_api",
        "_base",
        "_memory",
        "_missing",
        "_optional",
        "_plot",
        "_registry",
        "_store",
        "_store_claims",
        "_store_engine",
        "_store_file",
        "_store_folder",
        "_store_limits",
        "_store_values",
        "_torch",
        "_torch_settings",
        "_validation",
    },
    {"encoders", "datasets", "metrics"},
    {"fusion"},
    {"ensemble", "neural_network", "retrieval"},
    {"model_selection", "inspection"},
]
FLOOR_OF = {name: level for level, names in enumerate(FLOORS) for name in names}
PRIVATE_SKLEARN = {"_validation"}
# Files that define modules of networks, which are classes of torch; others import them where they are used.
TORCH_AT_TOP = {
    Path(f"neural_network/{name}.py")
    for name in ("_branch_modules", "_fusion_modules", "_modules", "_multitask_modules")
}


def room(path):
    """First part of a module's path below the package: a helper's name or a subpackage's."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Yield (absolute module, imported names, whether at the top level) of a file."""
    package = ["skmm", *path.relative_to(ROOT).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], node in top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, [alias.name for alias in node.names], node in top


def own_rooms(module, names):
    """Rooms of skmm that an import reaches."""
    parts = module.split(".")
    if parts[0] != "skmm":
        return set()
    return {parts[1]} if len(parts) > 1 else set(names)


def test_every_file_has_a_floor():
    assert {room(path) for path in FILES} - {"__init__"} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    here = room(path)
    if here == "__init__":
        return
    for module, names, _ in imports(path):
        for other in own_rooms(module, names) - {here}:
            lower = FLOOR_OF[other] < FLOOR_OF[here]
            both_helpers = FLOOR_OF[other] == FLOOR_OF[here] == 0
            assert lower or both_helpers, f"{path.relative_to(ROOT)} imports {other}, which is not below {here}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_scikit_learn_enters_at_one_place(path):
    if room(path) in PRIVATE_SKLEARN:
        return
    for module, names, _ in imports(path):
        if module.split(".")[0] == "sklearn":
            private = [part for part in [*module.split("."), *names] if part.startswith("_")]
            assert not private, (
                f"{path.relative_to(ROOT)} imports {private} of scikit-learn; take them from _validation"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_is_imported_at_the_point_of_use(path):
    if path.relative_to(ROOT) in TORCH_AT_TOP:
        return
    heavy = {"av", "torch", "timm", "transformers", "sentence_transformers"}
    at_top = [module for module, _, top in imports(path) if top and module.split(".")[0] in heavy]
    assert not at_top


def test_helpers_form_no_cycle():
    edges = {
        room(path): {other for module, names, _ in imports(path) for other in own_rooms(module, names)} - {room(path)}
        for path in FILES
        if room(path) in FLOORS[0]
    }
    while edges:
        leaves = {name for name, others in edges.items() if not others & edges.keys()}
        assert leaves, f"these helpers import each other: {sorted(edges)}"
        edges = {name: others for name, others in edges.items() if name not in leaves}


def test_the_checks_see_something():
    seen = {module for path in FILES for module, _, _ in imports(path)}
    assert "sklearn.utils.metaestimators" in seen
    assert "skmm._validation" in seen
    assert "torch" in seen
