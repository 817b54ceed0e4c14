"""How work gets run at a site."""
