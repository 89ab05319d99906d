"""docs/fidelity.md has the rows of the contract; and what the page is made of."""

from __future__ import annotations

import pytest

from tests.contract import fidelity
from tests.contract.promises import Promise, Row, promise, promise_of, rows

ROW = Row(
    name="volumes.a_volume",
    promise=Promise(call="AttachVolume", text="one place at a time", source="https://docs.aws.amazon.com/x/y.html"),
)


def test_the_page_has_the_rows_of_the_contract() -> None:
    written = fidelity.rows_of(fidelity.PAGE.read_text(encoding="utf-8"))
    assert written == {fidelity.as_written(row) for row in rows()}, "run `python -m tests.contract.fidelity`"


def test_there_are_at_least_eighty_promises_each_with_a_page_of_aws_or_of_an_agent() -> None:
    found = rows()
    assert len(found) >= 80
    assert len({row.name for row in found}) == len(found)
    hosts = ("https://docs.aws.amazon.com/", "https://github.com/ClusterLabs/")
    assert [row.name for row in found if not row.promise.source.startswith(hosts)] == []


def test_verdicts_stand_under_their_backend() -> None:
    text = fidelity.page([ROW], {"rows": {ROW.name: {"moto": "passed", "localstack": "xfailed"}}}, "| a | b |")
    line = (
        "| AttachVolume | one place at a time | [y](https://docs.aws.amazon.com/x/y.html) | dictionaries | "
        "kept | not kept | not run |"
    )
    assert line in text
    assert "moto: 1 of 1 kept; localstack: 0 of 1 kept; aws: not run." in text
    assert fidelity.rows_of(text) == {fidelity.as_written(ROW)}


def test_stock_agents_are_rows_on_containers_with_a_run_of_their_own() -> None:
    agent = Row(name="agents.an_address", promise=ROW.promise)
    ran = {"date": "2026-01-01", "versions": {"localstack": "4"}, "rows": {agent.name: {"localstack": "passed"}}}
    text = fidelity.page([ROW, agent], {"agents": ran}, "")
    assert "## Stock agents" in text and "| containers | not run | kept | not run |" in text
    assert "of the 1 rows of the stock agents: 2026-01-01 (localstack 4)." in text
    agents = {row.promise.call for row in rows() if row.name.startswith("agents.")}
    assert agents == {"awseip", "awsvip", "aws-vpc-move-ip", "fence_aws"}


def test_a_row_that_can_not_run_on_aws_says_so() -> None:
    hidden = Row(name=ROW.name, promise=Promise(call="c", text="t", source="https://x/y", local_only="why"))
    assert "| dictionaries | not run | not run | local |" in fidelity.page([hidden], {}, "")


def test_the_known_differences_are_those_of_the_region() -> None:
    told = fidelity.known_differences(fidelity.REGION.read_text(encoding="utf-8"))
    assert told.startswith("| subject | here | AWS |") and told.count("\n") > 5
    with pytest.raises(ValueError, match="no table"):
        fidelity.known_differences("# nothing")


def test_a_promise_names_its_source() -> None:
    @promise("AttachVolume", "one place at a time", source="https://docs.aws.amazon.com/x")
    def row() -> None: ...

    found = promise_of(row)
    assert found is not None and (found.call, found.local_only) == ("AttachVolume", None)
    with pytest.raises(ValueError, match="AttachVolume"):
        promise("AttachVolume", "one place at a time", source="a book")
