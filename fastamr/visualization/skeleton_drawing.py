"""Drawing bodies: where the axes end, which bone is left or right, and what is laid over the joints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..skeleton import SkeletonLayout
from .clip import Clip, Floats, Overlay
from .figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Left, right and the trunk differ in line style as well as in colour; the second body has open joints.
_SIDES: dict[str, tuple[str, Any]] = {
    "left": (COLOURS[0], "-"),
    "right": (COLOURS[1], (0, (4, 1.5))),
    "trunk": ("#444444", "-"),
}
_GHOST = "#9a9a9a"
UP = ("y", "z", "-y", "auto")


class Stage:
    """Axes whose limits hold a whole clip, on which frames are drawn one after another.

    Args:
        clip: the clip; its coordinates and those of a reconstruction fix the limits.
        overlay: what is laid over the joints.
        up: ``"y"``, ``"z"`` or ``"-y"`` (images, y downwards) is drawn upwards; ``"auto"`` takes what the clip says,
            and in 3-D the direction of the trunk.
        azimuth: horizontal angle of view of 3-D joints, degrees.
        elevation: vertical one.
        flat: bring 3-D joints into the plane, as seen from there; the axes are then those of the plane.
    """

    def __init__(
        self,
        clip: Clip,
        overlay: Overlay | None = None,
        *,
        up: str = "auto",
        azimuth: float = -70.0,
        elevation: float = 12.0,
        flat: bool = False,
    ) -> None:
        self.clip, self.overlay = clip, overlay
        self.spatial = clip.coords.shape[-1] == 3
        self.up = upward(clip) if up == "auto" else up
        self.view = (elevation, azimuth)
        self.flat = flat and self.spatial
        self.coords = self._turned(clip.coords)
        self.ghost = None
        everything = [self.coords.reshape(-1, self.coords.shape[-1])]
        if overlay is not None and overlay.kind == "reconstruction":
            self.ghost = self._turned(overlay.values.astype(np.float32))
            everything.append(self.ghost.reshape(-1, self.ghost.shape[-1]))
        points = np.concatenate(everything)
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            raise ValueError(f"clip {clip.name!r} has no frame with a body, so there is nothing to draw")
        # A reconstruction may go astray; the picture is about the body.
        low, high = np.percentile(points, [0.2, 99.8], axis=0)
        self.room, self.middle = 0.06 * max(float((high - low).max()), 1e-6), (low + high) / 2
        self.low, self.high = low - self.room, high + self.room

    def _turned(self, coords: Floats) -> Floats:
        """Return coordinates as the axes take them: depth second and up last in 3-D, up last in 2-D."""
        sign = np.float32(-1 if self.up.startswith("-") else 1)
        if not self.spatial:
            return np.stack([coords[..., 0], sign * coords[..., 1]], axis=-1)
        turned = coords
        if self.up != "z":
            turned = np.stack([coords[..., 0], -sign * coords[..., 2], sign * coords[..., 1]], axis=-1)
        return turned @ self.directions().astype(np.float32) if self.flat else turned

    def directions(self) -> Floats:
        """Return where the axes of :meth:`axes_names` point in the plane, ``(C, 2)``: to the right, and up."""
        if not self.spatial:
            return np.eye(2, dtype=np.float32)
        elevation, azimuth = np.radians(self.view)
        right = [-np.sin(azimuth), np.cos(azimuth), 0.0]
        up = [-np.sin(elevation) * np.cos(azimuth), -np.sin(elevation) * np.sin(azimuth), np.cos(elevation)]
        return np.array([right, up], dtype=np.float32).T

    def axes_names(self) -> list[str]:
        """Return the labels of the axes in drawing order."""
        if not self.spatial:
            return ["x", "y" if self.up != "-y" else "-y"]
        return ["x", "y", "z"] if self.up == "z" else ["x", "-z", "y"] if self.up == "y" else ["x", "z", "-y"]

    def add_axes(self, figure: Figure, place: Any) -> Axes:
        """Add axes with the clip's limits to a figure, at a place as ``add_subplot`` takes it."""
        axes: Any = figure.add_subplot(place, projection="3d" if self.spatial else None)
        axes.set_xlim(self.low[0], self.high[0])
        axes.set_ylim(self.low[1], self.high[1])
        if self.spatial:
            axes.set_zlim(self.low[2], self.high[2])
            axes.set_box_aspect(self.high - self.low, zoom=0.97)
            axes.view_init(*self.view)
        else:
            axes.set_aspect("equal")
            axes.grid(alpha=0.3)
        return axes

    def label_axes(self, axes: Any, unit: str, ticks: int = 4) -> None:
        """Write names and unit on the axes, with at most so many intervals between ticks."""
        from matplotlib.ticker import MaxNLocator

        for name, letter in zip(self.axes_names(), "xyz", strict=False):
            getattr(axes, f"set_{letter}label")(f"{name} ({unit})" if unit else name, labelpad=2, fontsize=8)
            getattr(axes, f"{letter}axis").set_major_locator(MaxNLocator(ticks))
            axes.tick_params(axis=letter, labelsize=7, pad=1)

    def bare(self, axes: Any) -> None:
        """Take the numbers off the axes: those of the first panel hold for all."""
        for letter in "xyz"[: self.coords.shape[-1]]:
            getattr(axes, f"{letter}axis").set_ticklabels([])

    def proportions(self) -> tuple[float, float]:
        """Return width and height of the drawing relative to each other."""
        extent = self.high - self.low
        if not self.spatial:
            return float(extent[0]), float(extent[1])
        # Seen from the side, depth adds to the width; 3-D axes leave room around the box.
        return float(np.hypot(extent[0], extent[1])) * 1.15, float(extent[2]) * 1.25

    def draw(self, axes: Any, frame: int, *, size: float = 1.0) -> None:
        """Draw one frame: bodies, the second one with open joints, and the overlay.

        Args:
            axes: of :meth:`add_axes`.
            frame: which frame.
            size: factor of lines and markers.
        """
        for body in range(self.coords.shape[1]):
            pose = self.coords[frame, body]
            faded = self.overlay is not None and self.overlay.kind != "reconstruction"
            self._bones(axes, pose, size, faded)
            self._joints(axes, pose, frame, body, size)
            if self.ghost is not None:
                self._reconstructed(axes, self.ghost[frame, body], size)

    def _bones(self, axes: Any, pose: Floats, size: float, faded: bool) -> None:
        sides = joint_sides(self.clip.layout)
        for child, parent in self.clip.layout.edges:
            ends = pose[[child, parent]]
            if not np.isfinite(ends).all():
                continue
            colour, line = _SIDES[sides[child]]
            axes.plot(
                *ends.T, color=colour, linestyle=line, linewidth=1.8 * size, alpha=0.45 if faded else 1.0
            )

    def _joints(self, axes: Any, pose: Floats, frame: int, body: int, size: float) -> None:
        seen = np.isfinite(pose).all(axis=1)
        overlay = self.overlay
        if overlay is None or overlay.kind == "reconstruction":
            face = "#222222" if body == 0 else "white"
            _points(axes, pose[seen], marker="o", s=9 * size**2, c=face, edgecolors="#222222", linewidths=0.8)
        elif overlay.kind == "mask":
            visible = overlay.values[frame, body] & seen
            hidden = ~overlay.values[frame, body] & seen
            _points(axes, pose[hidden], marker="x", s=14 * size**2, c="#777777", linewidths=0.8)
            face = COLOURS[2] if body == 0 else "white"
            _points(
                axes, pose[visible], marker="o", s=42 * size**2, c=face, edgecolors="black", linewidths=1.2
            )
        else:
            low, high = overlay.scale
            seen = seen & np.isfinite(overlay.values[frame, body])
            values = np.clip((overlay.values[frame, body][seen] - low) / max(high - low, 1e-12), 0, 1)
            # Size says the same as colour.
            _points(
                axes,
                pose[seen],
                marker="o" if body == 0 else "s",
                s=(6 + 70 * values) * size**2,
                c=values,
                cmap="viridis",
                vmin=0,
                vmax=1,
                edgecolors="black",
                linewidths=0.5,
            )

    def _reconstructed(self, axes: Any, pose: Floats, size: float) -> None:
        for child, parent in self.clip.layout.edges:
            ends = pose[[child, parent]]
            if np.isfinite(ends).all():
                axes.plot(*ends.T, color=_GHOST, linestyle=":", linewidth=1.6 * size)
        there = pose[np.isfinite(pose).all(axis=1)]
        _points(axes, there, marker="+", s=22 * size**2, c="#555555", linewidths=0.9)

    def legend(self) -> list[Any]:
        """Return the handles of a legend for all that is drawn."""
        from matplotlib.lines import Line2D

        sides = set(joint_sides(self.clip.layout))
        handles = [
            Line2D([], [], color=colour, linestyle=line, linewidth=2, label=side)
            for side, (colour, line) in _SIDES.items()
            if side in sides and len(sides) > 1
        ]
        point: dict[str, Any] = {"linestyle": "", "markeredgecolor": "black"}
        if self.overlay is not None and self.overlay.kind == "mask":
            handles += [
                Line2D([], [], marker="o", markerfacecolor=COLOURS[2], label="visible token", **point),
                Line2D([], [], marker="x", linestyle="", color="#777777", label="masked token"),
            ]
        if self.overlay is not None and self.overlay.kind == "reconstruction":
            handles.append(
                Line2D([], [], color=_GHOST, linestyle=":", marker="+", linewidth=2, label="reconstruction")
            )
        if self.clip.coords.shape[1] > 1 and (self.overlay is None or self.overlay.kind != "values"):
            handles.append(Line2D([], [], marker="o", markerfacecolor="white", label="second body", **point))
        elif self.clip.coords.shape[1] > 1:
            handles.append(Line2D([], [], marker="s", markerfacecolor="white", label="second body", **point))
        return handles


def _points(axes: Any, points: Floats, **style: Any) -> None:
    if len(points):
        if points.shape[1] == 3:
            style["depthshade"] = False
        axes.scatter(*points.T, zorder=3, **style)


def joint_sides(layout: SkeletonLayout) -> list[str]:
    """Return ``left``, ``right`` or ``trunk`` for each joint."""
    sides = ["trunk"] * layout.num_joints
    for left, right in layout.pairs:
        sides[left], sides[right] = "left", "right"
    return sides


def upward(clip: Clip) -> str:
    """Return the axis along which heads are above feet: ``"y"``, ``"-y"`` or, in 3-D, ``"z"``.

    2-D clips are images, in which people may stand on their hands: y points down unless the clip says otherwise. In 3-D
    the trunk of the layout decides, or the first root's longest chain where it has none (choice).
    """
    if clip.up or clip.coords.shape[-1] == 2:
        return clip.up or "-y"
    low, high = clip.layout.spine or _ends(clip.layout)
    trunk = clip.coords[..., high, :] - clip.coords[..., low, :]
    trunk = trunk[np.isfinite(trunk).all(axis=-1)]
    if not len(trunk):
        return "y"
    mean = trunk.mean(axis=0)
    if len(mean) == 3 and mean[2] > abs(mean[1]):
        return "z"
    return "-y" if mean[1] < 0 else "y"


def _ends(layout: SkeletonLayout) -> tuple[int, int]:
    """Return hip and shoulder of one side, or root and its first child: what goes up where there is no spine."""
    if layout.hips is not None and layout.shoulders is not None:
        return layout.hips[0], layout.shoulders[0]
    child = next((child for child, parent in layout.edges if parent == layout.root), layout.root)
    return layout.root, child
