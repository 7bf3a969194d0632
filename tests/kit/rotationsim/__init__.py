"""A rotation in virtual time: pods that behave as the services' verifiers do, an API server with versions, and the
product's `plan` as the only thing that decides. `world` has time, objects and faults; `pods` what a pod does; `driver`
the operator's edge; `checks` the invariants I1-I8 after each step; `runs` a whole run from one number."""
