from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest
from mlflow.tracking import MlflowClient
from packaged_trials import trial_folder
from PIL import Image

from podium.packager.logged_model import sha256_of
from podium.packager.packager import Packager, PackageRequest, is_packaged, package_trial
from podium.stores import Stores

pytestmark = pytest.mark.slow

OWN_AND_DIE = """
import os, sys, time
from pathlib import Path
from podium.packager.packager import Packager, PackageRequest
from podium.stores import Stores
root = Path(sys.argv[1])
stores = Stores(root=root, tracking_uri=f"sqlite:///{root / 'mlflow.db'}", artifact_uri=None, study_url="sqlite://")
packager = Packager(stores)
packager.submit(PackageRequest(run_id="0" * 32, folder=root))
while packager._process is None:
    time.sleep(0.01)
print(packager._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def packager(stores: Stores) -> Iterator[Packager]:
    packager = Packager(stores)
    yield packager
    packager.close()


def artifacts(client: MlflowClient, run_id: str) -> list[str]:
    return sorted(each.path for each in client.list_artifacts(run_id))


def test_a_trials_files_and_picture_become_artifacts_in_the_background(
    packager: Packager, client: MlflowClient, run_id: str, keras_file: Path, tmp_path: Path
) -> None:
    folder = trial_folder(tmp_path / "trial", keras_file)
    assert not is_packaged(folder)
    request = PackageRequest(run_id=run_id, folder=folder, best_epoch=8, model_sha256=sha256_of(keras_file))
    started = time.thread_time()
    packager.submit(request)
    assert time.thread_time() - started < 0.05
    assert not is_packaged(folder), "the call waits for nothing"
    assert packager.drain(60) == []
    names = ["best.keras", "curves.png", "history.json", "predictions.npz", "recipe.yaml", "summary.txt"]
    assert artifacts(client, run_id) == names
    logged = Path(client.download_artifacts(run_id, "best.keras"))
    assert logged.read_bytes() == keras_file.read_bytes()
    with Image.open(client.download_artifacts(run_id, "curves.png")) as picture:
        assert picture.width == 900
    assert is_packaged(folder)


def test_one_bad_folder_is_named_and_the_next_is_packaged(
    packager: Packager, client: MlflowClient, run_id: str, keras_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    altered = trial_folder(tmp_path / "altered", keras_file)
    good = trial_folder(tmp_path / "good", keras_file)
    packager.submit(PackageRequest(run_id=run_id, folder=tmp_path / "empty"))
    packager.submit(PackageRequest(run_id=run_id, folder=altered, model_sha256="0" * 64))
    packager.submit(PackageRequest(run_id=run_id, folder=good))
    failures = packager.drain(60)
    assert len(failures) == 2
    assert "no history.json" in failures[0]
    assert "it was changed" in failures[1]
    assert packager.drain(1) == []
    assert "curves.png" in artifacts(client, run_id)
    assert not is_packaged(altered)


def test_a_request_that_cannot_be_sent_is_named_and_keeps_nobody_waiting(
    packager: Packager, tmp_path: Path
) -> None:
    packager.submit(PackageRequest(run_id="0" * 32, folder=tmp_path, title=cast(str, tmp_path)))
    (failure,) = packager.drain(60)
    assert "not JSON serializable" in failure


def test_a_killed_process_costs_one_request_and_comes_back(
    packager: Packager, client: MlflowClient, run_id: str, keras_file: Path, tmp_path: Path
) -> None:
    packager.submit(PackageRequest(run_id=run_id, folder=trial_folder(tmp_path / "first", keras_file)))
    (child,) = _wait_for_child()
    child.send_signal(signal.SIGKILL)
    failures = packager.drain(60)
    assert len(failures) == 1
    assert "died" in failures[0]
    packager.submit(PackageRequest(run_id=run_id, folder=trial_folder(tmp_path / "second", keras_file)))
    assert packager.drain(60) == []
    assert "curves.png" in artifacts(client, run_id)


def _wait_for_child() -> list[psutil.Process]:
    for _ in range(500):
        found = [p for p in psutil.Process().children() if "podium.packager.packager" in p.cmdline()]
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("no packaging process")


def test_the_process_ends_with_its_owner(stores: Stores) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OWN_AND_DIE, str(stores.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_twelve_trials_take_little_time_and_no_tensorflow(
    stores: Stores, client: MlflowClient, run_id: str, keras_file: Path, tmp_path: Path
) -> None:
    folders = [trial_folder(tmp_path / str(n), keras_file) for n in range(13)]
    # The first one pays for the imports.
    package_trial(stores, PackageRequest(run_id=run_id, folder=folders[0]))
    started = time.process_time()
    for folder in folders[1:]:
        package_trial(stores, PackageRequest(run_id=run_id, folder=folder))
    assert (time.process_time() - started) / 12 < 0.5
    program = (
        "import sys; from podium.packager import logged_model, packager; import podium.reporting.plots, mlflow.pyfunc;"
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert os.path.getsize(folders[0] / "curves.png") > 10_000
