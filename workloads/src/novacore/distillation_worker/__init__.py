"""Turns what a user's reflections have in common into principles, once a night, and tidies memory up.

`rules` (grouping and what is kept; pure), `repository` (watermarks, runs, the lock), `service` (a run), `tasks` (the
schedule), `now` (a run at once, by command). Reads and writes reflections and principles through memory's routes only.
"""
