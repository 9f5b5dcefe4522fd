"""What this distribution offers."""

from __future__ import annotations
