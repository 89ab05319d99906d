"""pbx-chaos: proves that a highly available phone system on AWS really survives.

The folders stand in the order in which data flows; docs/map.md walks through them.
"""

__version__ = "0.1.0"
