"""Owns the decision whether a call starts a study, goes on with one, or only shows a finished one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podium import live
from podium.engines.study import StudyFacts, list_studies
from podium.errors import Fault, InvalidInput
from podium.sweep_file import Sweep

NAME_DIGITS = 10
LIMITS_DONE = "budget_done"
DOCUMENT = "document"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The study that this call works on: its name, whether to make it, whether it is finished.

    `begun`: it says what it is a study of, which comes before its first trial.
    """

    name: str
    create: bool
    begun: bool
    finished: bool
    parent_run_id: str | None


def choose_study(
    spec: Sweep, study_url: str, identity: str, *, resume: bool, new: bool, command: str
) -> Study:
    """Pick the study by the sweep's identity; `--new` adds a suffix.

    Raises: InvalidInput if an unfinished study is there and neither resume nor new was said, or if
    there is nothing to resume, naming what differs from the nearest study of that name.
    """
    known = {study.name: study for study in list_studies(study_url)}
    base = f"{spec.file.name}-{identity[:NAME_DIGITS]}"
    number = 1
    while _numbered(base, number) in known:
        number += 1
    if number == 1:
        if resume:
            _explain_nothing_to_resume(spec, list(known.values()), command)
        return Study(name=base, create=True, begun=False, finished=False, parent_run_id=None)
    if new:
        return Study(
            name=_numbered(base, number), create=True, begun=False, finished=False, parent_run_id=None
        )
    latest = known[_numbered(base, number - 1)]
    finished = _is_within(limits(spec), latest.facts.get(LIMITS_DONE))
    if not finished and not resume:
        raise InvalidInput(
            f"the sweep {latest.name} is there and has not used up its budget.",
            remedy=f"Go on with it: {command} --resume\nOr start again beside it: {command} --new",
        )
    parent = latest.facts.get("parent_run_id")
    return Study(
        name=latest.name,
        create=False,
        begun=DOCUMENT in latest.facts,
        finished=finished,
        parent_run_id=str(parent) if parent is not None else None,
    )


def _numbered(base: str, number: int) -> str:
    return base if number == 1 else f"{base}-{number}"


def limits(spec: Sweep) -> dict[str, Any]:
    """All that ends a sweep, by name; None is no limit."""
    return {**spec.file.budget.model_dump(), **spec.file.stop_when.model_dump()}


def _is_within(wanted: Mapping[str, Any], done: object) -> bool:
    """Whether a study that ended by the limits `done` (JSON) has also come to the end of those wanted."""
    if not isinstance(done, str):
        return False
    used = json.loads(done)
    return all(
        used.get(name) is None or (limit is not None and limit <= used[name])
        for name, limit in wanted.items()
    )


def _explain_nothing_to_resume(spec: Sweep, known: list[StudyFacts], command: str) -> None:
    same_name = [study for study in known if live.is_of(study.name, spec.file.name)]
    if not same_name:
        raise InvalidInput(f"no sweep '{spec.file.name}' to go on with.", remedy=f"Start it: {command}")
    latest = same_name[-1]
    recorded = json.loads(str(latest.facts.get(DOCUMENT) or "{}"))
    before, now = _flat(recorded, ""), _flat(spec.document(), "")
    faults = [
        Fault(message=f"was {before.get(key)!r}, is {now.get(key)!r}", key=key, got=now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ] or [Fault(message="the data or the user's code differ from those of the recorded sweep")]
    raise InvalidInput(
        f"{latest.name} is another sweep: --resume goes on with the same file, data and code only.",
        remedy=f"Start this one: {command}",
        faults=faults,
    )


def _flat(content: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, sort_keys=True)
    return flat
