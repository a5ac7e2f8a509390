"""Owns one start of `podium sweep --executor ray` in a fork, on the loopback cluster, with toys or with Keras."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

FAULTS = Path(__file__).parents[1] / "faults"
sys.path.insert(0, str(FAULTS))

import invariants  # noqa: E402
import real_training  # noqa: E402
from sweep_start import DROPOUT, EPOCHS, Arm, Place, Start  # noqa: E402

TRIALS = 40
TOY_SECONDS = 0.1
# Of each node. A real training takes them all, as it does without a cluster: threads decide about bits.
CPUS = max(2, len(os.sched_getaffinity(0)))
invariants.TRIALS = TRIALS  # the checks of tests/faults, of another budget
SWEEP = f"""
name: toys
question: Is anything lost when nodes come and go?
recipe: recipe.yaml
engine: {{name: optuna, sampler: random, pruner: none, seed: 1}}
budget: {{trials: {TRIALS}}}
executor: ray
space:
  model.dropout: {{type: float, low: 0.0, high: 0.6}}
"""
RECIPE = f"""
data: {{reference: digits, train_limit: 200}}
model: {{dropout: {DROPOUT}}}
training: {{epochs: {EPOCHS}}}
"""


@dataclass
class ClusterPlace(Place):
    """A place whose sweep runs on the cluster at `address`. `shared`: nodes share the folder of checkpoints."""

    address: str = ""
    shared: bool = False
    cpus: int = CPUS // 2

    def rewrite(self) -> None:
        (self.root / "recipe.yaml").write_text(RECIPE)
        (self.root / "sweep.yaml").write_text(SWEEP)

    def begin(self, *words: str, arm: Arm | None = None) -> Start:
        if self.shared:
            # Where the checks look for them.
            self.environment["PODIUM_CHECKPOINTS"] = str(self.root.resolve() / "mlruns" / "checkpoints")

        def both() -> None:
            self._send_toys()
            if arm is not None:
                arm()

        options = ["--address", self.address, "--num-cpus", str(self.cpus), "--num-gpus", "0"]
        return super().begin(*options, *words, arm=both)

    def _send_toys(self) -> None:
        from podium.executors import ray_cluster

        os.environ.pop("RAY_ADDRESS", None)
        ray_cluster.prepare(self.address)
        import podium.executors.ray

        if self.toys:
            podium.executors.ray.RayExecutor = functools.partial(  # type: ignore[misc]
                podium.executors.ray.RayExecutor, trainer="toy_training:train", paths=[FAULTS]
            )


@dataclass
class RealClusterPlace(ClusterPlace):
    """The small sweep of real trainings of tests/faults, on the cluster."""

    toys: ClassVar[bool] = False
    cpus: int = CPUS

    def rewrite(self) -> None:
        (self.root / "recipe.yaml").write_text(real_training.RECIPE)
        sweep = real_training.SWEEP.replace("workers: 1", "executor: ray")
        (self.root / "sweep.yaml").write_text(sweep)
