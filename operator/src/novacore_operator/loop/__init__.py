"""The loop: `queue` says whose turn it is, `lease` whether it is ours, `reconcile` does one turn, `runner` runs all."""
