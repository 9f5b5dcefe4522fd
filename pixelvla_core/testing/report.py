"""The outcome of a conformance run."""

from __future__ import annotations

from dataclasses import dataclass

from pixelvla_core.errors import PluginError


@dataclass(frozen=True)
class Check:
    """One clause: its name, whether it holds, and what was measured or what is wrong."""

    name: str
    ok: bool
    detail: str = ""

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name:<16}  {self.detail}".rstrip()


@dataclass(frozen=True)
class Report:
    """Every clause of one run; print it, or raise if something failed."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every clause holds."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The clauses that do not hold."""
        return tuple(check for check in self.checks if not check.ok)

    def __str__(self) -> str:
        held = len(self.checks) - len(self.failures)
        return "\n".join([*map(str, self.checks), f"{held} of {len(self.checks)} clauses hold"])

    def raise_for_failures(self) -> None:
        """Raise PluginError naming each clause that does not hold; docs/write_a_backbone.md explains them."""
        if self.failures:
            said = "; ".join(f"{check.name}: {check.detail}" for check in self.failures)
            raise PluginError(f"The backbone breaks {len(self.failures)} of {len(self.checks)} clauses. {said}")
