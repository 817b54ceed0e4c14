"""The pages: server-rendered, live through htmx, with nothing from outside."""

from DmpWorkflow.frontend.pages import administration, highlight, instance, job, jobs, login, overview, sites

__all__ = ["administration", "highlight", "instance", "job", "jobs", "login", "overview", "sites"]
