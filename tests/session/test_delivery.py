from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

import pytest

from podium.errors import PodiumError
from podium.executors.base import Executor
from podium.packager.packager import Packager
from podium.session.assembly import Crew
from podium.stores import Stores
from podium.tracking.runs import Recorder

pytestmark = pytest.mark.slow


def test_records_that_do_not_reach_mlflow_are_an_error_that_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        stores = Stores(
            root=tmp_path,
            tracking_uri=f"http://127.0.0.1:{taken.getsockname()[1]}",
            artifact_uri=None,
            study_url="sqlite://",
        )
        recorder = Recorder(stores, experiment="digits", spool_folder=tmp_path / "spool")
        hands = Crew(
            stores=stores, recorder=recorder, packager=Packager(stores), executor=cast(Executor, None)
        )
        recorder.start_run(0, name="trial 0", parameters={}, tags={}, inputs=[])
        with pytest.raises(PodiumError, match="1 records are not in MLflow yet") as away:
            hands.deliver(1.0)
        assert "spool" in str(away.value.remedy)
        recorder.close()
