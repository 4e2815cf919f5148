"""The software of TPU slices: its version by the kind of the slice."""

# By the first word of the accelerator's type, as the Cloud TPU API and
# SkyPilot name it; docs.cloud.google.com/tpu/docs/runtimes.
RUNTIMES = {
  'v2': 'tpu-ubuntu2204-base',
  'v3': 'tpu-ubuntu2204-base',
  'v4': 'tpu-ubuntu2204-base',
  'v5litepod': 'v2-alpha-tpuv5-lite',
  'v5p': 'v2-alpha-tpuv5',
  'v6e': 'v2-alpha-tpuv6e',
}
# Of these kinds the Cloud TPU API knows nothing: it receives fixes only, and
# new kinds come to Compute Engine and GKE;
# docs.cloud.google.com/tpu/docs/tpus-in-compute-engine.
COMPUTE_ENGINE_ALONE = ('tpu7x',)


def runtime(type_):
  """-> the software version of a slice such as v5litepod-16.

  Raises:
    ValueError: the kind is unknown, or the Cloud TPU API has no such slices.
  """
  kind = type_.partition('-')[0]
  if kind in COMPUTE_ENGINE_ALONE:
    raise ValueError(
      f'--type={type_}: the Cloud TPU API, which this target uses, has no '
      f'{kind}; Compute Engine and GKE have it. Use the target gke with '
      f'--tpu={kind}.'
    )
  if kind not in RUNTIMES:
    raise ValueError(
      f'--type={type_}: no software version is known for {kind!r}; name it '
      f'with --runtime. Known: {", ".join(RUNTIMES)}.'
    )
  return RUNTIMES[kind]
