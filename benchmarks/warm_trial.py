"""The first training step of a trial: in a cold process, and in a warm worker that had a trial of the same shape.

    python benchmarks/warm_trial.py [--seeds 3] [--quick]

Seconds from handing the job over (cold: from starting the process) until the first step of the guide's CNN, batch
64, is done. Memory: of the worker after 10 and after 110 trials that differ in rate, dropout and strength, as a sweep's do.
Target: at least 20 times sooner; flat memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arms import Benchmark, arguments, bars, machine, ratio, summary, write_summary

TARGET = 20.0
WORKER = "import sys; sys.path.insert(0, sys.argv[1]); from warm_worker import worker; worker(sys.argv[2:])"


def trials(count: int) -> tuple[float, list[dict[str, float]]]:
    """Start a process and let it train; answers when it was started and what it said."""
    with tempfile.TemporaryDirectory() as place:
        began = time.time()
        command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), place, str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return began, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = arguments(__doc__ or "")
    chosen = parser.parse_args()
    many, earlier = (12, 10) if chosen.quick else (110, 10)

    def cold(seed: int) -> Mapping[str, Any]:
        began, (first,) = trials(1)
        return {"seconds": first["first_step"] - began}

    def warm(seed: int) -> Mapping[str, Any]:
        _, told = trials(many)
        memory = [line["mebibytes"] for line in told]
        later = [line["seconds"] for line in told[2:]]
        return {
            "seconds": float(np.median(later)),
            "slowest_seconds": max(later),
            "mebibytes_earlier": memory[earlier - 1],
            "mebibytes_at_end": memory[-1],
            "mebibytes_at_most": max(memory),
            "trials": many,
        }

    name = "warm_trial-quick" if chosen.quick else "warm_trial"
    rows = Benchmark(name=name, arms={"cold process": cold, "warm worker": warm}, made={}).run(
        chosen.out, range(chosen.seeds)
    )
    sooner = ratio(rows, "seconds", of="cold process", to="warm worker")
    print(summary(rows, ["seconds"]).round(3).to_string())
    memory = ["mebibytes_earlier", "mebibytes_at_end", "mebibytes_at_most"]
    print(f"memory after {earlier} and after {many} trials, and at most:")
    print(rows[memory].dropna().round(0).to_string(index=False))
    print(
        "A warm worker steps {:.1f} times sooner ({:.1f} to {:.1f}); the target is {:.0f}.".format(
            *sooner, TARGET
        )
    )
    write_summary(chosen.out, name, {"machine": machine(), "times_sooner": sooner, "target": TARGET})
    bars(
        rows,
        "seconds",
        title="Until the first training step is done",
        unit="seconds (bar: mean, dots: repeats)",
        path=chosen.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
