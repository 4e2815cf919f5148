"""Averages of any width from snapshots, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support import tiny_run

from cdm.checkpointing import average_names, checkpoint_name
from cdm.checkpointing.snapshot_writer import SnapshotWriter
from cdm.ops import power_function
from cdm.sampling import posthoc_average
from cdm.training import ema

STEPS, EVERY, KEYS = 96, 4, ('std_0_05', 'std_0_1')
SLOPE = np.linspace(-0.03, 0.05, 24, dtype=np.float32).reshape(6, 4)


def params(t):
  """Parameters that move evenly, and some that go round."""
  angle = SLOPE * 40 * t / STEPS
  return {'even': SLOPE * t, 'round': np.sin(angle).astype(np.float32)}


def exact(std, steps=STEPS):
  """-> the average in float64, tracked from the first step."""
  gamma = power_function.exponent(std)
  average = jax.tree.map(np.zeros_like, params(0))
  for t in range(1, steps + 1):
    share = float(power_function.beta(t, gamma))
    average = jax.tree.map(
      lambda a, p, s=share: s * a.astype(np.float64) + (1 - s) * p,
      average,
      params(t),
    )
  return average


def abstract(place=None):
  place = place or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=place),
    params(0),
  )


def run(workdir, dtype, spoil=None):
  """Writes the snapshots of such parameters; -> the averages at the end."""
  averages = {key: ema.start(params(0)) for key in KEYS}
  kept = [
    ema.PowerFunction(power_function.exponent(average_names.width(key)))
    for key in KEYS
  ]

  @jax.jit
  def update(averages, params, step):
    return {
      key: average.update(averages[key], params, step)
      for key, average in zip(KEYS, kept, strict=True)
    }

  writer = SnapshotWriter(
    workdir, every_steps=EVERY, num_steps=STEPS, keys=KEYS, dtype=dtype
  )
  for step in range(STEPS):
    averages = update(averages, params(step + 1), step)
    if writer.is_due(step + 1):
      given = averages
      if spoil == step + 1:
        given = jax.tree.map(lambda x: x + 7e4, averages)
      writer.write(step + 1, given)
  writer.wait()
  return averages


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  return folder, run(folder, 'float32')


@pytest.fixture(scope='module')
def halves(tmp_path_factory):
  folder = tmp_path_factory.mktemp('halves')
  run(folder, 'float16')
  return folder


def test_a_width_that_was_kept_comes_back_to_the_bit(workdir):
  folder, averages = workdir
  for key in KEYS:
    std = average_names.width(key)
    made, fit = posthoc_average.make(
      posthoc_average.find(folder), abstract(), std
    )
    tiny_run.assert_same(made, averages[key])
    assert fit.gain == pytest.approx(1)


@pytest.mark.parametrize(
  ('std', 'step'), [(0.04, STEPS), (0.2, STEPS), (0.07, 48)]
)
def test_any_width_is_the_average_that_was_never_kept(workdir, std, step):
  folder, _ = workdir
  found = posthoc_average.find(folder, step)
  made, fit = posthoc_average.make(found, abstract(), std)
  expected = exact(std, step)
  # By the inequality of Cauchy and Schwarz: the responses differ by so much,
  # and the coefficients sum to 1, so that only changes matter.
  gamma = power_function.exponent(std)
  norm = np.sqrt(power_function.correlation(step, gamma, step, gamma))
  for name, average in expected.items():
    path = np.stack([params(t)[name] for t in range(1, step + 1)])
    change = np.sqrt(((path - path.mean(axis=0)) ** 2).sum(axis=0)).max()
    error = np.abs(np.asarray(made[name]) - average).max()
    assert error <= 1.02 * fit.residual * norm * change + 1e-6
  # theta_t = t has the average (gamma + 1) / (gamma + 2) t, but for the length
  # of a step.
  ideal = SLOPE * ((gamma + 1) / (gamma + 2) * step + 0.5)
  np.testing.assert_allclose(made['even'], ideal, rtol=5e-3)


def test_the_rounding_of_halves_is_what_is_told_of(workdir, halves):
  found = posthoc_average.find(halves)
  assert found.dtype == 'float16' and found.stds == [0.05, 0.1]
  for std in (0.035, 0.075):
    fine, fit = posthoc_average.make(
      posthoc_average.find(workdir[0]), abstract(), std
    )
    coarse, _ = posthoc_average.make(found, abstract(), std)
    relative = np.concatenate(
      [
        ((np.asarray(coarse[k]) - fine[k]) / np.asarray(fine[k])).ravel()
        for k in fine
      ]
    )
    noise = np.sqrt(np.nanmean(relative**2))
    assert 0.3 < noise / found.noise(fit) < 3


def test_the_sum_is_split_as_it_is_asked_for(workdir):
  folder, _ = workdir
  mesh = tiny_run.mesh(2, 4)
  place = NamedSharding(mesh, PartitionSpec(None, 'fsdp'))
  found = posthoc_average.find(folder)
  whole, _ = posthoc_average.make(found, abstract(), 0.07)
  split, _ = posthoc_average.make(found, abstract(place), 0.07)
  assert split['even'].sharding == place
  tiny_run.assert_same(split, whole, atol=1e-7)


def test_what_snapshots_do_not_express_is_refused(workdir):
  found = posthoc_average.find(workdir[0])
  low, high = posthoc_average.widths(found)
  assert low < 0.025 and 0.2 < high < power_function.MOST_STD
  for std in (low - 0.001, high + 0.001):
    with pytest.raises(ValueError, match=f'they express {low} to {high}'):
      posthoc_average.make(found, abstract(), std)
  for std in (low, high):
    posthoc_average.check(found, std, found.fits([std])[0])
  with pytest.raises(ValueError, match=r'std=0\.5: the width 0\.5 of an av'):
    posthoc_average.make(found, abstract(), 0.5)


def test_a_snapshot_that_overflowed_is_refused(tmp_path):
  run(tmp_path, 'float16', spoil=92)
  found = posthoc_average.find(tmp_path)
  with pytest.raises(ValueError, match="snapshot_dtype='float32'"):
    posthoc_average.make(found, abstract(), 0.07)


def test_a_run_without_snapshots_or_without_this_one_is_told(workdir, tmp_path):
  with pytest.raises(FileNotFoundError, match='--config.ema.power_stds='):
    posthoc_average.find(tmp_path)
  with pytest.raises(FileNotFoundError, match=r'no snapshot of step 5; there'):
    posthoc_average.find(workdir[0], 5)


def test_the_listing_says_what_there_is(workdir):
  lines = posthoc_average.listing(
    posthoc_average.find(workdir[0]), (0.001, 0.05)
  )
  assert lines[0] == (
    '24 snapshots of the widths 0.05 and 0.1 in float32, steps 4, 8, ..., 96'
  )
  assert lines[4].startswith('0.001') and lines[4].endswith('not expressed')
  assert lines[5].split() == ['0.05', '0.00%', '0.000%']


def test_names_are_read_in_one_way_and_back():
  for text, name, key in (
    ('0.05', 'std=0.05', 'std_0_05'),
    ('std=0.10', 'std=0.1', 'std_0_1'),
    ('decay=0.9999', 'decay=0.9999', 'decay_0_9999'),
    ('half_life_images=5e5', 'half_life_images=500000', None),
    ('decay=1e-7', 'decay=1e-07', 'decay_1e-07'),
  ):
    assert average_names.canonical(text) == name
    assert average_names.name_of(average_names.key(name)) == name
    assert key is None or average_names.key(name) == key
  assert average_names.canonical('main') == 'main'


def test_a_checkpoint_and_its_average_are_one_value():
  for at in (None, 40, 'best'):
    assert checkpoint_name.joined(at, 'main') == at
    both = checkpoint_name.joined(at, 'std=0.05')
    assert checkpoint_name.split(both) == (at, 'std=0.05')
    assert checkpoint_name.joined(both, 'main') == at
  assert checkpoint_name.split('40') == ('40', 'main')
