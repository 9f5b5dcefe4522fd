"""Image geometry: one affine map per camera, shared by pixels, prompts and masks.

All coordinates are normalised: [0, 1] x [0, 1] over the source image (as the camera delivered it) and over the target
image (as the backbone reads it).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Affine:
    """Axis-aligned map from source to target coordinates: ``x' = scale_x * x + shift_x``, likewise y.

    A negative scale mirrors. Whatever resizing, cropping, padding or flipping an image goes through is one of these.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Map one point."""
        return self.scale_x * x + self.shift_x, self.scale_y * y + self.shift_y

    def then(self, after: Affine) -> Affine:
        """The map that applies ``self`` first and ``after`` second."""
        return Affine(
            after.scale_x * self.scale_x,
            after.scale_y * self.scale_y,
            after.scale_x * self.shift_x + after.shift_x,
            after.scale_y * self.shift_y + after.shift_y,
        )

    def inverse(self) -> Affine:
        """The map from target back to source."""
        return Affine(1 / self.scale_x, 1 / self.scale_y, -self.shift_x / self.scale_x, -self.shift_y / self.scale_y)

    @classmethod
    def crop(cls, x0: float, y0: float, x1: float, y1: float) -> Affine:
        """Cut out the box [x0, x1] x [y0, y1] of the source; the box becomes the whole target."""
        return cls(1 / (x1 - x0), 1 / (y1 - y0), -x0 / (x1 - x0), -y0 / (y1 - y0))

    @classmethod
    def letterbox(cls, width: int, height: int) -> Affine:
        """Pad a width x height image symmetrically to a square that becomes the whole target."""
        side = max(width, height)
        return cls(width / side, height / side, (side - width) // 2 / side, (side - height) // 2 / side)

    @classmethod
    def rotate180(cls) -> Affine:
        """Turn the image upside down and mirror it, as LIBERO's images need."""
        return cls(-1.0, -1.0, 1.0, 1.0)
