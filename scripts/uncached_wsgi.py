"""The application without answers that readers share, so that a benchmark pays for the queries of each request."""

from DmpWorkflow.config.loader import load
from DmpWorkflow.frontend import shared

shared.shared = lambda seconds: lambda query: query

from DmpWorkflow.frontend.app import create_app  # noqa: E402 - the modules of the application decorate as they load
from DmpWorkflow.frontend.pages import refresh  # noqa: E402

refresh.GOOD_FOR = 0.0  # seconds

app = create_app(load().settings)
