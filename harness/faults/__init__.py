"""The faults: one file per kind of injury. A new fault is one frozen dataclass with `unmet`, `inject` and `heal`."""
