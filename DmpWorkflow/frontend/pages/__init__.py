"""The pages: server-rendered, live through htmx, with nothing from outside."""

from DmpWorkflow.frontend.pages import administration, jobs, login, overview

__all__ = ["administration", "jobs", "login", "overview"]
