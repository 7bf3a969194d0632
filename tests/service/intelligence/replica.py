"""One replica of intelligence as a process of its own, to be killed: `NOVA_ROOT=… python -m tests.service.intelligence.replica`.

Serves on a free local port and prints its URL. `novacore serve` is not used because its ports are fixed.
"""

from __future__ import annotations

import asyncio
import sys

from novacore.common.app import make_apps
from novacore.common.settings import load_settings
from novacore.intelligence.app import DEFINITION
from tests.kit.harness import listening


async def main() -> None:
    apps = make_apps(DEFINITION, load_settings(DEFINITION.settings))
    async with apps.running(), listening(apps.public) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
