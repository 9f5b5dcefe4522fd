"""Checkpoint folders: written whole or not at all, checked before they are read, loaded strictly. No pickle."""

from __future__ import annotations

from pixelvla_core.checkpoint.find import checkpoints, newest, resolve
from pixelvla_core.checkpoint.load import Loaded, load
from pixelvla_core.checkpoint.manifest import Manifest, read_manifest, verify
from pixelvla_core.checkpoint.save import Header, describe, save

__all__ = [
    "Header",
    "Loaded",
    "Manifest",
    "checkpoints",
    "describe",
    "load",
    "newest",
    "read_manifest",
    "resolve",
    "save",
    "verify",
]
