from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracking_records import stores_in

from podium.errors import PodiumError, Refused
from podium.stores import Stores
from podium.tracking.ledger import Ledger

TEST, MODEL, OTHER = "d" * 64, "e" * 64, "f" * 64


@pytest.fixture
def ledger_stores(tmp_path: Path) -> Stores:
    return stores_in(tmp_path)


@pytest.fixture
def ledger(ledger_stores: Stores) -> Iterator[Ledger]:
    ledger = Ledger(ledger_stores)
    yield ledger
    ledger.close()


def test_an_intent_counts_before_and_without_a_result(ledger: Ledger, ledger_stores: Stores) -> None:
    ledger.intend(test_digest=TEST, model_sha256=MODEL, sweep="digits", why="promote")
    another_process = Ledger(ledger_stores)
    assert another_process.count(test_digest=TEST, sweep="digits") == 1
    assert another_process.find(test_digest=TEST, model_sha256=MODEL) is None
    another_process.close()


def test_a_recorded_result_answers_the_same_model_and_data_again(ledger: Ledger) -> None:
    look = ledger.intend(test_digest=TEST, model_sha256=MODEL, sweep="digits", why="promote")
    ledger.record(look, {"accuracy": 0.9})
    found = ledger.find(test_digest=TEST, model_sha256=MODEL)
    assert found is not None
    assert found.result == {"accuracy": 0.9}
    assert ledger.find(test_digest=TEST, model_sha256=OTHER) is None
    assert ledger.find(test_digest="0" * 64, model_sha256=MODEL) is None


def test_another_look_of_a_sweep_needs_a_reason_and_a_refused_one_does_not_count(ledger: Ledger) -> None:
    ledger.intend(test_digest=TEST, model_sha256=MODEL, sweep="digits", why="promote")
    with pytest.raises(Refused, match="has looked at this test set once"):
        ledger.intend(test_digest=TEST, model_sha256=OTHER, sweep="digits", why="promote")
    assert ledger.count(test_digest=TEST, sweep="digits") == 1
    ledger.intend(
        test_digest=TEST, model_sha256=OTHER, sweep="digits", why="promote", again="a bug was fixed"
    )
    assert ledger.count(test_digest=TEST, sweep="digits") == 2
    assert ledger.looks(test_digest=TEST)[-1].why == "promote; again: a bug was fixed"


def test_other_sweeps_and_other_test_sets_are_counted_apart(ledger: Ledger) -> None:
    ledger.intend(test_digest=TEST, model_sha256=MODEL, sweep="digits", why="promote")
    ledger.intend(test_digest=TEST, model_sha256=MODEL, sweep="cifar10", why="promote")
    ledger.intend(test_digest="0" * 64, model_sha256=MODEL, sweep="digits", why="promote")
    assert ledger.count(test_digest=TEST, sweep="digits") == 1
    assert len(ledger.looks(test_digest=TEST)) == 2


def test_a_result_cannot_be_changed(ledger: Ledger) -> None:
    look = ledger.intend(test_digest=TEST, model_sha256=MODEL, sweep="digits", why="promote")
    ledger.record(look, {"accuracy": 0.9})
    with pytest.raises(PodiumError, match="cannot be used"):
        ledger.record(look, {"accuracy": 1.0})
    found = ledger.find(test_digest=TEST, model_sha256=MODEL)
    assert found is not None
    assert found.result == {"accuracy": 0.9}


def test_of_many_promotions_at_once_one_gets_the_first_look(ledger_stores: Stores, ledger: Ledger) -> None:
    allowed, refused = [], []

    def promote() -> None:
        own = Ledger(ledger_stores)
        try:
            allowed.append(own.intend(test_digest=TEST, model_sha256=MODEL, sweep="digits", why="promote"))
        except Refused:
            refused.append(1)
        finally:
            own.close()

    threads = [threading.Thread(target=promote) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(allowed), len(refused)) == (1, 7)
    assert ledger.count(test_digest=TEST, sweep="digits") == 1
