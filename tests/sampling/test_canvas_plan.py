"""How pictures are cut: every pixel, within the memory, with little work."""

import itertools

import pytest

from cdm.distributed import device_mesh
from cdm.methods.lowres_conditioning import Lowres
from cdm.sampling import canvas_plan
from cdm.sampling.canvas_plan import Cut, plan
from cdm.sampling.drawing_stage import Stage

CUT = Cut(size=256, factor=4, unit=32, overlap=64, reach=0)
EXACT = CUT._replace(reach=30)


def stage(size=256, low=64, margin=0):
  return Stage(
    name='photo',
    image_size=size,
    sample=lambda *_, **__: None,
    params={},
    lowres=Lowres(size=low),
    margin=margin,
  )


def test_a_cut_follows_from_the_stage():
  assert canvas_plan.cut_of(stage()) == CUT
  assert canvas_plan.cut_of(stage(), overlap=0.5).overlap == 128
  # 2 * 40 pixels do not count, in units of 32.
  assert canvas_plan.cut_of(stage(margin=10)) == CUT._replace(
    reach=40, overlap=96
  )


def test_a_reach_too_long_for_a_window_counts_as_unknown():
  assert canvas_plan.cut_of(stage(margin=32)) == CUT


def test_units_hold_whole_low_res_pixels_and_squares_of_the_network():
  for size, low in [(96, 32), (128, 16), (64, 64), (8, 1), (48, 8), (9, 3)]:
    cut = canvas_plan.cut_of(stage(size, low))
    assert size % cut.unit == 0 and cut.unit % cut.factor == 0
    assert 0 <= cut.overlap < size and cut.overlap % cut.unit == 0


def test_an_overlap_out_of_range_is_refused():
  with pytest.raises(ValueError, match='overlap of windows is 0.7; use a part'):
    canvas_plan.cut_of(stage(), overlap=0.7)


@pytest.mark.parametrize('cut', [CUT, EXACT])
@pytest.mark.parametrize('evaluations', [1, 20])
@pytest.mark.parametrize(
  'size', [(4, 4), (1020, 2048), (9001, 6003), (40, 50_000)]
)
def test_blocks_cover_every_window_within_the_memory(cut, evaluations, size):
  memory = 1 << 30
  made = plan(cut, size, evaluations=evaluations, at_once=8, memory=memory)
  for windows, blocks, pixels in [
    (made.rows, made.block_rows, size[0]),
    (made.columns, made.block_columns, size[1]),
  ]:
    assert windows[0][0] == 0 and pixels <= windows[-1][1]
    assert windows[-1][1] == max(cut.size, -(-pixels // cut.unit) * cut.unit)
    assert all(start % cut.unit == 0 for start, _ in windows)
    assert blocks[0][0] == 0 and blocks[-1][1] == len(windows)
    sizes = {last - first for first, last in blocks}
    assert max(sizes) - min(sizes) <= (made.shared == 0)
    assert max(sizes) == blocks[0][1] - blocks[0][0]
    for (_, last), (first, _) in itertools.pairwise(blocks):
      assert last - first >= made.shared
      if made.shared:
        pixels = windows[last - 1][1] - windows[first][0]
        assert pixels >= max(cut.size, 2 * made.margin)
      else:
        assert last == first
  assert made.bytes < 1.05 * memory
  one_block = len(made.block_rows) == len(made.block_columns) == 1
  assert (made.shared == 0) == (evaluations == 1)
  if one_block or evaluations == 1:
    assert made.is_exact
  blocks_are_exact = made.is_exact and not one_block and evaluations > 1
  assert made.margin == (cut.reach * evaluations if blocks_are_exact else 0)


def test_exact_blocks_that_cost_too_much_are_given_up():
  size = (9000, 9000)
  cheap = plan(EXACT, size, evaluations=4, at_once=8, memory=1 << 29)
  assert cheap.is_exact and len(cheap.block_rows) > 1
  dear = plan(EXACT, size, evaluations=100, at_once=8, memory=1 << 29)
  assert not dear.is_exact and dear.margin == 0


def test_a_photograph_of_24_megapixels_fits_the_memory_at_four_times():
  """Windows overlap by a quarter, and blocks by one window but in one step."""
  for evaluations, more in [(1, 1.01), (20, 1.35)]:
    made = plan(CUT, (16_000, 24_000), evaluations=evaluations, at_once=4)
    assert made.bytes < 1.1e9
    assert made.work < (4 / 3) ** 2 * more


def test_more_memory_is_never_more_work():
  works = [
    plan(CUT, (8000, 12_000), evaluations=2, at_once=4, memory=m << 20).work
    for m in (100, 300, 1000, 3000, 30_000)
  ]
  assert works == sorted(works, reverse=True)
  assert works[-1] == pytest.approx((4 / 3) ** 2, rel=0.05)


def test_what_does_not_fit_takes_the_smallest_blocks_and_says_so():
  made = plan(CUT, (4000, 4000), evaluations=2, at_once=1, memory=1000)
  assert made.bytes > 1000
  assert made.block_rows[0] == (0, 2) and made.block_columns[0] == (0, 2)


def test_windows_are_counted_with_every_evaluation_and_picture():
  made = plan(CUT, (256, 448), evaluations=5, at_once=1, count=3)
  assert len(made.columns) == 2 and made.num_windows == 2 * 5 * 3
  assert made.work == 2 * 256 / 448


@pytest.mark.parametrize(
  ('counts', 'batch_size', 'expected'),
  [
    ([1], 32, 1),
    ([20], 16, 10),
    ([33], 32, 17),
    ([1000], 32, 28),
    ([1, 1, 1, 64], 32, 8),
    ([5], 4, 3),
  ],
)
def test_the_batch_size_wastes_few_windows(counts, batch_size, expected):
  assert canvas_plan.windows_at_once(counts, batch_size, None) == expected


def test_a_batch_divides_over_the_mesh():
  mesh = device_mesh.make_mesh(data=4, fsdp=2)
  assert canvas_plan.windows_at_once([32], 16, mesh) == 16
  assert canvas_plan.windows_at_once([20], 16, mesh) == 8
  assert canvas_plan.windows_at_once([20], 4, mesh) == 8
