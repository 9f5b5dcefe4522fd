"""The fixed part of a recipe. What is open, the options of each part, is checked against that part's own dataclass.

Range checks live in ``__post_init__`` and their messages begin with the name of the field, so that the composer can
put the path of the recipe's key before it. The numbers of the paper are in ``recipes/``, not here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pixelvla_core.errors import suggest
from pixelvla_core.types import GROUPS as BASE_GROUPS
from pixelvla_core.types import RULES, SPLICES

OWN_GROUPS = ("pixel", "prompt", "head", "lora")
PROMPT_KINDS = ("none", "point", "line", "box", "mask")
"""A prompt may also be a mixture, such as ``point+box``."""
CHANGES = ("statistics", "names", "rule", "mask", "fps", "camera", "orientation", "gripper", "rotation", "frame")
"""What of the action contract ``start_changes`` may list."""


def check(holds: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless the condition holds; the message begins with the name of the field."""
    if not holds:
        raise ValueError(message)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that a text is one of the choices."""
    check(value in choices, f"{name} is {value!r}; expected one of {', '.join(choices)}.{suggest(value, choices)}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Check that a number is finite and not below a bound."""
    check(value >= least, f"{name} is {value}; expected at least {least}")
    check(value < math.inf, f"{name} is {value}; expected a finite number")


def check_above(name: str, value: float, bound: float) -> None:
    """Check that a number is finite and above a bound."""
    check(value > bound, f"{name} is {value}; expected more than {bound}")
    check(value < math.inf, f"{name} is {value}; expected a finite number")


def check_mixture(name: str, mixture: str) -> None:
    """Check that a text is a kind of prompt, or several joined by ``+``."""
    kinds = mixture.split("+")
    for kind in kinds:
        check_choice(name, kind, PROMPT_KINDS)
    alone = "none" not in kinds or mixture == "none"
    check(alone, f"{name} lists {mixture!r}, but none stands alone: it means that nothing is given")


@dataclass(frozen=True)
class Part:
    """A part by name, with its own options. In YAML, ``head: l1`` is short for ``head: {name: l1}``."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Backbone(Part):
    """The base model.

    Attributes:
        weights: a checkpoint folder, a hub id, or a name under which a plugin ships weights.
        dtype: of the frozen base weights.
        quantize: none, 8bit or 4bit (bitsandbytes, bitsandbytes).
    """

    weights: str | None = None
    dtype: str = "float32"
    quantize: str = "none"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, ("float32", "bfloat16", "float16"))
        check_choice("quantize", self.quantize, ("none", "8bit", "4bit"))


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on every linear layer of the base's groups. Rank 0: none."""

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    groups: list[str] = field(default_factory=lambda: ["llm"])

    def __post_init__(self) -> None:
        check_at_least("rank", self.rank, 0)
        check_above("alpha", self.alpha, 0)
        check(0 <= self.dropout < 1, f"dropout is {self.dropout}; expected 0 <= dropout < 1")
        for group in self.groups:
            check_choice("groups", group, BASE_GROUPS)


@dataclass(frozen=True)
class Action:
    """What the model predicts: H steps at once, normalised by the data's quantiles (q99), extremes or moments."""

    horizon: int = 8
    normalization: str = "q99"

    def __post_init__(self) -> None:
        check_at_least("horizon", self.horizon, 1)
        check_choice("normalization", self.normalization, RULES)


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        train: groups that learn; everything else is frozen. pixel, prompt, head (with its queries) and lora are ours;
            vision, projector, llm, expert and action_io are the base model's.
        objective: head (the action head's loss) or native (the base model's own).
        steps: optimizer steps. batch_size: samples per forward pass and process; grad_accum: passes per step.
        schedule: of the learning rate after ``warmup_steps`` of linear rise: constant, linear or cosine (to zero).
        precision: of the computation: float32 or bfloat16.
        prompts: False removes the pixel and prompt encoders from the forward pass.
        cache: none, features (of the vision towers) or hidden (states of the frozen base), computed once and kept on
            disk.
    """

    train: list[str]
    steps: int
    batch_size: int = 32
    lr: float = 5e-4
    objective: str = "head"
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant"
    grad_clip: float = 1.0
    grad_accum: int = 1
    precision: str = "float32"
    grad_checkpointing: bool = False
    prompts: bool = True
    cache: str = "none"
    save_every: int = 1000
    log_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check(len(self.train) > 0, f"train is empty; list what learns: {', '.join((*OWN_GROUPS, *BASE_GROUPS))}")
        for group in self.train:
            check_choice("train", group, (*OWN_GROUPS, *BASE_GROUPS))
        check_choice("objective", self.objective, ("head", "native"))
        check_choice("schedule", self.schedule, ("constant", "linear", "cosine"))
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        check_choice("cache", self.cache, ("none", "features", "hidden"))
        for name in ("steps", "batch_size", "grad_accum", "save_every", "log_every"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("lr", "grad_clip"):
            check_above(name, getattr(self, name), 0)
        for name in ("weight_decay", "warmup_steps", "seed"):
            check_at_least(name, getattr(self, name), 0)
        check(
            self.warmup_steps <= self.steps,
            f"warmup_steps is {self.warmup_steps}; expected at most {self.steps}. If a layer set it, set it together "
            "with steps",
        )
        self._check_cache()

    def _check_cache(self) -> None:
        """What is computed once must not change while the stage runs."""
        moving = {"features": {"vision", "projector"}, "hidden": {*BASE_GROUPS, "lora", "pixel", "prompt"}}
        learning = sorted(moving.get(self.cache, set()) & set(self.train))
        check(not learning, f"cache is {self.cache!r}, but the stage trains {', '.join(learning)}, which changes it")


@dataclass(frozen=True)
class Evaluate:
    """Closed-loop evaluation.

    Attributes:
        tasks: of the environment; empty for all. splits: likewise.
        episodes: for each task, split and prompt.
        prompts: what the user gives on the first observation: none, point, line, box, mask or mixtures (point+box).
        segmenter: from the prompt to the mask; without one the environment's exact mask of the prompted object is used.
        tracker: the mask through time.
        execute: steps of a chunk to execute before the next one; the whole chunk if not given.
        workers: processes that run episodes.
        seed: of the first episode; the next ones count up.
        step_timeout: seconds after which a process that neither started an episode, nor decided, nor carried out a
            chunk of actions is taken to hang, and replaced.
    """

    env: Part | None = None
    tasks: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    episodes: int = 100
    prompts: list[str] = field(default_factory=lambda: ["none"])
    segmenter: Part | None = None
    tracker: Part | None = None
    execute: int | None = None
    workers: int = 2
    seed: int = 0
    step_timeout: float = 120.0

    def __post_init__(self) -> None:
        check_at_least("episodes", self.episodes, 1)
        check_above("step_timeout", self.step_timeout, 0)
        check_at_least("workers", self.workers, 1)
        check_at_least("seed", self.seed, 0)
        check(self.execute is None or self.execute >= 1, f"execute is {self.execute}; expected at least 1")
        check(len(self.prompts) > 0, f"prompts is empty; expected some of {', '.join(PROMPT_KINDS)}")
        for mixture in self.prompts:
            check_mixture("prompts", mixture)


@dataclass(frozen=True)
class Video:
    """The discrete video: the frames on which grippers close, in an order in which neighbours look alike.

    Attributes:
        chunk: frames that are tracked through at once, which bounds the memory.
        overlap: frames at the start of a chunk that are the last ones of the chunk before it, to compare the two.
        context: further frames of each episode, for finders that look at what moves.
    """

    chunk: int = 128
    overlap: int = 16
    context: int = 4

    def __post_init__(self) -> None:
        check_at_least("chunk", self.chunk, 1)
        check_at_least("overlap", self.overlap, 0)
        check_at_least("context", self.context, 0)
        check(self.overlap < self.chunk, f"overlap is {self.overlap}; expected less than chunk, {self.chunk}")


@dataclass(frozen=True)
class Filters:
    """When a mask is thrown away. Areas are fractions of the image.

    Attributes:
        min_area, max_area: of the mask on the first frame; a smaller one is tiny, a larger one huge.
        min_whole: share of the mask that its largest piece must have; below, it is fragmented.
        min_inside: share of the mask that must lie in the region proposal.
        min_score: of the detection's box.
        max_change: greatest factor between a mask's area and that of the frame before it, either way.
    """

    min_area: float = 0.0003
    max_area: float = 0.2
    min_whole: float = 0.6
    min_inside: float = 0.3
    min_score: float = 0.25
    max_change: float = 4.0

    def __post_init__(self) -> None:
        for name in ("min_area", "max_area", "min_whole", "min_inside", "min_score"):
            check(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; expected 0 to 1")
        check(self.min_area < self.max_area, f"min_area is {self.min_area}; expected less than max_area")
        check_at_least("max_change", self.max_change, 1)


@dataclass(frozen=True)
class Annotate:
    """The annotation pipeline (section 4.2 of the paper).

    Attributes:
        recording: what reads the dataset. camera: which camera is annotated; the only one if not given.
        episodes: only these; empty for all.
        profile: what gripper values mean, a name such as bridge or values such as open=1,closed=0 (see
            ``annotate/profiles.py``); inferred from the data if not given.
        video: how the frames on which grippers close are put together.
        gripper: what finds the gripper on them.
        margin: by which the gripper's box is enlarged to the region proposal, as a fraction of its longer side.
        reasoner: from the instruction to the object. detector: from its name to boxes. segmenter: from boxes to masks.
        tracker: the mask through time; without one only the first frame is annotated.
        points, lines: how many of each are stored with a mask.
        batch: images that a model is given at once.
        filters: what is thrown away.
        runner: where the tasks run. episodes_per_shard: how many go into one file and one task.
        seed: of the points and lines, together with the episode.
    """

    recording: Part = field(default_factory=lambda: Part("lerobot"))
    camera: str | None = None
    episodes: list[int] = field(default_factory=list)
    profile: str | None = None
    video: Video = field(default_factory=Video)
    gripper: Part | None = None
    margin: float = 0.2
    reasoner: Part | None = None
    detector: Part | None = None
    segmenter: Part | None = None
    tracker: Part | None = None
    points: int = 1
    lines: int = 1
    batch: int = 16
    filters: Filters = field(default_factory=Filters)
    runner: Part = field(default_factory=lambda: Part("local"))
    episodes_per_shard: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("margin", self.margin, 0)
        for name in ("points", "lines", "seed"):
            check_at_least(name, getattr(self, name), 0)
        for name in ("batch", "episodes_per_shard"):
            check_at_least(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Log:
    """Where the curves of training go, by the names that Accelerate knows."""

    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a run. ``run`` lists the stages in order; a recipe without stages only wraps.

    Attributes:
        head: from the backbone's output to actions; ``native`` is the base model's own objective and prediction.
        start: a checkpoint or run of pixelvla whose weights training begins with; its parts must be the recipe's.
        start_changes: what of the action contract of ``start`` the data may have otherwise; see ``contract/begin.py``.
        splice: where pixel and prompt tokens go: after_image (Fig. 2 of the paper) or in_text (its A.1).
    """

    backbone: Backbone | None = None
    start: str | None = None
    start_changes: list[str] = field(default_factory=list)
    pixel_encoder: Part | None = None
    prompt_encoder: Part | None = None
    head: Part | None = None
    splice: str = "after_image"
    lora: Lora = field(default_factory=Lora)
    data: Part | None = None
    action: Action = field(default_factory=Action)
    stages: dict[str, Stage] = field(default_factory=dict)
    run: list[str] = field(default_factory=list)
    evaluate: Evaluate = field(default_factory=Evaluate)
    annotate: Annotate | None = None
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        check_choice("splice", self.splice, SPLICES)
        for name in self.start_changes:
            check_choice("start_changes", name, CHANGES)
        for name in self.run:
            check(name in self.stages, self._unknown_stage(name))
            if self.backbone is not None:  # without one it is a fragment, to be looked at
                self._check_groups(name, self.stages[name])
        trains = bool(self.run) and self.backbone is not None
        check(not trains or self.head is not None, "run has stages, but the recipe has no head; add a layer: head/l1")

    def _unknown_stage(self, name: str) -> str:
        known = ", ".join(self.stages) or "none"
        return f"run names the stage {name!r}, which no layer defines.{suggest(name, self.stages)} Defined: {known}"

    def _check_groups(self, name: str, stage: Stage) -> None:
        """Refuse to train a group that has no parameters in this recipe."""
        present = {
            "pixel": self.pixel_encoder is not None and stage.prompts,
            "prompt": self.prompt_encoder is not None and stage.prompts,
            "head": self.head is not None and self.head.name != "native",
            "lora": self.lora.rank > 0,
        }
        remedy = {
            "pixel": "name a pixel_encoder and set prompts: true",
            "prompt": "name a prompt_encoder and set prompts: true",
            "head": "name a head"
            if self.head is None
            else "the head 'native' is the base's own and has no parameters. Leave 'head' out of train, and a stage "
            "that trains nothing else, as cat, out of run; or take another head, such as head/l1",
            "lora": "set lora.rank above 0",
        }
        for group in stage.train:
            if not present.get(group, True):
                raise ValueError(f"stages.{name}.train lists {group!r}, which is empty here; {remedy[group]}")
