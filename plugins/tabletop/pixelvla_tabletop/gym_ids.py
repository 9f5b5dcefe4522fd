"""The tabletop under Gymnasium's name; importing this module registers it.

Gymnasium imports a module named before a colon: ``gym.make("pixelvla_tabletop.gym_ids:pixelvla/Tabletop-v0")``. The
package itself does not register anything, so that listing its parts needs no Gymnasium.
"""

import gymnasium as gym

ID = "pixelvla/Tabletop-v0"

# The environment counts its own steps, so no TimeLimit is wrapped around it.
gym.register(id=ID, entry_point="pixelvla_tabletop.env:TabletopEnv")
