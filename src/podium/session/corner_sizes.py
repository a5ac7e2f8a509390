"""Owns asking a process of its own how large networks are: this one never loads TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from podium.executors.placement import NO_GPU
from podium.executors.worker_process import death_in_words, scrubbed
from podium.recipe import Recipe

BUILD_SECONDS = 120
MAX_DEATHS = 3
# As a worker does: what it cannot import, a user's model cannot import either.
PROGRAM = (
    "import sys; from podium.executors.worker import KeepOut; sys.meta_path.insert(0, KeepOut());"
    "from podium.training.network_size import serve; serve()"
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a network; see training.layer_sizes.LayerSize."""

    name: str
    kind: str
    output_shape: Sequence[int] | None
    parameters: int
    multiply_adds: int | None
    receptive_field: int | None


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network that can be built; see training.network_size.NetworkSize. `layers`: only if they were asked for."""

    parameters: int
    state_bytes: int
    activation_bytes: int | None
    multiply_adds: int | None
    layers: Sequence[Layer] = field(default=())

    def training_bytes(self, batch: int) -> int | None:
        """Estimated memory of training it: its state, and each layer's output twice for each image of a batch.

        Outputs are kept for the way back and met there by gradients of the same size. None if not known.
        """
        if self.activation_bytes is None:
            return None
        return self.state_bytes + 2 * batch * self.activation_bytes


@dataclass(frozen=True)
class NotBuilt:
    """A network that cannot be built, and why."""

    reason: str


def build_all(
    recipes: Sequence[Recipe],
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    code: Path | None,
    layers: bool = False,
) -> list[Built | NotBuilt]:
    """Build the network of each recipe, one after the other, outside of this process.

    A network that takes the process with it, by its memory say, is NotBuilt; those after it are still built.
    """
    answers: list[Built | NotBuilt] = []
    deaths = 0
    while len(answers) < len(recipes):
        if deaths == MAX_DEATHS:
            reason = f"not tried: others ended the process that builds them {deaths} times"
            return [*answers, *(NotBuilt(reason) for _ in recipes[len(answers) :])]
        rest = recipes[len(answers) :]
        request = {
            "image_shape": image_shape,
            "classes": classes,
            "code": str(code) if code else None,
            "layers": layers,
            "recipes": [recipe.model_dump() for recipe in rest],
        }
        lines, death = _ask(json.dumps(request))
        answers += [_read(line) for line in lines]
        if len(lines) < len(rest):
            answers.append(NotBuilt(death))
            deaths += 1
    return answers


def _ask(request: str) -> tuple[list[str], str]:
    """The answers that came, and what became of the process."""
    environment = {**scrubbed(os.environ), "CUDA_VISIBLE_DEVICES": NO_GPU, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        try:
            said, errors = process.communicate(request + "\n", timeout=BUILD_SECONDS)
            words = errors.strip().splitlines()
            death = f"the process that built it {death_in_words(process.returncode)}" + (
                f": {words[-1]}" if words and process.returncode > 0 else ""
            )
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            death = f"it was not built within {BUILD_SECONDS} s"
        except BaseException:
            process.kill()
            raise
    whole = said.rpartition("\n")[0]
    return whole.splitlines(), death


def _read(line: str) -> Built | NotBuilt:
    answer = json.loads(line)
    if "problem" in answer:
        return NotBuilt(answer["problem"])
    layers = [Layer(**each) for each in answer.pop("layers", [])]
    return Built(**answer, layers=layers)
