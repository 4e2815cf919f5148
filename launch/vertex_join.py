"""Runs a command on a machine of Vertex AI, telling cdm of the others.

  python vertex_join.py cdm train ...

CLUSTER_SPEC, which Vertex AI sets, names all machines and this one. Vertex AI
shuts a job down whose program ends with an error, but for the codes of SIGABRT
and SIGSEGV, after which it starts the job again, up to three times. So what
another start may mend ends with the code of SIGABRT here.
"""

import json
import os
import signal
import subprocess
import sys

from targets.plan import FAULT, KILLED, LOST, PREEMPTED

PORT = 8476
# docs.cloud.google.com/vertex-ai/docs/training/understanding-training-service
STARTED_AGAIN = 128 + signal.SIGABRT


def variables(cluster_spec):
  """-> {name: value} for cdm; empty for a job of one machine.

  Args:
    cluster_spec: JSON text, {'cluster': {pool: [HOST:PORT, ...]}, 'task':
      {'type': pool, 'index': number within the pool}}; or None.
  """
  spec = json.loads(cluster_spec or '{}')
  cluster = spec.get('cluster', {})
  pools = sorted(cluster)  # workerpool0, workerpool1
  machines = [(pool, i) for pool in pools for i in range(len(cluster[pool]))]
  if len(machines) < 2:
    return {}
  first = cluster[pools[0]][0].rpartition(':')[0] or cluster[pools[0]][0]
  here = (spec['task']['type'], int(spec['task']['index']))
  return {
    'CDM_COORDINATOR_ADDRESS': f'{first}:{PORT}',
    'CDM_NUM_PROCESSES': str(len(machines)),
    'CDM_PROCESS_ID': str(machines.index(here)),
  }


def run(words):
  """Runs the command, with its signals. -> the code that Vertex AI gets."""
  process = subprocess.Popen(words)
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: process.send_signal(number))
  code = process.wait()
  code = code if code >= 0 else 128 - code
  if code not in (FAULT, PREEMPTED, LOST, *KILLED):
    return code
  print(f'exit code {code}; Vertex AI may start again', file=sys.stderr)
  return STARTED_AGAIN


if __name__ == '__main__':
  os.environ.update(variables(os.environ.get('CLUSTER_SPEC')))
  sys.exit(run(sys.argv[1:]))
