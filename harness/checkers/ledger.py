"""Acknowledged data is never lost: what clients were told is done is there after recovery, and what is there is whole.

All four kinds of data, as far as the PBX's profile declares how they are read back. What nobody could read is unknown,
and so is a run in which nothing was acknowledged, or one kind of which nothing can be said.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.checkers.types import Evidence
from harness.ledger import HELD_AS, Account, ReadBack, accounts, read_back
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Fails on a single loss. Unknown when nothing was read back or acknowledged, when a declared kind could not be
    read, or when nothing can be said of any acknowledgement of a kind."""

    name: str = "ledger"

    def check(self, evidence: Evidence) -> CheckResult:
        back = read_back(evidence.data)
        if back is None:
            return CheckResult(name=self.name, verdict="unknown", why="the data was not read back")
        if not back.declared:
            why = "the PBX's profile does not declare how its data is read back"
            return CheckResult(name=self.name, verdict="unknown", why=why)
        found = accounts(evidence, back)
        metrics = {kind: account.row for kind, account in found.items()}
        lost = [ack for account in found.values() for ack in account.lost]
        damaged = back.damaged()
        if lost or damaged:
            first = [f"{lost[0].kind} {lost[0].id}"] if lost else []
            why = f"{_total(found)} acknowledged, {len(lost)} lost: {'; '.join([*first, *damaged][:3])}"
            decisive = tuple(sorted({ack.op for ack in lost}))[:20]
            return CheckResult(name=self.name, verdict="fail", why=why, metrics=metrics, evidence=decisive)
        unsure = _unsure(found, back)
        if unsure:
            return CheckResult(name=self.name, verdict="unknown", why="; ".join(unsure), metrics=metrics)
        why = f"{_total(found)} acknowledged, 0 lost"
        unsaid = sum(account.unknown for account in found.values())
        why += f"; of {unsaid} nothing is promised: younger than the declared bound" if unsaid else ""
        silent = [kind for kind in back.declared if not any(HELD_AS[ack] == kind for ack in found)]
        why += f"; nothing was acknowledged: {', '.join(silent)}" if silent else ""
        missing = [kind for kind in dict.fromkeys(HELD_AS.values()) if kind not in back.declared]
        why += f"; not declared by the profile: {', '.join(missing)}" if missing else ""
        return CheckResult(name=self.name, verdict="pass", why=why, metrics=metrics)


def _unsure(found: dict[str, Account], back: ReadBack) -> list[str]:
    """Why nobody knows, in words; empty where something is known of each kind."""
    reasons = [f"{kind} could not be read back: {error}" for kind, error in back.unreadable.items()]
    if not found:
        return [*reasons, "nothing was acknowledged"]
    for kind, account in found.items():
        if account.unknown == account.acknowledged and HELD_AS[kind] not in back.unreadable:
            undeclared = HELD_AS[kind] not in back.declared
            why = f"{HELD_AS[kind]} not declared by the profile" if undeclared else "not promised yet, or nobody asked"
            reasons.append(f"nothing can be said of any {kind} ({account.acknowledged} acknowledged): {why}")
    return reasons


def _total(found: dict[str, Account]) -> str:
    return f"{sum(account.acknowledged for account in found.values()):,}"


ALWAYS_ON = Ledger()
