"""The application for a WSGI server: ``gunicorn DmpWorkflow.frontend.wsgi:app``."""

from DmpWorkflow.config.loader import load
from DmpWorkflow.frontend import housekeeping
from DmpWorkflow.frontend.app import create_app

app = create_app(load().settings)
housekeeping.start(app)
