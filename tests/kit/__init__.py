"""Shared by unit and service tests: keys that sign, a mounted directory tree, peers that answer, a running service."""
