"""Owns what a check of `podium doctor` is, and those of the installed versions."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import podium

State = Literal["ok", "warning", "problem"]
# Below these, known holes are open.
FLOORS = {"mlflow": "3.17.2", "keras": "3.15"}
INSTALL = "Install Podium again: make setup"
NAMES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at; `remedy` says what to do unless it is ok."""

    name: str
    state: State
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name=name, state="ok", found=found)


def warning(name: str, found: str, remedy: str) -> Check:
    """Works, but not as well as it could."""
    return Check(name=name, state="warning", found=found, remedy=remedy)


def problem(name: str, found: str, remedy: str) -> Check:
    """Something will not work, or is not safe."""
    return Check(name=name, state="problem", found=found, remedy=remedy)


def version_checks(installed: Mapping[str, str] | None = None, tested: Path | None = None) -> Iterator[Check]:
    """System, ranges, security floors, and what differs from the set that was tested.

    `installed`: versions by name (default: this Python's). `tested`: a file of name==version lines (default: that of
    the checkout that Podium is installed from, if it is).
    """
    yield _system()
    yield _ranges(installed)
    yield _floors(installed)
    yield _tested(installed, tested or Path(podium.__file__).parents[2] / "constraints.txt")


def _system() -> Check:
    name = "system"
    found = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    allowed = metadata("podium")["Requires-Python"]
    if platform.python_version() not in SpecifierSet(allowed):
        return problem(name, found, f"Use a Python {allowed}: rm -rf .venv, then make setup PYTHON=...")
    if platform.system() != "Linux":
        return warning(name, found, "Linux is supported; elsewhere Podium is not tested.")
    return ok(name, found)


def _ranges(installed: Mapping[str, str] | None) -> Check:
    name, wrong, count = "packages", [], 0
    for text in requires("podium") or []:
        requirement = Requirement(text)
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        here = _version(requirement.name, installed)
        count += here is not None
        if here is None and needed:
            wrong.append(f"{requirement.name} is missing")
        elif here is not None and here not in requirement.specifier:
            wrong.append(f"{requirement.name} {here} (needs {requirement.specifier})")
    if wrong:
        return problem(name, "; ".join(wrong), INSTALL)
    return ok(name, f"{count} in the ranges that Podium needs")


def _floors(installed: Mapping[str, str] | None) -> Check:
    name = "security floors"
    here = {package: _version(package, installed) for package in FLOORS}
    low = [
        f"{package} {found} is below {FLOORS[package]}"
        for package, found in here.items()
        if found is not None and Version(found) < Version(FLOORS[package])
    ]
    if low:
        return problem(name, "; ".join(low), INSTALL)
    return ok(name, ", ".join(f"{package} {found}" for package, found in here.items()))


def _tested(installed: Mapping[str, str] | None, tested: Path) -> Check:
    name = "tested versions"
    if not tested.is_file():
        return ok(name, "not compared: Podium is not installed from a checkout")
    lines = [line.strip() for line in tested.read_text().splitlines()]
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    others = [
        f"{package} {here} (tested: {wanted})"
        for package, wanted in pairs
        if (here := _version(package, installed)) is not None and here != wanted
    ]
    if not others:
        return ok(name, f"all as in {tested.name}")
    more = f" and {len(others) - NAMES_SHOWN} more" if len(others) > NAMES_SHOWN else ""
    return warning(name, f"{', '.join(others[:NAMES_SHOWN])}{more}", INSTALL)


def _version(package: str, installed: Mapping[str, str] | None) -> str | None:
    if installed is not None:
        return installed.get(package)
    try:
        return version(package)
    except PackageNotFoundError:
        return None
