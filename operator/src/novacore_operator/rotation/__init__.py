"""Keys, passwords and certificates: their forms, what is missing, and how the keys of a ring are changed under load.

`forms`: what material looks like. `mint`, `adopt`: what an installation lacks, once. From there on each JWT ring has a
state machine: `machine.plan` says what to do next, from what was seen (`seen`) and by the guards of `guards`; `rings`
changes the document, `emergency` revokes, `report` tells people. `timing` holds every time; `claims` and `told` are
what travels to and from pods and status. The edge is `loop.rings`.
Pure: randomness and the clock are parameters, and signatures are deterministic (RFC 6979), so the same input gives the
same bytes.
"""
