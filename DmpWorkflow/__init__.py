"""DmpWorkflow: workload manager for collaborations that own many small clusters."""

__version__ = "3.0.0.dev0"
