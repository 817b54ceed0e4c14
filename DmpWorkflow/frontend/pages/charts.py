"""Curves of samples, as the points of an SVG drawn on the server. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH, HEIGHT = 640, 120  # of the drawing, in its own units


@dataclass(frozen=True)
class Curve:
    """What to draw: ``points`` of the line, the height of the limit (if it fits in), and the words around it."""

    title: str
    unit: str
    points: str
    peak: float
    seconds: float
    limit: float | None
    limit_height: float | None


def curve(title: str, unit: str, samples: Sequence[Mapping[str, Any]], limit: float | None) -> Curve | None:
    """Return a curve through ``samples`` (each with time and value), or None if there are none."""
    if not samples:
        return None
    start = _seconds(samples[0])
    span = max(_seconds(samples[-1]) - start, 1.0)
    peak = max(sample["value"] for sample in samples)
    # A limit far above the curve would press it to the floor: it is named then, and not drawn.
    top = limit if limit and limit < 4 * peak else peak * 1.1 or 1.0
    top = max(top, peak)
    points = " ".join(
        f"{(_seconds(sample) - start) / span * WIDTH:.1f},{HEIGHT - sample['value'] / top * HEIGHT:.1f}"
        for sample in samples
    )
    height = HEIGHT - limit / top * HEIGHT if limit and limit <= top else None
    return Curve(title, unit, points, peak, span, limit, height)


def _seconds(sample: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(sample["time"]).timestamp()
