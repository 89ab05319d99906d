"""Plugins only."""

pytest_plugins = ["fixtures.plugin", "tests.contract.plugin"]
