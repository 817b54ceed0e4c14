"""The application for a WSGI server: ``gunicorn DmpWorkflow.frontend.wsgi:app``."""

import sys

from DmpWorkflow.config.loader import load
from DmpWorkflow.frontend.app import create_app
from DmpWorkflow.utils.errors import Unavailable

try:
    app = create_app(load().settings)
except Unavailable as error:
    sys.exit(f"dampe-server: {error}")  # a line and no trace; gunicorn starts the worker again
