"""Put a configuration file in its place."""

from pathlib import Path

from DmpWorkflow.config.loader import LoadedSettings, load
from DmpWorkflow.utils.errors import ConfigurationError
from DmpWorkflow.utils.files import write_private


def install(source: Path, target: Path) -> LoadedSettings:
    """Check ``source``, and copy it to ``target`` so that a reader sees the old file or the new, never half.

    Only the owner may read the copy: it can hold secrets. Raises ConfigurationError and leaves ``target`` as it
    was when ``source`` is not valid or ``target`` cannot be written.
    """
    loaded = load(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_private(target, source.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{target}: cannot be installed: {error.strerror}") from error
    return loaded
