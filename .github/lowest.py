"""Print the lowest versions that pyproject.toml allows for the package and some of its extras, as constraints for pip.

    python .github/lowest.py sd digits > lowest.txt
    pip install --dry-run --ignore-installed '.[sd,digits]' --constraint lowest.txt

Where a package asks more of another than pyproject.toml does, pip finds no solution: a bound there is wrong then.
"""

import re
import sys
import tomllib
from pathlib import Path


def lowest(project: dict, extras: list[str]) -> dict[str, str]:
    """The lower bound of each package, the highest where there are several; `ValueError` for one without."""
    wanted = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    bounds: dict[str, str] = {}
    for requirement in wanted:
        found = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} in pyproject.toml is no package with a lower bound alone")
        name, version = found.groups()
        bounds[name] = max(version, bounds.get(name, "0"), key=lambda each: [int(part) for part in each.split(".")])
    return bounds


if __name__ == "__main__":
    found = lowest(tomllib.loads(Path("pyproject.toml").read_text())["project"], sys.argv[1:])
    print("\n".join(f"{name}=={version}" for name, version in sorted(found.items())))
