"""What servers do by themselves: a thread in each process asks every minute whether it is its turn to reap."""

import logging
import os
import random
import socket
import threading
from datetime import timedelta

from flask import Flask
from pymongo.errors import PyMongoError

from DmpWorkflow.config.settings import ServerSettings
from DmpWorkflow.core.database import maintenance, reaper
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.reaper import Patience
from DmpWorkflow.core.database.reporting import Rules

JITTER = 0.2  # share of the interval, so that processes do not all ask together

log = logging.getLogger(__name__)


def patience(server: ServerSettings) -> Patience:
    """Return how long the configuration bears silence."""
    times = (server.stalled_after_seconds, server.lost_after_seconds, server.lost_after_old_seconds)
    return Patience(*(timedelta(seconds=seconds) for seconds in times))


def rules(server: ServerSettings) -> Rules:
    """Return what the configuration lets the server do by itself."""
    return Rules(server.pause_after_failures or 0, server.avoid_black_holes)


def start(app: Flask) -> None:
    """Start the thread; it ends with its process."""
    database: Database = app.extensions["dampe_database"]
    settings: ServerSettings = app.config["DAMPE_SETTINGS"].server
    arguments = (database, patience(settings))
    threading.Thread(target=_keep_house, args=arguments, name="housekeeping", daemon=True).start()


def _keep_house(database: Database, times: Patience) -> None:
    wait = threading.Event().wait
    while True:
        try:
            maintenance.take_turn(database, times, f"server on {socket.gethostname()}, process {os.getpid()}")
        except PyMongoError as error:  # the next turn tries again
            log.error("reaping: %s", error)
        except Exception:
            log.exception("reaping failed")
        seconds = reaper.INTERVAL.total_seconds() / 2
        wait(seconds * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreads load, guards nothing
