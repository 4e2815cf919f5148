"""SR3 unconditional face cascade to 1024: 64 -> 256 -> 1024. [SR3].

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/sr3_faces64.py --workdir=DIR/base64
  cdm train --config=configs/sr3_faces64to256.py --workdir=DIR/sr256
  cdm train --config=configs/sr3_faces256to1024.py --workdir=DIR/sr1024
  cdm sample --config=configs/sr3_faces_cascade1024.py \\
    --workdir=DIR --num=64 --out=SAMPLES

The paper lets the base take more refinement steps than the later stages; here
1000, 100 and 100.
Hardware: that of the stages to train them.
Parameters: 834,658,489 over the stages, 3.34 GB in float32 to sample.
Paper: images only, no numbers.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'sr3_faces_cascade1024'
  c.seed = 0
  c.stages = (
    dict(
      name='base64',
      config='sr3_faces64',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr256',
      config='sr3_faces64to256',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr1024',
      config='sr3_faces256to1024',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    source='[SR3], images only',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
