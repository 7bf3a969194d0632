"""Looks back at each finished run: was the answer aligned, what could be better. One reflection per run.

`answers` (what a reflection says), `service` (one message), `app` (the consumer). No database of its own: memory keeps
the reflections.
"""
