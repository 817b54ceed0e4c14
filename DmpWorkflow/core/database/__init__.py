"""Documents, and the operations on them. Only the server imports this part of the domain."""
