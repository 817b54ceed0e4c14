"""The dashboard: pages made on the server, without scripts and without anything from outside."""
