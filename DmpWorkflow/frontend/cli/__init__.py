"""The command line: thin commands over the client, the agent and, on a server, the database."""
