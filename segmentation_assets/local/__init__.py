"""Servers that run on this machine with no Docker and no root, one launcher each. Loopback only."""
