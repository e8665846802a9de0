"""The code under a figure: the very functions that drew it, their imports, and a call with the values on show."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import toydiff

OURS = ("screen", "lessons", "streamlit")
"""Modules of the app itself, which a reader does not have."""


def snippet(functions: Sequence[Callable], arguments: Mapping[str, str]) -> str:
    """Python that runs wherever toydiff is installed.

    The last function is called with `arguments`, {name: code of its value}, and its figure is shown.
    """
    sources = [_source(function) for function in functions]
    module = inspect.getmodule(inspect.unwrap(functions[-1]))
    call = ", ".join(f"{name}={code}" for name, code in arguments.items())
    body = "\n\n".join(sources)
    last = f"figure, rows = {inspect.unwrap(functions[-1]).__name__}({call})\nfigure.show()\nprint(rows)"
    return f"{_imports(module, body + last)}\n\n\n{body}\n\n{last}\n"


def _source(function: Callable) -> str:
    """A function's source without its decorators, which are the app's."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    lines = source.splitlines(keepends=True)
    return "".join(lines[ast.parse(source).body[0].lineno - 1 :])


def _imports(module: ModuleType, body: str) -> str:
    """The module's imports and constants that the body names, and those that these constants name."""
    source = inspect.getsource(module)
    top = ast.parse(source).body
    used, before = _names(ast.parse(body)), None
    while used != before:
        before = set(used)
        for node in top:
            if isinstance(node, ast.Assign) and used & _names(node.targets[0]):
                used |= _names(node.value)
    found = []
    for node in top:
        if isinstance(node, ast.Import | ast.ImportFrom):
            root = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            if getattr(node, "level", 0) or root.split(".")[0] in OURS:
                continue
            names = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used]
            if names:
                found.append(ast.unparse(type(node)(**{**vars(node), "names": names})))
        elif isinstance(node, ast.Assign) and used & _names(node.targets[0]):
            found.append(ast.get_source_segment(source, node))
    if "import toydiff" not in found and "toydiff" in used:
        found.insert(0, "import toydiff")
    return f"# toydiff {toydiff.__version__}\n" + "\n".join(found)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
