"""Put a configuration file in its place."""

import os
import tempfile
from pathlib import Path

from DmpWorkflow.config.loader import LoadedSettings, load
from DmpWorkflow.utils.errors import ConfigurationError


def install(source: Path, target: Path) -> LoadedSettings:
    """Check ``source``, and copy it to ``target`` so that a reader sees the old file or the new, never half.

    Only the owner may read the copy: it can hold secrets. Raises ConfigurationError and leaves ``target`` as it
    was when ``source`` is not valid or ``target`` cannot be written.
    """
    loaded = load(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, source.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{target}: cannot be installed: {error.strerror}") from error
    return loaded


def _replace(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
