"""Looks at the worker it is loaded in, for tests of how workers start; as a program, starts one and prints its report.

``python launching.py [--stay] MODULE...`` preloads the modules; it waits to be killed with ``--stay``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from pixelvla_core.component import Component
from pixelvla_core.errors import UserError
from pixelvla_core.evaluate.launch import Launcher
from pixelvla_core.evaluate.workers import Setup

NOTHING = Component(name="nothing", target="builtins:str", config="builtins:str")


def report() -> None:
    """Refuse to be a policy, with what a worker sees; the worker passes the text on."""
    raise UserError(
        json.dumps({"parent": os.getppid(), "environment": dict(os.environ), "modules": sorted(sys.modules)})
    )


def sleep() -> None:
    time.sleep(10_000)


def setup_for(policy, *modules: str) -> Setup:
    return Setup(
        policy=policy, environment=(NOTHING, ""), segmenter=None, tracker=(NOTHING, ""), out=Path(), modules=modules
    )


def ask(launcher: Launcher, *modules: str) -> dict:
    """Start a worker and return what it sees."""
    process, connection = launcher.start(setup_for(report, *modules))
    kind, text = connection.recv()
    assert kind == "refused", text
    process.join()
    return json.loads(text)


def main(*words: str) -> None:
    stay, modules = "--stay" in words, [word for word in words if word != "--stay"]
    launcher = Launcher()
    seen = ask(launcher, *modules)
    kept = launcher.start(setup_for(sleep)) if stay else None
    forked = seen["parent"] != os.getpid()
    print(json.dumps({"forked": forked, "modules": [name for name in modules if name in seen["modules"]]}), flush=True)
    if kept:
        kept[0].join()


if __name__ == "__main__":
    import launching  # by this name workers know it

    launching.main(*sys.argv[1:])
