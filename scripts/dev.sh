# shellcheck shell=bash
# Sourced, after env.sh, by scripts that need a running Tasker: `tasker dev` in a temporary directory.

dev_dir=
dev_pid=

# tasker ARGUMENT...: the client, pointed at the running cluster.
tasker() { "$(release_dir)/tasker" --data-dir "$dev_dir/data" "$@"; }

# start_dev ARGUMENT...: starts `tasker dev` from the project's root and returns when it is ready.
# It is stopped, and its directory removed, when the script ends in whatever way.
start_dev() {
  local waited
  export_servers
  dev_dir="$(make_temp_dir dev)"
  trap stop_dev EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # A session of its own: Ctrl-C reaches this script alone, which then stops the cluster once.
  # Its servers are its own too, whatever the environment names.
  (cd "$TASKER_ROOT" && exec env -u DATABASE_URL -u NATS_URL -u TASKER_URL \
    setsid "$(release_dir)/tasker" dev --data-dir "$dev_dir/data" "$@") >"$dev_dir/log" 2>&1 </dev/null &
  dev_pid=$!
  for ((waited = 0; waited < 600; waited++)); do
    [[ ! -e "$dev_dir/data/dev.json" ]] || return 0
    kill -0 "$dev_pid" 2>/dev/null || fail "tasker dev ended before it was ready"
    sleep 0.1
  done
  fail "tasker dev was not ready within 60 s"
}

stop_dev() {
  local status=$? waited stopped=0
  trap - EXIT
  if [[ -n "$dev_pid" ]]; then
    kill -TERM "$dev_pid" 2>/dev/null || true
    for ((waited = 0; waited < 300; waited++)); do
      kill -0 "$dev_pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$dev_pid" 2>/dev/null || true
    wait "$dev_pid" || stopped=$?
    if [[ "$status" -eq 0 && "$stopped" -ne 0 ]]; then
      printf 'tasker dev did not stop cleanly (status %s)\n' "$stopped" >&2
      status=1
    fi
  fi
  if [[ "$status" -ne 0 && "$status" -lt 129 ]]; then
    printf 'the end of the log of tasker dev:\n' >&2
    tail -n 40 "$dev_dir/log" >&2 || true
  fi
  rm -rf "$dev_dir"
  exit "$status"
}
