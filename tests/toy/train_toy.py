"""Train the toy recipe as a process of its own, for tests that kill it.

``train_toy.py OUT [--resume] [--native | --paper] [--file-limit=BYTES] [--workers=N] [KEY=VALUE ...]`` trains once.
``train_toy.py --serve`` imports everything once and then forks a process for every line of arguments on stdin: it
prints the process id, and its exit status when it has ended.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pixelvla_toy

from pixelvla_core.plugins import GROUP, PluginManager, Registry
from pixelvla_core.recipe import Recipe, compose

FOLDER = Path(__file__).parent
LIMIT, WORKERS = "--file-limit=", "--workers="


def registry() -> Registry:
    """The parts of core, the example backbone and the small OpenVLA, and the toy dataset."""
    wanted = ("core", "third_party", "openvla", "openvla_mini")
    found = [entry for entry in entry_points(group=GROUP) if entry.name in wanted]
    return PluginManager([*found, pixelvla_toy]).registry


def recipe(*overrides: str, name: str = "toy") -> Recipe:
    """A toy recipe with overrides."""
    return compose([str(FOLDER / f"{name}.yaml")], overrides, dirs=[], registry=registry())


def limit_files(size: int) -> None:
    """Let every write beyond ``size`` bytes of a file fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def load_with(workers: int) -> None:
    """Let so many processes make the batches, none for zero, whatever the machine has."""
    from pixelvla_core.train import loader

    loader.default_workers = lambda: workers


def run(arguments: list[str]) -> int:
    """Train, and return the exit status that the command line would give."""
    from pixelvla_core.errors import UserError
    from pixelvla_core.train.run import train

    overrides = [argument for argument in arguments[1:] if "=" in argument and not argument.startswith("-")]
    for argument in arguments:
        if argument.startswith(LIMIT):
            limit_files(int(argument.removeprefix(LIMIT)))
        if argument.startswith(WORKERS):
            load_with(int(argument.removeprefix(WORKERS)))
    name = next((name for name in ("native", "paper") if f"--{name}" in arguments), "toy")
    try:
        train(recipe(*overrides, name=name), Path(arguments[0]), "--resume" in arguments, registry())
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def serve() -> None:
    """Fork one process per line of stdin."""
    import peft  # noqa: F401
    import pixelvla_third_party.adapter  # noqa: F401

    import pixelvla_core.train.run  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _child(line.split("\t"))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(arguments: list[str]) -> None:
    log = os.open(arguments[0].strip() + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        status = run([argument.strip() for argument in arguments])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(run(sys.argv[1:]))
