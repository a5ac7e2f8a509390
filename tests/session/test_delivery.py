from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from mlflow_server import nobody_there

from podium.errors import PodiumError
from podium.executors.base import Executor
from podium.packager.packager import Packager
from podium.session.assembly import Crew
from podium.tracking.runs import Recorder

pytestmark = pytest.mark.slow


def test_records_that_do_not_reach_mlflow_are_an_error_that_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with nobody_there(tmp_path) as stores:
        recorder = Recorder(stores, experiment="digits", spool_folder=tmp_path / "spool")
        hands = Crew(
            stores=stores, recorder=recorder, packager=Packager(stores), executor=cast(Executor, None)
        )
        recorder.start_run(0, name="trial 0", parameters={}, tags={}, inputs=[])
        with pytest.raises(PodiumError, match="1 records are not in MLflow yet") as away:
            hands.deliver(1.0)
        assert "spool" in str(away.value.remedy)
        recorder.close(1.0)
