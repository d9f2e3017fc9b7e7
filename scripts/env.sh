# shellcheck shell=bash
# Sourced by the scripts beside it: where the project is, where its servers are. Running it does nothing.

TASKER_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly TASKER_ROOT
readonly POSTGRES_MIN=15
# The first 2.14 without the published holes of 2026 (CVE-2026-33222 and its kin).
readonly NATS_MIN=2.14.3

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# version_at_least MIN ACTUAL
version_at_least() { [[ -n "$2" ]] && printf '%s\n%s\n' "$1" "$2" | sort -V -C; }

# version_of NAME [PROGRAM]: the version in a line like `NAME 1.2.3 …` that the program prints of itself.
version_of() { "${2:-$1}" --version 2>/dev/null | sed -n -E "s/^$1[^0-9]*([0-9]+(\.[0-9]+)*).*/\1/p" | head -n1; }

# postgres_usable DIR: all three programs are there and new enough.
postgres_usable() {
  [[ -x "$1/initdb" && -x "$1/postgres" && -x "$1/pg_ctl" ]] \
    && version_at_least "$POSTGRES_MIN" "$(version_of postgres "$1/postgres")"
}

postgres_candidates() {
  if [[ -n "${TASKER_POSTGRES_BIN:-}" ]]; then
    say "$TASKER_POSTGRES_BIN"
    return
  fi
  pg_config --bindir 2>/dev/null || true
  printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV
  local program
  program="$(command -v postgres)" && dirname "$(readlink -f "$program")"
}

# Prints the directory of a usable Postgres; a set TASKER_POSTGRES_BIN is the only candidate.
find_postgres() {
  local dir
  while IFS= read -r dir; do
    if postgres_usable "$dir"; then
      (cd "$dir" && pwd)
      return
    fi
  done < <(postgres_candidates)
  return 1
}

nats_candidates() {
  if [[ -n "${TASKER_NATS_SERVER:-}" ]]; then
    say "$TASKER_NATS_SERVER"
    return
  fi
  say "$TASKER_ROOT/.local/bin/nats-server"
  command -v nats-server || true
}

# Prints the path of a usable nats-server; a set TASKER_NATS_SERVER is the only candidate.
find_nats() {
  local program
  while IFS= read -r program; do
    if [[ -x "$program" ]] && version_at_least "$NATS_MIN" "$(version_of nats-server "$program")"; then
      readlink -f "$program"
      return
    fi
  done < <(nats_candidates)
  return 1
}

# Exports TASKER_POSTGRES_BIN and TASKER_NATS_SERVER, for `tasker` and the tests to use without a search.
export_servers() {
  local found
  found="$(find_postgres)" || fail "no Postgres >= $POSTGRES_MIN found: run scripts/setup"
  export TASKER_POSTGRES_BIN="$found"
  found="$(find_nats)" || fail "no nats-server >= $NATS_MIN found: run scripts/setup"
  export TASKER_NATS_SERVER="$found"
}

# Where cargo puts what `--release` builds.
release_dir() {
  local target="${CARGO_TARGET_DIR:-$TASKER_ROOT/target}"
  [[ "$target" = /* ]] || target="$TASKER_ROOT/$target"
  say "$target/release"
}

# A temporary directory that another user may enter: as root, Postgres runs as somebody else,
# who may be kept out of root's own TMPDIR.
make_temp_dir() {
  local dir base="${TMPDIR:-/tmp}"
  [[ "$(id -u)" -ne 0 ]] || base=/tmp
  dir="$(mktemp -d "$base/tasker-$1.XXXXXX")"
  chmod 755 "$dir"
  say "$dir"
}
