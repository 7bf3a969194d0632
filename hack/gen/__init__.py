"""Generators of committed files that belong to no single product: the charts' schemas, values and tables."""
