"""The application for a WSGI server: ``gunicorn DmpWorkflow.frontend.wsgi:app``."""

import logging
import sys

from DmpWorkflow.config.loader import load
from DmpWorkflow.frontend import housekeeping
from DmpWorkflow.frontend.app import create_app
from DmpWorkflow.utils import log
from DmpWorkflow.utils.errors import Unavailable

log.set_up("%(asctime)s %(levelname)s %(message)s", logging.INFO)
try:
    app = create_app(load().settings)
except Unavailable as error:
    sys.exit(f"dampe-server: {error}")  # a line and no trace; gunicorn starts the worker again
housekeeping.start(app)
