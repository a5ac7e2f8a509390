"""Owns checking options from a sweep file against the signature of the library's class that gets them."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from podium.errors import Fault
from podium.yaml_file import nearest

_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
}


def signature_faults(
    factory: type, options: Mapping[str, Any], *, place: str, withheld: Collection[str] = ()
) -> list[Fault]:
    """Unknown names and wrong types. `place`: dotted key of the options; `withheld`: what Podium sets itself."""
    known = allowed_options(factory, withheld)
    faults = []
    for name, value in options.items():
        key = f"{place}.{name}"
        if name not in known:
            names = ", ".join(sorted(known)) or f"{factory.__name__} takes no options here"
            faults.append(
                Fault(
                    message=f"{factory.__name__} has no option '{name}' that a file can set."
                    f"{nearest(name, known)}",
                    key=key,
                    got=name,
                    allowed=names,
                )
            )
        elif not _is_of(value, known[name]):
            faults.append(
                Fault(
                    message=f"got {value!r}, {factory.__name__} takes {_words(known[name])}",
                    key=key,
                    got=repr(value),
                    allowed=_words(known[name]),
                )
            )
    return faults


def allowed_options(factory: type, withheld: Collection[str] = ()) -> dict[str, tuple[type, ...]]:
    """Options that JSON can hold, with the types that each takes."""
    signature = inspect.signature(factory.__init__)  # type: ignore[misc]  # of a class that is at hand
    known: dict[str, tuple[type, ...]] = {}
    for name, parameter in signature.parameters.items():
        types = _types_of(parameter)
        if name != "self" and name not in withheld and set(types) - {type(None)}:
            known[name] = types
    return known


def _types_of(parameter: inspect.Parameter) -> tuple[type, ...]:
    annotation, default = parameter.annotation, parameter.default
    if annotation is inspect.Parameter.empty:
        if default is inspect.Parameter.empty or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return ()
        return (int, float, type(None)) if default is None else _PLAIN.get(type(default).__name__, ())
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    types: list[type] = []
    for part in (part.strip() for part in text.split("|")):
        types += _PLAIN.get(part, (dict,) if part.startswith(("dict[str", "Mapping[str")) else ())
    return tuple(dict.fromkeys(types))


def _is_of(value: object, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types)


def _words(types: tuple[type, ...]) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a word",
        bool: "true or false",
        dict: "a mapping",
    }
    wide = [kind for kind in types if kind is not int or float not in types]
    return " or ".join(names.get(kind, "null") for kind in wide)
