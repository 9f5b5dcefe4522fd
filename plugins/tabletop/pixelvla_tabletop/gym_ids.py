"""Names under which Gymnasium knows the tabletop.

Gymnasium finds `register_envs` through the entry point group ``gymnasium.envs``, so that
``gym.make("pixelvla/Tabletop-v0")`` works without importing this package first, and importing this package stays cheap.
"""

from __future__ import annotations

ID = "pixelvla/Tabletop-v0"


def register_envs() -> None:
    """Register `ID`; calling it again does nothing. The environment counts its own steps, so it gets no TimeLimit."""
    import gymnasium as gym

    if ID not in gym.registry:
        gym.register(id=ID, entry_point="pixelvla_tabletop.env:TabletopEnv", order_enforce=True)
