"""Holds the table of docs/design.md: which room may import which, and which libraries."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "podium"

LAYER_1 = {
    "answer",
    "digests",
    "errors",
    "live",
    "recipe",
    "recipe_sections",
    "result",
    "search_space",
    "stores",
    "sweep_checks",
    "sweep_file",
    "sweep_settings",
    "yaml_file",
}
LAYER_2 = {"datasets", "engines", "executors", "training", "tracking", "selection", "reporting"}
LAYER_3 = {"conversion", "coordinator", "packager", "verification"}
SESSION = {"session"}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(LAYER_1 | LAYER_2, LAYER_1),
    "coordinator": LAYER_1 | {"engines.base", "executors.base", "tracking.runs"},
    "packager": LAYER_1 | {"reporting.plots"},
    "verification": LAYER_1,
    "conversion": LAYER_1,
    "session": LAYER_1 | LAYER_2 | LAYER_3,
    "jobs": LAYER_1 | LAYER_2 | LAYER_3 | SESSION,
    "cli": {"jobs", "errors", "answer"},
}
LIBRARIES: dict[str, set[str]] = {
    **{room: {"pydantic", "yaml"} for room in LAYER_1},
    "datasets": {"numpy", "PIL", "sklearn"},
    "engines": {"optuna", "keras_tuner", "sqlalchemy", "tensorflow", "numpy", "threadpoolctl"},
    "executors": {"ray", "psutil", "numpy"},
    "training": {"keras", "numpy", "sklearn", "tensorflow", "jax", "yaml"},
    "tracking": {"mlflow", "pandas", "sqlalchemy"},
    "selection": {"scipy", "pandas", "numpy"},
    "reporting": {"pandas", "matplotlib", "jinja2", "rich", "numpy"},
    "coordinator": set(),
    "packager": {"mlflow", "keras", "numpy", "pandas", "yaml"},
    "verification": {"mlflow", "keras", "numpy"},
    "conversion": {"keras", "numpy", "tensorflow", "tf2onnx", "ai_edge_litert", "onnxruntime"},
    "session": {"numpy", "rich", "pandas", "pydantic", "packaging"},
    "jobs": {"rich", "pandas", "numpy", "optuna", "mlflow"},
    "cli": {"click", "rich"},
}
LIBRARIES["digests"] = {"numpy"}
for _room_name in LAYER_2:
    LIBRARIES[_room_name] |= {"pydantic"}  # settings and records are pydantic models everywhere
EXCEPTIONS = {
    # The worker alone runs the training room; Keras's own loaders run in a process of their own.
    ("executors/worker.py", "training"),
    ("datasets/keras_download.py", "keras"),
}


def _room(module: str) -> str:
    return module.split(".")[0]


def _module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def _imports(path: Path) -> set[str]:
    """Every imported module in full, also those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def faults_of(path: Path) -> list[str]:
    """What a file imports and may not."""
    name = str(path.relative_to(SOURCE))
    room = _room(_module_of(path))
    faults = []
    for imported in sorted(_imports(path)):
        top, _, rest = imported.partition(".")
        if top == "podium":
            if rest in ("", "__version__"):
                continue
            own_room = _room(rest) == room and room != "jobs"
            allowed = any(f"{rest}.".startswith(f"{other}.") for other in MAY_IMPORT[room])
            allowed = allowed or _room(rest) in MAY_IMPORT[room]
            if not own_room and not allowed and (name, _room(rest)) not in EXCEPTIONS:
                faults.append(f"{name} imports podium.{rest}")
        elif (
            top not in sys.stdlib_module_names
            and top not in LIBRARIES[room]
            and (name, top) not in EXCEPTIONS
        ):
            faults.append(f"{name} imports {imported}")
    return faults


def _files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", _files(), ids=_module_of)
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    assert faults_of(path) == []


def test_the_check_sees_a_forbidden_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "training").mkdir()
    bad = tmp_path / "training" / "train.py"
    bad.write_text(
        "def f():\n    import mlflow\n    from podium.tracking import runs\n    from podium.recipe import Recipe\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert faults_of(bad) == [
        "training/train.py imports mlflow",
        "training/train.py imports podium.tracking.runs",
    ]


@pytest.mark.parametrize("path", _files(), ids=_module_of)
def test_a_file_opens_with_what_it_owns(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring is not None
    assert len(path.read_text().splitlines()) <= 420


def test_no_file_names_a_machine_path() -> None:
    words = ["/wo" + "rk/", "/tmp/scr" + "atch"]
    root = SOURCE.parents[1]
    for folder in ("src", "tests", "docs", "experiments", "sweeps", "benchmarks"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".yaml", ".html", ".json"):
                text = path.read_text()
                assert not [word for word in words if word in text], path
