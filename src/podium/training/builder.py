"""Owns a user's own model function: finding it under its import root, and forgetting it afterwards."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from podium.errors import Fault, InvalidInput
from podium.recipe import Recipe


@contextmanager
def import_root(code: Path | None) -> Iterator[None]:
    """Imports find modules under `code` first; afterwards all of them are forgotten.

    So the next trial of this process, with another root, gets its own modules of the same names. No
    bytecode is written: the folder is hashed, and must stay as it is.
    """
    if code is None:
        yield
        return
    root = str(code.resolve())
    own = {file.stem for file in code.glob("*.py")} | {
        file.parent.name for file in code.glob("*/__init__.py")
    }
    hidden = _take_away(lambda name, module: name.partition(".")[0] in own)
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, root)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(root)
        sys.dont_write_bytecode = written
        _take_away(lambda name, module: _lies_under(module, root))
        sys.modules.update(hidden)
        importlib.invalidate_caches()


def load_builder(name: str) -> Callable[..., Any]:
    """The function `package.module:function`. Raises: InvalidInput if it does not import or is no function."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            reason = f"no module '{error.name}'"
        else:
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        raise _invalid(name, f"does not import: {reason}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise _invalid(name, f"{module.__file__} has no function '{attribute}'")
    return function  # type: ignore[no-any-return]


def check_builder(recipe: Recipe, code: Path | None) -> None:
    """Import a recipe's builder once. Raises: InvalidInput that says what is wrong with it."""
    if recipe.model.builder is not None:
        with import_root(code):
            load_builder(recipe.model.builder)


def _invalid(name: str, message: str) -> InvalidInput:
    fault = Fault(
        message=message,
        key="model.builder",
        got=name,
        allowed="package.module:function that imports from the folder that 'code' names",
    )
    return InvalidInput("the model's builder cannot be used.", faults=[fault])


def _take_away(chosen: Callable[[str, ModuleType], bool]) -> dict[str, ModuleType]:
    names = [name for name, module in list(sys.modules.items()) if chosen(name, module)]
    return {name: sys.modules.pop(name) for name in names}


def _lies_under(module: ModuleType, root: str) -> bool:
    places = [getattr(module, "__file__", None), *list(getattr(module, "__path__", None) or [])]
    return any(isinstance(place, str) and Path(place).is_relative_to(root) for place in places)
