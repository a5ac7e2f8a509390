"""A model file is judged before anything of it is loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from podium.training.stock_keras import archive_faults

LAYER = {"class_name": "Dense", "module": "keras.layers", "registered_name": None, "config": {"units": 3}}


def _archive(path: Path, config: Any, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        for name in names or ("metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    return path


def _functional(**layer: Any) -> dict[str, Any]:
    layers = [LAYER, {**LAYER, **layer}]
    return {"class_name": "Functional", "module": "keras", "config": {"layers": layers}}


def test_stock_layers_have_no_faults(tmp_path: Path) -> None:
    assert archive_faults(_archive(tmp_path / "a.keras", _functional())) == []


@pytest.mark.parametrize(
    "layer",
    [
        {"class_name": "Lambda"},
        {"class_name": "TFSMLayer"},
        {"module": "my_models"},
        {"module": None, "registered_name": "my_models>Dense"},
        {"module": "os", "class_name": "system"},
        {"config": {"activation": {"class_name": "function", "module": "builtins", "config": "evil"}}},
        {"config": {"layer": {"class_name": "Own", "module": "keras_extra.layers", "config": {}}}},
    ],
)
def test_what_is_not_stock_keras_is_a_fault(tmp_path: Path, layer: dict[str, Any]) -> None:
    faults = archive_faults(_archive(tmp_path / "a.keras", _functional(**layer)))
    assert len(faults) == 1
    assert "not stock Keras" in faults[0]


def test_what_is_no_keras_archive_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("no archive")
    assert "no .keras archive" in archive_faults(tmp_path / "text.keras")[0]
    assert "no .keras archive" in archive_faults(tmp_path / "none.keras")[0]
    assert "no .keras archive" in archive_faults(_archive(tmp_path / "b.keras", "{"))[0]
    more = _archive(tmp_path / "c.keras", _functional(), "metadata.json", "model.weights.h5", "../../run.py")
    assert "../../run.py" in archive_faults(more)[0]
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = _archive(
            tmp_path / "d.keras", _functional(), "metadata.json", "model.weights.h5", "config.json"
        )
    assert "once each" in archive_faults(twice)[0]
