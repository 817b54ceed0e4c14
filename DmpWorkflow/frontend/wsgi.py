"""The application for a WSGI server: ``gunicorn DmpWorkflow.frontend.wsgi:app``."""

import logging

from DmpWorkflow.config.loader import load
from DmpWorkflow.frontend import housekeeping
from DmpWorkflow.frontend.app import create_app
from DmpWorkflow.utils import log

log.set_up("%(asctime)s %(levelname)s %(message)s", logging.INFO)
app = create_app(load().settings)
housekeeping.start(app)
