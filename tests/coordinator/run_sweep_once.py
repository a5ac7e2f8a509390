"""One start of the toy sweep as a program of its own, to be killed: ROOT TRIALS WORKERS."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from sweep_world import World, local_executor, stores_in

if __name__ == "__main__":
    root, trials, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    executor = local_executor(root / "logs", workers)
    try:
        World(stores_in(root)).start(executor, trials=trials)
    finally:
        executor.close()
