"""Commands of a site."""

import socket
import sys
from dataclasses import asdict, replace
from pathlib import Path

import click

import DmpWorkflow
from DmpWorkflow.backend import agent, outside_watchdog, site_check
from DmpWorkflow.backend.cycle import Limits
from DmpWorkflow.backend.interface import Backend
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.client import Client
from DmpWorkflow.config.install import install
from DmpWorkflow.config.loader import describe, load
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.frontend.cli.common import Context, command, complain
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput, Unavailable

USER_FILE = Path("~/.config/dampe/settings.cfg")
ACTIVE = ("Submitted", "Running", "Suspended", "Unknown")


@command("configure", epilog="Example: dampe-cli-configure -f site_A.cfg")
@click.option("-f", "--file", "source", type=click.Path(path_type=Path), help="Configuration to check and install.")
@click.option("--show", is_flag=True, help="Print all settings, where each comes from, secrets masked.")
@click.option("--offline", is_flag=True, help="Do not try the server.")
@click.option("--target", type=click.Path(path_type=Path), default=USER_FILE, show_default=True, help="Where to.")
def configure(context: Context, source: Path | None, show: bool, offline: bool, target: Path) -> None:
    """Check a configuration, try the server with it, and install it; or show the one in use."""
    if show == bool(source):
        raise InvalidInput("give either --file FILE to install it, or --show")
    if source is None:
        rows = describe(context.settings)
        context.give([dict(zip(("section", "key", "value", "origin"), row, strict=True)) for row in rows])
        if not context.as_json:
            context.table(["section", "key", "value", "origin"], rows)
        return
    loaded = load(source)
    for warning in loaded.warnings:
        complain("warning", warning)
    if not offline:
        _try_server(context, loaded.settings)
    install(source, target.expanduser())
    context.say(f"Installed {target.expanduser()}")
    context.give({"installed": str(target.expanduser())})


def _try_server(context: Context, settings: Settings) -> None:
    """Say what works; a server that does not answer is no reason to refuse the file."""
    server = settings.server
    with Client(server.url, server.token, server.ca_file, patience=0) as client:
        try:
            health = client.health()
            context.say(f"server {server.url}: version {health['version']}, database {health['database']}")
            who = client.whoami()
            context.say(f"credential: {who['name']}, role {who['role']}{_of_site(who['site'])}")
        except DmpWorkflowError as error:
            complain("warning", f"{error} (--offline skips this test)")


def _of_site(site: str | None) -> str:
    return f" of {site}" if site else ""


@command("fetch", epilog="Example: while true; do dampe-cli-fetch-new-jobs -c 20 -m 800; sleep 20; done")
@click.option("-d", "--dry", is_flag=True, help="Only say what would be done: claim and submit nothing.")
@click.option("-l", "--local", is_flag=True, help="Run on this machine, whatever HPCsystem says.")
@click.option("-p", "--pythonbin", default="", help="Python for the payload runner; default: this one.")
@click.option("-c", "--chunk", type=click.IntRange(1), help="Take at most so many; default: HPCchunk.")
@click.option(
    "-m", "--maxJobs", "most", type=click.IntRange(0), help="Have at most so many jobs; default: HPCmaxjobs."
)
@click.option("-u", "--user", default="", help="Accepted for old scripts; jobs are found by their names.")
@click.option(
    "-s",
    "--skipDBcheck",
    "skip",
    is_flag=True,
    help="Do not count by the server where the batch system is silent (-d).",
)
@click.option("--loop", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Go on, with pauses.")
def fetch(
    context: Context,
    dry: bool,
    local: bool,
    pythonbin: str,
    chunk: int | None,
    most: int | None,
    user: str,
    skip: bool,
    loop: float | None,
) -> None:
    """Run one cycle of the site's agent: look after what is there, fetch new instances and submit them."""
    settings = context.settings
    if local:
        settings = replace(settings, site=replace(settings.site, hpc_system="local"))
    backend = make_backend(settings.site.hpc_system, settings)
    limits = Limits.of_site(settings.site, chunk, most)
    if dry:
        return _dry_run(context, limits, backend, skip)
    if loop is not None:
        return agent.run_loop(settings, context.client(), backend, limits, loop, pythonbin)
    result = agent.run_cycle(settings, context.client(), backend, limits, pythonbin)
    for problem in result.problems:
        complain("warning", problem)
    context.say(result.in_words())
    context.give(asdict(result))
    return None


def _dry_run(context: Context, limits: Limits, backend: Backend, skip: bool) -> None:
    """Say what a cycle would take; nothing is claimed, since a claim is a promise."""
    site = context.settings.site
    with context.client() as client:
        waiting = client.waiting(site.name)
        try:
            jobs = backend.query().values()
            active, pending = len(jobs), sum(job.status is MajorStatus.SUBMITTED for job in jobs)
        except Unavailable as error:
            if skip:
                raise
            complain("warning", f"{error}; counted by the server")
            active, pending = client.waiting(site.name, ACTIVE), client.waiting(site.name, ["Submitted"])
    room = limits.room(active, pending)
    context.say(f"{waiting} instances are New for {site.name}, {active} are in the system")
    context.say(
        f"would claim at most {min(room, waiting)} and hand them to {site.hpc_system}, work in {site.workdir}"
    )
    context.give({"new": waiting, "in_system": active, "pending": pending, "would_claim": min(room, waiting)})


@command("update", epilog="Example: dampe-cli-update-alive-jobs")
def update_alive(context: Context) -> None:
    """Reconcile once with the batch system: deliver, adopt, cancel, conclude what vanished; take nothing new."""
    settings = context.settings
    backend = make_backend(settings.site.hpc_system, settings)
    result = agent.run_cycle(settings, context.client(), backend, Limits(chunk=0))
    context.say(result.in_words())
    context.give(asdict(result))


@command("watchdog", epilog="Example: dampe-cli-run-watchdog")
def watchdog(context: Context) -> None:
    """Stop running jobs that the batch system sees over their limits, for payloads that cannot report."""
    settings = context.settings
    with context.client() as client:
        seen = outside_watchdog.look(settings, client, make_backend(settings.site.hpc_system, settings))
    for stopped in seen.stopped:
        context.say(f"{stopped.key.name}: {stopped.minor_status}: {stopped.told}")
    context.say(f"{seen.running} running, {seen.measured} with figures, {len(seen.stopped)} stopped")
    context.give(asdict(seen))


@command("check", epilog="Example: dampe site check --config site_A.cfg")
@click.option("-p", "--pythonbin", default=sys.executable, help="Python for the payload runner; default: this one.")
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds for the probe job.",
)
def check(context: Context, pythonbin: str, wait: float) -> None:
    """Test the whole chain of this site: server, token, work folder, batch commands, and a job on a worker node."""
    settings = context.settings
    context.say("ok       configuration: it is valid")
    findings = []
    with Client(settings.server.url, settings.server.token, settings.server.ca_file, patience=0) as client:
        for finding in site_check.check(settings, client, pythonbin, wait):
            findings.append(finding)
            word, text = ("PROBLEM", finding.problem) if finding.problem else ("ok", finding.told)
            context.say(f"{word:<8} {finding.name}: {text}")
    context.give([asdict(finding) for finding in findings])
    if any(finding.problem for finding in findings):
        sys.exit(1)


@command("heartbeat", epilog="Example: dampe-cli-heartbeat")
@click.option("--process", default="default", show_default=True, help="What beats.")
def heartbeat(context: Context, process: str) -> None:
    """Send a sign of life; shows that this host reaches the server."""
    context.client().heartbeat(socket.gethostname(), process, DmpWorkflow.__version__)
    context.say(f"{context.settings.server.url} heard of {socket.gethostname()}")
    context.give({"result": "ok"})
