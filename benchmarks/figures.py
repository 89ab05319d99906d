"""One promised figure, and how it is printed; shared by everything that `make bench` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One promised figure. `target` is an upper bound; `ratio` is value / peer_value."""

    name: str
    value: float
    unit: str
    n: int
    target: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    samples: Sequence[float] = ()

    @property
    def ratio(self) -> float | None:
        return round(self.value / self.peer_value, 2) if self.peer_value else None

    @property
    def met(self) -> bool:
        return self.target is None or self.value <= self.target

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}

    def line(self) -> str:
        target = f"target ≤ {self.target:g}" if self.target is not None else ""
        peer = (
            f"{self.peer}: {self.peer_value:g} {'s' if self.unit == 'ratio' else self.unit}" if self.peer_value else ""
        )
        if self.ratio and self.unit != "ratio":
            peer += f" (ratio {self.ratio:g})"
        word = "" if self.target is None else "ok" if self.met else "MISSED"
        return f"{self.name:<34} {self.value:>8.2f} {self.unit:<6} n={self.n:<2} {word:<7} {target:<16} {peer}"


def figure(name: str, samples: Sequence[float], *, unit: str = "s", **more: Any) -> Figure:
    rounded = [round(sample, 3) for sample in samples]
    return Figure(name=name, value=round(median(rounded), 3), unit=unit, n=len(rounded), samples=rounded, **more)
