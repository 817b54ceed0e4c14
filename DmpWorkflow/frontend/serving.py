"""How gunicorn serves the application: ``gunicorn --config python:DmpWorkflow.frontend.serving``.

The lower-case names are gunicorn's settings; https://docs.gunicorn.org/en/stable/settings.html.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from DmpWorkflow.frontend.admission import Admission


class Worker(ThreadWorker):  # type: ignore[misc]  # it has no types
    """A process with threads that refuses what it cannot serve soon."""

    wsgi: Any

    def load_wsgi(self) -> None:
        """Load the application, and put it behind its door."""
        super().load_wsgi()
        self.wsgi = Admission(self.wsgi, self.cfg.threads, _length_of_queue(self.tpool))


def _length_of_queue(pool: ThreadPoolExecutor) -> Callable[[], int]:
    """Return what tells how many connections wait for a thread of the pool."""
    return pool._work_queue.qsize


wsgi_app = "DmpWorkflow.frontend.wsgi:app"
worker_class = Worker
workers = 2
threads = 16  # of each process
worker_connections = 1000  # of each process, most of them idle; more wait in the backlog
backlog = 512
graceful_timeout = 30  # seconds for requests that run when the server is stopped
