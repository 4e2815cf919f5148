#!/usr/bin/env bash
# Watches over the slice @name@ until its run is complete.
set -uo pipefail
NAME=@name@
WHERE=(@where@)
# How long a request may wait, or nothing.
VALID_UNTIL=@valid_until@

queued() { gcloud compute tpus queued-resources "$@" "${WHERE[@]}" --quiet; }

create() {
  queued create "$NAME" \
    @create@
}

on_hosts() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --quiet \
    --worker="$1" --command="$2"
}

say() { echo "$(date +%FT%T) $NAME: $*"; }

# Ends with a code; a slice that was given back says why, host by host.
finish() {
  if [ "$1" -ne 0 ] && [ -n "$answered" ]; then
    on_hosts all 'sudo sh -c "cat /var/lib/cdm/reason 2> /dev/null"' \
      2> /dev/null | sort | uniq -c
  fi
  say "exit code $1; deleting the slice"
  queued delete "$NAME" --force
  exit "$1"
}

# Asks for a slice, a limited number of times, whether granted or not.
ask() {
  if [ "$asked" -ge @requests@ ]; then
    say "asked for a slice $asked times; giving up"
    exit @unavailable@
  fi
  asked=$((asked + 1))
  active='' answered='' silent=0
  if create; then
    wanted=''
  elif [ "$asked" -eq 1 ]; then
    exit 1 # An error of the request.
  fi
}

ask_again() {
  queued delete "$NAME" --force
  wanted=1
  ask
}

taken_away() {
  taken=$((taken + 1))
  say "taken away $taken times, of at most @restarts@"
  [ "$taken" -le @restarts@ ] || finish 75
  ask_again
}

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
asked=0 taken=0 failed=0 silent=0
wanted=1 said='' active='' answered=''
while :; do
  if ! state=$(queued describe "$NAME" --format='value(state.state)' \
    2> "$errors"); then
    state='no answer'
    # Before the first request, no answer may also be a wrong project.
    if [ "$asked" -eq 0 ] || grep -q NOT_FOUND "$errors"; then
      state='not there'
    fi
  fi
  [ "$state" = "$said" ] || say "$state"
  said=$state
  case $state in
    'not there')
      if [ -z "$wanted" ]; then
        say 'somebody deleted the request; it is not made again'
        exit 1
      fi
      ask
      ;;
    SUSPENDED) taken_away ;;
    FAILED)
      queued describe "$NAME" --format='value(state.failedData.error.message)'
      if [ -n "$active" ]; then
        taken_away
      else
        failed=$((failed + 1))
        # The end of a wait is an end.
        if [ -n "$VALID_UNTIL" ] || [ "$failed" -ge @failures@ ]; then
          say "not granted${VALID_UNTIL:+ within $VALID_UNTIL}; giving up"
          finish @unavailable@
        fi
        ask_again
      fi
      ;;
    ACTIVE)
      active=1 wanted='' failed=0
      # Each host reports; host 0 stands for all.
      news=$(on_hosts 0 'sudo sh -c "cd /var/lib/cdm && tail -n 1 log;
        [ ! -e exit_code ] || echo exit_code=\$(cat exit_code)"' 2> /dev/null)
      say "${news:-host 0 does not answer}" | head -n 1
      case $news in
        '') silent=$((silent + @poll_seconds@)) ;;
        *) answered=1 ;;
      esac
      case $news in *exit_code=*) finish "${news##*exit_code=}" ;; esac
      if [ -z "$answered" ] && [ "$silent" -ge @silent_seconds@ ]; then
        say "host 0 has not answered for $silent s since it is there"
        finish @unavailable@
      fi
      ;;
    WAITING_FOR_RESOURCES | ACCEPTED | CREATING | PROVISIONING) wanted='' ;;
  esac
  sleep @poll_seconds@
done
