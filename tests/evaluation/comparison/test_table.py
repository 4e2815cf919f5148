"""The table of a comparison says what the rows say."""

from cdm.evaluation.comparison import paper_numbers, table


def row(method, **scores):
  return {'method': method, 'kind': 'stage', 'scores': scores}


ROWS = [
  row('bicubic', psnr=22.452, ssim=0.6251, consistency=4.5e-4),
  {
    **row('sr3', psnr=23.041, ssim=0.6249, consistency=2.68e-5),
    'seconds_per_image': 0.0123,
    'cost': {'parameters': 1234567, 'flops': 3.2e15, 'seconds': 5400.0},
  },
  row('theirs', psnr=None, ssim=0.1),
]


def lines(**given):
  return table.markdown(ROWS, **given).splitlines()


def test_the_best_is_bold_as_it_is_shown():
  head, _, bicubic, sr3, theirs = lines()
  assert head.startswith('| method | PSNR, dB ↑ | SSIM ↑ | Consistency, 1e-5 ↓')
  assert bicubic.startswith('| bicubic | 22.45 | **0.625** | 45.00 |')
  # Two that look alike are both the best.
  assert sr3.startswith('| sr3 | **23.04** | **0.625** | **2.68** |')
  assert theirs.startswith('| theirs | – | 0.100 | – |')


def test_what_a_method_costs():
  assert lines()[3].endswith('| 12.3 ms | 1,234,567 | 3.2 PFLOP | 1.50 |')
  assert lines()[2].endswith('| – | – | – | – |')


def test_the_numbers_of_a_paper_stand_beside_ours():
  published = paper_numbers.Published(
    'faces',
    ('psnr', 'ssim'),
    {'SR3': {'psnr': '23.04'}, 'PULSE': {'psnr': '16.88', 'ssim': '0.44'}},
  )
  head, _, bicubic, sr3, _, pulse, _, note = lines(published=published)
  assert '| PSNR of the paper | SSIM of the paper |' in head
  assert '| 2.68 | 23.04 | – |' in sr3.replace('**', '')
  assert bicubic.count('–') == 6
  assert note.startswith('The paper: faces. Other images')
  assert pulse.startswith('| PULSE, not run here | – | – | – | 16.88 | 0.44 |')
