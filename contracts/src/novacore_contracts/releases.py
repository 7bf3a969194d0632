"""Releases of the workloads that this operator knows how to run, oldest first, with their migration level."""

from __future__ import annotations

RELEASES: tuple[str, ...] = ("0.1.0", "0.2.0")
CURRENT = RELEASES[-1]
PGVECTOR_MIN = (0, 8, 4)
"""Older ones have a buffer overflow and corrupt an HNSW index on vacuum."""
POSTGRES_MIN = 15
