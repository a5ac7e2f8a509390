"""What `podium compare` says of recorded sweeps with several objectives, limits and failures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from played_sweeps import Played, record_sweep
from rich.console import Console

from podium.answer import Answer, Envelope
from podium.engines.base import Proposal
from podium.engines.study import prepare_storage
from podium.jobs.compare import compare
from podium.reporting.failures import CAUSES
from podium.session.evidence import sweep_record
from podium.stores import Stores, stores_here
from podium.tracking.runs import prepare_store

pytestmark = pytest.mark.slow
OBJECTIVES = [
    {"metric": "val_accuracy", "goal": "maximize"},
    {"metric": "parameters", "goal": "minimize"},
]
LIMITS = {"parameters": {"at_most": 5_000}}
TPE = {"name": "optuna", "sampler": "tpe", "pruner": "none", "seed": 5}
NSGA2 = {**TPE, "sampler": "nsga2"}


def trained(accuracy: float, parameters: float, **more: object) -> Played:
    measures = {
        "val_accuracy": accuracy,
        "val_loss": 1.0 - accuracy,
        "parameters": parameters,
        "seconds": 9.0,
    }
    return replace(Played(measures=measures), **more)


# On the front, of what keeps within the limit: 1, 2 and 6; trial 5 is trial 2 again.
TRIALS = [
    trained(0.70, 4_000.0),
    trained(0.80, 4_000.0),
    trained(0.60, 1_000.0),
    trained(0.90, 9_000.0),
    trained(0.55, 1_500.0),
    trained(0.60, 1_000.0, duplicate_of=2),
    trained(0.65, 2_000.0),
    Played(state="failed", cause="memory", message="worker 1 was ended at 9.1 GB\nof 8.0 GB"),
    Played(state="failed", cause="memory", message="worker 1 was ended at 9.1 GB\nof 8.0 GB"),
    Played(state="failed", cause="nan", message="loss is nan at the end of epoch 2."),
    trained(0.50, 800.0, state="pruned", epochs=2, message="stopped by the budget's hours"),
]


@dataclass(frozen=True)
class Compared:
    """The stores' folder, the parent runs by sweep, and what compare answered."""

    folder: Path
    stores: Stores
    parents: dict[str, str]
    front: Answer
    single: Answer


def formula(proposal: Proposal) -> Played:
    return TRIALS[proposal.number]


def text(answer: Answer) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in answer.shown:
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
    return console.export_text()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("PODIUM_STUDY_URL", raising=False)
        stores = stores_here()
        stores.prepare()
        prepare_store(stores)
        prepare_storage(stores.study_url)
        sweeps = {
            "front": {"objective": OBJECTIVES, "constraints": LIMITS, "engine": NSGA2},
            "single": {"constraints": LIMITS, "engine": TPE},
        }
        parents = {
            name: record_sweep(stores, folder / name, formula, name=name, trials=len(TRIALS), **settings)
            for name, settings in sweeps.items()
        }
        yield Compared(
            folder=folder,
            stores=stores,
            parents=parents,
            front=compare(["front"], top=4, out=folder / "front.html"),
            single=compare(["single"], top=20, out=None),
        )


def test_the_front_holds_what_is_feasible_and_beaten_by_none(compared: Compared) -> None:
    [sweep] = compared.front.values["sweeps"]
    assert [(each["trial"], each["values"]) for each in sweep["pareto"]] == [
        (1, {"val_accuracy": 0.80, "parameters": 4_000.0}),
        (6, {"val_accuracy": 0.65, "parameters": 2_000.0}),
        (2, {"val_accuracy": 0.60, "parameters": 1_000.0}),
    ]
    assert sweep["objectives"] == OBJECTIVES
    assert sweep["infeasible"] == 1
    assert all(set(each["params"]) >= {"model.depth", "model.filters"} for each in sweep["pareto"])
    runs = re.search(
        r"runs=([^&]*)&", unquote(sweep_record(compared.stores, compared.parents["front"]).compare_url or "")
    )
    assert runs is not None
    assert runs[1].count(",") == 2
    assert all(each["run_id"] in runs[1] for each in sweep["pareto"])


def test_the_front_is_shown_before_the_ranked_trials(compared: Compared) -> None:
    lines = text(compared.front).splitlines()
    assert lines[0] == (
        "Pareto front of front: val_accuracy (higher is better), parameters (lower is better); "
        "feasible with at most 5,000 parameters"
    )
    assert lines[2].split()[:3] == ["1", "0.8000", "4,000"]
    assert lines[5] == (
        "3 of 7 complete trials are on the Pareto front; 1 are infeasible, and therefore not on it: 3."
    )
    heads = lines[7].split()
    assert heads[:6] == ["rank", "front", "trial", "state", "val_accuracy", "parameters"]
    assert lines[8].split()[:6] == ["1", "yes", "1", "complete", "0.8000", "4,000"]


def test_the_page_holds_the_front_and_its_picture(compared: Compared) -> None:
    page = (compared.folder / "front.html").read_text()
    assert "<h3>Pareto front</h3>" in page
    assert page.count("<img src=") == 5  # importances of several objectives are not computed
    assert 'alt="Objectives against each other"' in page
    assert 'class="state infeasible"' in page


def test_what_is_beyond_a_limit_is_not_ranked(compared: Compared) -> None:
    ranking = compared.single.values["sweeps"][0]["ranking"]
    assert [(row["rank"], row["trial"], row["state"]) for row in ranking][:2] == [
        (1, 1, "complete"),
        (2, 0, "complete"),
    ]
    [beyond] = [row for row in ranking if row["trial"] == 3]
    assert (beyond["rank"], beyond["state"], beyond["value"]) == (None, "infeasible", 0.9)
    assert compared.single.values["sweeps"][0]["pareto"] is None
    assert "Pareto" not in text(compared.single)


def test_failures_are_counted_by_cause_and_each_names_its_own(compared: Compared) -> None:
    document = Envelope(command="compare", exit_code=0, values=compared.front.values).document()
    [sweep] = document["sweeps"]
    assert sweep["failures"] == {**dict.fromkeys(CAUSES, 0), "nan": 1, "memory": 2}
    assert [(each["trial"], each["cause"]) for each in sweep["failed"]] == [
        (7, "memory"),
        (8, "memory"),
        (9, "nan"),
    ]
    shown = text(compared.single)
    rows = [line.split() for line in shown.splitlines()]
    assert ["7", "failed", "memory"] in [row[:3] for row in rows]
    assert ["2", "memory", "7,", "8", "worker", "1", "was", "ended", "at", "9.1", "GB"] in rows
    [heads] = [row for row in rows if row[:2] == ["sweep", "trials"]]
    columns = ["trials", "complete", "infeasible", "pruned", "running", "failed"]
    columns += [f"by {cause}" for cause in CAUSES]
    assert " ".join(heads).startswith(" ".join(["sweep", *columns, "epochs"]))
    [counts] = [row for row in rows if row[:2] == ["single", "11"]]
    numbers = dict(zip(columns, counts[1:], strict=False))
    assert numbers == dict.fromkeys(columns, "0") | {
        "trials": "11",
        "complete": "6",
        "infeasible": "1",
        "pruned": "1",
        "failed": "3",
        "by nan": "1",
        "by memory": "2",
    }


def test_a_sweep_whose_study_is_elsewhere_is_compared_by_its_epoch_objective(
    compared: Compared, tmp_path: Path
) -> None:
    elsewhere = replace(compared.stores, study_url=f"sqlite:///{tmp_path / 'none.db'}")
    record = sweep_record(elsewhere, compared.parents["front"])
    assert record.objectives == ()
    assert "front" not in record.trials
    assert (
        "further objectives and limits",
        "not known, the study is not in the study store (PODIUM_STUDY_URL)",
    ) in (record.facts)
    assert record.trials["value"].max() == 0.9
