"""Options of the backbone. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

SAMPLERS = ("lerobot", "fast")


@dataclass(frozen=True, kw_only=True)
class Pi0Options:
    """Options of the backbone `pi0`.

    Attributes:
        revision: Branch, tag or commit on the hub.
        cameras: In the order in which their tokens stand in the prefix.
        tokenizer: Folder or hub id of the tokenizer; by default the one in the weights' folder, or else PaliGemma's.
        key: The data set whose statistics are meant, where the weights' folder has those of several.
        state: False for robots without proprioception: the expert then reads zeros.
        state_mean: Mean of each value of the state, in the data's units; with `state_std` it replaces the statistics
            that lie beside the weights.
        state_std: Standard deviation of each value of the state.
        fixed_noise: Sample each chunk from noise that depends on the sample's key alone, so that an evaluation repeats
            whatever else runs beside it; False draws it from torch's generator, as LeRobot does.
        sampler: "lerobot" samples chunks by LeRobot's code alone, to the last bit; "fast" leaves out work that nobody
            reads and is equal within rounding.
        policy: Fields of LeRobot's `PI0Config` to change, such as `{num_inference_steps: 5}`.
    """

    RUN_TIME: ClassVar[tuple[str, ...]] = ("fixed_noise", "sampler", "policy.num_inference_steps")
    """What a finished model may be given anew: its weights mean the same under any value."""

    revision: str | None = None
    cameras: list[str] = field(default_factory=lambda: ["front"])
    tokenizer: str | None = None
    key: str | None = None
    state: bool = True
    state_mean: list[float] | None = None
    state_std: list[float] | None = None
    fixed_noise: bool = False
    sampler: str = "lerobot"
    policy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}; expected {' or '.join(SAMPLERS)}")
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras is {self.cameras}; expected at least one name, each once")
        if (self.state_mean is None) != (self.state_std is None):
            raise ValueError("state_mean and state_std belong together; one of them is missing")
        if self.state_mean is not None and len(self.state_mean) != len(self.state_std or ()):
            raise ValueError(f"state_mean has {len(self.state_mean)} values, state_std {len(self.state_std or ())}")
