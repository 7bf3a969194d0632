"""What a user's conversations and lessons leave behind, found again without a language model.

`text` (terms of the lexical index), `rules` (sizes, expiries, tiers), `embeddings` (vectors on the CPU), `repository`
(all SQL, the search among it), `turns` (Redis: short-term memory and the ranking of intermediate memory), `storage`
(quota held at auth-billing), `service` (the use cases), `tasks` (expiry, refunds, gauges).
"""
