"""The pages: server-rendered, live through htmx, with nothing from outside."""

from DmpWorkflow.frontend.pages import jobs, login, overview, sites

__all__ = ["jobs", "login", "overview", "sites"]
