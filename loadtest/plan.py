"""What the load is: the operations and their weights, the bounds, and where it may go."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_USERS = 500
MAX_SECONDS = 900
SPAWN_PER_S = 3
"""New users each second: a registration and a log-in hash a password each (argon2id, about 35 ms of one core)."""
THINK = "3-7"
"""Pause of a user between two operations in seconds, uniformly: somebody who reads an answer before asking on."""
CHAT_MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Operation:
    """One documented call; weight 0 = once per user, at the start."""

    name: str
    method: str
    path: str
    weight: int


REGISTER = Operation("register", "POST", "/api/auth/register", 0)
LOGIN = Operation("login", "POST", "/api/auth/login", 0)
CHAT = Operation("chat", "POST", "/api/chat/message", 10)
MEMORY_LIST = Operation("memory list", "GET", "/api/memory", 3)
MEMORY_SEARCH = Operation("memory search", "POST", "/api/memory/search", 2)
PROGRESS = Operation("progress", "GET", "/api/ngs/progress", 2)
QUOTA = Operation("quota", "GET", "/api/usage/quota", 1)
HEALTH = Operation("health", "GET", "/health", 1)

OPERATIONS = (REGISTER, LOGIN, CHAT, MEMORY_LIST, MEMORY_SEARCH, PROGRESS, QUOTA, HEALTH)

QUESTIONS = (
    "What is a lease in a distributed system?",
    "Give me three habits for careful code review.",
    "How does an index help a search?",
    "Explain an outbox to a new colleague.",
    "Why is a retry without a limit dangerous?",
    "What should a good error message contain?",
    "How do I know that a backup works?",
    "When is a cache the wrong answer?",
)
SEARCHES = ("lease", "code review", "index and search", "outbox", "retry limit", "error message", "backup", "cache")


class InputError(ValueError):
    """The command line asks for something this load test does not do; the message says what it does."""


def loopback_url(url: str) -> str:
    """Return the URL without a trailing slash. InputError unless it is plain HTTP to this machine's loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or not _is_loopback(host):
        raise InputError(f"load goes to this machine only: give a URL like http://127.0.0.1:5000, not {url!r}")
    return url.rstrip("/")


def seconds(text: str) -> int:
    """Return the seconds of `60`, `60s` or `2m`. InputError when out of bounds."""
    match = re.fullmatch(r"(\d{1,6})(s|m)?", text.strip())
    if match is None:
        raise InputError(f"time is given as 60s or 2m, not {text!r}")
    found = int(match[1]) * (60 if match[2] == "m" else 1)
    if not 1 <= found <= MAX_SECONDS:
        raise InputError(f"time must be between 1 s and {MAX_SECONDS} s, not {found} s")
    return found


def users(text: str) -> int:
    """Return the number of users. InputError when out of bounds."""
    if not text.isdigit() or not 1 <= int(text) <= MAX_USERS:
        raise InputError(f"users must be between 1 and {MAX_USERS}, not {text!r}")
    return int(text)


def think_s(text: str) -> tuple[float, float]:
    """Return the bounds of `1-3` or `0.5-2` in seconds. InputError when they are none."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)-(\d{1,3}(?:\.\d+)?)", text.strip())
    if match is None or float(match[1]) > float(match[2]):
        raise InputError(f"think time is given in seconds as 1-3, not {text!r}")
    return float(match[1]), float(match[2])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
