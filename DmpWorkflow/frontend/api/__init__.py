"""The REST API: the original's routes and newer ones, thin views over the core."""
