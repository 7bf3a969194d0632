"""What a person types after cloning: install, ask, look, follow one request. Standard library only.

The Makefile calls these commands with the system's Python, before any virtual environment exists, so nothing here may
need a package. Cluster and images are `hack.cluster`'s work; this package only uses them.
"""
