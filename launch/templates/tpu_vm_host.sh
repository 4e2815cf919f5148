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

mount_storage() {
  mountpoint --quiet "$MOUNT" && return
  mkdir -p "$MOUNT"
  case "$STORAGE" in
    gs://*)
      key=/usr/share/keyrings/cloud.google.asc
      apt=https://packages.cloud.google.com/apt
      curl -fsS "$apt/doc/apt-key.gpg" > "$key"
      echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" \
        > /etc/apt/sources.list.d/gcsfuse.list
      apt-get update -q && apt-get install -qy gcsfuse
      gcsfuse --implicit-dirs -o allow_other "${STORAGE#gs://}" "$MOUNT"
      ;;
    *)
      apt-get update -q && apt-get install -qy nfs-common
      mount -t nfs "$STORAGE" "$MOUNT"
      ;;
  esac
}

run() {
  # A TPU's devices belong to root.
  docker run --rm --init --name=cdm --privileged --network=host --user=0:0 \
    --shm-size=@shared_memory@ --stop-timeout=300 --volume="$MOUNT:$MOUNT" \
    --ulimit=nofile=@open_files@:@open_files@ \
    --env=@cache@ "$IMAGE" \
    @command@
}

rm -f "$STATE/exit_code"
# The network and apt may not be ready right after a boot.
until mount_storage && gcloud --quiet auth configure-docker @store@ \
  && docker pull --quiet "$IMAGE"; do
  sleep 20
done
apart=0
for restart in $(seq 0 @restarts@); do
  echo "$(date +%FT%T%z) start $restart"
  docker rm --force cdm > /dev/null 2>&1
  run
  code=$?
  echo "$(date +%FT%T%z) exit code $code"
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
echo "$code" > "$STATE/exit_code"
