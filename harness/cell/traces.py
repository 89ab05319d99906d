"""Traces of faults on the nodes: what no healthy node has, looked for after every run and on every node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.cell.node import Node
from harness.command import CommandFailed

LOOK = r"""
tables=$(nft list tables 2>/dev/null) || echo "packet filters can't be listed"
echo "$tables" | grep -v -e '^table ip nat$' -e '^$' | sed 's/^/filter /'
shaping=$(tc qdisc show 2>/dev/null) || echo "traffic shaping can't be listed"
echo "$shaping" | awk '$1 == "qdisc" && $2 != "noqueue" { print "qdisc", $2, "on", $5 }'
for folder in /proc/[0-9]*; do
    read -r stat <"$folder/stat" 2>/dev/null || continue
    case ${stat##*) } in [Tt]*) name=${stat#*(}; echo "stopped ${name%)*} (process ${folder#/proc/})" ;; esac
done
"""
"""Packet filters, traffic shaping and stopped processes; a healthy node prints nothing.

Docker keeps a NAT table of its own in each guest, for its name server."""


def traces(nodes: Sequence[Node]) -> list[str]:
    """Every trace on every node, as `pbx-2: stopped kamailio (process 17)`; a node that can't be asked is one, too."""
    return [f"{node.name}: {trace}" for node in nodes for trace in _on(node)]


def _on(node: Node) -> Iterator[str]:
    try:
        yield from node.run(["sh", "-c", LOOK], timeout_s=10).stdout.splitlines()
    except CommandFailed as error:
        yield f"can't be asked ({error})"
