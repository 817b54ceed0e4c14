"""Commands of a site."""

import socket
from dataclasses import asdict, replace
from pathlib import Path

import click

import DmpWorkflow
from DmpWorkflow.backend import agent
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.client import Client
from DmpWorkflow.config.install import install
from DmpWorkflow.config.loader import describe, load
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.frontend.cli.common import Context, command
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput

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
        click.echo(f"warning: {warning}", err=True)
    if not offline:
        _try_server(context, loaded.settings)
    install(source, target.expanduser())
    context.say(f"Installed {target.expanduser()}")
    context.give({"installed": str(target.expanduser())})


def _try_server(context: Context, settings: Settings) -> None:
    """Say what works; a server that does not answer is no reason to refuse the file."""
    server = settings.server
    with Client(server.url, server.token, server.ca_file, tries=1) as client:
        try:
            health = client.health()
            context.say(f"server {server.url}: version {health['version']}, database {health['database']}")
            who = client.whoami()
            context.say(f"credential: {who['name']}, role {who['role']}{_of_site(who['site'])}")
        except DmpWorkflowError as error:
            click.echo(f"warning: {error} (--offline skips this test)", err=True)


def _of_site(site: str | None) -> str:
    return f" of {site}" if site else ""


@command("fetch", epilog="Example: while true; do dampe-cli-fetch-new-jobs -c 20 -m 800; sleep 20; done")
@click.option("-d", "--dry", is_flag=True, help="Only say what would be done: claim and submit nothing.")
@click.option("-l", "--local", is_flag=True, help="Run on this machine, whatever HPCsystem says.")
@click.option("-p", "--pythonbin", default="", help="Python for the payload runner; default: this one.")
@click.option("-c", "--chunk", type=click.IntRange(1), default=100, show_default=True, help="Take at most so many.")
@click.option("-m", "--maxJobs", "most", type=click.IntRange(0), help="Have at most so many in the batch system.")
@click.option("-u", "--user", default="", help="Accepted for old scripts; jobs are found by their names.")
@click.option(
    "-s", "--skipDBcheck", "skip", is_flag=True, help="Accepted for old scripts; the batch system is asked."
)
@click.option("--loop", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Go on, with pauses.")
def fetch(
    context: Context,
    dry: bool,
    local: bool,
    pythonbin: str,
    chunk: int,
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
    limits = agent.Limits(chunk, most)
    if dry:
        return _dry_run(context, limits)
    if loop is not None:
        return agent.run_loop(settings, context.client(), backend, limits, loop, pythonbin)
    result = agent.run_cycle(settings, context.client(), backend, limits, pythonbin)
    for problem in result.problems:
        click.echo(f"warning: {problem}", err=True)
    context.say(agent.summary(result))
    context.give(asdict(result))
    return None


def _dry_run(context: Context, limits: agent.Limits) -> None:
    """Say what a cycle would take; nothing is claimed, since a claim is a promise."""
    site = context.settings.site
    with context.client() as client:
        waiting, active = client.waiting(site.name), client.waiting(site.name, ACTIVE)
    room = limits.chunk if limits.in_system is None else max(0, min(limits.chunk, limits.in_system - active))
    context.say(f"{waiting} instances are New for {site.name}, {active} are in the system")
    context.say(
        f"would claim at most {min(room, waiting)} and hand them to {site.hpc_system}, work in {site.workdir}"
    )
    context.give({"new": waiting, "in_system": active, "would_claim": min(room, waiting)})


@command("heartbeat", epilog="Example: dampe-cli-heartbeat")
@click.option("--process", default="default", show_default=True, help="What beats.")
def heartbeat(context: Context, process: str) -> None:
    """Send a sign of life; shows that this host reaches the server."""
    context.client().heartbeat(socket.gethostname(), process, DmpWorkflow.__version__)
    context.say(f"{context.settings.server.url} heard of {socket.gethostname()}")
    context.give({"result": "ok"})
