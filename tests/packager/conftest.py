from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from podium.stores import Stores
from podium.tracking.runs import prepare_store


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    root = tmp_path_factory.mktemp("mlruns")
    stores = Stores(
        root=root,
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        artifact_uri=(root / "artifacts").as_uri(),
        study_url=f"sqlite:///{root / 'studies.db'}",
    )
    prepare_store(stores)
    return stores


@pytest.fixture(scope="session")
def client(stores: Stores) -> MlflowClient:
    client = MlflowClient(stores.tracking_uri, registry_uri=stores.tracking_uri)
    client.create_experiment("digits", artifact_location=f"{stores.artifact_uri}/digits")
    return client


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    return str(client.create_run(experiment.experiment_id).info.run_id)


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of stock layers, from raw uint8 images to probabilities."""
    import keras

    inputs = keras.Input((8, 8, 3), dtype="uint8")
    outputs = keras.layers.Rescaling(1 / 255)(inputs)
    outputs = keras.layers.Conv2D(4, 3, activation="relu")(outputs)
    outputs = keras.layers.Flatten()(outputs)
    outputs = keras.layers.Dense(5)(outputs)
    outputs = keras.layers.Activation("softmax", dtype="float32")(outputs)
    path = tmp_path_factory.mktemp("model") / "best.keras"
    keras.Model(inputs, outputs).save(path)
    return path
