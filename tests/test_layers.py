"""Imports run against the flow of data only, without circles, and private files stay in their rooms."""

import ast
from pathlib import Path

import pytest

import skmm

ROOT = Path(skmm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Lower floors first: a room imports from the floors below. The rooms of the first floor are helpers, which may import
# each other as long as there is no circle.
FLOORS = [
    {
        "_columns",
        "_composition",
        "_fixed",
        "_optional",
        "_plot",
        "_similar",
        "_sklearn",
        "_table_files",
        "_threads",
        "_torch",
        "_typing",
        "_warnings",
        "exceptions",
        "media",
        "store",
    },
    {"encoders", "datasets", "metrics"},
    {"fusion"},
    {"ensemble", "neural_network"},
    {"_skops"},
    {"_bundle"},
    {"retrieval", "translation"},
    {"model_selection", "inspection"},
    {"__main__"},
]
FLOOR_OF = {name: level for level, names in enumerate(FLOORS) for name in names}

# Files that define modules of networks, which are classes of torch; others import them where they are used.
TORCH_AT_TOP = {
    Path(f"{name}.py")
    for name in (
        "encoders/networks/_split",
        "neural_network/branches/_augment",
        "neural_network/branches/_modules",
        "neural_network/network/_fusion_layers",
        "neural_network/network/_network",
        "neural_network/network/_randomness",
        "neural_network/multitask/_loss",
    )
}


def module_of(path):
    """Dotted name of a file, a package's for its ``__init__``."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def import_statements(path):
    """Yield (absolute module, imported names, whether at the top level) of a file."""
    package = path.relative_to(ROOT.parent).parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], node in tree.body
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, [alias.name for alias in node.names], node in tree.body


def stub_homes(package):
    """Name -> module that defines it, as the stub of a package says."""
    stub = ROOT.parent / package.replace(".", "/") / "__init__.pyi"
    homes = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body if stub.exists() else ():
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.name: f"{package}.{node.module or alias.name}" for alias in node.names}
    return homes


def imported_modules(path):
    """Yield the modules of skmm that a file imports from, packages resolved to the file that defines the name."""
    for module, names, _ in import_statements(path):
        if module != "skmm" and not module.startswith("skmm."):
            continue
        homes = stub_homes(module)
        for name in names or [""]:
            home = homes.get(name, module)
            while (further := stub_homes(home).get(name)) is not None:
                home = further
            yield f"{module}.{name}" if f"{module}.{name}" in MODULES else home


def room(module):
    """First part of a module's name below skmm."""
    return module.split(".")[1] if "." in module else "__init__"


per_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def test_every_file_has_a_floor():
    assert {room(module) for module in MODULES} - {"__init__"} <= set(FLOOR_OF)


@per_file
def test_imports_go_down(path):
    here = room(module_of(path))
    if here == "__init__":
        return
    for module in imported_modules(path):
        other = room(module)
        if other != here:
            assert FLOOR_OF[other] < FLOOR_OF[here] or FLOOR_OF[other] == FLOOR_OF[here] == 0, module


@per_file
def test_private_files_stay_in_their_rooms(path):
    # A folder may use the files of the folder it lies in; all others go through the package's stub.
    folder = path.relative_to(ROOT.parent).parent.parts
    statements = import_statements(path)
    for module in [module for base, names, _ in statements for module in (base, *(f"{base}.{name}" for name in names))]:
        parts = module.split(".")
        if parts[0] == "skmm" and parts[-1].startswith("_") and len(parts) > 2 and module in MODULES:
            is_package = MODULES[module].name == "__init__.py"
            assert is_package or folder[: len(parts) - 1] == tuple(parts[:-1]), f"{module} is another folder's file"


def test_no_circle():
    edges = {module: set(imported_modules(path)) - {module} for module, path in MODULES.items()}
    edges = {module: others & edges.keys() for module, others in edges.items() if MODULES[module].name != "__init__.py"}
    while edges:
        leaves = {module for module, others in edges.items() if not others & edges.keys()}
        assert leaves, f"these modules import each other: {sorted(edges)}"
        edges = {module: others for module, others in edges.items() if module not in leaves}


@per_file
def test_private_scikit_learn_enters_at_one_place(path):
    if room(module_of(path)) == "_sklearn":
        return
    for module, names, _ in import_statements(path):
        if module.split(".")[0] == "sklearn":
            private = [part for part in [*module.split("."), *names] if part.startswith("_")]
            assert not private, f"{path.relative_to(ROOT)} imports {private} of scikit-learn; take them from _sklearn"


@per_file
def test_torch_is_imported_at_the_point_of_use(path):
    if path.relative_to(ROOT) in TORCH_AT_TOP:
        return
    heavy = {"av", "matplotlib", "torch", "timm", "transformers", "sentence_transformers"}
    assert not [module for module, _, top in import_statements(path) if top and module.split(".")[0] in heavy]


@per_file
def test_media_knows_no_torch(path):
    if room(module_of(path)) == "media":
        assert not [module for module, _, _ in import_statements(path) if module.split(".")[0] in {"torch", "timm"}]


def test_the_checks_see_something():
    statements = {module for path in FILES for module, _, _ in import_statements(path)}
    assert {"sklearn.utils.metaestimators", "torch", "skmm.store"} <= statements
    assert "skmm.store._store" in {module for path in FILES for module in imported_modules(path)}
