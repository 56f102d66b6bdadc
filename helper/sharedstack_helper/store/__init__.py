"""Sockets that one process stores under a name for a later one: a service restarts without closing a port or losing a connection."""
