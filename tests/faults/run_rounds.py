"""Owns playing rounds of faults: `python run_rounds.py --points 20 --random 1000 --each 30 --keras 30`.

Every violation is printed with the command that repeats it. Rounds whose kill came too late to hit anything are told
and not counted; with `--record` a later call plays them again. With `--record FILE` each round is a line of
that file, and a later call plays only those that are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import breakages
import catalogue
import outages
import promotion_rounds
import real_training
import study_stores
from catalogue import ALONE, RANDOM_KILLS, REAL_KILLS, Planned, Round
from kill_rounds import at_random_moments
from sweep_start import Place
from warm_up import warm_up

ROUND_SECONDS = 600.0
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Played:
    """A round that was played, what it found, and whether its fault hit nothing."""

    round: Planned
    found: list[str]
    missed: bool = False


def main() -> int:
    given = _arguments()
    # Shared memory: a kill leaves the same there as on a disk, and flushing costs nothing.
    home = SHARED_MEMORY if given.folder is None and SHARED_MEMORY.is_dir() else given.folder
    with tempfile.TemporaryDirectory(prefix="podium-faults-", dir=home) as folder, ExitStack() as stack:
        Path(folder).chmod(0o711)  # where root calls, PostgreSQL works as another user
        planned = _left(_planned(given), given.record)
        template = warm_up(Path(folder))
        rounds = _prepared({each.name for each in planned}, Path(folder), template, stack, given)
        if given.broken:
            breakages.apply(given.broken)
        results = _play_all(rounds, planned, Path(folder), template, given)
    return _table(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=0, help="rounds at each named point")
    parser.add_argument("--random", type=int, default=0, help="rounds of kills at random moments")
    parser.add_argument("--each", type=int, default=0, help="rounds of each other fault")
    parser.add_argument("--keras", type=int, default=0, help="rounds with real trainings")
    parser.add_argument("--promote", type=int, default=0, help="rounds at each point of a promotion")
    parser.add_argument("--seed", type=int, default=0, help="of the first round of each fault")
    parser.add_argument("--only", help="only faults whose name holds this")
    parser.add_argument(
        "--sample", type=int, help="only so many of the points of each kind, drawn by the seed"
    )
    parser.add_argument("--long", action="store_true", help="locks of 30 s, outages of 4 s")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at the same time")
    parser.add_argument("--record", type=Path, help="file of results, to go on from")
    parser.add_argument("--folder", type=Path, help="where rounds are played (default: shared memory)")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a round that failed")
    parser.add_argument("--break", dest="broken", choices=breakages.BREAKAGES, help="take a safeguard away")
    return parser.parse_args()


def _planned(given: argparse.Namespace) -> list[Planned]:
    """Rounds by name and seed."""
    names, promotions = list(catalogue.named_points()), list(catalogue.promotion_points(None))
    if given.sample is not None:
        chance = random.Random(given.seed)
        names, promotions = chance.sample(names, given.sample), chance.sample(promotions, given.sample)
    counts = dict.fromkeys(names, given.points) | {RANDOM_KILLS: given.random, REAL_KILLS: given.keras}
    others = [*catalogue.other_faults(long=given.long), *catalogue.server_faults(None, long=given.long)]
    others += catalogue.study_server_faults(None)
    counts |= dict.fromkeys(others, given.each)
    counts |= dict.fromkeys(promotions, given.promote)
    planned = [
        Planned(name, given.seed + number)
        for name, count in counts.items()
        for number in range(count)
        if (given.only or "") in name
    ]
    # Rounds that wait beside rounds that work; those that are played alone at the end.
    random.Random(0).shuffle(planned)
    return sorted(planned, key=lambda each: each.name == ALONE)


def _prepared(
    names: set[str], folder: Path, template: Path, stack: ExitStack, given: argparse.Namespace
) -> dict[str, Round]:
    """Rounds by name; what the planned ones start from is made first."""
    server, before, expected, cluster = None, None, None, None
    promotions = catalogue.promotion_points(None).keys()
    training = os.fork() if names & ({REAL_KILLS} | promotions) else None
    if training == 0:  # beside the start of the server
        try:
            real_training.reference(folder / "trained", template)
            os._exit(0)
        finally:
            os._exit(1)
    if names & catalogue.server_faults(None, long=given.long).keys():
        port = stack.enter_context(outages.mlflow_server(folder / "server", template))
        server = (port, folder / "server" / "mlflow.db")
    if any("crash" in name for name in names & catalogue.study_server_faults(None).keys()):
        cluster = outages.stopped_cluster(folder / "postgres")
    if training is not None:
        if os.waitpid(training, 0)[1] != 0:
            raise RuntimeError("the undisturbed sweep of real trainings failed")
        trained = real_training.RealPlace(folder / "trained", name=real_training.NAME)
        expected = real_training.ended(trained)
        if names & promotions:
            before = (trained, promotion_rounds.prepare(trained, folder / "promoted"))
    return {
        **catalogue.named_points(),
        RANDOM_KILLS: at_random_moments,
        **catalogue.other_faults(long=given.long),
        **catalogue.server_faults(server, long=given.long),
        **catalogue.study_server_faults(cluster),
        **catalogue.promotion_points(before),
        **catalogue.real_trainings(expected),
    }


def _left(planned: list[Planned], record: Path | None) -> list[Planned]:
    if record is None or not record.exists():
        return planned
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    done = {(line["fault"], line["seed"]) for line in lines if line["violations"] or not line.get("missed")}
    return [each for each in planned if (each.name, each.seed) not in done]


def _play_all(
    rounds: dict[str, Round], planned: list[Planned], folder: Path, template: Path, given: argparse.Namespace
) -> list[Played]:
    results: list[Played] = []
    playing: dict[int, tuple[Planned, Path, float]] = {}
    waiting = list(enumerate(planned))
    while waiting or playing:
        while waiting and (not playing or len(playing) < _most_beside(waiting[0][1], playing, given.jobs)):
            number, each = waiting.pop(0)
            root = folder / f"round-{number}"
            root.mkdir()
            playing[_play(rounds[each.name], each, root, template)] = (each, root, time.monotonic())
        pid, _ = os.waitpid(-1, 0)
        if pid not in playing:
            continue
        each, root, began = playing.pop(pid)
        answer = root / "result.json"
        facts = json.loads(answer.read_text()) if answer.exists() else {"found": ["the round itself died"]}
        results.append(Played(each, **facts))
        _tell(results[-1], time.monotonic() - began, len(results), len(planned), given)
        if facts["found"] and given.keep:
            shutil.copytree(root, Path(tempfile.mkdtemp(prefix="podium-fault-")) / "round")
        study_stores.drop(root / "mlruns")
        shutil.rmtree(root, ignore_errors=True)
    return results


def _most_beside(each: Planned, playing: dict[int, tuple[Planned, Path, float]], jobs: int) -> int:
    """How many rounds may be under way when this one starts."""
    return 1 if ALONE in (each.name, *(other.name for other, _, _ in playing.values())) else jobs


def _play(play: Round, each: Planned, root: Path, template: Path) -> int:
    """A round in a fork, so that its checks leave nothing open here."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        signal.alarm(int(ROUND_SECONDS))
        place = Place(root)
        place.prepare(template)
        chance = random.Random(f"{each.name}/{each.seed}")
        try:
            found = play(place, chance)
        except Exception:
            found = [f"the round failed: {traceback.format_exc()}"]
        (root / ".result").write_text(json.dumps({"found": found, "missed": place.missed}))
        (root / ".result").rename(root / "result.json")
    finally:
        os._exit(0)


def _tell(played: Played, seconds: float, done: int, total: int, given: argparse.Namespace) -> None:
    each, found = played.round, played.found
    print(
        f"{done} of {total}: {each.name}, seed {each.seed}, {seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    if given.record is not None:
        given.record.parent.mkdir(parents=True, exist_ok=True)
        facts = {"fault": each.name, "seed": each.seed, "violations": found, "seconds": round(seconds, 2)}
        facts |= {"missed": played.missed}
        with given.record.open("a") as file:
            file.write(json.dumps(facts) + "\n")
    if found:
        print(f"VIOLATION in {each.name}:", *found, sep="\n  ", flush=True)
        option = _option(each.name)
        repeat = f"{option} 1 --seed {each.seed} --only '{each.name}'"
        print(f"  again: python tests/faults/run_rounds.py {repeat}", flush=True)


def _option(name: str) -> str:
    if name in catalogue.named_points():
        return "--points"
    if name.startswith("promote: "):
        return "--promote"
    return {RANDOM_KILLS: "--random", REAL_KILLS: "--keras"}.get(name, "--each")


def _table(results: list[Played]) -> int:
    counted = [each for each in results if each.found or not each.missed]
    played = Counter(each.round.name for each in counted)
    violated = Counter(each.round.name for each in counted if each.found)
    width = max(map(len, played), default=5)
    print(f"{'fault':{width}}  rounds  violations  under (95 %)")
    for name in sorted(played):
        bound = f"{min(1.0, 3 / played[name]):.4f}" if not violated[name] else "-"
        print(f"{name:{width}}  {played[name]:6}  {violated[name]:10}  {bound:>12}")
    total, broken = sum(played.values()), sum(violated.values())
    bound = f"{3 / total:.4f}" if total and not broken else "-"
    print(f"{'all':{width}}  {total:6}  {broken:10}  {bound:>12}")
    print(f"not counted: {len(results) - total} rounds in which nothing was left to kill")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
