"""Owns `podium schema`: the JSON schemas of the files that people edit."""

from __future__ import annotations

import json
from pathlib import Path

from podium.answer import Answer
from podium.recipe import Recipe
from podium.sweep_file import SweepFile, json_schema


def schema(out: Path | None) -> Answer:
    """Write sweep.schema.json and recipe.schema.json to a folder, or answer them."""
    schemas = {"sweep": json_schema(SweepFile), "recipe": json_schema(Recipe)}
    if out is None:
        text = json.dumps(schemas, indent=2)
        return Answer(values=schemas, shown=[text])
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in schemas.items():
        path = out / f"{name}.schema.json"
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        paths.append(str(path))
    return Answer(values={"files": paths}, shown=[f"wrote {path}" for path in paths])
