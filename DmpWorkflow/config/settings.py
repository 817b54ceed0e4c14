"""The settings: one immutable dataclass for each section of the file.

The metadata of a field holds ``key`` (its name in the file), ``secret`` (never shown), ``choices`` (the only
values allowed; empty means any), ``parse`` (text to value) and ``aliases`` (other spellings).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import quote_plus

from DmpWorkflow.config.networks import AUTH_MODES, AuthNetwork, mode_for, open_to, parse_networks
from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.units import parse_clock, parse_memory
from DmpWorkflow.utils.urls import split_credential

INSTALLATIONS = ("client", "server")
HPC_SYSTEMS = ("condor", "lsf", "sge", "pbs", "slurm", "local")
MEMORY_UNITS = ("KB", "MB", "GB")  # in which an LSF takes limits of memory
BACKEND_GROUP = "DmpWorkflow.backends"  # entry points of other packages: name = package.module:Class

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")


def parse_bool(text: str) -> bool:
    """Return the truth value of ``text``."""
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("true or false")


def parse_int(text: str) -> int:
    """Return ``text`` as a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def parse_optional_int(text: str) -> int | None:
    """Return ``text`` as a whole number, or None when it is empty."""
    return parse_int(text) if text else None


def parse_positive_int(text: str) -> int:
    """Return ``text`` as a whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError("a whole number above 0")
    return value


def parse_port(text: str) -> int:
    """Return ``text`` as the number of a TCP port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError("a port from 1 to 65535")
    return int(text)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_positive_float(text: str) -> float:
    """Return ``text`` as a finite number above 0."""
    value = _float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError("a number above 0")
    return value


def parse_ratio(text: str) -> float:
    """Return ``text`` as a number above 0 and at most 1."""
    value = _float(text)
    if not 0 < value <= 1:
        raise ValueError("a number above 0 and at most 1")
    return value


def parse_duration(text: str) -> int:
    """Return the seconds, above 0, in ``HH:MM`` or ``HH:MM:SS``."""
    try:
        seconds = parse_clock(text)
    except InvalidInput:
        seconds = 0
    if not seconds:
        raise ValueError("HH:MM or HH:MM:SS, above zero")
    return seconds


def parse_optional_duration(text: str) -> int:
    """Return the seconds in ``HH:MM`` or ``HH:MM:SS``; 0 when it is empty or zero."""
    try:
        return parse_clock(text) if text else 0
    except InvalidInput:
        raise ValueError("HH:MM or HH:MM:SS") from None


def parse_optional_count(text: str) -> int | None:
    """Return ``text`` as a whole number, 0 or more, or None when it is empty."""
    value = parse_optional_int(text)
    if value is not None and value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def parse_count(text: str) -> int:
    """Return ``text`` as a whole number, 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("a whole number, 0 or more")
    return int(text)


def parse_megabytes(text: str) -> float:
    """Return the MB in ``4000``, ``4GB`` and the like."""
    try:
        return parse_memory(text)
    except InvalidInput:
        raise ValueError("MB as in 4000, or 4GB, 500mb") from None


def parse_system(text: str) -> str:
    """Return ``text`` if it is a batch system of ours, or one that an installed package adds."""
    known = [*HPC_SYSTEMS, *sorted(point.name for point in entry_points(group=BACKEND_GROUP))]
    if text not in known:
        raise ValueError("one of " + ", ".join(known))
    return text


def parse_word(text: str) -> str:
    """Return ``text`` if it can be the name of a folder, or is empty."""
    if text.startswith(".") or not all(letter.isalnum() or letter in "-_." for letter in text):
        raise ValueError("letters, digits, '-', '_' and '.'")
    return text


def parse_list(text: str) -> tuple[str, ...]:
    """Return the comma-separated words of ``text``."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise ValueError("a comma-separated list with at least one entry")
    return words


def _key(
    key: str,
    default: Any,
    *,
    parse: Callable[[str], object] = str,
    secret: bool = False,
    choices: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Any:
    """Declare a field; typed Any, like ``dataclasses.field``, so that each field keeps its own type."""
    metadata = {"key": key, "parse": parse, "secret": secret, "choices": choices, "aliases": aliases}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class GlobalSettings:
    """What this installation is."""

    installation: str = _key("installation", "client", choices=INSTALLATIONS)
    random_seed: bool = _key("randomSeed", True, parse=parse_bool)
    seed: int | None = _key("seed", None, parse=parse_optional_int)
    traceback: bool = _key("traceback", False, parse=parse_bool, aliases=("trackeback",))


@dataclass(frozen=True)
class ServerSettings:
    """Where the server is, and how to talk to it."""

    url: str = _key("url", "http://localhost:5000")
    host: str = _key("host", "127.0.0.1")
    port: int = _key("port", 5000, parse=parse_port)
    auth: str = _key("auth", "required", choices=AUTH_MODES)
    auth_networks: tuple[AuthNetwork, ...] = _key("auth_networks", (), parse=parse_networks)
    token: str = _key("token", "", secret=True)
    ca_file: str = _key("ca_file", "")
    patience: float = _key("patience", 120.0, parse=parse_positive_float)
    certificate: str = _key("certificate", "")
    key: str = _key("key", "")
    trusted_proxies: int = _key("trusted_proxies", 0, parse=parse_count)
    stalled_after_seconds: int = _key("stalled_after", 3600, parse=parse_duration)
    lost_after_seconds: int = _key("lost_after", 24 * 3600, parse=parse_duration)
    lost_after_old_seconds: int = _key("lost_after_old", 7 * 24 * 3600, parse=parse_duration)
    pause_after_failures: int | None = _key("pause_after_failures", 20, parse=parse_optional_count)
    avoid_black_holes: bool = _key("avoid_black_holes", False, parse=parse_bool)

    def __post_init__(self) -> None:
        """Take a credential out of the url, where the original's clients had it, so that nothing shows it."""
        url, token = split_credential(self.url)
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "token", self.token or token)

    def auth_of(self, address: str) -> str:
        """Return what holds for a client at this address: required, optional or off."""
        return mode_for(address, self.auth_networks, self.auth)

    @property
    def openness(self) -> str:
        """The least that any client needs: required, optional or off."""
        return max((self.auth, *(network.mode for network in self.auth_networks)), key=AUTH_MODES.index)

    @property
    def open_to(self) -> str:
        """Who may come without a credential, in words; empty if nobody may."""
        return open_to(self.auth, self.auth_networks)


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the database is; only a server needs it."""

    uri: str = _key("uri", "", secret=True)
    host: str = _key("host", "localhost")
    name: str = _key("name", "dampe")
    user: str = _key("user", "")
    password: str = _key("password", "", secret=True)

    @property
    def address(self) -> str:
        """The URI; made of host, user and password where none is given."""
        if self.uri:
            return self.uri
        user = f"{quote_plus(self.user)}:{quote_plus(self.password)}@" if self.user else ""
        return f"mongodb://{user}{self.host}"


TASK_TYPES = ("Generation", "Digitization", "Reconstruction", "User", "Other", "Data", "SimuDigi", "Reco")
TASK_MAJOR_STATII = ("New", "Running", "Failed", "Terminated", "Done", "Submitted", "Suspended")
TASK_FINAL_STATII = ("Terminated", "Failed", "Done")


@dataclass(frozen=True)
class JobDBSettings:
    """The words that jobs may use."""

    task_types: tuple[str, ...] = _key("task_types", TASK_TYPES, parse=parse_list)
    task_major_statii: tuple[str, ...] = _key("task_major_statii", TASK_MAJOR_STATII, parse=parse_list)
    task_final_statii: tuple[str, ...] = _key("task_final_statii", TASK_FINAL_STATII, parse=parse_list)
    batch_sites: tuple[str, ...] = _key("batch_sites", ("local",), parse=parse_list)

    def check_site(self, site: str | None) -> None:
        """Raise InvalidInput if a site is named that is not among the known ones."""
        if site and site not in self.batch_sites:
            known = ", ".join(self.batch_sites)
            raise InvalidInput(f"site {site!r} is not known: expected one of {known} ([JobDB] batch_sites)")


@dataclass(frozen=True)
class SiteSettings:
    """The site on which a client runs jobs."""

    name: str = _key("name", "local")
    sw_dir: str = _key("DAMPE_SW_DIR", "")
    exec_dir_root: str = _key("EXEC_DIR_ROOT", "/tmp")  # noqa: S108 - jobs make their own folder in it
    externals_script: str = _key("ExternalsScript", "")
    workdir: str = _key("workdir", "")
    hpc_system: str = _key("HPCsystem", "local", parse=parse_system)
    hpc_memory_mb: float = _key("HPCmemory", 4000.0, parse=parse_megabytes)
    hpc_cputime_seconds: int = _key("HPCcputime", 24 * 3600, parse=parse_duration)
    hpc_name: str = _key("HPCname", "")
    hpc_extra: str = _key("HPCextra", "")
    hpc_queue: str = _key("HPCqueue", "")
    hpc_requirements: str = _key("HPCrequirements", "")
    hpc_cores: int = _key("HPCcores", 1, parse=parse_positive_int)
    hpc_walltime_seconds: int = _key("HPCwalltime", 0, parse=parse_optional_duration)
    hpc_account: str = _key("HPCaccount", "", aliases=("HPCproject",))
    hpc_image: str = _key("HPCimage", "")
    hpc_universe: str = _key("HPCuniverse", "vanilla")
    hpc_parallel: str = _key("HPCpe", "smp")
    hpc_memory_unit: str = _key("HPCmemunit", "KB", choices=MEMORY_UNITS)
    hpc_bin: str = _key("HPCbin", "")
    hpc_timeout: float = _key("HPCtimeout", 60.0, parse=parse_positive_float)
    hpc_hold_seconds: int = _key("HPCholdtime", 3600, parse=parse_optional_duration)
    hpc_grace_seconds: int = _key("HPCgrace", 300, parse=parse_optional_duration)
    hpc_chunk: int = _key("HPCchunk", 100, parse=parse_positive_int)
    hpc_max_jobs: int | None = _key("HPCmaxjobs", None, parse=parse_optional_count)
    hpc_max_pending: int | None = _key("HPCmaxpending", None, parse=parse_optional_count)
    agent: str = _key("agent", "", parse=parse_word)
    slots: int = _key("slots", 1, parse=parse_positive_int)


@dataclass(frozen=True)
class WatchdogSettings:
    """When a running job is stopped: at these shares of what it asked for."""

    ratio_mem: float = _key("ratio_mem", 0.95, parse=parse_ratio)
    ratio_cpu: float = _key("ratio_cpu", 0.98, parse=parse_ratio)
    interval: float = _key("interval", 60.0, parse=parse_positive_float)


@dataclass(frozen=True)
class Settings:
    """All sections, and ``origins``: "section.key" to "file:line" or "default"."""

    global_: GlobalSettings = field(default_factory=GlobalSettings, metadata={"section": "global"})
    server: ServerSettings = field(default_factory=ServerSettings, metadata={"section": "server"})
    database: DatabaseSettings = field(default_factory=DatabaseSettings, metadata={"section": "database"})
    jobdb: JobDBSettings = field(default_factory=JobDBSettings, metadata={"section": "JobDB"})
    site: SiteSettings = field(default_factory=SiteSettings, metadata={"section": "site"})
    watchdog: WatchdogSettings = field(default_factory=WatchdogSettings, metadata={"section": "watchdog"})
    origins: Mapping[str, str] = field(default_factory=dict)
