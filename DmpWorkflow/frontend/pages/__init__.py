"""The pages: server-rendered, live through htmx, with nothing from outside."""

from DmpWorkflow.frontend.pages import catalogue, jobs, login, overview, submit

__all__ = ["catalogue", "jobs", "login", "overview", "submit"]
