"""The platform on a real cluster (pytest-kind, attached to a cluster that `tests/cluster/run.sh` makes)."""
