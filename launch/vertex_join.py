"""Runs a command on a machine of Vertex AI, telling cdm of the others.

  python vertex_join.py cdm train ...

CLUSTER_SPEC, which Vertex AI sets, names all machines and this one.
"""

import json
import os
import sys

PORT = 8476


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


if __name__ == '__main__':
  os.environ.update(variables(os.environ.get('CLUSTER_SPEC')))
  os.execvp(sys.argv[1], sys.argv[1:])
