"""Owns the command line: parse, call one job, turn an error into an exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podium import __version__
from podium.errors import InvalidInput, PodiumError

if TYPE_CHECKING:
    from podium.answer import Answer

DATA_HELP = "Dataset reference: digits, cifar10, cifar100, fashion_mnist, folder:DIR, FILE.zip or npz:FILE."


class _Commands(click.Group):
    """Lists commands in the order in which a person needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="podium")
def cli() -> None:
    """Hyperparameter sweeps and experiment tracking for Keras, with winners one can trust."""


def _command(name: str, **settings: Any) -> Callable[[Callable[..., Answer]], click.Command]:
    """A command whose function returns an Answer; adds --json and turns errors into exit codes."""

    def wrap(function: Callable[..., Answer]) -> click.Command:
        def call(as_json: bool, **arguments: Any) -> None:
            sys.exit(_run(name, as_json, lambda: function(**arguments)))

        call.__doc__ = function.__doc__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
        return cli.command(name, **settings)(flag(call))

    return wrap


def _run(name: str, as_json: bool, job: Callable[[], Answer]) -> int:
    from podium.answer import Answer, unforeseen

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, at any moment
    try:
        answer = job()
    except PodiumError as error:
        return _explain(name, as_json, error)
    except KeyboardInterrupt:
        return _explain(name, as_json, _interrupted())
    except Exception as error:
        return _explain(name, as_json, unforeseen(error))
    assert isinstance(answer, Answer)
    _show(answer, as_json)
    if as_json:
        _print_json(name, answer.exit_code, answer.values, answer.warnings)
    return answer.exit_code


def _interrupted() -> PodiumError:
    from podium.errors import Interrupted

    return Interrupted("interrupted.", resume_command="the same command")


def _explain(name: str, as_json: bool, error: PodiumError) -> int:
    from podium.answer import explained

    if as_json:
        _print_json(name, error.exit_code, getattr(error, "values", {}), (), error)
    print(f"podium {name}: {explained(error)}", file=sys.stderr)
    return error.exit_code


def _print_json(
    name: str, exit_code: int, values: Any, warnings: Any, error: PodiumError | None = None
) -> None:
    from podium.answer import Envelope

    envelope = Envelope(command=name, exit_code=exit_code, values=values, warnings=warnings, error=error)
    print(json.dumps(envelope.document(), allow_nan=False), flush=True)


def _show(answer: Answer, as_json: bool) -> None:
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=as_json, highlight=False, width=160)
    for part in answer.shown:
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
    for warning in answer.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@_command("train", epilog="Example: podium train experiments/baseline.yaml training.epochs=5 --data cifar10")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option("--data", help=DATA_HELP)
@click.option("--seed", type=int, help="Seed of initialisation, shuffling and augmentation.")
def _train(recipe: Path, assignments: tuple[str, ...], data: str | None, seed: int | None) -> Answer:
    """Train one recipe and log it."""
    from podium.jobs.check import check_recipe

    check_recipe(recipe, assignments, data=data, seed=seed)
    from podium.jobs.train import train

    return train(recipe, assignments, data=data, seed=seed)


@_command("describe", epilog="Example: podium describe experiments/baseline.yaml model.depth=4 --batch 128")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option("--data", help=DATA_HELP)
@click.option("--batch", type=click.IntRange(1), help="Images a batch (default: the recipe's).")
def _describe(recipe: Path, assignments: tuple[str, ...], data: str | None, batch: int | None) -> Answer:
    """Show a recipe's network: layers, parameters, work, what it sees, memory. Nothing is recorded."""
    from podium.jobs.describe import describe

    return describe(recipe, assignments, data=data, batch=batch)


@_command(
    "sweep", epilog="Example: podium sweep sweeps/cifar10.yaml training.epochs=5 --data cifar10 --trials 20"
)
@click.argument("sweep_file", type=click.Path(path_type=Path))
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option("--data", help=DATA_HELP)
@click.option("--trials", type=int, help="Budget in trials, over all starts of this sweep.")
@click.option("--hours", type=float, help="Budget in hours, over all starts of this sweep.")
@click.option("--workers", type=int, help="Worker processes.")
@click.option("--executor", type=click.Choice(["local", "ray"]), help="Where the workers are placed.")
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Ray cluster to join, 'auto' for this node's (default: a new one here).",
)
@click.option("--num-cpus", type=click.IntRange(1), help="CPU cores of each worker on a Ray cluster.")
@click.option(
    "--num-gpus", type=click.FloatRange(0, 1), help="GPUs of each worker on a Ray cluster, or a part of one."
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished sweep, or with a grown budget.")
@click.option("--new", is_flag=True, help="Search again from the start, beside earlier studies of this file.")
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what would run and what it takes; record nothing."
)
def _sweep(
    sweep_file: Path,
    assignments: tuple[str, ...],
    resume: bool,
    new: bool,
    only_plan: bool,
    address: str | None,
    num_cpus: int | None,
    num_gpus: float | None,
    **limits: Any,
) -> Answer:
    """Search a space: propose, train, prune, record, rank."""
    ray: dict[str, Any] = {"address": address, "num_cpus": num_cpus, "num_gpus": num_gpus}
    if resume and new:
        raise InvalidInput("--resume and --new contradict each other.")
    if only_plan and (resume or new):
        raise InvalidInput("--plan starts nothing and takes neither --resume nor --new.")
    from podium.jobs.check import check_sweep

    check_sweep(sweep_file, assignments, **limits)
    if only_plan:
        from podium.jobs.plan import plan

        if limits.pop("executor") == "ray" or any(value is not None for value in ray.values()):
            raise InvalidInput("--plan measures this machine and says nothing about a Ray cluster.")
        return plan(sweep_file, assignments, **limits)
    from podium.jobs.sweep import sweep

    return sweep(sweep_file, assignments, resume=resume, new=new, **ray, **limits)


@_command("status", epilog="Example: podium status quickstart")
@click.argument("sweep", required=False)
def _status(sweep: str | None) -> Answer:
    """Show how a sweep is going, from any shell."""
    from podium.jobs.status import status

    return status(sweep)


@_command("stop", epilog="Example: podium stop quickstart")
@click.argument("sweep", required=False)
def _stop(sweep: str | None) -> Answer:
    """Ask a running sweep to end: workers finish their epoch, records are closed."""
    from podium.jobs.status import stop

    return stop(sweep)


@_command("gc", epilog="Example: podium gc (lists), podium gc --yes (removes)")
@click.option("--yes", is_flag=True, help="Remove what is listed.")
def _gc(yes: bool) -> Answer:
    """List what ended sweeps and killed processes left on disk, and remove it if told so."""
    from podium.jobs.gc import gc

    return gc(yes=yes)


@_command("compare", epilog="Example: podium compare quickstart --report quickstart.html")
@click.argument("names", nargs=-1, metavar="[SWEEP | RUN_ID ...]")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="Rows to show.")
@click.option(
    "--report", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write the HTML page here."
)
def _compare(names: tuple[str, ...], top: int, out: Path | None) -> Answer:
    """Rank runs in a table, and draw them in one HTML page that opens from disk."""
    from podium.jobs.compare import compare

    return compare(names, top=top, out=out)


@_command("confirm", epilog="Example: podium confirm quickstart --top 2 --seeds 3")
@click.argument("sweep", required=False)
@click.option(
    "--top", type=click.IntRange(1, 100), help="Leaders to train again (default: the sweep file's)."
)
@click.option("--seeds", type=click.IntRange(2, 100), help="Fresh seeds of each (default: the sweep file's).")
def _confirm(sweep: str | None, top: int | None, seeds: int | None) -> Answer:
    """Train a sweep's leaders and its baseline on fresh seeds, and say whether there is a winner."""
    from podium.jobs.confirm import confirm

    return confirm(sweep, top=top, seeds=seeds)


@_command("rerun", epilog="Example: podium rerun RUN_ID (exit code 1 if the repeat differs)")
@click.argument("run_id")
def _rerun(run_id: str) -> Answer:
    """Repeat a run from its record alone, and say whether it is the same to the bit."""
    from podium.jobs.rerun import rerun

    return rerun(run_id)


@_command("promote", epilog="Example: podium promote cifar10")
@click.argument("what", required=False, metavar="[RUN_ID | SWEEP]")
@click.option("--model", help="Registered model (default: the sweep's name).")
@click.option("--unconfirmed", metavar="WHY", help="Promote what no confirmation named, and say why.")
@click.option("--anyway", metavar="WHY", help="Promote what does not beat the champion, and say why.")
@click.option("--again", metavar="WHY", help="Look at the test set once more for this sweep, and say why.")
@click.option("--rollback", "back", is_flag=True, help="Swap the champion and the challenger.")
def _promote(what: str | None, model: str | None, back: bool, **reasons: str | None) -> Answer:
    """Check a winner, test it once, and make it the champion."""
    from podium.jobs.promote import promote, rollback

    if not back:
        return promote(what, model=model, **reasons)
    given = [f"--{name}" for name, reason in reasons.items() if reason is not None]
    if given:
        raise InvalidInput(f"--rollback swaps two aliases and takes no {', '.join(given)}.")
    return rollback(what, model=model)


@_command("predict", epilog="Example: podium predict holiday.jpg photos/ --grid photos.png")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE_OR_FOLDER ..."
)
@click.option("--model", help="Registered model (default: the latest sweep's).")
@click.option(
    "--grid", type=click.Path(path_type=Path, dir_okay=False), help="Draw the images into this PNG."
)
def _predict(paths: tuple[Path, ...], model: str | None, grid: Path | None) -> Answer:
    """Label image files of any size and mode with the champion."""
    from podium.jobs.predict import predict

    return predict(paths, model=model, grid=grid)


@_command("export", epilog="Example: podium export cifar10 --format litert-int8 --format onnx --out models")
@click.argument("model", required=False)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["keras", "saved_model", "litert", "litert-int8", "onnx"]),
    multiple=True,
    required=True,
    help="May be given several times.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to (default: mlruns/exports/MODEL-vVERSION).",
)
def _export(model: str | None, formats: tuple[Any, ...], out: Path | None) -> Answer:
    """Write the champion for other runtimes, and compare each file with it on validation images."""
    from podium.jobs.export import export

    return export(model, formats=formats, out=out)


@_command("ensemble", epilog="Example: podium ensemble cifar10 --top 5")
@click.argument("sweep", required=False)
@click.option(
    "--top", type=click.IntRange(2, 100), default=3, show_default=True, help="Best trials to average."
)
def _ensemble(sweep: str | None, top: int) -> Answer:
    """Average a sweep's best models into one, measure it, and register it as a version."""
    from podium.jobs.ensemble import ensemble

    return ensemble(sweep, top=top)


@_command("compress", epilog="Example: podium compress RUN_ID --sparsity 0.5 0.8 0.9 --epochs 20")
@click.argument("what", metavar="RUN_ID | SWEEP")
@click.argument("more", nargs=-1, type=float, metavar="")
@click.option(
    "--sparsity",
    "sparsities",
    type=float,
    multiple=True,
    required=True,
    metavar="S ...",
    help="Shares of the weights to set to zero, between 0 and 1.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Epochs to train on at each share.",
)
def _compress(what: str, more: tuple[float, ...], sparsities: tuple[float, ...], epochs: int) -> Answer:
    """Remove a model's small weights, train the others on, and show what each share costs and saves."""
    from podium.jobs.compress import compress

    return compress(what, sparsities=[*sparsities, *more], epochs=epochs)


@_command("doctor", epilog="Example: podium doctor --json (exit code 1 if there is a problem)")
def _doctor() -> Answer:
    """Look at this machine: versions, device, stores, space, cluster, speed; each fault with its remedy."""
    from podium.jobs.doctor import doctor

    return doctor()


@_command("ui", epilog="Example: podium ui --port 5000")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--auth", is_flag=True, help="Ask for a password, which is made and shown the first time.")
@click.option(
    "--allowed-hosts", metavar="NAMES", help="Names by which browsers reach it, with commas between them."
)
def _ui(port: int, host: str, auth: bool, allowed_hosts: str | None) -> Answer:
    """Serve the MLflow UI on this machine and print the latest sweep's comparison page."""
    from podium.jobs.ui import ui

    names = [name.strip() for name in allowed_hosts.split(",")] if allowed_hosts is not None else []
    return ui(port, host=host, auth=auth, allowed_hosts=names)


@_command("schema", epilog="Example: podium schema --out docs")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write them to.")
def _schema(out: Path | None) -> Answer:
    """Write the JSON schemas of sweep files and recipes, for editors."""
    from podium.jobs.schema import schema

    return schema(out)


def main() -> None:
    """Entry point of the `podium` command."""
    arguments = sys.argv[1:]
    try:
        cli.main(args=arguments, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        name = next((word for word in arguments if word in cli.commands), "podium")
        problem = InvalidInput(
            error.format_message(), remedy=f"See podium {name} --help.".replace("podium podium", "podium")
        )
        sys.exit(_explain(name, "--json" in arguments, problem))
    except click.exceptions.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
