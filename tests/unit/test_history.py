"""The history keeps every observation, and a crash tears at most the last line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import history
from harness.history import Op, OpType, Writer


def op(time_ns: int, kind: OpType, n: int, *, process: str = "options", f: str = "options") -> Op:
    return Op(
        time_ns=time_ns, process=process, f=f, type=kind, value={"n": n}, error="late" if kind == "info" else None
    )


def write(path: Path, *ops: Op) -> Path:
    writer = Writer(path)
    for row in ops:
        writer.write(row)
    writer.close()
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ops = [op(1, "invoke", 1), op(2, "info", 1)]
    assert list(history.read(write(tmp_path / "d" / "a.jsonl", *ops))) == ops


def test_every_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.jsonl")
    writer.write(op(1, "invoke", 1))
    assert len(list(history.read(tmp_path / "a.jsonl"))) == 1


def test_merge_orders_and_numbers_and_drops_the_torn_line(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", op(1, "invoke", 1), op(5, "ok", 1))
    b = write(tmp_path / "b.jsonl", op(3, "invoke", 1, process="calls"))
    with b.open("a") as file:
        file.write('{"time_ns":4,"process":"cal')
    merged = history.merge([a, b], tmp_path / "history.jsonl")
    assert [(o.index, o.time_ns) for o in merged] == [(0, 1), (1, 3), (2, 5)]
    assert list(history.read(tmp_path / "history.jsonl")) == merged


def test_a_damaged_line_in_the_middle_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"time_ns":4,"process":"cal\n')
    with pytest.raises(ValueError, match="line 1 column"):
        list(history.read(tmp_path / "a.jsonl"))


def test_pairs_of_one_kind_in_order_of_sending() -> None:
    ops = [
        op(1, "invoke", 1),
        op(2, "invoke", 2),
        op(3, "ok", 2),
        op(4, "ok", 1),
        op(5, "invoke", 3),
        op(2, "invoke", 1, process="other"),
        op(9, "ok", 1, f="else"),
    ]
    pairs = history.pairs(ops, "options")
    assert [(p.invoke.process, p.invoke.value["n"], p.latency_ns) for p in pairs] == [
        ("options", 1, 3),
        ("options", 2, 1),
        ("other", 1, None),
        ("options", 3, None),
    ]


def test_an_end_stamped_a_little_early_still_belongs_to_its_invocation() -> None:
    (pair,) = history.pairs([op(9, "ok", 1), op(10, "invoke", 1)], "options")
    assert pair.latency_ns == -1


def test_an_end_nobody_asked_for_is_a_bug() -> None:
    with pytest.raises(ValueError, match="never invoked"):
        history.pairs([op(9, "ok", 1)], "options")
