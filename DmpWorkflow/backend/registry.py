"""Which backends there are: ours, and those of other packages."""

from importlib import import_module
from importlib.metadata import entry_points

from DmpWorkflow.backend.interface import Backend
from DmpWorkflow.config.settings import BACKEND_GROUP, Settings
from DmpWorkflow.utils.errors import ConfigurationError

BUILT_IN = {
    "condor": "DmpWorkflow.backend.condor:CondorBackend",
    "local": "DmpWorkflow.backend.local:LocalBackend",
    "lsf": "DmpWorkflow.backend.lsf:LsfBackend",
    "pbs": "DmpWorkflow.backend.pbs:PbsBackend",
    "sge": "DmpWorkflow.backend.sge:SgeBackend",
    "slurm": "DmpWorkflow.backend.slurm:SlurmBackend",
}


def make_backend(name: str, settings: Settings) -> Backend:
    """Return the backend for an ``HPCsystem``; raises ConfigurationError for one that nobody offers.

    A backend is made by its class method ``from_settings``.
    """
    others = {point.name: point for point in entry_points(group=BACKEND_GROUP)}
    if name in BUILT_IN:
        module, _, cls = BUILT_IN[name].partition(":")
        found = getattr(import_module(module), cls)
    elif name in others:
        found = others[name].load()
    else:
        known = ", ".join(sorted(BUILT_IN | dict.fromkeys(others)))
        raise ConfigurationError(f"[site] HPCsystem = {name}: there is no such backend here: known are {known}")
    backend: Backend = found.from_settings(settings)
    return backend
