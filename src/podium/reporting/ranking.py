"""Owns the ranked table of trials and the account of what a sweep cost and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from podium.reporting import failures
from podium.result import Goal
from podium.search_space import short_names

STATE_ORDER = {"complete": 0, "infeasible": 0.25, "pruned": 1, "running": 2}  # anything else has failed
NOT_SET = "-"
MISSING = "missing"
OBJECTIVE = "objective."


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a sweep cost and what pruning saved. Hours are of training, summed over all workers.

    `hours_saved` is reckoned: each pruned trial's left-out epochs at that trial's own seconds an epoch
    (the sweep's median where it finished none). `without_seconds`, `without_epochs`: trials that lack the
    number and are therefore left out of the sums. `infeasible`: how many of the complete ones are beyond a
    limit; `causes`: how many of the failed ones failed by what.
    """

    states: dict[str, int]
    infeasible: int
    causes: dict[str, int]
    epochs_trained: int
    epochs_saved: int
    hours_spent: float
    hours_saved: float | None
    without_seconds: int
    without_epochs: int


def shown_states(trials: pd.DataFrame) -> pd.Series:
    """States as people are told them: a complete trial that is beyond a limit is infeasible."""
    if "feasible" not in trials:
        return trials["state"]
    beyond = (trials["state"] == "complete") & ~trials["feasible"].astype(bool)
    return trials["state"].mask(beyond, "infeasible")


def ranked_table(trials: pd.DataFrame, *, goal: Goal) -> pd.DataFrame:
    """Trials best first, with a column `rank` (of completed, feasible trials that have a value; else missing).

    After the ranked ones come the infeasible, then the pruned, by their best value so far, then the
    running, then the failed.
    """
    trials = trials.assign(state=shown_states(trials))
    order = trials["state"].map(lambda state: STATE_ORDER.get(state, 3)).astype(float)
    value = trials["value"].astype(float).where(np.isfinite(trials["value"].astype(float)))
    keys = pd.DataFrame(
        {
            "order": order.where(value.notna() | (order != 0), 0.5),
            "value": -value if goal == "maximize" else value,
            "trial": trials["trial"],
        }
    )
    ranked = trials.loc[keys.sort_values(["order", "value", "trial"]).index].copy()
    counted = (ranked["state"] == "complete") & value.loc[ranked.index].notna()
    ranked.insert(0, "rank", counted.cumsum().where(counted).astype("Int64"))
    return ranked.reset_index(drop=True)


def account(trials: pd.DataFrame) -> Account:
    """Sum up a trials frame."""
    whole, pruned = trials["epochs"].astype(float), trials["state"] == "pruned"
    left_out = (trials["epochs_planned"].astype(float) - whole).where(pruned, 0.0).clip(lower=0.0)
    seconds, epochs = _own(trials, "seconds"), _own(trials, "epochs")
    rate = (seconds / epochs).where(epochs > 0)
    rate = rate.fillna(rate.median())
    hours_saved = float((left_out * rate).sum()) / 3600
    return Account(
        states={str(state): int(count) for state, count in trials["state"].value_counts().items()},
        infeasible=int((shown_states(trials) == "infeasible").sum()),
        causes=failures.by_cause(trials),
        epochs_trained=int(epochs.sum()),
        epochs_saved=int(left_out.sum()),
        hours_spent=float(seconds.sum()) / 3600,
        hours_saved=hours_saved if rate.notna().any() or not pruned.any() else None,
        without_seconds=int(seconds.isna().sum()),
        without_epochs=int(epochs.isna().sum()),
    )


def _own(trials: pd.DataFrame, column: str) -> pd.Series:
    """A trial's number without that of the trial which it continues: the longer curve begins with the shorter."""
    numbers = trials[column].astype(float)
    if "continues" not in trials:
        return numbers
    begun = trials["continues"].map(numbers.groupby(trials["trial"]).first())
    return numbers - begun.fillna(0.0)


def parameters_of(trials: pd.DataFrame) -> list[str]:
    """The dotted keys of the parameter columns that hold any value."""
    prefix = "params."
    return [
        name.removeprefix(prefix)
        for name in trials.columns
        if name.startswith(prefix) and trials[name].notna().any()
    ]


def further_objectives(trials: pd.DataFrame, metric: str) -> list[str]:
    """Metrics of the objectives that stand beside `metric` and have any value."""
    names = [name.removeprefix(OBJECTIVE) for name in trials.columns if name.startswith(OBJECTIVE)]
    return [name for name in names if name != metric and trials[OBJECTIVE + name].notna().any()]


def terminal_table(ranked: pd.DataFrame, *, metric: str, top: int | None = None) -> Table:
    """The first `top` rows of a ranked table (all of them by default) for the terminal."""
    rows = ranked if top is None else ranked.head(top)
    parameters, others = parameters_of(ranked), further_objectives(ranked, metric)
    names = short_names(parameters)
    several = "sweep" in ranked.columns and ranked["sweep"].nunique() > 1
    on_front = "front" in ranked.columns
    failed = bool(rows["cause"].notna().any())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("rank", *(["front"] if on_front else []), "trial"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("state", *(["cause"] if failed else [])):
        table.add_column(title, no_wrap=True)
    for title in (metric, *others, "epochs", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    if several:
        table.add_column("sweep")
    for key in parameters:
        table.add_column(Text(names[key]), justify="right")
    table.add_column("diagnosis")
    table.add_column("run", no_wrap=True)
    for row in rows.to_dict("records"):
        cells = [
            cell(row["rank"], absent=""),
            *([front_cell(row["front"])] if on_front else []),
            cell(row["trial"]),
            cell(row["state"]),
            *([cell(row["cause"], absent="")] if failed else []),
            value_cell(row["value"]),
            *(objective_cell(name, row[OBJECTIVE + name]) for name in others),
            epochs_cell(row["epochs"], row["epochs_planned"]),
            duration(row["seconds"]),
            *([cell(row["sweep"])] if several else []),
            *(cell(row[f"params.{key}"]) for key in parameters),
            cell(row.get("diagnosis")),
            cell(row["run_id"], absent=MISSING)[:8],
        ]
        table.add_row(*(Text(text) for text in cells))
    return table


def terminal_account(sweeps: Mapping[str, pd.DataFrame]) -> Table:
    """One row a sweep: trials by state, failures by cause, epochs and hours spent and saved."""
    accounts = {name: account(trials) for name, trials in sweeps.items()}
    limited = any(spent.infeasible for spent in accounts.values())
    causes = list(dict.fromkeys(cause for spent in accounts.values() for cause in spent.causes))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("sweep")
    for title in (
        *("trials", "complete", *(["infeasible"] if limited else []), "pruned", "running", "failed"),
        *(cause if cause == failures.NO_CAUSE else f"by {cause}" for cause in causes),
        *("epochs", "pruning saved", "hours", "pruning saved"),
    ):
        table.add_column(title, justify="right")
    for name, spent in accounts.items():
        states = spent.states
        numbers: list[object] = [
            sum(states.values()),
            states.get("complete", 0) - spent.infeasible,
            *([spent.infeasible] if limited else []),
            *(states.get(state, 0) for state in ("pruned", "running", "failed")),
            *(spent.causes.get(cause, 0) for cause in causes),
            spent.epochs_trained,
            spent.epochs_saved,
            f"{spent.hours_spent:.2f}",
            MISSING if spent.hours_saved is None else f"{spent.hours_saved:.2f}",
        ]
        table.add_row(Text(name), *(str(number) for number in numbers))
    return table


def cell(value: object, *, absent: str = NOT_SET) -> str:
    """A value as text; `absent` for what is not there."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return absent
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e6):
        return f"{value:.4g}"
    return str(int(value)) if isinstance(value, float) else str(value)


def value_cell(value: float | None) -> str:
    """An objective's value with four decimals."""
    return MISSING if value is None or np.isnan(value) else f"{value:.4f}"


def objective_cell(metric: str, value: float | None) -> str:
    """A value of any objective: whole parameters, tenths of a second, else four decimals; a dash for none."""
    if value is None or np.isnan(value):
        return NOT_SET
    if metric not in ("parameters", "seconds"):
        return value_cell(value)
    return f"{value:,.0f}" if metric == "parameters" else f"{value:,.1f}"


def front_cell(on_front: object) -> str:
    """Whether a trial is on its sweep's Pareto front; empty where it is not, or the sweep has none."""
    return "yes" if on_front is True or on_front is np.True_ else ""


def epochs_cell(epochs: float, planned: float) -> str:
    """Epochs trained, of those planned where they differ."""
    done = cell(epochs, absent=MISSING)
    return done if pd.isna(planned) or epochs == planned else f"{done}/{int(planned)}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 48 s, 3.5 min, 3.4 h."""
    if pd.isna(seconds):
        return MISSING
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
