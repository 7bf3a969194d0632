"""Stripe, from the inside out: `signature`, `hints`, `objects` (pure), `repository` (SQL), `gate` (calls to Stripe),
`receiver` (webhooks in), `effects` and `worker` (webhooks done), `reconcile` (what no webhook brought), `checkout`,
`proofs` (which keys and secrets work in this pod).

Nothing here imports the `stripe` library but `gate`, and that only where Stripe is set up: it costs 13 MiB.
"""
