"""The command line: `pbx-chaos …`. Thin: options in, one function of the harness called, lines or JSON out.

Exit codes: 0 pass, 1 a check failed, 2 unknown or infrastructure, 3 usage.
"""

from __future__ import annotations

import errno
import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from docker.errors import DockerException
from typer.exceptions import TyperException

from harness import admin, catalogue, doctor, session
from harness.errors import HarnessError, Interrupted
from harness.ramp import drive
from harness.ramp.plan import plan as capacity_plan
from harness.region.timing_fit import show_or_fit
from harness.report import capacity as capacity_report
from harness.report import terminal
from harness.say import Printer
from harness.session import Request

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)

Policy = Annotated[str, typer.Option(help="A policy's name, several joined by commas, or a TOML file.")]
OnePolicy = Annotated[str, typer.Option("--policy", help="A policy's name or a TOML file.")]
Pbx = Annotated[str, typer.Option(help="PBX profile.")]
Cloud = Annotated[
    str,
    typer.Option(
        help="Who keeps the region's books: moto (embedded) or localstack (a container). AWS is never touched."
    ),
]
Timing = Annotated[
    str,
    typer.Option(
        help="How long AWS takes: instant (no evidence about its seconds), aws (assumed delays), or a TOML file."
    ),
]
CellName = Annotated[str, typer.Option("--cell", help="Name of the cell.")]
Slot = Annotated[int, typer.Option(help="Which pair of test networks (0-15).")]
Out = Annotated[Path, typer.Option(help="Where run folders go.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]

DEFAULT_OUT = Path("reports/runs")
EXIT = {"pass": 0, "fail": 1, "unknown": 2}


def invoke(argv: list[str]) -> int:
    """Run one command line and return its exit code: every error a user can act on becomes one line."""
    try:
        code = app(argv, standalone_mode=False)
    except TyperException as error:
        return _say_error(error.format_message(), 3)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return _say_error("interrupted", 2)
    except Interrupted as stopped:
        return _say_error(str(stopped), 2)
    except HarnessError as error:
        return _say_error(str(error), error.exit_code)
    except BrokenPipeError:
        return 2
    except DockerException as error:
        return _say_error(f"Docker: {error}", 2)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _say_error("the disk is full: free some space; what was observed until then is kept", 2)
        return _say_error(f"{type(error).__name__}: {error}", 2)
    except Exception as error:  # never exit code 1: that is a check that failed
        traceback.print_exc()
        return _say_error(f"this is a bug: {type(error).__name__}: {error}", 2)
    return int(code or 0)


@app.command(name="doctor")
def doctor_command(out: Out = DEFAULT_OUT, as_json: AsJson = False) -> int:
    """What the harness needs from this host, and whether it is there."""
    findings = doctor.examine(out)
    if as_json:
        print(json.dumps([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings]))
    else:
        words = {True: "ok", False: "MISSING", None: ""}
        for finding in findings:
            print(f"{words[finding.ok]:<8}{finding.name:<8} {finding.detail}")
    return 2 if any(f.ok is False for f in findings) else 0


@app.command(name="list")
def list_command(as_json: AsJson = False) -> int:
    """Scenarios, faults, probes, checkers, policies, profiles, defects: each with one line."""
    found = catalogue.listing()
    if as_json:
        print(json.dumps(found))
        return 0
    for kind, rows in found.items():
        print(kind)
        for row in rows:
            print(f"  {row['name']:<24} {row['summary']}")
        if not rows:
            print("  none yet")
    return 0


@app.command()
def up(
    policy: OnePolicy = "default",
    pbx: Pbx = "stand-in",
    cloud: Cloud = "moto",
    timing: Timing = "instant",
    cell: CellName = "pbx",
    slot: Slot = 0,
    as_json: AsJson = False,
) -> int:
    """Bring a cell up and leave it standing; `run` uses it, `down` takes it away."""
    request = Request(policy=policy, pbx=pbx, cloud=cloud, timing=timing, cell=cell, slot=slot)
    standing = admin.up(session.resolve(request), say=Printer(quiet=as_json))
    _show(standing, as_json, admin.status_lines(standing))
    return 0


@app.command()
def status(cell: CellName = "pbx", as_json: AsJson = False) -> int:
    """What a cell is doing: nodes, roles, resources, who holds volume and address."""
    state = admin.status(cell)
    _show(state, as_json, admin.status_lines(state))
    return 0


@app.command()
def shell(node: Annotated[str, typer.Argument(help="pbx-1, pbx-2, pbx-3, or active")], cell: CellName = "pbx") -> int:
    """A shell on a node."""
    return admin.shell(cell, node)


@app.command()
def down(cell: CellName = "pbx") -> int:
    """Take a standing cell away, with everything that belongs to it."""
    return _removed(admin.down(cell))


@app.command()
def run(
    scenarios: Annotated[list[str], typer.Argument(help="Names (see `list`) or files.")],
    policy: Policy = "default",
    pbx: Pbx = "stand-in",
    cloud: Cloud = "moto",
    timing: Timing = "instant",
    cell: CellName = "pbx",
    slot: Slot = 0,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="How often each scenario is run under each policy.")] = 1,
    keep_on_failure: Annotated[bool, typer.Option(help="Leave the cell standing unless the run passes.")] = False,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> int:
    """Run scenarios: bring a cell up, injure it, measure, judge, clean up."""
    requests = [
        Request(
            scenarios=scenarios, policy=name, pbx=pbx, cloud=cloud, timing=timing, cell=cell, slot=slot, seed=seed,
            out=out, keep_on_failure=keep_on_failure,
        )
        for name in policy.split(",")
    ]  # fmt: skip
    resolved = [session.resolve(request) for request in requests]
    printer = Printer(quiet=as_json)
    documents: list[dict[str, Any]] = []
    for one in resolved:
        for named, scenario in zip(scenarios, one.scenarios, strict=True):
            for _ in range(repeat):
                outcome = session.run_once(one, scenario, say=printer)
                documents.append({**outcome.results, "run_dir": str(outcome.run_dir.path)})
                again = one.request.again(named)
                printer.ending(terminal.ending(outcome.results, run_dir=outcome.run_dir.path, command=again))
                if outcome.error is not None:
                    _print_documents(documents, as_json)
                    raise outcome.error
    _print_documents(documents, as_json)
    if len(documents) > 1:
        printer.ending(terminal.tally(documents))
    return max((EXIT[document["verdict"]] for document in documents), key=[0, 2, 1].index)


@app.command()
def capacity(
    ramp: Annotated[str, typer.Option(help="calls_per_s, calls, registrations (several by commas), or all.")] = "all",
    during: Annotated[str, typer.Option(help="normal, failover, or both.")] = "both",
    n: Annotated[int, typer.Option("--n", min=1, help="Ramps of each; fewer than 3 give no figure.")] = 3,
    limits: Annotated[
        str, typer.Option(help="ser_ratio=0.99,srd_p95_s=0.5,… or a TOML file; see docs/capacity.md.")
    ] = "",
    levels: Annotated[str, typer.Option(help="Loads of one --ramp, rising: 50,100,200.")] = "",
    measure_s: Annotated[float, typer.Option(help="How long each level is measured.")] = 10.0,
    policy: OnePolicy = "default",
    pbx: Pbx = "stand-in",
    cell: CellName = "pbx",
    slot: Slot = 0,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> int:
    """Raise the load until SER, SRD or media break, in normal operation and during a failover: where is the knee?"""
    planned = capacity_plan(ramp=ramp, during=during, n=n, measure_s=measure_s, limits=limits, levels=levels)
    resolved = session.resolve(Request(policy=policy, pbx=pbx, cell=cell, slot=slot, out=out))
    printer = Printer(quiet=as_json)
    measured = drive.measure(planned, resolved, say=printer)
    printer.ending(capacity_report.ending(measured.document, run_dir=str(measured.run_dir.path)))
    if as_json:
        print(json.dumps({**measured.document, "run_dir": str(measured.run_dir.path)}))
    if measured.error is not None:
        raise measured.error
    return 0


@app.command()
def timing(
    file: Annotated[str, typer.Argument(help="A profile to show (name or TOML), or a CSV of samples to fit one from.")],
    name: Annotated[str, typer.Option(help="What the fitted profile is called.")] = "mine",
    source: Annotated[str, typer.Option(help="Where and when the samples were taken.")] = "",
    out: Annotated[Path | None, typer.Option(help="TOML file to write the fitted profile to.")] = None,
) -> int:
    """How long AWS takes: show a timing profile, or fit one from the samples of an account."""
    for text in show_or_fit(file, name=name, source=source, out=out):
        print(text)
    return 0


@app.command()
def abort(cell: CellName = "pbx") -> int:
    """Stop a run from any other terminal: it heals now, keeps its evidence and exits with 2."""
    print(admin.abort(cell))
    return 0


@app.command()
def clean() -> int:
    """Remove everything of ours from this host: containers, networks, devices, mounts, processes, state."""
    return _removed(admin.clean())


def _show(state: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    print(json.dumps(state) if as_json else "\n".join(lines))


def _print_documents(documents: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(documents[0] if len(documents) == 1 else documents))


def _removed(things: list[str]) -> int:
    left = session.not_removed(things)
    removed = [thing for thing in things if thing not in left]
    for thing in removed:
        print(f"removed  {thing}")
    for thing in left:
        print(f"LEFT     {thing}")
    if left:
        return _say_error(f"{len(left)} things could not be removed: see above, then try again", 2)
    print(f"{len(removed)} things removed" if removed else "nothing of ours is left")
    return 0


def _say_error(text: str, code: int) -> int:
    print(f"pbx-chaos: {text}", file=sys.stderr)
    return code
