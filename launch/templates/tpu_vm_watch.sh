#!/usr/bin/env bash
# Watches over the slice @name@ until its run is complete.
set -uo pipefail
NAME=@name@
WHERE=(@where@)

queued() { gcloud compute tpus queued-resources "$@" "${WHERE[@]}" --quiet; }

create() {
  queued create "$NAME" \
    @create@
}

on_host_0() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --quiet --worker=0 \
    --command="$1"
}

say() { echo "$(date +%FT%T) $NAME: $*"; }

finish() {
  say "exit code $1; deleting the slice"
  queued delete "$NAME" --force
  exit "$1"
}

slices=0
said=
while :; do
  state=$(queued describe "$NAME" --format='value(state.state)' 2>/dev/null)
  [ "$state" = "$said" ] || say "${state:-not there}"
  said=$state
  case $state in
    '' | SUSPENDED | FAILED)
      if [ "$slices" -gt @restarts@ ]; then
        say "asked for $slices slices; giving up"
        exit 1
      fi
      [ -z "$state" ] || queued delete "$NAME" --force
      # An empty answer may also be a network out of order: then this fails
      # too. Only a first request that fails is an error of the request.
      if create; then
        slices=$((slices + 1))
      elif [ "$slices" -eq 0 ]; then
        exit 1
      fi
      ;;
    ACTIVE)
      # Each host reports; host 0 stands for all.
      news=$(on_host_0 'sudo sh -c "cd /var/lib/cdm && tail -n 1 log;
        [ ! -e exit_code ] || echo exit_code=\$(cat exit_code)"' 2>/dev/null)
      say "${news:-host 0 does not answer}" | head -n 1
      case $news in *exit_code=*) finish "${news##*exit_code=}" ;; esac
      ;;
  esac
  sleep @poll_seconds@
done
