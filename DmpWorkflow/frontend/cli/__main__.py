"""``python -m DmpWorkflow.frontend.cli`` is ``dampe``."""

from DmpWorkflow.frontend.cli.main import dampe

dampe(prog_name="dampe")
