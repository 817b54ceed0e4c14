"""The pages: server-rendered, live through htmx, with nothing from outside."""

from DmpWorkflow.frontend.pages import (
    administration,
    catalogue,
    highlight,
    instance,
    job,
    jobs,
    login,
    overview,
    sites,
    submit,
)

__all__ = [
    "administration", "catalogue", "highlight", "instance", "job", "jobs", "login", "overview", "sites", "submit",
]  # fmt: skip
