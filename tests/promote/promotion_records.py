"""Made-up confirmations around copies of a real run, and the command line called in this process."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from podium import cli
from podium.packager.logged_model import sha256_of
from podium.stores import Stores, stores_here
from podium.tracking.ledger import Ledger

FILES = ("best.keras", "predictions.npz")


@dataclass(frozen=True)
class Workplace:
    root: Path
    run_id: str


@dataclass(frozen=True)
class Ended:
    code: int
    json: dict[str, Any]

    @property
    def refusals(self) -> list[str]:
        return [refusal["code"] for refusal in self.json["refusals"]]


def podium(*words: str, capsys: pytest.CaptureFixture[str]) -> Ended:
    """`podium WORDS --json`, in this process."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["podium", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    return Ended(code=code, json=document)


class Records:
    """`sweep` is this test's own sweep, model and experiment."""

    def __init__(
        self, workplace: Workplace, *, sweep: str, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self.sweep, self.trained, self._capsys, self._folder = sweep, workplace.run_id, capsys, folder
        self.stores: Stores = stores_here()
        self.client = MlflowClient(self.stores.tracking_uri, registry_uri=self.stores.tracking_uri)
        location = f"{self.stores.artifact_uri}/{sweep}"
        self._experiment = self.client.create_experiment(sweep, artifact_location=location)
        tags = {
            "podium.kind": "sweep",
            "podium.sweep": sweep,
            "podium.metric": "val_accuracy",
            "podium.goal": "maximize",
        }
        self.parent = str(self.client.create_run(self._experiment, tags=tags).info.run_id)

    def command(self, *words: str) -> Ended:
        """`podium promote WORDS --json`, in this process."""
        return podium("promote", *words, capsys=self._capsys)

    def copy(
        self,
        value: float,
        *,
        tags: Mapping[str, str] = {},
        metrics: Mapping[str, float] = {},
        params: Mapping[str, str] = {},
        without_tags: Sequence[str] = (),
        kind: str = "trial",
        parent: str | None = None,
        status: str = "FINISHED",
        files: Mapping[str, Path] | None = None,
    ) -> str:
        """A run like the trained one, with another value; `files` (default: the trained one's) are its artifacts."""
        source = self.client.get_run(self.trained)
        given = {
            "podium.kind": kind,
            "podium.sweep": self.sweep,
            "mlflow.parentRunId": parent or self.parent,
            "podium.state": "complete",
            **tags,
        }
        kept = {name: text for name, text in source.data.tags.items() if not name.startswith("mlflow.")}
        whole = {name: text for name, text in {**kept, **given}.items() if name not in without_tags}
        run_id = str(self.client.create_run(self._experiment, tags=whole).info.run_id)
        for name, text in {**source.data.params, **params}.items():
            self.client.log_param(run_id, name, text)
        for name, number in {**source.data.metrics, "best_val_accuracy": value, **metrics}.items():
            self.client.log_metric(run_id, name, number)
        for file in (self.files() if files is None else files).values():
            self.client.log_artifact(run_id, str(file))
        self.client.set_terminated(run_id, status)
        return run_id

    def confirmed(self, values: Sequence[float], **settings: Any) -> list[str]:
        """A finished confirmation of the sweep whose winner has these values; answers its seed runs."""
        confirm = self.client.create_run(
            self._experiment,
            tags={"podium.kind": "confirm", "podium.sweep": self.sweep, "mlflow.parentRunId": self.parent},
        ).info.run_id
        tags = {"podium.confirm_candidate": "trial 3"}
        run_ids = [
            self.copy(
                value,
                kind="confirm_seed",
                parent=confirm,
                **{
                    **settings,
                    "tags": {**tags, "podium.confirm_seed": str(seed), **settings.get("tags", {})},
                },
            )
            for seed, value in enumerate(values)
        ]
        interval = {"run_ids": run_ids, "difference": 0.1, "ci95_vs_baseline": [0.05, 0.15]}
        self.client.log_text(
            confirm, json.dumps({"significant": True, "winner": interval}), "confirmation.json"
        )
        for name, text in {"winner_run_ids": json.dumps(run_ids), "state": "finished"}.items():
            self.client.set_tag(confirm, f"podium.{name}", text)
        self.client.set_terminated(confirm, "FINISHED")
        return run_ids

    def files(self) -> dict[str, Path]:
        """Copies of the trained run's files, to change."""
        folder = self._folder / "files"
        folder.mkdir(exist_ok=True)
        return {name: Path(self.client.download_artifacts(self.trained, name, str(folder))) for name in FILES}

    def other_model(self) -> dict[str, Any]:
        """Settings of copies whose model file is another one, with the same weights."""
        files = self.files()
        with zipfile.ZipFile(files["best.keras"]) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        metadata = {**json.loads(members["metadata.json"]), "date_saved": "2001-01-01@00:00:00"}
        members["metadata.json"] = json.dumps(metadata).encode()
        write_zip(files["best.keras"], members)
        return {"files": files, "tags": {"podium.model_sha256": sha256_of(files["best.keras"])}}

    def alias(self, name: str) -> int | None:
        """The version that an alias of the sweep's model points at."""
        if not self.versions():
            return None
        aliases = self.client.get_registered_model(self.sweep).aliases
        return int(aliases[name]) if name in aliases else None

    def versions(self) -> list[int]:
        return sorted(int(v.version) for v in self.client.search_model_versions(f"name = '{self.sweep}'"))

    def ledger(self) -> Ledger:
        return Ledger(stores_here())

    def made_up_champion(self, *, mean: float, **tags: str) -> None:
        """A champion of the sweep's model that another run is weighed against."""
        run = self.client.get_run(self.trained)
        digests = {name: run.data.tags[name] for name in ("podium.train_digest", "podium.test_digest")}
        self.client.create_registered_model(self.sweep)
        version = self.client.create_model_version(
            self.sweep,
            source=run.info.artifact_uri,
            run_id=self.trained,
            tags={**digests, "podium.mean": str(mean), "podium.metric": "val_accuracy", **tags},
        )
        self.client.set_registered_model_alias(self.sweep, "champion", version.version)


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_changed_arrays(path: Path, **changed: np.ndarray) -> None:
    """Rewrite an .npz with some arrays changed."""
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
        content = {name: arrays[name] for name in arrays}
    np.savez(path, **{**content, **changed})
