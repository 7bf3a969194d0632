"""What is: informers that keep projections, and the memory of Secrets. Reads only.

`projection` turns a body into a `Live`; `informer` keeps one kind; `observer` puts one installation's picture together.
"""
