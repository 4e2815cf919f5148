#!/usr/bin/env bash
# Runs as root on every host of the slice, at each boot.
set -uo pipefail
STATE=${STATE:-/var/lib/cdm}
mkdir -p "$STATE"
exec >> "$STATE/log" 2>&1
export HOME=/root
IMAGE=@image@
STORAGE=@storage@
MOUNT=@mount@
SECRETS=(@secrets@)

say() { echo "$(date +%FT%T%z) $*"; }

mount_storage() {
  mountpoint --quiet "$MOUNT" && return
  mkdir -p "$MOUNT"
  case "$STORAGE" in
    gs://*)
      key=/usr/share/keyrings/cloud.google.asc
      apt=https://packages.cloud.google.com/apt
      curl -fsS --max-time 60 "$apt/doc/apt-key.gpg" > "$key"
      echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" \
        > /etc/apt/sources.list.d/gcsfuse.list
      apt-get update -q && apt-get install -qy gcsfuse
      timeout 300 gcsfuse --implicit-dirs -o allow_other "${STORAGE#gs://}" \
        "$MOUNT"
      ;;
    *)
      apt-get update -q && apt-get install -qy nfs-common
      timeout 300 mount -t nfs "$STORAGE" "$MOUNT"
      ;;
  esac
}

# NAME=REFERENCE, by Secret Manager, to NAME=VALUE.
read_secrets() {
  (umask 077 && : > "$STATE/secrets")
  for secret in "${SECRETS[@]}"; do
    value=$(gcloud --quiet secrets versions access "${secret#*=}") || return
    echo "${secret%%=*}=$value" >> "$STATE/secrets"
  done
}

prepare() {
  step="mounting $STORAGE"
  mount_storage || return
  step='reading the secrets'
  read_secrets || return
  step="pulling $IMAGE"
  gcloud --quiet auth configure-docker @store@ \
    && timeout 1200 docker pull --quiet "$IMAGE"
}

run() {
  # A TPU's devices belong to root.
  docker run --rm --init --name=cdm --privileged --network=host --user=0:0 \
    --shm-size=@shared_memory@ --stop-timeout=300 --volume="$MOUNT:$MOUNT" \
    --ulimit=nofile=@open_files@:@open_files@ --env-file="$STATE/secrets" \
    @environment@ "$IMAGE" \
    @command@
}

# What the launcher deletes the slice for: a code, and maybe a reason.
give_back() {
  say "exit code $1${2:+: $2}"
  [ -z "${2:-}" ] || echo "$2" > "$STATE/reason"
  echo "$1" > "$STATE/exit_code"
}

# Where no launcher watches, the slice would cost money for ever.
delete_slice() {
  sleep @grace_seconds@
  say 'no launcher has deleted the slice; deleting it'
  gcloud --quiet compute tpus queued-resources delete @name@ @where@ \
    --force --async
}

number() {
  metadata=http://metadata.google.internal/computeMetadata/v1/instance
  curl -fsS --max-time 10 -H 'Metadata-Flavor: Google' \
    "$metadata/attributes/agent-worker-number"
}

rm -f "$STATE/exit_code" "$STATE/reason"
tries=0
# The network and apt may not be ready right after a boot.
until prepare; do
  tries=$((tries + 1))
  if [ "$tries" -ge @prepare_tries@ ] \
    || [ "$SECONDS" -ge @prepare_seconds@ ]; then
    give_back @unavailable@ "$step failed; $tries tries in $SECONDS s"
    delete_slice
    exit
  fi
  sleep 20
done
apart=0
for restart in $(seq 0 @restarts@); do
  say "start $restart"
  docker rm --force cdm > /dev/null 2>&1
  run
  code=$?
  say "exit code $code"
  case $code in
    # Complete; or bad input, NaN, data, memory: it would end so again.
    @final@) break ;;
    # The hosts did not find each other. Another one may still be booting;
    # but three times in a row it will not come.
    @never_joined@)
      apart=$((apart + 1))
      if [ "$apart" -eq 3 ]; then break; fi
      ;;
    *) apart=0 ;;
  esac
  sleep 10
done
give_back "$code"
# Host 0 ends last: it may still be writing when the others have ended.
if [ "$(number)" = 0 ]; then delete_slice; fi
