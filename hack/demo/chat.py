"""One question through the gateway, the way a first user does it: register, log in, ask, watch the answer arrive.

The account made at the first call is kept in `.tools/` (mode 0600) and used again, until the platform no longer knows
it or its tokens for today are used up: then a new one is made.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from hack.demo.gateway import Answer, Body, Gateway, Stream
from hack.demo.kube import TOOLS
from hack.demo.terminal import EXIT_USAGE, Deadline, DemoError, Stopwatch, colour, pause, say, thousands

SETTLE_WITHIN_S = 3.0
"""The tokens are settled right after the last frame; the quota is read until it shows them."""


@dataclass(frozen=True, slots=True)
class Account:
    """An e-mail address nobody has and a password nobody knows."""

    email: str
    password: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of an answer."""

    text: str
    last: Body
    first_token_s: float
    total_s: float


def chat(url: str, message: str, *, verbose: bool = False, wait_s: float = 120, state: Path = TOOLS) -> Reply:
    """Ask `message` and print the streamed answer, its tokens and what is left of today's quota."""
    if not message.strip():
        raise DemoError('nothing to ask: make chat MSG="What can you do?"', exit_code=EXIT_USAGE)
    gateway = Gateway(url, Deadline(wait_s))
    gateway.wait_until_up()
    request_id = uuid.uuid4().hex
    token, account = sign_in(gateway, state)
    if verbose:
        say(f"{colour('user', 'dim')}      {account.email}")
        say(f"{colour('request', 'dim')}   {request_id}")
    say(f"{colour('you', 'bold')}       {message}")
    before = used_tokens(gateway, token)
    opened = ask(gateway, message, token=token, request_id=request_id)
    if isinstance(opened, Answer) and opened.code == "quota_exceeded":
        say(colour(f"          {account.email} has used up today's tokens; going on as a new user", "dim"))
        token, account = register(gateway, state)
        before = used_tokens(gateway, token)
        opened = ask(gateway, message, token=token, request_id=request_id)
    if isinstance(opened, Answer):
        raise DemoError(f"the question was refused: {opened.detail} (HTTP {opened.status} {opened.code})".rstrip())
    reply = print_answer(opened)
    print_bill(gateway, token, reply, before)
    if verbose:
        say(f"{colour('run', 'dim')}       {reply.last.get('run_id', '')}  session {reply.last.get('session_id', '')}")
        say(f"{colour('next', 'dim')}      make logs ID={request_id}")
    return reply


def sign_in(gateway: Gateway, state: Path) -> tuple[str, Account]:
    """Return an access token, for the kept account if the platform still knows it, else for a new one."""
    account = load(gateway, state)
    if account is None:
        return register(gateway, state)
    answer = gateway.call("POST", "/api/auth/login", asdict(account))
    if answer.status == 200:
        return access_token(answer), account
    if answer.status == 401:  # another cluster behind the same port, or its data is gone
        return register(gateway, state)
    raise DemoError(f"log-in was refused: {answer.detail} (HTTP {answer.status})")


def register(gateway: Gateway, state: Path) -> tuple[str, Account]:
    """Register a new account, keep it, log in with it, and return its access token."""
    account = Account(f"demo-{secrets.token_hex(8)}@example.test", secrets.token_urlsafe(24))
    answer = gateway.call("POST", "/api/auth/register", asdict(account))
    if answer.status != 201:
        raise DemoError(f"registration was refused: {answer.detail} (HTTP {answer.status})")
    save(gateway, state, account)
    answer = gateway.call("POST", "/api/auth/login", asdict(account))
    if answer.status != 200:
        raise DemoError(f"log-in right after registration was refused: {answer.detail} (HTTP {answer.status})")
    return access_token(answer), account


def ask(gateway: Gateway, message: str, *, token: str, request_id: str) -> Stream | Answer:
    """Open the stream of one answer. The key is per account: a new user's question is a new question."""
    headers = {
        "Authorization": f"Bearer {token}",
        "X-Request-ID": request_id,
        "Idempotency-Key": request_id,
    }
    return gateway.stream("/api/chat/stream", {"message": message}, headers=headers)


def print_answer(stream: Stream) -> Reply:
    """Print the pieces as they come. DemoError when the stream carries an error or ends without its last frame."""
    watch = Stopwatch()
    text, first_token_s = "", 0.0
    sys.stdout.write(f"{colour('novacore', 'green')}  ")
    for event in stream.events():
        piece = str(event.get("content", ""))
        if piece and not text:
            first_token_s = watch.elapsed_s
        text += piece
        sys.stdout.write(piece.replace("\n", "\n          "))
        sys.stdout.flush()
        if event.get("error"):
            say()
            raise DemoError(f"the answer failed: {event['error']} ({event.get('code', 'no code')})")
        if event.get("done"):
            say()
            return Reply(text, event, first_token_s, watch.elapsed_s)
    say()
    raise DemoError("the stream ended before the answer did: see `make logs SVC=intelligence`")


def print_bill(gateway: Gateway, token: str, reply: Reply, before: int) -> None:
    """Print what the answer cost and what is left."""
    quota = settled_quota(gateway, token, before)
    used, limit = int(quota.get("used", 0)), int(quota.get("limit", 0))
    left = "unlimited" if limit < 0 else f"{thousands(max(0, limit - used))} of {thousands(limit)} left today"
    tokens = thousands(int(reply.last.get("tokens_used", 0)))
    status = reply.last.get("status", "done")
    note = "" if status == "done" else f" · {colour(str(status), 'yellow')}"
    say(
        f"{colour('tokens', 'dim')}    {tokens} · first after {reply.first_token_s:.1f} s, all after"
        f" {reply.total_s:.1f} s{note}"
    )
    say(f"{colour('quota', 'dim')}     {left}")


def settled_quota(gateway: Gateway, token: str, before: int) -> Body:
    """Return today's token quota once it shows this answer, or as it is after a few seconds."""
    deadline = Deadline(SETTLE_WITHIN_S)
    while True:
        quota = token_quota(gateway, token)
        if int(quota.get("used", 0)) > before or deadline.over:
            return quota
        pause(0.2)


def used_tokens(gateway: Gateway, token: str) -> int:
    """Return the tokens this user has used today."""
    return int(token_quota(gateway, token).get("used", 0))


def token_quota(gateway: Gateway, token: str) -> Body:
    """Return the `tokens` part of GET /api/usage/quota."""
    answer = gateway.call("GET", "/api/usage/quota", headers={"Authorization": f"Bearer {token}"})
    if answer.status != 200:
        raise DemoError(f"the quota cannot be read: {answer.detail} (HTTP {answer.status})")
    tokens = answer.body.get("tokens")
    return tokens if isinstance(tokens, dict) else {}


def access_token(answer: Answer) -> str:
    """Return the access token of a log-in."""
    token = answer.body.get("access_token")
    if not isinstance(token, str) or not token:
        raise DemoError("the log-in answered without an access token")
    return token


def load(gateway: Gateway, state: Path) -> Account | None:
    """Return the account kept for this gateway, or None."""
    try:
        kept = json.loads(_file(gateway, state).read_text())
        return Account(str(kept["email"]), str(kept["password"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(gateway: Gateway, state: Path, account: Account) -> None:
    """Keep the account, readable by this user alone."""
    path = _file(gateway, state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(account), file)


def _file(gateway: Gateway, state: Path) -> Path:
    return state / f"demo-user-{gateway.address}.json"
