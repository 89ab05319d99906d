"""The checkers, one file each. A module with `ALWAYS_ON = …` is applied to every run; the others a scenario lists."""
