"""`novacore distill --now`, in the worker's pod: asks the running worker, which has keys, pool and metrics already.

A second process would need the service token, the credentials and 80 MB again, and its metrics would be lost.
"""

from __future__ import annotations

import json

import aiohttp

from novacore_contracts.services import INTERNAL_PORT

URL = f"http://127.0.0.1:{INTERNAL_PORT}/internal/distill/run"
RUN_SECONDS_MAX = 3600


async def distill_now(url: str = URL) -> str:
    """Return the report of a run as one JSON line. SystemExit when there was none or it failed."""
    try:
        timeout = aiohttp.ClientTimeout(total=RUN_SECONDS_MAX, sock_connect=5)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url) as response:
            report = await response.json(content_type=None)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise SystemExit(
            f"distill: the worker does not answer at {url} ({type(error).__name__}); run this in its pod"
        ) from None
    line = json.dumps(report)
    if status != 200 or report["result"] in {"error", "partial"}:
        raise SystemExit(line)
    return line
