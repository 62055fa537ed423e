"""Importing what a user names by import path. Free of torch."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from models.brought_files import brought_file
from models.errors import did_you_mean


def is_import_path(reference: str) -> bool:
    """Whether ``reference`` could be one: ``module:Name``, ``module.Name`` or ``file.py:Name``."""
    module, name = _parts(reference)
    return bool(module and name)


def module_file(reference: str, folder: Path) -> Path | None:
    """The file of ``file.py:Name``, relative to ``folder``; None for an installed module."""
    module, _ = _parts(reference)
    if not module.endswith(".py"):
        return None
    return brought_file(module, folder) or (folder / module).resolve()


def source_file(reference: str, folder: Path) -> Path | None:
    """The file that an import path leads to, found without running it or a package above it.

    None where no module of that name is found, or it has no file.
    """
    file = module_file(reference, folder)
    if file:
        return file
    module, _ = _parts(reference)
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):  # a relative name; a module that says nothing of itself
        return None
    name = top
    for part in below:
        name = f"{name}.{part}"
        spec = _inside(spec, name)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin)


def _inside(package: ModuleSpec | None, name: str) -> ModuleSpec | None:
    if package is None or package.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, list(package.submodule_search_locations))


def code_beside(file: Path) -> list[Path]:
    """The files in the folder of ``file`` that it imports, by itself or through each other."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        for name in _imported_by(waiting.pop()):
            module, package = file.parent / f"{name}.py", file.parent / name
            for path in (module, *package.rglob("*.py")):
                if path != file and path not in found and path.is_file():
                    found.add(path)
                    waiting.append(path)
    return sorted(found)


def _imported_by(file: Path) -> set[str]:
    """First parts of the names of all modules that a file imports, relative ones included."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()  # importing it says what is wrong
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            names |= {module} if module else {alias.name for alias in node.names}
    return names


def import_callable(reference: str, folder: Path) -> Callable[..., Any]:
    """The class or function that an import path names.

    Args:
        reference: ``package.module:Name``, ``package.module.Name``, or ``file.py:Name`` with the
            file relative to ``folder``.

    Raises:
        ImportError: it cannot be imported, or there is nothing of that name; the message follows
            a subject, as in "policy 'x.py:Y' cannot be imported".
    """
    module_name, name = _parts(reference)
    try:
        file = module_file(reference, folder)
        module = _load_file(file) if file else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        # Whatever a user's file raises while it is imported is theirs to mend.
        raise ImportError(f"cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        classes = [known for known, value in vars(module).items() if inspect.isclass(value)]
        raise ImportError(
            f"cannot be imported: {module_name} has no class {name!r}{did_you_mean(name, classes)}"
        )
    result: Callable[..., Any] = found
    return result


def _parts(reference: str) -> tuple[str, str]:
    module, separator, name = reference.partition(":")
    if not separator:
        module, _, name = reference.rpartition(".")
    return module, name


def _load_file(path: Path) -> Any:
    """Run the file itself: Python's bytecode cache may be older, and is not ours to leave."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    module = types.ModuleType(f"offramp_user_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    return module
