"""Find, read and check a configuration file."""

import configparser
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from DmpWorkflow.config.settings import (
    DatabaseSettings,
    GlobalSettings,
    JobDBSettings,
    ServerSettings,
    Settings,
    SiteSettings,
    WatchdogSettings,
)
from DmpWorkflow.utils.errors import ConfigurationError

MASK = "********"
DEFAULT = "default"
ENVIRONMENT_VARIABLE = "DAMPE_CONFIG"
SYSTEM_FILE = Path("/etc/dampe/settings.cfg")

SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "global": GlobalSettings,
        "server": ServerSettings,
        "database": DatabaseSettings,
        "JobDB": JobDBSettings,
        "site": SiteSettings,
        "watchdog": WatchdogSettings,
    }
)

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECTION_LINE = re.compile(r"\[(?P<name>.+)\]")
_KEY_LINE = re.compile(r"(?P<key>[^\s#;=:\[][^=:]*?)\s*[=:]")


@dataclass(frozen=True)
class LoadedSettings:
    """Valid settings, and what looked odd in their file."""

    settings: Settings
    warnings: tuple[str, ...] = ()


@dataclass
class _Reading:
    """One file while it is read."""

    path: Path | None
    parser: configparser.ConfigParser
    lines: dict[tuple[str, str], int] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def place(self, section: str, key: str) -> str:
        """Return "file:line" of a key."""
        line = self.lines.get((section, key))
        return f"{self.path}:{line}" if line else str(self.path)


def load(path: Path | None = None) -> LoadedSettings:
    """Return the settings of ``path``, else of the first file of the search order, else the defaults.

    Raises ConfigurationError with one line for each problem.
    """
    found = find_file(path)
    reading = _read(found)
    _warn_unknown(reading)
    sections = {name: _section(reading, name, cls) for name, cls in SECTIONS.items()}
    if reading.problems:
        raise ConfigurationError("\n".join(reading.problems))
    settings = Settings(
        global_=sections["global"],
        server=sections["server"],
        database=sections["database"],
        jobdb=sections["JobDB"],
        site=sections["site"],
        watchdog=sections["watchdog"],
        origins=MappingProxyType(reading.origins),
    )
    _warn_unlisted_site(reading, settings)
    return LoadedSettings(settings, tuple(reading.warnings))


def find_file(path: Path | None = None) -> Path | None:
    """Return the file to read: explicit, $DAMPE_CONFIG, the user's, the system's; None if there is none.

    A file that was named, by argument or by environment, must exist.
    """
    named = path or (Path(value) if (value := os.environ.get(ENVIRONMENT_VARIABLE)) else None)
    if named is not None:
        if not named.is_file():
            raise ConfigurationError(f"{named}: there is no such configuration file")
        return named
    candidates = (Path.home() / ".config" / "dampe" / "settings.cfg", SYSTEM_FILE)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Return (section, key, value, origin) of every setting, secrets masked."""
    rows = []
    for group in fields(settings):
        section = group.metadata.get("section")
        if section is None:
            continue
        values = getattr(settings, group.name)
        for item in fields(values):
            key = item.metadata["key"]
            origin = settings.origins.get(f"{section}.{key}", DEFAULT)
            rows.append((section, key, _show(item, getattr(values, item.name)), origin))
    return rows


def _show(item: "Field[Any]", value: object) -> str:
    if item.metadata["secret"]:
        return MASK if value else ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _read(path: Path | None) -> _Reading:
    parser = configparser.ConfigParser(
        interpolation=None, inline_comment_prefixes=("#",), default_section="", empty_lines_in_values=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    reading = _Reading(path, parser)
    if path is None:
        return reading
    try:
        text = path.read_text(encoding="utf-8")
        parser.read_string(text, source=str(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None
    except configparser.Error as error:
        raise ConfigurationError(_syntax_problems(path, error)) from None
    reading.lines = _line_numbers(text)
    return reading


def _syntax_problems(path: Path, error: configparser.Error) -> str:
    """Name places only: a broken line may hold a secret."""
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{path}:{error.lineno}: [{error.section}] {error.option}: is there twice"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"{path}:{error.lineno}: [{error.section}]: is there twice"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{path}:{error.lineno}: stands before the first [section]"
    if isinstance(error, configparser.ParsingError):
        return "\n".join(f"{path}:{number}: is not 'key = value'" for number, _ in error.errors)
    return f"{path}: is not a configuration file"


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    numbers: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _SECTION_LINE.match(line.strip()):
            section = header["name"]
        elif match := _KEY_LINE.match(line.strip()):
            numbers.setdefault((section, match["key"]), number)
    return numbers


def _spellings(cls: type[Any]) -> dict[str, "Field[Any]"]:
    """Return each key and alias of a section, with its field."""
    return {name: item for item in fields(cls) for name in (item.metadata["key"], *item.metadata["aliases"])}


def _section(reading: _Reading, section: str, cls: type[Any]) -> Any:
    values: dict[str, object] = {}
    for item in fields(cls):
        key = item.metadata["key"]
        reading.origins[f"{section}.{key}"] = DEFAULT
        written = [name for name in (key, *item.metadata["aliases"]) if reading.parser.has_option(section, name)]
        if len(written) > 1:
            place = reading.place(section, written[1])
            reading.problems.append(f"{place}: [{section}] {written[1]}: is the same as {key}; keep one")
        elif written:
            _value(reading, section, written[0], item, values)
    return cls(**values)


def _value(reading: _Reading, section: str, name: str, item: "Field[Any]", values: dict[str, object]) -> None:
    """Add the checked value of one key to ``values``, or its problem to the reading."""
    text = _expand(reading, reading.parser.get(section, name).strip(), _own_name(section, name))
    place = reading.place(section, name)
    choices: tuple[str, ...] = item.metadata["choices"]
    try:
        if choices and text not in choices:
            raise ValueError("one of " + ", ".join(choices))
        values[item.name] = item.metadata["parse"](text)
    except ValueError as error:
        shown = MASK if item.metadata["secret"] or "@" in text else repr(text)
        reading.problems.append(f"{place}: [{section}] {name}: {shown} is not allowed; allowed: {error}")
    else:
        reading.origins[f"{section}.{item.metadata['key']}"] = place


def _own_name(section: str, name: str) -> frozenset[str]:
    """Return the name that the value of this key must not expand: only keys of [site] are variables."""
    return frozenset({name}) if section == "site" else frozenset()


def _expand(reading: _Reading, text: str, seen: frozenset[str] = frozenset()) -> str:
    """Replace ``${NAME}`` from [site], then the environment; an unknown or circular name stays as written."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return match[0]
        if reading.parser.has_option("site", name):
            return _expand(reading, reading.parser.get("site", name).strip(), seen | {name})
        return os.environ.get(name, match[0])

    return _VARIABLE.sub(replace, text)


def _suggest(word: str, known: Iterable[str]) -> str:
    """Return the nearest known word as a hint, ignoring case."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, n=1)
    return f"; did you mean {folded[near[0]]}?" if near else ""


def _warn_unknown(reading: _Reading) -> None:
    for section in reading.parser.sections():
        if section not in SECTIONS:
            hint = _suggest(section, SECTIONS)
            reading.warnings.append(f"{reading.path}: [{section}]: unknown section{hint}")
            continue
        known = _spellings(SECTIONS[section])
        for key in reading.parser.options(section):
            if key not in known:
                place, hint = reading.place(section, key), _suggest(key, known)
                reading.warnings.append(f"{place}: [{section}] {key}: unknown key{hint}")


def _warn_unlisted_site(reading: _Reading, settings: Settings) -> None:
    name, sites = settings.site.name, settings.jobdb.batch_sites
    if name not in sites:
        place = reading.place("site", "name")
        reading.warnings.append(f"{place}: [site] name: {name!r} is not in batch_sites: {', '.join(sites)}")
