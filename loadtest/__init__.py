"""Load on the platform as its users make it: eight operations, bounded, against this machine's loopback only.

`plan` says what is sent, `users` sends it (locust), `verdict` judges the figures, `record` keeps them. `plan` and
`verdict` import nothing of locust: importing locust patches the standard library for gevent.
"""
