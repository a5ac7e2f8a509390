"""Owns a training's checks on record: tags of its run, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from podium.recipe_sections import CheckSettings
from podium.result import TrainingResult
from podium.selection.checks import Check, failed, of_training

KEY = "checks."


def check_tags(settings: CheckSettings | None, result: TrainingResult) -> dict[str, str]:
    """What the checks say of a training that was trained to its end; empty without checks."""
    checks = of_training(settings, result.metrics) if result.status == "finished" else []
    if not checks:
        return {}
    return {
        "checks": "failed" if failed(checks) else "passed",
        "check_results": json.dumps([asdict(check) for check in checks]),
    }


def recorded_checks(text: object) -> list[Check]:
    """The checks of a run's tag, none where it has no such tag."""
    return [Check(**content) for content in json.loads(text)] if isinstance(text, str) else []


def recorded_settings(params: Mapping[str, str]) -> CheckSettings | None:
    """What a run's recipe asked for, from its parameters as MLflow has them; None where it asked for nothing."""
    asked: dict[str, Any] = {}
    for key, text in params.items():
        name, _, bound = key.removeprefix(KEY).partition(".")
        if key.startswith(KEY) and bound and text != "None":
            asked[name] = {bound: float(text)}
    return CheckSettings.model_validate(asked) if asked else None
