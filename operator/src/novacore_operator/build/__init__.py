"""Pure builders, one file per kind. Each returns a manifest, or None when the object must not exist.

`common` has what every object shares; `settings` the content of the nine settings files; `release` which image runs.
Builders write values in the form in which the API server keeps them (state.ownership, OWN-1).
"""
