"""Owns rounds in which `podium promote` is killed: the alias always resolves to a version that loads."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import kill_points
import real_training
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from real_training import RealPlace
from sweep_start import Place

import podium.jobs.promote
import podium.tracking.registry
from podium.tracking.ledger import Ledger
from podium.verification.clean_process import CleanProcess

MODEL = "toys"
PROOF = "proof.json"
JOB: Any = podium.jobs.promote
WHY = ["--model", MODEL, "--unconfirmed", "a round of faults", "--anyway", "a round of faults"]


def prepare(reference: RealPlace, folder: Path) -> RealPlace:
    """A place with one promoted run, promoted for real: what the clean process answered is kept beside it."""
    promoted = real_training.copy_of(reference, folder)
    child = os.fork()
    if child == 0:
        answers: dict[str, Any] = {}

        class Recorded(CleanProcess):
            def verify(self, **request: Any) -> dict[str, Any]:
                answers["verify"] = super().verify(**request)
                return dict(answers["verify"])

            def evaluate(self, **request: Any) -> dict[str, Any]:
                answers["evaluate"] = super().evaluate(**request)
                shutil.copyfile(request["out"], folder / "probabilities.npz")
                return dict(answers["evaluate"])

        JOB.CleanProcess = Recorded
        os.chdir(folder)
        podium.jobs.promote.promote(
            real_training.run_of(promoted, 0), model=MODEL, unconfirmed="a round", anyway="a round"
        )
        (folder / PROOF).write_text(json.dumps(answers))
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the promotion that the rounds start from failed")
    return promoted


def killed(
    place: Place, chance: random.Random, point: str, *, before: tuple[RealPlace, RealPlace] | None
) -> list[str]:
    """A promotion is killed at a point, the first one of a model or one that replaces its champion."""
    assert before is not None
    trained, promoted = before
    second = chance.random() < 0.5
    real = real_training.copy_of(promoted if second else trained, place.root)
    words = ["promote", real_training.run_of(real, 1), *WHY]
    answers = json.loads((promoted.root / PROOF).read_text())

    def arm(*, kill: bool) -> None:
        _stand_in(answers, promoted.root / "probabilities.npz")
        if kill:
            # Both aliases move: the kill is between them, too.
            count = chance.randint(1, 2) if second and "alias" in point else 1
            kill_points.kill_at(point, count, _parts())

    first = real.run(words, arm=lambda: arm(kill=True))
    if first.wait() == 3 and "--again" in first.said:  # the sweep has looked at this test set before
        first = real.run([*words, "--again", "another"], arm=lambda: arm(kill=True))
    code = first.wait()
    found = [] if code == -signal.SIGKILL else [f"nothing was killed at {point}: it ended with {code}"]
    found += _of_alias(real, versions=2 if second else 1, must=second)
    again = real.run(words, arm=lambda: arm(kill=False))
    if again.wait() == 3 and "--again" in again.said:
        again = real.run([*words, "--again", "it was killed"], arm=lambda: arm(kill=False))
        again.wait()
    if again.code != 0:
        found.append(f"I5: the promotion cannot be done again ({again.code}): {again.said[-1500:]}")
    return found + _of_alias(real, versions=2 if second else 1, must=True, expected=2 if second else 1)


def _stand_in(answers: dict[str, Any], probabilities: Path) -> None:
    """The clean process as it answered once: it takes ten seconds, and writes nothing."""

    class Answering:
        def __enter__(self) -> Answering:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def verify(self, *, sha256: str, **_: Any) -> dict[str, Any]:
            return {**answers["verify"], "sha256": sha256}

        def evaluate(self, *, out: Path, **_: Any) -> dict[str, Any]:
            shutil.copyfile(probabilities, out)
            return dict(answers["evaluate"])

    JOB.CleanProcess = Answering


def _parts() -> dict[str, Any]:
    return {
        "ledger": Ledger,
        "process": JOB.CleanProcess,
        "promote": podium.jobs.promote,
        "registry": podium.tracking.registry,
        "client": MlflowClient,
    }


def _of_alias(place: Place, *, versions: int, must: bool, expected: int | None = None) -> list[str]:
    """The champion, if there is one, is a whole version whose file is what it says."""
    address = f"sqlite:///{place.root / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(address, registry_uri=address)
    try:
        version = client.get_model_version_by_alias(MODEL, "champion")
    except MlflowException as error:
        return [f"I5: the champion does not resolve: {error}"] if must else []
    found: list[str] = []
    file = Path(urlparse(str(version.source)).path) / "data" / "model.keras"
    if not file.is_file() or real_training.sha256_of(file) != version.tags["podium.model_sha256"]:
        found.append(f"I5: version {version.version} is the champion and {file} is not its model")
    if expected is not None and int(version.version) != expected:
        found.append(f"I5: version {version.version} is the champion, not {expected}")
    count = len(client.search_model_versions(f"name = '{MODEL}'"))
    if count > versions:
        found.append(f"I2: {count} versions of {versions} promotions")
    return found
