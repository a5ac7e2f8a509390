"""Owns the choice of the Ray executor: what the command and the recipe say about a worker's share of a node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from podium.errors import InvalidInput
from podium.executors.base import Executor
from podium.recipe_sections import ResourceSettings
from podium.stores import Stores
from podium.sweep_file import Sweep


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What was typed beside `--executor ray`; None is not typed."""

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: float | None = None

    def typed(self) -> dict[str, object]:
        """As options of the command."""
        return {"address": self.address, "num-cpus": self.num_cpus, "num-gpus": self.num_gpus}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a sweep's workers are placed, and what each gets; None is left to what the cluster has."""

    address: str | None
    workers: int | None
    cpus: int | None
    gpus: float | None
    code: Path | None

    def executor(self, stores: Stores, log_folder: Path, *, patience_seconds: float) -> Executor:
        """Join the cluster, or start one here. Raises: InvalidInput without Ray, or if it cannot be joined."""
        from podium.executors.ray_cluster import prepare

        prepare(self.address)
        # Ray is loaded only where it was chosen, and after what it reads when it is loaded is set.
        from podium.executors.ray import RayExecutor

        return RayExecutor(
            address=self.address,
            workers=self.workers,
            cpus=self.cpus,
            gpus=self.gpus,
            shared=stores.checkpoint_root is not None,
            log_folder=log_folder,
            patience_seconds=patience_seconds,
            code=self.code,
        )


def cluster_of(spec: Sweep, options: RayOptions) -> Cluster | None:
    """The cluster of a sweep with `executor: ray`, None for a local one.

    Raises: InvalidInput if options of a cluster were typed for a local sweep.
    """
    typed = [f"--{name}" for name, value in options.typed().items() if value is not None]
    if spec.file.executor != "ray":
        if typed:
            raise InvalidInput(f"{', '.join(typed)}: only a sweep with --executor ray takes that.")
        return None
    asked = spec.recipe.resources or ResourceSettings()
    gpus = asked.num_gpus if asked.gpu_fraction is None else asked.gpu_fraction
    return Cluster(
        address=options.address,
        workers=spec.file.workers,
        cpus=options.num_cpus or asked.num_cpus,
        gpus=gpus if options.num_gpus is None else options.num_gpus,
        code=spec.code,
    )
