"""How people and sites come in."""
