"""intelligence: chat runs with an embedded or remote language model.

Read in this order: `service` (what happens to a message before it is accepted), `executor` (one run from queue to end),
`followups` (what is owed after the end), `tasks` (heartbeat, runs whose replica died), `providers` (where tokens come
from), `prompt` and `windows` (pure text work), `events` and `runlog` (a run's log in Redis and its SSE form).
"""
