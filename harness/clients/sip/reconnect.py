"""How long a client waits before it tries to reach the PBX again (RFC 5626 section 4.5). Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Seconds. The upper bound doubles with each failure in a row up to `max_s`; the wait is a random share of 50 to
    100 % of it. The first try comes at once, spread over `first_s`, as softphones do; the RFC's own `base_s` is 30."""

    base_s: float = 30.0
    max_s: float = 1800.0
    first_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.max_s or self.first_s < 0:
            raise ValueError("a back-off needs 0 < base_s <= max_s and first_s >= 0")

    def wait_s(self, failures: int, random: Callable[[], float]) -> float:
        """How long to wait after so many failed tries in a row; `random` gives 0-1."""
        if failures == 0:
            return self.first_s * random()
        bound_s = min(self.max_s, self.base_s * 2.0 ** min(failures - 1, 30))
        return float(bound_s * (0.5 + 0.5 * random()))
