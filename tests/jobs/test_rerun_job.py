"""What `podium rerun` promises: any run repeats from its record alone, to the bit, or the reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient
from recorded_worlds import RECIPE, RecordedWorld

from podium.errors import InvalidInput, Refused

# Minutes on a machine that does much else: the shared fixtures train.
pytestmark = pytest.mark.timeout(900)
BUILDER = """
import keras
from widths import WIDTH


def build(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(WIDTH, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
"""


@pytest.mark.slow
def test_a_trial_that_a_warm_worker_trained_repeats_to_the_bit(here: RecordedWorld) -> None:
    from podium.jobs.rerun import rerun

    last = here.trials().iloc[-1]
    answer = rerun(last["run_id"])
    assert (answer.values["verdict"], answer.exit_code) == ("bit-exact", 0)
    assert answer.values["differences"] == []
    tags = MlflowClient(here.stores.tracking_uri).get_run(answer.values["run_id"]).data.tags
    assert tags["podium.kind"] == "rerun"
    assert tags["podium.rerun_of"] == last["run_id"]
    assert tags["podium.rerun_verdict"] == "bit-exact"
    assert tags["podium.threads"] == last["tags.podium.threads"]
    assert tags["podium.final_weights_sha256"] == last["tags.podium.final_weights_sha256"]


@pytest.mark.slow
def test_a_run_that_was_interrupted_and_resumed_is_repeated_to_the_bit_in_one_go(
    stopped_and_resumed: RecordedWorld, here: RecordedWorld
) -> None:
    from podium.jobs.rerun import rerun

    runs = here.seed_runs()
    resumed = runs[runs["tags.podium.resumed_after_epoch"].notna()]
    assert len(resumed) >= 1
    assert rerun(resumed["run_id"].iloc[0]).values["verdict"] == "bit-exact"


@pytest.mark.slow
def test_a_baseline_of_several_threads_with_code_of_its_own_repeats_from_the_snapshot(
    here: RecordedWorld,
) -> None:
    from podium.jobs.rerun import rerun
    from podium.jobs.train import train

    code = here.folder / "models"
    code.mkdir()
    (code / "mine.py").write_text(BUILDER)
    (code / "widths.py").write_text("WIDTH = 6\n")
    recipe = {**RECIPE, "model": {"builder": "mine:build"}, "code": "models"}
    (here.folder / "own.yaml").write_text(yaml.safe_dump(recipe))
    run_id = train(Path("own.yaml"), [], data=None, seed=3).values["run_id"]
    (code / "widths.py").write_text("WIDTH = 7\n")
    answer = rerun(run_id)
    assert (answer.values["verdict"], answer.values["differences"]) == ("bit-exact", [])


@pytest.mark.slow
def test_other_data_is_refused_naming_both_digests(here: RecordedWorld) -> None:
    from podium.jobs.rerun import rerun

    first = here.trials().iloc[0]
    with here.other_data(), pytest.raises(Refused) as raised:
        rerun(first["run_id"])
    assert "train digest" in raised.value.message
    assert first["tags.podium.train_digest"] in raised.value.message


@pytest.mark.slow
def test_what_trained_nothing_is_refused(here: RecordedWorld) -> None:
    from podium.jobs.rerun import rerun

    with pytest.raises(Refused, match="sweep's parent run"):
        rerun(here.sweep["parent_run_id"])
    with pytest.raises(InvalidInput, match="no run 0000 is on record"):
        rerun("0000")
