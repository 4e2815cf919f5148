#!/usr/bin/env bash
# Sets everything up, trains a small cascade on real photographs, draws from it
# and super-resolves held-out ones. Run again, it continues or reuses.
#
#   bash launch/demo.sh [DIRECTORY]     (default: runs/demo)
#
# It runs on the CPU; CDM_DEMO_PLATFORMS=cuda or tpu asks for a device.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh
set_up

RUN=${1:-runs/demo}
if ! mkdir -p "$RUN" 2>/dev/null || [ ! -w "$RUN" ]; then
  refuse "$RUN cannot be written to. Name a folder: bash $0 DIRECTORY"
  exit 1
fi
# The demo is made for CPUs and shows the same on every machine. What a module
# or a notebook exports as JAX_PLATFORMS does not change that.
export JAX_PLATFORMS=${CDM_DEMO_PLATFORMS:-cpu} TF_CPP_MIN_LOG_LEVEL=3

cdm() {
  printf '\n$ cdm'
  printf ' %q' "$@"
  printf '\n'
  "$PYTHON" -m cdm "$@"
}

cdm train --config=configs/photos8.py --workdir="$RUN/base"
cdm train --config=configs/photos8to32.py --workdir="$RUN/sr"
cdm sample --config=configs/photos_cascade32.py --workdir="$RUN" \
  --num=48 --seed=0 --out="$RUN/samples"
cdm upscale --workdir="$RUN/sr" --held_out=60 --batch_size=60 \
  --out="$RUN/held_out"
cdm evaluate --samples="$RUN/held_out/upscaled" \
  --reference="$RUN/held_out/original" --lowres="$RUN/held_out/lowres" \
  --downsample=area --out="$RUN/held_out/row.json" --overwrite > /dev/null
cdm report --run="$RUN/base" --run="$RUN/sr" --samples="$RUN/samples" \
  --upscaled="$RUN/held_out" --row="$RUN/held_out/row.json" --out="$RUN" \
  --title='Cascaded diffusion on photographs, 8 to 32 pixels'
