"""What this distribution offers."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_reasoners() -> list[Component]:
    return [
        Component(
            name="grammar",
            target="pixelvla_reason.grammar:Grammar",
            config="pixelvla_reason.config:GrammarConfig",
            summary="The first object that an instruction has the robot grasp, by its grammar; no model",
        ),
    ]
