"""A weight of guidance is shown with its law and with what others print."""

from cdm.evaluation import result_line, sweep
from cdm.reporting import guidance_weight

FREE = '0.5 (eps_c + w (eps_c - eps_u); 0 is none; others print 1 + w = 1.5)'
WEAKER = '0.5 (D + w (D - D_guide); 0 is none; others print 1 + w = 1.5)'
GUIDE = {'workdir': 'runs/small', 'experiment': 'smoke', 'checkpoint': 500}
SAMPLERS = {
  'plain': {'kind': 'ddim', 'guidance_weight': 0.0},
  'free': {'kind': 'ddim', 'guidance_weight': 0.5},
  'guided': {'kind': 'ddim', 'guidance_weight': 0.5, 'guide': GUIDE},
}
STAGES = [
  {'name': name, 'checkpoint': 4, 'sampler': sampler}
  for name, sampler in SAMPLERS.items()
]


def test_the_start_of_drawing_tells_it_of_each_guided_stage():
  regression = {'name': 'none', 'checkpoint': 4, 'sampler': {}}
  assert guidance_weight.start_lines([*STAGES, regression]) == [
    f'free: guidance weight: {FREE}',
    f'guided: guidance weight: {WEAKER}, guided by runs/small, step 500',
  ]


def test_the_line_of_a_result_tells_it():
  shown = result_line.describe_sampling({'seed': 0, 'stages': STAGES})
  assert shown[1] == 'plain: step 4, EMA, ddim, full grid'
  assert shown[2] == f'free: step 4, EMA, ddim, full grid, guidance {FREE}'
  assert shown[3].endswith(f'guidance {WEAKER} by runs/small, step 500')


def test_the_table_of_a_sweep_tells_it():
  def row(weight, fid):
    setting = [('sampler.guidance_weight', weight), ('level', '0.1')]
    return {
      'setting': setting, 'fid': fid, 'n': 8, 'samples': 'a', 'reference': 'b'
    }  # fmt: skip

  text = sweep.table([row('0', 3.0), row('0.5', 2.0)], ['fid'], 1)
  lines = text.splitlines()
  assert lines[2].startswith('| 0 (1 + w = 1) | 0.1 | 3')
  assert lines[3].startswith('| **0.5 (1 + w = 1.5)** | **0.1** | **2')
  assert lines[-1] == guidance_weight.NOTE
  assert '0 is none' in guidance_weight.NOTE
