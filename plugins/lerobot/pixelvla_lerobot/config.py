"""Options of the ``lerobot`` dataset."""

from __future__ import annotations

from dataclasses import dataclass

from pixelvla_core.errors import RecipeError, suggest

TIMES = ("first", "current")
FRAMES = ("stored", "direct")
DISCARDED = ("leave_out", "text")


@dataclass
class LeRobotConfig:
    """Where the data is, which of it is used, and how prompts are drawn while training.

    Attributes:
        root: Folder of the dataset (the one that holds ``meta/info.json``).
        repo_id: Its name on the Hub; needed only without ``root``.
        revision: Branch, tag or commit on the Hub.
        camera: Camera name, with or without ``observation.images.`` in front.
        annotations: Folder of the annotation sidecar; without one, all samples are text only.
        episodes: Use only these episodes.
        prompts: Weight of each prompt kind: none, point, line, box, mask, or mixtures such as ``point+box``; all five
            alike if left out (and ``none`` without annotations).
        prompt_frame: Derive prompts from the mask on the ``first`` frame of the episode, or on the ``current`` one.
        mask_frame: The same for the pixel-aware mask: ``first`` (as a tracker that holds) or ``current``.
        mask_probability: How often a sample with a prompt has the mask as well.
        deictic: How often the target of a sample with a prompt is called "this object" instead of its name, so that the
            prompt has to be looked at.
        discarded: Episodes that the annotation discarded: ``leave_out``, as the paper does, or use as ``text`` alone.
        allow_missing: Give text-only samples where annotations are missing instead of refusing the dataset.
        image_size: Give frames resized to this square (bicubic, aspect ratio not kept); as recorded if left out.
        frames: ``stored`` decodes every frame once into the cache (height x width x 3 bytes each) and then reads at the
            speed of memory; ``direct`` decodes each frame when it is asked for, slowly but without the space.
        skip_corrupt: Leave out episodes whose images cannot be read instead of refusing the dataset (``stored`` only).
        workers: Threads that decode.
        cache: Folder of decoded frames; the user's cache folder if left out.
        action_names: Names of the action dimensions, where the dataset has none or wrong ones.
        rule: Normalisation rule of the action contract: q99, min_max or mean_std.
        gripper_open: Value of an open gripper in the actions; inferred from the data if left out.
        gripper_closed: Value of a closed gripper; inferred if left out.
        rotation: Rotation representation, such as ``euler_xyz_delta``; inferred from the names if left out.
        frame: Coordinate frame of the actions.
        orientation: How the stored images were turned: upright, rotate180 or flip_vertical.
    """

    root: str | None = None
    repo_id: str | None = None
    revision: str | None = None
    camera: str = "front"
    annotations: str | None = None
    episodes: list[int] | None = None
    prompts: dict[str, float] | None = None
    prompt_frame: str = "first"
    mask_frame: str = "current"
    mask_probability: float = 1.0
    deictic: float = 0.0
    discarded: str = "leave_out"
    allow_missing: bool = False
    image_size: int | None = None
    frames: str = "stored"
    skip_corrupt: bool = False
    workers: int = 2
    cache: str | None = None
    action_names: list[str] | None = None
    rule: str = "q99"
    gripper_open: float | None = None
    gripper_closed: float | None = None
    rotation: str | None = None
    frame: str = "base"
    orientation: str = "upright"

    def __post_init__(self) -> None:
        if not self.root and not self.repo_id:
            raise RecipeError(
                "The lerobot dataset has neither root nor repo_id. Set root to its folder on this machine."
            )
        choices = {"prompt_frame": TIMES, "mask_frame": TIMES, "frames": FRAMES, "discarded": DISCARDED}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise RecipeError(f"{name} is {value!r}.{suggest(value, known)} Expected one of {', '.join(known)}.")
        for name in ("mask_probability", "deictic"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise RecipeError(f"{name} is {share}; expected a number from 0 to 1.")
        if self.image_size is not None and self.image_size < 1:
            raise RecipeError(f"image_size is {self.image_size}; expected a number of pixels, or nothing.")
        if self.workers < 1:
            raise RecipeError(f"workers is {self.workers}; expected at least 1.")
        if self.prompts is not None:
            from pixelvla_core.data.prompting import PromptMix  # needs NumPy, which listing commands does not

            PromptMix(self.prompts)


@dataclass(frozen=True)
class RecordingConfig:
    """Options of the recording ``lerobot``.

    Attributes:
        revision: of the dataset on the Hub.
        cache: folder for what can be made again; the user's cache folder by default.
    """

    revision: str | None = None
    cache: str | None = None
