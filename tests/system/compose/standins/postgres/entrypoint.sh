#!/bin/bash
set -e
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "$POSTGRES_PASSWORD" ] || { echo "POSTGRES_PASSWORD is not set" >&2; exit 1; }
    initdb -U "$user" --pwfile=<(printf %s "$POSTGRES_PASSWORD") -A scram-sha-256 --auth-local=trust >/dev/null
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -w -o "-c listen_addresses=" start >/dev/null
    [ "$database" = postgres ] || psql -q -U "$user" -d postgres -c "CREATE DATABASE \"$database\""
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sql) psql -v ON_ERROR_STOP=1 -U "$user" -d "$database" -f "$file" ;;
            *.sh) "$file" ;;
        esac
    done
    pg_ctl -w stop >/dev/null
fi
[ "$1" = postgres ] && set -- "$@" -c listen_addresses='*'
exec "$@"
