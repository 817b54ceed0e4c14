"""All commands under ``dampe``, and under the names that they have had since the original."""

import click

import DmpWorkflow
from DmpWorkflow.frontend.cli import (
    audit,
    catalogue,
    instances,
    jobs,
    keeping,
    server,
    sites,
    statistics,
    submission,
)
from DmpWorkflow.frontend.cli.common import EXIT_CODES

HELP = {"help_option_names": ["-h", "--help"]}
COMPLETION = 'Completion of words: eval "$(_DAMPE_COMPLETE=bash_source dampe)"'


def _group(name: str, text: str, *commands: click.Command) -> click.Group:
    return click.Group(
        name, commands={command.name or "": command for command in commands}, help=text, context_settings=HELP
    )


FOR_JOBS = (
    jobs.list_jobs,
    jobs.show,
    jobs.watch,
    instances.kill,
    instances.roll_back_matching,
    jobs.set_priority,
    jobs.set_tags,
    jobs.set_retries,
    jobs.pause,
    jobs.resume,
    jobs.archive,
    jobs.unarchive,
    jobs.clone,
    jobs.export,
    jobs.remove,
    statistics.progress,
    statistics.failures,
)
job = _group(
    "job",
    "Create jobs and see how far they are.",
    submission.create,
    submission.add,
    *FOR_JOBS,
)
instance = _group("instance", "Change single instances.", instances.roll_back, instances.update)
site = _group(
    "site",
    "What a site needs.",
    sites.configure,
    sites.check,
    sites.fetch,
    sites.update_alive,
    sites.watchdog,
    sites.heartbeat,
    statistics.hosts,
)
token = _group("token", "Credentials.", server.create_token, server.list_tokens, server.revoke_token)
user = _group(
    "user",
    "People who log in to the pages.",
    server.create_user,
    server.list_users,
    server.set_password,
    server.disable_user,
    server.enable_user,
    server.remove_user,
)
dampe_server = _group(
    "server",
    "Run a server and look after it.",
    server.run,
    server.init,
    server.check,
    server.maintain,
    keeping.backup,
    keeping.restore,
    keeping.migrate,
    keeping.import_legacy,
    token,
    user,
)
dampe = _group(
    "dampe",
    f"DmpWorkflow: one list of work for many small clusters.\n\n{EXIT_CODES}\n{COMPLETION}",
    job,
    instance,
    site,
    catalogue.catalogue,
    statistics.status,
    audit.audit,
    dampe_server,
)
dampe = click.version_option(DmpWorkflow.__version__)(dampe)
dampe_jobs = _group("dampe-cli-jobs", "See how far jobs are, change them and end them.", *FOR_JOBS)

# The console scripts, by the names of the original and its README.
configure = sites.configure
fetch_new_jobs = sites.fetch
heartbeat = sites.heartbeat
run_watchdog = sites.watchdog
update_alive_jobs = sites.update_alive
new_job = submission.create
new_job_instance = submission.add
rollback_job_instance = instances.roll_back
update_job_status = instances.update
data_catalogue = catalogue.catalogue
