"""What `podium confirm` promises: fresh seeds, the same for all; nothing trained twice; a result on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from recorded_worlds import EPOCHS, RECIPE, SEEDS, SWEEP, RecordedWorld

from podium.engines.base import TrialRecord
from podium.errors import InvalidInput, Refused
from podium.recipe import Recipe
from podium.session.confirm_plan import candidates_of, fresh_seeds
from podium.session.recorded_sweep import RecordedSweep
from podium.sweep_file import SweepFile
from podium.tracking import query
from podium.tracking.run_record import RunRecord

# Minutes on a machine that does much else: the shared fixtures train.
pytestmark = pytest.mark.timeout(900)
BASE_RATE = 1e-3


def trial(number: int, rate: float, value: float | None, state: Any = "complete", **more: Any) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        parameters={"optimizer.learning_rate": rate},
        value=value,
        curve={},
        **more,
    )


def recorded(*trials: TrialRecord) -> RecordedSweep:
    parent = RunRecord(
        run_id="p", experiment="small", status="FINISHED", tags={}, metric="val_accuracy", goal="maximize",
        epochs=None, epochs_planned=None, curve={},
    )  # fmt: skip
    return RecordedSweep(
        file=SweepFile.model_validate(SWEEP),
        recipe=Recipe.model_validate(RECIPE),
        study="s",
        parent=parent,
        trials=trials,
    )


def test_leaders_are_complete_trained_feasible_trials_of_different_configurations() -> None:
    sweep = recorded(
        trial(0, BASE_RATE, 0.5),
        trial(1, 0.002, 0.99, "pruned"),
        trial(2, 0.003, None, "failed"),
        trial(3, 0.004, 0.9),
        trial(4, 0.004, 0.9, attributes={"duplicate_of": 3}),
        trial(5, 0.004, 0.8),
        trial(6, 0.005, 0.95, feasible=False),
        trial(7, 0.006, 0.7),
        trial(8, 0.007, 0.6),
    )
    chosen = candidates_of(sweep, 2)
    assert [one.name for one in chosen] == ["baseline", "trial 3", "trial 7"]
    assert chosen[0].changes == {}
    assert chosen[0].parameters == {"optimizer.learning_rate": BASE_RATE}


def test_a_baseline_among_the_leaders_is_counted_once() -> None:
    sweep = recorded(trial(0, BASE_RATE, 0.9), trial(1, 0.004, 0.8), trial(2, 0.005, 0.7))
    assert [one.name for one in candidates_of(sweep, 2)] == ["baseline", "trial 1"]


def test_a_sweep_without_a_complete_trial_is_refused() -> None:
    with pytest.raises(Refused, match="no complete trial"):
        candidates_of(recorded(trial(0, BASE_RATE, 0.4, "pruned")), 2)


def test_fresh_seeds_differ_from_the_sweeps_own_and_more_begin_with_the_same() -> None:
    sweep = recorded()
    seeds = fresh_seeds(sweep, 100)
    assert len(set(seeds)) == 100
    assert fresh_seeds(sweep, 3) == seeds[:3]
    assert all(0 <= seed < 2**31 for seed in seeds)
    taken = sweep.recipe.with_values({"training.seed": seeds[0]})
    other = RecordedSweep(file=sweep.file, recipe=taken, study="s", parent=sweep.parent, trials=())
    assert fresh_seeds(other, 2) == seeds[1:3]


@pytest.mark.slow
def test_every_configuration_is_trained_on_the_same_fresh_seeds(
    stopped_and_resumed: RecordedWorld, here: RecordedWorld
) -> None:
    result, runs = here.confirmation, here.seed_runs()
    configurations = [result["baseline"], *result["candidates"]]
    assert configurations[0]["name"] == "baseline"
    assert len(configurations) == 2
    assert len(runs) == 2 * SEEDS
    assert 0 not in result["seeds"]
    for column in ("params.training.seed", "params.data.validation.seed"):
        seeds = runs.groupby("tags.podium.confirm_candidate")[column].apply(list)
        assert seeds.tolist() == [[str(seed) for seed in result["seeds"]]] * 2
    splits = runs.groupby("tags.podium.confirm_seed")["tags.podium.split_digest"].nunique()
    assert splits.tolist() == [1] * SEEDS
    assert runs["tags.podium.split_digest"].nunique() == SEEDS
    for one in configurations:
        own = runs.set_index("run_id").loc[one["run_ids"]]
        assert own["metrics.best_val_accuracy"].tolist() == one["values"]
        assert set(own["tags.podium.confirm_candidate"]) == {one["name"]}


@pytest.mark.slow
def test_an_interrupted_confirmation_goes_on_and_trains_nothing_twice(
    stopped_and_resumed: RecordedWorld, here: RecordedWorld
) -> None:
    assert here.interruption is not None
    assert here.interruption.resume_command.startswith("podium confirm")
    before = here.after_interruption
    assert before is not None
    after = here.seed_runs().set_index("run_id")
    complete = before[before["state"] == "complete"]
    stopped = before[before["state"] == "interrupted"]
    assert len(complete) >= 1
    assert len(stopped) >= 1
    assert (after.loc[complete["run_id"], "tags.podium.attempts"] == "1").all()
    assert (after.loc[complete["run_id"], "end_time"].tolist()) == complete["end_time"].tolist()
    assert (after.loc[stopped["run_id"], "tags.podium.attempts"] == "2").all()
    assert (after["state"] == "complete").all()
    for run_id in after.index:
        assert query.history(here.stores, run_id)["epoch"].tolist() == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_finished_confirmation_only_shows_its_result(
    stopped_and_resumed: RecordedWorld, here: RecordedWorld
) -> None:
    from podium.jobs.confirm import confirm

    before = here.seed_runs()
    for sweep in ("small.yaml", here.sweep["parent_run_id"], None):
        answer = confirm(sweep)
        assert dict(answer.values) == here.confirmation
        assert answer.exit_code == 0
    assert here.seed_runs().equals(before)


@pytest.mark.slow
def test_the_result_is_on_a_run_under_the_sweeps(
    stopped_and_resumed: RecordedWorld, here: RecordedWorld
) -> None:
    client = MlflowClient(here.stores.tracking_uri)
    run = client.get_run(here.confirmation["run_id"])
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert tags["mlflow.parentRunId"] == here.sweep["parent_run_id"]
    assert (tags["podium.kind"], tags["podium.state"], tags["podium.sweep"]) == (
        "confirm",
        "finished",
        "small",
    )
    winner = here.confirmation["winner"]
    assert json.loads(tags["podium.winner_run_ids"]) == winner["run_ids"]
    assert json.loads(tags["podium.winner_values"]) == winner["values"]
    assert float(tags["podium.winner_mean"]) == winner["mean"]
    assert json.loads(tags["podium.baseline_run_ids"]) == here.confirmation["baseline"]["run_ids"]
    file = client.download_artifacts(run.info.run_id, "confirmation.json")
    document = json.loads(Path(file).read_text())
    assert document == {key: here.confirmation[key] for key in document}
    for run_id in winner["run_ids"]:
        names = {item.path for item in client.list_artifacts(run_id)}
        assert {"best.keras", "predictions.npz", "recipe.yaml"} <= names


@pytest.mark.slow
def test_a_sweep_that_was_confirmed_can_still_be_read(
    stopped_and_resumed: RecordedWorld, here: RecordedWorld
) -> None:
    from podium.jobs.sweep import sweep

    again = sweep(Path("small.yaml"), []).values
    assert again["trials"] == here.sweep["trials"]
    assert again["best"] == here.sweep["best"]


@pytest.mark.slow
def test_other_data_is_refused_naming_both_digests(here: RecordedWorld) -> None:
    from podium.jobs.confirm import confirm

    digest = here.trials()["tags.podium.train_digest"].iloc[0]
    with here.other_data(), pytest.raises(Refused) as raised:
        confirm("small")
    assert digest in raised.value.message
    assert len(set(raised.value.message.split()) & {digest, f"{digest}."}) == 1
    assert raised.value.exit_code == 3


@pytest.mark.slow
def test_an_unknown_sweep_is_named(here: RecordedWorld) -> None:
    from podium.jobs.confirm import confirm

    with pytest.raises(InvalidInput, match="no sweep named 'smal'"):
        confirm("smal")
