"""Owns `podium doctor`: what of this machine works, what does not, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from podium.answer import Answer
from podium.session.device_health import PROBE_SECONDS, device_check, ray_check, training_check
from podium.session.health import Check, version_checks
from podium.session.store_health import space_checks, store_checks
from podium.stores import dataset_cache, stores_here

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(*, probe_seconds: float = PROBE_SECONDS) -> Answer:
    """Look at everything; exit code 1 if there is a problem. Records nothing."""
    stores = stores_here()
    checks = [
        *version_checks(),
        *store_checks(stores),
        *space_checks({"disk": stores.root, "disk of the data cache": dataset_cache()}),
        ray_check(os.environ),
        device_check(),
    ]
    Console(stderr=True).print(f"training for {probe_seconds:.0f} seconds ...", highlight=False)
    training, images_per_second = training_check(probe_seconds)
    checks.append(training)
    problems = sum(check.state == "problem" for check in checks)
    values = {
        "checks": [asdict(check) for check in checks],
        "problems": problems,
        "images_per_second": images_per_second,
    }
    return Answer(values=values, shown=[_table(checks)], exit_code=1 if problems else 0)


def _table(checks: Sequence[Check]) -> Table:
    table = Table("what", "", "found", "what to do")
    for check in checks:
        state = Text(check.state, style=STYLES[check.state])
        table.add_row(check.name, state, Text(check.found), Text(check.remedy))
    return table
