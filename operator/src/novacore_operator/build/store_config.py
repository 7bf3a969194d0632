"""ConfigMaps of Postgres and Redis: configuration and the scripts that start and probe them.

The scripts are ours so that the well-known images and those the repository builds behave alike: both only need the
programs. They run as user 999 on a read-only root file system.
"""

from __future__ import annotations

from collections.abc import Mapping

from novacore_contracts.services import DATABASE, POSTGRES_PORT, REDIS_PORT
from novacore_operator.build.common import CONFIG_MAP, manifest, size_bytes
from novacore_operator.build.resources import build_resources
from novacore_operator.state import Manifest, Nova, names, stores

MIB = 1 << 20

POSTGRES_START = f"""\
#!/bin/sh
# Makes the database if there is none, sets the administrator's password, becomes Postgres.
set -eu
for directory in /usr/lib/postgresql/*/bin; do PATH="$directory:$PATH"; done
export PATH
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
  rm -rf "$data.new"  # a start that was cut short; the rename below is what makes a data directory count
  initdb --pgdata="$data.new" --username=postgres --auth-local=trust --auth-host=scram-sha-256 \\
    --pwfile=/etc/novacore/admin/password --encoding=UTF8 --locale=C.UTF-8 --data-checksums
  echo 'CREATE DATABASE {DATABASE}' | postgres --single -j -D "$data.new" postgres >/dev/null
  mv "$data.new" "$data"
fi
# The verifier and not the password, so that neither log nor WAL can hold it. At each start, so that a restored
# Secret and a retained volume agree.
printf "ALTER ROLE postgres PASSWORD '%s'" "$(cat /etc/novacore/admin/scram)" \\
  | postgres --single -j -D "$data" -c log_min_messages=fatal postgres >/dev/null
exec postgres -D "$data" -c config_file=/etc/novacore/postgres/postgresql.conf \\
  -c hba_file=/etc/novacore/postgres/pg_hba.conf
"""

POSTGRES_READY = f"""\
#!/bin/sh
# Ready: answers on its socket, and the services' database is there.
for directory in /usr/lib/postgresql/*/bin; do PATH="$directory:$PATH"; done
exec pg_isready --quiet --host=/var/run/postgresql --username=postgres --dbname={DATABASE}
"""

POSTGRES_HBA = """\
# From the network only with TLS and a password. The socket is inside the pod, for people (`make psql`) and probes.
local   all all     trust
hostssl all all all scram-sha-256
"""

REDIS_READY = """\
#!/bin/sh
# The user `probe` may PING and nothing else, without a password.
answer=$(redis-cli --tls --cacert /etc/novacore/tls/ca.crt --user probe --pass probe --no-auth-warning PING)
[ "$answer" = PONG ]
"""


def build_store_config(nova: Nova, store: str, users: Mapping[str, Mapping[str, str]]) -> Manifest:
    """Return the ConfigMap of a store that we run. `users`: of each Redis."""
    return build_postgres_config(nova) if store == stores.POSTGRES else build_redis_config(nova, users[store], store)


def memory_settings(limit_bytes: int) -> dict[str, str]:
    """Return the settings of Postgres that follow from its memory limit: a quarter of it is its cache."""
    return {
        "max_connections": "200",
        "shared_buffers": f"{max(limit_bytes // 4 // MIB, 16)}MB",
        "effective_cache_size": f"{max(limit_bytes // 2 // MIB, 32)}MB",
        "maintenance_work_mem": f"{max(limit_bytes // 16 // MIB, 16)}MB",
    }


def build_postgres_config(nova: Nova) -> Manifest:
    """Return the ConfigMap of Postgres."""
    postgres = nova.spec.postgres
    limit = size_bytes(build_resources("postgres", postgres.resources)["limits"]["memory"])
    memory = "\n".join(f"{name} = {value}" for name, value in memory_settings(limit).items())
    text = f"""\
data_directory = '/var/lib/postgresql/data'
listen_addresses = '*'
port = {POSTGRES_PORT}
unix_socket_directories = '/var/run/postgresql'
{memory}
password_encryption = scram-sha-256
ssl = on
ssl_cert_file = '/etc/novacore/tls/tls.crt'
ssl_key_file = '/etc/novacore/tls/tls.key'
ssl_min_protocol_version = 'TLSv1.3'
wal_level = replica
timezone = 'UTC'
log_timezone = 'UTC'
log_destination = 'stderr'
log_line_prefix = '%m [%p] %q%u@%d '
log_statement = 'none'
log_min_error_statement = panic
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""
    return manifest(
        CONFIG_MAP,
        nova,
        names.POSTGRES_CONFIG,
        component="postgres",
        data={
            "postgresql.conf": text,
            "pg_hba.conf": POSTGRES_HBA,
            "start.sh": POSTGRES_START,
            "ready.sh": POSTGRES_READY,
        },
    )


KEEPING = {
    # What is written stays: a full Redis refuses writes.
    stores.REDIS: ('dir /data\nappendonly yes\nappendfsync everysec\nsave ""', "noeviction"),
    # What is written may go: a full one drops what was not used for longest, and one that starts has nothing.
    stores.CACHE: ('dir /tmp\nappendonly no\nsave ""', "allkeys-lru"),
}


def build_redis_config(nova: Nova, users: Mapping[str, str], store: str = stores.REDIS) -> Manifest:
    """Return the ConfigMap of a Redis. `users`: name -> SHA-256 of its password (256 random bits: not guessable)."""
    limit = size_bytes(build_resources(store, nova.spec.redis.resources)["limits"]["memory"])
    kept, policy = KEEPING[store]
    text = f"""\
port 0
tls-port {REDIS_PORT}
tls-cert-file /etc/novacore/tls/tls.crt
tls-key-file /etc/novacore/tls/tls.key
tls-ca-cert-file /etc/novacore/tls/ca.crt
tls-auth-clients no
aclfile /etc/novacore/redis/users.acl
{kept}
maxmemory {limit * 3 // 4 // MIB}mb
maxmemory-policy {policy}
"""
    rules = [
        "user default off resetpass nocommands",
        "user probe on nopass resetkeys resetchannels -@all +ping",
        # What an application needs. @dangerous holds KEYS, FLUSHALL, MONITOR and the like; INFO is harmless.
        *(f"user {name} on #{sha256} ~* &* +@all -@admin -@dangerous +info" for name, sha256 in sorted(users.items())),
    ]
    return manifest(
        CONFIG_MAP,
        nova,
        names.REDIS_CONFIG if store == stores.REDIS else names.REDIS_CACHE_CONFIG,
        component=store,
        data={"redis.conf": text, "users.acl": "\n".join(rules) + "\n", "ready.sh": REDIS_READY},
    )
