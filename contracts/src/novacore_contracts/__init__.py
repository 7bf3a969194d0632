"""What the operator and the workloads both must know. Data only, standard library only.

Modules: `services` (names, ports, schemas, roll-out order), `paths` (where a pod finds its files), `identity` (issuers,
audiences, permission matrix), `keyset` (the signed ring document), `metrics` (every metric there is), `releases`.
"""
