"""The structure: imports point one way, from room to room and from file to file; private names stay in their module."""

import ast
from pathlib import Path

import toydiff

PACKAGE = Path(toydiff.__file__).parent

LAYERS = [
    ["support"],
    ["schedules"],
    ["prediction"],
    ["denoisers"],
    ["grids", "mixtures", "nets"],
    ["solvers"],
    ["measure", "discrete"],
    ["training", "weights", "adapters"],
    ["problems"],
    ["distill"],
    ["catalog"],
    ["runs"],
    ["plots"],
    ["studies"],
    ["cli"],
]
"""Rooms and files of the root, from the ground up: each may import what lies below it, and its own layer's."""

FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}

LAZY = {
    # a network of diffusers is an extra: what makes it is imported by the one call that needs it
    ("weights.networks", "adapters.checkpoint"),
}
"""Imports inside a function that close a circle, and why."""


def modules():
    """{name: path} of all modules, without the package's own name; a room's __init__ is the room."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        *rooms, name = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(rooms if name == "__init__" else [*rooms, name])] = path
    return found


MODULES = modules()


def imports(name):
    """(module, imported name) of every import of a module of the package, wherever it stands."""
    path = MODULES[name]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            rooms = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            rooms = [room for room in rooms if room][: len(rooms) - node.level + 1]
            base = ".".join([*rooms, *filter(None, [node.module])])
        elif node.module and node.module.split(".")[0] == "toydiff":
            base = ".".join(node.module.split(".")[1:])
        else:
            continue
        for alias in node.names:
            whole = ".".join(filter(None, [base, alias.name]))
            yield (whole, None) if whole in MODULES else (base, alias.name)


def graph():
    """{module: modules that it imports}; an __init__ that hands names on counts where a name is imported from it."""
    return {name: {to for to, _ in imports(name) if to != name and (name, to) not in LAZY} for name in MODULES if name}


def test_imports_point_down():
    wrong = [
        f"{name} imports {to}"
        for name, others in graph().items()
        for to in others
        if to and name != "__main__" and FLOOR[to.split(".")[0]] > FLOOR[name.split(".")[0]]
    ]
    assert not wrong, wrong


def test_there_is_no_circle():
    """By taking away, again and again, the modules that import none of those that are left."""
    left = graph()
    while True:
        free = [name for name, others in left.items() if not others & left.keys()]
        if not free:
            break
        for name in free:
            del left[name]
    assert not left, {name: sorted(others & left.keys()) for name, others in left.items()}


def test_private_names_stay_in_their_module():
    wrong = [
        f"{name} imports {what} of {to}"
        for name in MODULES
        for to, what in imports(name)
        if any(part.startswith("_") and not part.startswith("__") for part in filter(None, [*to.split("."), what]))
    ]
    assert not wrong, wrong


def test_few_files_at_the_root():
    assert len(list(PACKAGE.glob("*.py"))) <= 10
