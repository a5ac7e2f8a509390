"""The measures of predictions, against scikit-learn and by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score

from podium.training.evaluation import batch_size, calibration_error, measure


def some_predictions(count: int = 500, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    labels = generator.integers(0, classes, count)
    scores = generator.normal(size=(count, classes))
    scores[np.arange(count), labels] += 1.0
    raised = np.exp(scores)
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_measures_agree_with_scikit_learn() -> None:
    probabilities, labels = some_predictions()
    predicted = probabilities.argmax(axis=1)
    found = measure(probabilities, labels)
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    normalised = probabilities.astype(np.float64)
    normalised /= normalised.sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(log_loss(labels, normalised), rel=1e-6)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, predicted))
    np.testing.assert_allclose(found.class_accuracy, recall_score(labels, predicted, average=None))


def test_calibration_error_by_hand() -> None:
    # Four sure of 0.9, of which three right: 0.15 apart. Four sure of 0.6, of which two right: 0.1 apart.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 4, dtype=np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.15 + 0.5 * 0.1, abs=1e-6)


def test_certainty_is_perfectly_calibrated_when_right_and_worst_when_wrong() -> None:
    certain = np.eye(3, dtype=np.float32)
    assert calibration_error(certain, np.arange(3)) == 0.0
    wrong = measure(certain, np.array([1, 2, 0]))
    assert wrong.calibration_error == 1.0
    assert wrong.loss == pytest.approx(-np.log(1e-7))


def test_a_class_without_images_has_no_accuracy() -> None:
    found = measure(np.eye(3, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 0]))
    assert found.class_accuracy == (0.5, 1.0, None)


@pytest.mark.parametrize(
    "labels", [np.array([0, 3, 1]), np.array([0, -1, 1]), np.array([0, 1]), np.array([])]
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels must be 3 numbers from 0 to 2"):
        measure(np.eye(3, dtype=np.float32), labels)


@pytest.mark.parametrize(("side", "enlarged", "expected"), [(32, 1, 256), (256, 1, 128), (32, 8, 128)])
def test_batches_are_smaller_where_a_network_works_on_large_images(
    side: int, enlarged: int, expected: int
) -> None:
    inputs = keras.Input((side, side, 1), dtype="uint8")
    x = keras.layers.UpSampling2D(enlarged)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1)(x))
    assert batch_size(keras.Model(inputs, x)) == expected
