"""The rooms of the package: each imports from the floors below it, and no import leads back."""

import ast

import pytest

from tests.helpers import PACKAGE

# From the ground floor up: a room knows those before it.
FLOORS = (
    "distributed",
    "warn_once",
    "functional",
    "bottleneck",
    "objectives",
    "infinite_width",
    "capture",
    "records",
    "tensorboard_plugin",
    "binning",
    "estimators",
    "plot",
    "measurement",
    "report",
    "evaluation",
    "reproduce",
    "callbacks",
    "cli",
)
OTHERS = {
    "functional": {"torch", "numpy", "scipy"},  # the latter two inside functions, where they are there
    "bottleneck": {"matplotlib", "torch"},
    "objectives": {"torch"},
    "infinite_width": {"torch"},
    "records": {"pandas"},
    "plot": {"matplotlib", "numpy", "sklearn"},
    "tensorboard_plugin": {"tensorboard", "werkzeug"},
    "reproduce": {"matplotlib", "numpy", "torch"},
}
"""What some rooms may import from elsewhere."""

FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file):
    """The modules that a file imports, those for type checking included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def room_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_knows_the_floors_below_it(file):
    room = room_of(file)
    if room in ("__init__", "__main__"):
        return
    own = {module.split(".")[1] for module in imported(file) if module.startswith("lightning_ib.")}
    assert own <= set(FLOORS[: FLOORS.index(room) + 1])


@pytest.mark.parametrize("room", OTHERS)
def test_some_rooms_know_little_of_elsewhere(room):
    import sys

    used = {
        module.split(".")[0] for file in FILES if room_of(file) == room for module in imported(file)
    } - sys.stdlib_module_names
    assert used <= {"lightning_ib", *OTHERS[room]}


def test_the_page_knows_records_alone():
    """TensorBoard imports it at its start, whatever else is installed."""
    for file in FILES:
        if room_of(file) == "tensorboard_plugin":
            own = {module.split(".")[1] for module in imported(file) if module.startswith("lightning_ib.")}
            assert own <= {"records", "tensorboard_plugin"}, file


@pytest.mark.parametrize("room", ["objectives", "infinite_width"])
def test_some_rooms_know_the_checks_alone(room):
    """They are for any program, beside the rest of the package."""
    for file in FILES:
        if room_of(file) == room:
            own = {module for module in imported(file) if module.startswith("lightning_ib.")}
            assert {module for module in own if f".{room}" not in module} <= {"lightning_ib.functional.checks"}, file


def test_lightning_is_known_to_the_callbacks_alone():
    for file in FILES:
        if any(module.split(".")[0] in ("lightning", "pytorch_lightning") for module in imported(file)):
            assert room_of(file) == "callbacks", file


def test_no_import_leads_back():
    """No circle of modules, type-checking imports included."""
    graph = {}
    for file in FILES:
        name = ".".join(("lightning_ib", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        graph[name] = {module for module in imported(file) if module.startswith("lightning_ib")}
    done, path = set(), []

    def walk(name):
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name in done or name not in graph or name == "lightning_ib":
            return
        path.append(name)
        for other in sorted(graph[name]):
            walk(other)
        path.pop()
        done.add(name)

    for name in graph:
        walk(name)


# -- in one sitting ----------------------------------------------------------------------------------------------------

LONGEST = {ast.ClassDef: 330, ast.FunctionDef: 60, ast.AsyncFunctionDef: 60}
"""The most lines of a class and of a function, docstrings included."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_can_be_read_in_one_sitting(file):
    text = file.read_text()
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if type(node) in LONGEST:
            assert node.end_lineno - node.lineno < LONGEST[type(node)], node.name
