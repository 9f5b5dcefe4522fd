"""Options of the parts of this plugin. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GrabCutConfig:
    """Options of the segmenter ``grabcut``.

    Attributes:
        iterations: Of OpenCV's GrabCut; 0 keeps the marked or grown region as it is.
        margin: How far beyond the marked region background is learned, as a fraction of the region's size.
        lightness: Price of being lighter or darker than marked when the region around a point or line is grown. If it
            is low, the lit and the shaded side of a thing belong together.
        largest: A grown region never covers more than this fraction of the image.
    """

    iterations: int = 1
    margin: float = 0.5
    lightness: float = 0.12
    largest: float = 0.2

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise ValueError(f"iterations is {self.iterations}; expected at least 0")
        if not self.margin > 0:
            raise ValueError(f"margin is {self.margin}; expected more than 0")
        if not self.lightness >= 0:
            raise ValueError(f"lightness is {self.lightness}; expected at least 0")
        if not 0 < self.largest <= 1:
            raise ValueError(f"largest is {self.largest}; expected 0 < largest <= 1")


@dataclass(frozen=True)
class FollowConfig:
    """Options of the tracker ``follow``.

    Attributes:
        reach: How far the object may move between two images, as a fraction of the image's longer side.
        inertia: Score that a place loses for each pixel between it and the last one.
        rim: Weight of likely pixels right outside the shape, which speak against a place.
        everywhere: Weight of the whole image against the object's surroundings in what is not the object.
        visible: Share of the object that must be seen; with less, the mask is empty until it is seen again.
    """

    reach: float = 0.1
    inertia: float = 0.02
    rim: float = 0.4
    everywhere: float = 0.3
    visible: float = 0.1

    def __post_init__(self) -> None:
        for name in ("reach", "everywhere", "visible"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0 and at most 1")
        for name in ("inertia", "rim"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")


@dataclass(frozen=True)
class FlowConfig:
    """Options of the tracker ``flow``.

    Attributes:
        points: How many are followed, about.
        window: Side in pixels of what is compared around each.
        error: Pixels by which a point may miss its place when it is followed back.
        visible: Share of the points that must be found; with fewer, the mask is empty until they are found again.
    """

    points: int = 300
    window: int = 15
    error: float = 0.5
    visible: float = 0.1

    def __post_init__(self) -> None:
        if self.points < 8:
            raise ValueError(f"points is {self.points}; expected at least 8")
        if self.window < 3:
            raise ValueError(f"window is {self.window}; expected at least 3")
        if not self.error > 0:
            raise ValueError(f"error is {self.error}; expected more than 0")
        if not 0 <= self.visible <= 1:
            raise ValueError(f"visible is {self.visible}; expected 0 to 1")


@dataclass(frozen=True)
class ColourConfig:
    """Options of the detector ``colour``.

    Attributes:
        smallest: Least share of the image that a thing covers.
        shape: How much an outline that does not fit the noun lowers the score, in [0, 1].
    """

    smallest: float = 0.0003
    shape: float = 0.5

    def __post_init__(self) -> None:
        for name in ("smallest", "shape"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")


@dataclass(frozen=True)
class MotionConfig:
    """Options of the gripper finder ``motion``.

    Attributes:
        change: Difference of a colour channel, of 255, above which a pixel has changed.
        common: Share of the clips in which a colour must move to be the gripper's.
    """

    change: float = 30.0
    common: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.change < 255:
            raise ValueError(f"change is {self.change}; expected more than 0 and less than 255")
        if not 0 <= self.common <= 1:
            raise ValueError(f"common is {self.common}; expected 0 to 1")
