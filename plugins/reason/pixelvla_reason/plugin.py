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
        Component(
            name="hf",
            target="pixelvla_reason.hf:Causal",
            config="pixelvla_reason.config:HfConfig",
            summary="A local causal language model that can only answer in words of the instruction",
        ),
        Component(
            name="openai",
            target="pixelvla_reason.server:Server",
            config="pixelvla_reason.config:OpenAIConfig",
            summary="A model behind an OpenAI-compatible server (vLLM, Ollama), with retries and a cache",
        ),
    ]
