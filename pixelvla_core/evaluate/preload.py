"""Imported once by the server that worker processes are forked from: what is heavy, so that no worker imports it again.

The server must stay fit to be forked: modules are imported and nothing else. What fails to import here fails, and says
so, in the worker that needs it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress

VARIABLE = "PIXELVLA_PRELOAD"
"""Names of the modules, separated by spaces: the only way to tell the server while it starts."""


def preload(names: Iterable[str]) -> None:
    """Import modules, each as far as it goes.

    Raises:
        SystemExit: one of them started a thread or CUDA, which no fork survives; workers are then spawned.
    """
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
    torch = sys.modules.get("torch")
    if threading.active_count() > 1 or (torch is not None and torch.cuda.is_initialized()):
        raise SystemExit("Importing the model's parts started threads or CUDA: workers cannot be forked.")


if VARIABLE in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, with whom the server ends
    preload(os.environ[VARIABLE].split())
