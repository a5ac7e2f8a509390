from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient
from tracking_records import record_trial

from podium.errors import PodiumError, Refused
from podium.stores import Stores
from podium.tracking import registry
from podium.tracking.runs import Recorder
from podium.tracking.store import open_client

pytestmark = pytest.mark.slow


@pytest.fixture
def register(stores: Stores, make_recorder: Callable[..., Recorder]) -> Callable[[], int]:
    recorder = make_recorder()
    recorder.open_parent(name="digits-1", parameters={}, tags={})
    record_trial(recorder, 0)
    run_id = recorder.wait_for_run_id(0, 20)
    assert recorder.flush(20)
    client = MlflowClient(stores.tracking_uri, registry_uri=stores.tracking_uri)
    experiment = client.get_run(run_id).info.experiment_id

    def create() -> int:
        model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
        client.finalize_logged_model(model.model_id, "READY")
        return registry.create_version(
            stores,
            model="digits",
            model_id=model.model_id,
            run_id=run_id,
            tags={"podium.test_accuracy": "0.9"},
            description="# digits",
        )

    return create


def test_promotion_moves_the_champion_and_keeps_the_former_one(
    stores: Stores, register: Callable[[], int]
) -> None:
    assert registry.champion(stores, "digits") is None
    first, second = register(), register()
    assert registry.champion(stores, "digits") is None
    assert registry.set_champion(stores, "digits", first) is None
    assert registry.challenger(stores, "digits") is None
    assert registry.set_champion(stores, "digits", second) == first
    champion, challenger = registry.champion(stores, "digits"), registry.challenger(stores, "digits")
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == (second, first)
    assert champion.tags["podium.test_accuracy"] == "0.9"
    assert champion.model_id is not None
    registry.tag_version(stores, "digits", second, {"podium.card": "yes"})
    assert registry.champion(stores, "digits").tags["podium.card"] == "yes"  # type: ignore[union-attr]


def test_rollback_swaps_and_swaps_back(stores: Stores, register: Callable[[], int]) -> None:
    first, second = register(), register()
    with pytest.raises(Refused, match="has no champion"):
        registry.rollback(stores, "digits")
    registry.set_champion(stores, "digits", first)
    with pytest.raises(Refused, match="no version before"):
        registry.rollback(stores, "digits")
    registry.set_champion(stores, "digits", second)
    assert registry.rollback(stores, "digits") == (first, second)
    assert registry.rollback(stores, "digits") == (second, first)


def test_a_rollback_that_was_killed_goes_on(stores: Stores, register: Callable[[], int]) -> None:
    first, second = register(), register()
    registry.set_champion(stores, "digits", first)
    registry.set_champion(stores, "digits", second)
    client = open_client(stores)

    def killed_between_the_aliases() -> None:
        client.set_registered_model_tag("digits", registry.ROLLBACK_TAG, f"{first} {second}")
        client.set_registered_model_alias("digits", registry.CHALLENGER, str(second))

    killed_between_the_aliases()
    assert registry.rollback(stores, "digits") == (first, second)
    assert registry.champion(stores, "digits").version == first  # type: ignore[union-attr]
    assert registry.challenger(stores, "digits").version == second  # type: ignore[union-attr]
    killed_between_the_aliases()
    registry.set_champion(stores, "digits", register())  # a promotion overtakes it
    assert registry.ROLLBACK_TAG not in client.get_registered_model("digits").tags


def test_a_failed_promotion_leaves_both_aliases_where_they_were(
    stores: Stores, register: Callable[[], int]
) -> None:
    first, second = register(), register()
    registry.set_champion(stores, "digits", first)
    registry.set_champion(stores, "digits", second)
    with pytest.raises(PodiumError, match="cannot be set"):
        registry.set_champion(stores, "digits", 99)
    champion, challenger = registry.champion(stores, "digits"), registry.challenger(stores, "digits")
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == (second, first)


def test_too_long_a_description_is_refused_before_a_version_exists(stores: Stores) -> None:
    with pytest.raises(PodiumError, match="allowed: 4500"):
        registry.create_version(
            stores, model="digits", model_id="m", run_id="r", tags={}, description="x" * 4501
        )
    client = MlflowClient(stores.tracking_uri, registry_uri=stores.tracking_uri)
    assert client.search_registered_models() == []
