"""What registers executors, named by module or by file, for the doors that start a runtime themselves."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cra.errors import ConfigInvalid, CRAError

_DEFAULT = "register"


def registrar(name: str) -> Callable[[Any], None]:
    """Return what is called with each runtime to register executors.

    `name` is `module:object` or `file.py`, whose `register` counts unless `file.py:object` says otherwise; the object
    is a function of the runtime, or a mapping of globs to functions. Raises `ConfigInvalid`.
    """
    module_name, _, attribute = name.partition(":")
    is_file = module_name.endswith(".py")
    if not module_name or not (attribute or is_file):
        raise ConfigInvalid(
            f"executors is `{name}`, expected MODULE:OBJECT or FILE.py",
            pointer="/executors",
            hint="such as my_desk:register",
        )
    try:
        found: Any = _file(Path(module_name)) if is_file else _module(module_name)
    except ConfigInvalid:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigInvalid(
            f"executors: `{module_name}` cannot be imported: {type(error).__name__}: {error}",
            pointer="/executors",
            hint="a module is looked for in this folder and in the installed packages",
        ) from error
    for part in (attribute or _DEFAULT).split("."):
        if not hasattr(found, part):
            raise ConfigInvalid(f"executors: `{module_name}` has no `{attribute or _DEFAULT}`", pointer="/executors")
        found = getattr(found, part)
    if not callable(found) and not isinstance(found, Mapping):
        raise ConfigInvalid(
            f"executors: `{name}` is neither a callable nor a mapping",
            pointer="/executors",
            hint="define it as function(runtime), which registers executors, or as a mapping {glob: function}",
        )
    return lambda runtime: _register(runtime, name, found)


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        # As `python -m` does: a module beside the user, who has installed nothing.
        sys.path.insert(0, here)
    return importlib.import_module(name)


def _file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cra_executors_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigInvalid(
            f"executors: `{path}` is not a file", pointer="/executors", hint="give the path of a .py file"
        )
    module = importlib.util.module_from_spec(spec)
    # As an import does: dataclasses, for one, look their module up.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _register(runtime: Any, name: str, found: Any) -> None:
    if isinstance(found, Mapping):
        for glob, function in found.items():
            runtime.register_executor(glob, function)
        return
    try:
        made = found(runtime)
    except CRAError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigInvalid(f"executors: `{name}` fails: {type(error).__name__}: {error}") from error
    if isinstance(made, Coroutine):
        made.close()
        raise ConfigInvalid(f"executors: `{name}` is async, expected a function that registers them when it is called")
