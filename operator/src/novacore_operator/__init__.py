import sys
from types import ModuleType

# `import kubernetes.aio` loads the whole synchronous client too, 9 MiB that nobody here uses, unless its parts are
# there. kopf looks for that client, and does without.
for _part in ("client", "config", "dynamic", "informer", "leaderelection", "stream", "utils", "watch"):
    sys.modules.setdefault(f"kubernetes.{_part}", ModuleType(f"kubernetes.{_part}"))
