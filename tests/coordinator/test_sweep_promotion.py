"""KerasTuner's Hyperband promotes trials: a promoted one goes on from its parent's checkpoint."""

from __future__ import annotations

import pytest
from search_toys import chain
from sweep_world import EPOCHS, STUDY, World

from podium.coordinator.outcomes import trained
from podium.engines.base import Engine
from podium.executors.local import LocalExecutor
from podium.sweep_file import KerasTunerSettings

pytestmark = pytest.mark.slow


def hyperband(world: World) -> Engine:
    from podium.engines.keras_tuner import KerasTunerEngine

    return KerasTunerEngine(
        KerasTunerSettings(name="keras_tuner", oracle="hyperband", oracle_options={"factor": 2}),
        world.space,
        given=world.given,
        goal="maximize",
        epochs=EPOCHS,
        study_name=STUDY,
        study_url=world.stores.study_url,
        create=True,
    )


def test_a_promoted_trial_repeats_no_epoch_of_its_parent(world: World, two_workers: LocalExecutor) -> None:
    world.start(two_workers, trials=10, engine=hyperband(world))
    records = {record.number: record for record in world.records()}
    promoted = [record for record in records.values() if record.proposal.parent is not None]
    assert promoted
    for record in promoted:
        proposal = record.proposal
        assert [each["epoch"] for each in world.trained() if each["trial"] == record.number] == list(
            range(proposal.first_epoch + 1, proposal.epochs + 1)
        )
        dropout = float(record.parameters["model.dropout"])
        assert trained(record)["final_weights_sha256"] == chain(dropout, proposal.epochs)
        assert world.run(record.number)["tags.podium.continues_trial"] == str(proposal.parent)
    assert world.disagreements() == []
    # Only a trial that may still be promoted keeps a checkpoint, its newest.
    kept = [path.parent.parent.name for path in world.folder.rglob("checkpoint-*")]
    assert len(kept) == len(set(kept))
    assert not {
        f"trial-{number:04d}" for number, each in records.items() if each.proposal.epochs in (None, EPOCHS)
    } & set(kept)
