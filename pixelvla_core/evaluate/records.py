"""What is known of one episode, before and after it ran, and the journal that keeps it. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pixelvla_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run.

    Attributes:
        task, split: Names that the environment knows.
        prompt: What the user gives on the first observation: "none", a kind, or a mixture such as "point+box".
        episode: Number of the episode within its task and split, from 0.
        seed: What the environment is reset with. It does not depend on the prompt or the model.
    """

    task: str
    split: str
    prompt: str
    episode: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.task}/{self.split}/{self.prompt}/{self.seed}"

    @property
    def scene(self) -> tuple[str, str, int]:
        """What the model is faced with, whatever the prompt."""
        return self.task, self.split, self.seed


@dataclass(frozen=True, kw_only=True)
class Record:
    """One episode that ran.

    Attributes:
        success: The environment's success after the last step.
        reached: Its success at any step; the laxer rule that some papers count.
        grasped: The gripper held the target at any step.
        steps: Control steps.
        looks: Observations that the policy was asked about.
        iou: Overlap of the mask on the first image with the exact one; None without a prompt.
        seconds: Spent in "env", "policy" (its share of each batch), "segment" and "track".
        facts: What the environment said of the episode at reset, numbers and texts only.
        prompts: The visual prompts as plain data.
        film: Folder of the kept frames, relative to the results, or "".
        failure_reason: Why the episode could not be run; it counts as a failure.
    """

    job: Job
    instruction: str = ""
    success: bool = False
    reached: bool = False
    grasped: bool = False
    steps: int = 0
    looks: int = 0
    iou: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    prompts: tuple[Mapping[str, Any], ...] = ()
    film: str = ""
    failure_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self)
        return {**plain.pop("job"), **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Record:
        names = set(Job.__dataclass_fields__)
        rest = {key: value for key, value in plain.items() if key not in names}
        rest["prompts"] = tuple(rest["prompts"])
        return cls(job=Job(**{key: plain[key] for key in names}), **rest)


class Journal:
    """Finished episodes, one JSON line each, so that a stopped evaluation goes on where it was.

    Args:
        path: The file; it is made with the first record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """Return the finished episodes and cut off a line that a crash left unfinished.

        Raises:
            UserError: a complete line is no record.
        """
        if not self.path.exists():
            return []
        whole = self.path.read_bytes()
        complete = whole[: whole.rfind(b"\n") + 1]
        if len(complete) < len(whole):
            with self.path.open("r+b") as file:
                file.truncate(len(complete))
        return [self._parse(line, number) for number, line in enumerate(complete.splitlines(), 1)]

    def append(self, record: Record) -> None:
        """Add one finished episode."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json()) + "\n")

    def _parse(self, line: bytes, number: int) -> Record:
        try:
            return Record.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Line {number} of {self.path} is no record of an episode: {type(error).__name__}: {error}. "
                f"Delete the line to have its episode run again, or give another --out."
            ) from error
