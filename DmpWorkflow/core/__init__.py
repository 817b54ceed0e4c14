"""The domain: job definition, variables, life cycle, reports."""
