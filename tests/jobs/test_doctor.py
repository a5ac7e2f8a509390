"""`podium doctor`: what it finds in versions, stores and space, and a real training."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from podium.jobs.doctor import doctor
from podium.session import store_health
from podium.session.device_health import ray_check
from podium.session.health import Check, version_checks
from podium.session.store_health import space_checks, store_checks
from podium.stores import stores_here
from podium.tracking.store import prepare_store


def by_name(checks: object) -> Mapping[str, Check]:
    assert not isinstance(checks, str)
    return {check.name: check for check in checks}  # type: ignore[attr-defined]


def installed_here() -> dict[str, str]:
    found = [Requirement(text) for text in requires("podium") or []]
    return {each.name: version(each.name) for each in found if each.marker is None}


def test_versions_out_of_range_below_a_floor_and_untested_are_told_apart(tmp_path: Path) -> None:
    tested = tmp_path / "tested.txt"
    tested.write_text("# what was tested\n" + "".join(f"{n}=={v}\n" for n, v in installed_here().items()))
    good = by_name(version_checks(installed_here(), tested))
    assert {check.state for check in good.values()} == {"ok"}

    installed = {**installed_here(), "mlflow": "3.10.0", "rich": "99.0"}
    del installed["click"]
    found = by_name(version_checks(installed, tested))
    assert found["packages"].state == found["security floors"].state == "problem"
    assert "click is missing" in found["packages"].found
    assert "mlflow 3.10.0 (needs" in found["packages"].found
    assert found["security floors"].found == "mlflow 3.10.0 is below 3.17.2"
    assert found["tested versions"].state == "warning"
    assert f"rich 99.0 (tested: {version('rich')})" in found["tested versions"].found
    assert all(check.remedy for check in found.values() if check.state != "ok")


@pytest.mark.slow
def test_stores_are_looked_at_and_not_made(tmp_path: Path) -> None:
    stores = stores_here(tmp_path / "mlruns")
    assert [check.state for check in store_checks(stores)] == ["ok", "ok"]
    assert not stores.root.exists()
    prepare_store(stores)
    assert [check.state for check in store_checks(stores)] == ["ok", "ok"]
    assert stores.tracking_file is not None
    with closing(sqlite3.connect(stores.tracking_file)) as database:
        database.execute("UPDATE alembic_version SET version_num = '0a8213491aaa'")
        database.commit()
    found = by_name(store_checks(stores))["tracking store"]
    assert (found.state, "another MLflow version" in found.found) == ("warning", True)
    away = replace(
        stores,
        tracking_uri="http://anna:geheim@127.0.0.1:9",
        study_url="postgresql+psycopg://anna:geheim@127.0.0.1:9/studies",
    )
    checks = list(store_checks(away))
    assert [check.state for check in checks] == ["problem", "problem"]
    assert all("cannot be used" in check.found and check.remedy for check in checks)
    assert not any("geheim" in check.found for check in checks)


def test_too_little_space_is_told_before_it_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"disk": tmp_path / "not" / "there" / "yet"}
    assert by_name(space_checks(place))["disk"].state in ("ok", "warning")
    monkeypatch.setattr(store_health, "LITTLE_DISK", 10**18)
    assert by_name(space_checks(place))["disk"].state == "warning"
    monkeypatch.setattr(store_health, "LEAST_DISK", 10**18)
    found = by_name(space_checks(place))["disk"]
    assert (found.state, "podium gc" in found.remedy) == ("problem", True)


def test_a_cluster_is_asked_for_only_where_an_address_names_one() -> None:
    assert ray_check({}).state == "ok"


@pytest.mark.slow
def test_doctor_trains_for_real_and_answers_for_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    answer = doctor(probe_seconds=0.1)
    checks = {check["name"]: check for check in answer.values["checks"]}
    assert set(checks) == {
        "system", "packages", "security floors", "tested versions", "tracking store", "study store", "disk",
        "disk of the data cache", "shared memory", "Ray", "device", "training",
    }  # fmt: skip
    assert checks["training"]["state"] == checks["device"]["state"] == "ok"
    assert answer.values["images_per_second"] > 1
    assert answer.exit_code == (1 if answer.values["problems"] else 0)
    assert list(tmp_path.iterdir()) == []
