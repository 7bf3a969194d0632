"""`kubectl novacore`: the command line of an installation.

`verbs` holds a module per verb: read options, ask the cluster, print. What they decide and draw is pure and lies beside
them (`status_view`, `plan_view`, `releases`, `loglines`, `doctor`, …). `kubectl` is the one edge to the cluster: the
user's own kubectl does the talking, so contexts, proxies and auth plugins work here as they do there; only `engine`
(plan and diff) uses the operator's client.
Invariants:
CLI-1 bad input ends in one line on stderr and exit 64, any other failure in one line with a remedy and exit 1; never a
traceback.
CLI-2 with `-o json|yaml` stdout holds nothing but the document, without colours.
CLI-3 a secret is never an argument or an environment variable of a process.
"""
