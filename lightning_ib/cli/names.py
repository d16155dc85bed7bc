"""Objects that are named on the command line, such as ``train.Net``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from lightning_ib.cli.errors import UsageError, in_words, nearest


def named_object(name: str, option: str) -> Any:
    """The object that a dotted name leads to; the current folder is searched first.

    Args:
        name: such as ``"train.Net"`` or ``"package.module:Net"``.
        option: the option that it came with, for messages.

    Raises:
        UsageError: there is no such module or object, or importing the module failed.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    parts = name.replace(":", ".").split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{option} {name} is no dotted name: give module.Class, such as train.Net for Net in train.py."
        )
    module, rest = _imported(parts, name, option)
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            owner = f"module {found.__name__}" if isinstance(found, ModuleType) else getattr(found, "__name__", "it")
            raise UsageError(f"{option} {name}: {owner} has no {part}{nearest(part, _own_names(found))}")
        found = getattr(found, part)
    return found


def _imported(parts: Sequence[str], name: str, option: str) -> tuple[ModuleType, list[str]]:
    """The module at the beginning of a dotted name, and the rest."""
    module: ModuleType | None = None
    for n in range(1, len(parts)):
        path = ".".join(parts[:n])
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path and not path.startswith(f"{error.name}."):
                raise _import_failed(name, option, error) from error
            if module is not None:  # an attribute of the module before it
                return module, list(parts[n - 1 :])
            raise UsageError(
                f"{option} {name}: there is no module {path} in {Path.cwd()} or among the installed packages"
                f"{nearest(path, (file.stem for file in Path.cwd().glob('*.py')))}"
            ) from error
        except SystemExit as error:
            raise UsageError(
                f"{option} {name}: importing {path} ended the program, as a script that reads its own options does: "
                'put that below `if __name__ == "__main__":`.'
            ) from error
        except Exception as error:
            raise _import_failed(name, option, error) from error
    assert module is not None
    return module, [parts[-1]]


def _import_failed(name: str, option: str, error: Exception) -> UsageError:
    return UsageError(f"{option} {name}: importing it raised {type(error).__name__}: {error}")


def _own_names(found: Any) -> list[str]:
    """The classes, functions and modules in a module, or the attributes of another object; public ones."""
    names = vars(found).items() if isinstance(found, ModuleType) else [(name, dir) for name in dir(found)]
    public = [name for name, value in names if callable(value) and not name.startswith("_")]
    return public + [one.name for one in iter_modules(getattr(found, "__path__", ()))]


def needed(maker: Any) -> list[str]:
    """The arguments that a class or a function cannot do without."""
    from inspect import Parameter, signature

    try:
        parameters = signature(maker).parameters.values()
    except (TypeError, ValueError):  # builtins lack a signature
        parameters = ()  # type: ignore[assignment]
    kinds = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is Parameter.empty and one.kind not in kinds]


def lacks(arguments: Sequence[str], name: str, option: str) -> UsageError:
    """The error of arguments that no one has a value for."""
    return UsageError(
        f"{option} {name} needs {' and '.join(arguments)}, and the checkpoint holds no value for "
        f"{'it' if len(arguments) == 1 else 'them'}: give a function without arguments that returns it instead."
    )


def made(maker: Any, name: str, option: str) -> Any:
    """The object that a class or a function without arguments makes.

    Raises:
        UsageError: it needs arguments, or raised.
    """
    if lacking := needed(maker):
        raise lacks(lacking, name, option)
    try:
        return maker()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option} {name}: making it raised {in_words(error)}") from error
