"""Owns the question whether a saved network is made of stock Keras objects alone; needs the standard library alone."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

# All that a .keras file of stock layers holds; Keras also knows assets, which only text layers write.
MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
# How Keras writes values that are no objects of a class.
PLAIN_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__bytes__", "__typespec__"}
# Keras's own, but they run code or read files that the model file brings or names.
NEVER = {
    *("Lambda", "__lambda__", "function", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
}
# A thousand layers make about one.
LARGEST_CONFIG_BYTES = 32 * 2**20


def foreign_objects(config: object) -> list[str]:
    """What plain Keras would not load in safe mode, by name: own classes and functions, Lambda layers.

    `config`: as `keras.saving.serialize_keras_object` gives it, or a .keras file's config.json.
    """
    return sorted(set(_foreign(config)))


def archive_faults(model_file: Path) -> list[str]:
    """Why a file must not be loaded as a .keras file; empty if it may. Nothing of it is loaded here."""
    try:
        with zipfile.ZipFile(model_file) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names) or set(names) != MEMBERS:
                return [
                    f"it holds {', '.join(sorted(names))} and not {', '.join(sorted(MEMBERS))}, once each"
                ]
            faults = [fault for member in archive.infolist() if (fault := _member_fault(member))]
            if faults:
                return faults
            foreign = foreign_objects(json.loads(archive.read("config.json")))
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        return [f"it is no .keras archive ({error})"]
    except RecursionError:
        return ["its config.json is nested too deep"]
    return [f"it holds what is not stock Keras: {', '.join(foreign)}"] if foreign else []


def _member_fault(member: zipfile.ZipInfo) -> str | None:
    """Keras stores members as they are; one that expands was packed by another hand."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        return f"{member.filename} is compressed and expands to {member.file_size:,} bytes"
    if member.filename != "model.weights.h5" and member.file_size > LARGEST_CONFIG_BYTES:
        return f"{member.filename} has {member.file_size:,} bytes; allowed are {LARGEST_CONFIG_BYTES:,}"
    return None


def _foreign(config: object) -> Iterator[str]:
    if isinstance(config, dict):
        name = config.get("class_name")
        if isinstance(name, str) and "config" in config:
            module = str(config.get("module") or "")
            registered = config.get("registered_name")
            stock = module.partition(".")[0] in ("keras", "builtins") or name in PLAIN_VALUES
            own = isinstance(registered, str) and ">" in registered
            if not stock or own or name in NEVER:
                yield f"{name} ({module})" if module else name
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _foreign(value)
