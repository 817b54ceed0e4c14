"""The pages: server-rendered, live through htmx, with nothing from outside."""

from DmpWorkflow.frontend.pages import highlight, instance, job, jobs, login, overview, sites

__all__ = ["highlight", "instance", "job", "jobs", "login", "overview", "sites"]
