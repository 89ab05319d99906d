"""Plugins only."""

pytest_plugins = ["fixtures.plugin"]
