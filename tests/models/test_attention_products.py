"""The forms of attention give the numbers of NumPy in float64."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.distributed import device_mesh
from cdm.models import attention_products, flops, live_bytes

FORMS = {
  'plain': attention_products.plain,
  'blocked': attention_products.blocked,
  'few_images': attention_products.few_images,
}
# B, N, heads, d: fewer pixels than a block, whole blocks of 4, and a rest.
SHAPES = [(2, 3, 1, 5), (1, 8, 2, 4), (2, 13, 3, 2), (1, 17, 1, 1)]


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(attention_products, 'LEAST_QUERIES', 4)
  monkeypatch.setattr(attention_products, 'PLAIN_WEIGHTS', 16)
  monkeypatch.setattr(attention_products, 'CACHED_WEIGHTS', 16)


def normals(*shape, seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  return [scale * rng.standard_normal(shape) for _ in range(4)]


def expected(q, k, v):
  """In NumPy: [B, N, heads, d]."""
  out = np.zeros_like(q)
  for b in range(q.shape[0]):
    for i in range(q.shape[2]):
      logits = q[b, :, i] @ k[b, :, i].T / math.sqrt(q.shape[3])
      p = np.exp(logits - logits.max(axis=1, keepdims=True))
      out[b, :, i] = p / p.sum(axis=1, keepdims=True) @ v[b, :, i]
  return out


def slopes(q, k, v, probe, step=1e-6):
  """The gradients of sum(expected * probe), by central differences."""
  found = []
  for n in range(3):
    slope = np.zeros_like(q)
    for place in np.ndindex(q.shape):
      ends = []
      for sign in (1, -1):
        given = [x.copy() for x in (q, k, v)]
        given[n][place] += sign * step
        ends.append((expected(*given) * probe).sum())
      slope[place] = (ends[0] - ends[1]) / (2 * step)
    found.append(slope)
  return found


def gradients(form, q, k, v, probe):
  def loss(q, k, v):
    out = form(q, k, v)
    return (out.astype(probe.dtype) * probe).sum()

  return jax.grad(loss, (0, 1, 2))(q, k, v)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('form', FORMS)
def test_a_form_is_a_softmax_over_all_keys(form, shape):
  q, k, v, probe = normals(*shape)
  with jax.enable_x64(True):
    given = [jnp.asarray(x) for x in (q, k, v, probe)]
    out = FORMS[form](*given[:3])
    found = gradients(FORMS[form], *given)
  np.testing.assert_allclose(out, expected(q, k, v), atol=1e-12)
  for mine, slope in zip(found, slopes(q, k, v, probe), strict=True):
    np.testing.assert_allclose(mine, slope, atol=1e-7)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('form', FORMS)
def test_large_logits_choose_one_key_and_overflow_nowhere(form):
  """Logits around 1e6 are far beyond the exponent of float32."""
  q, k, v, probe = (jnp.asarray(x, jnp.float32) for x in normals(1, 9, 1, 4))
  out = FORMS[form](1e3 * q, 1e3 * k, v)
  largest = np.einsum('qd,kd->qk', q[0, :, 0], k[0, :, 0]).argmax(axis=1)
  np.testing.assert_allclose(out[0, :, 0], v[0, largest, 0], atol=1e-6)
  for gradient in gradients(FORMS[form], 1e3 * q, 1e3 * k, v, probe):
    assert np.isfinite(gradient).all()


@pytest.mark.usefixtures('small_blocks')
def test_blocks_lose_no_more_of_bfloat16_than_all_at_once():
  """Against float32; root mean squares of the errors.

  Measured, of plain's: 1.00 of the result, 0.90 to 1.00 of the gradients.
  """
  low = [jnp.asarray(x, jnp.bfloat16) for x in normals(2, 65, 2, 16)[:3]]
  high = [x.astype(jnp.float32) for x in low]
  probe = jnp.asarray(normals(2, 65, 2, 16)[3], jnp.float32)

  def found(form, given):
    given = (form(*given), *gradients(form, *given, probe))
    return [np.asarray(x, np.float32) for x in given]

  exact = found(FORMS['plain'], high)
  plain, blocked = (
    [np.sqrt(((a - b) ** 2).mean()) for a, b in zip(rows, exact, strict=True)]
    for rows in (found(FORMS['plain'], low), found(FORMS['blocked'], low))
  )
  assert all(np.asarray(blocked) <= 1.02 * np.asarray(plain)), (plain, blocked)


def test_a_compiled_program_of_blocks_has_no_array_of_all_weights():
  n = 768
  x = jax.ShapeDtypeStruct((1, n, 1, 4), jnp.float32)

  def compiled(form):
    probe = jnp.ones(x.shape)
    program = jax.jit(lambda *given: gradients(FORMS[form], *given, probe))
    return program.lower(x, x, x).compile()

  def largest(program):
    shapes = re.findall(r'\w\d+\[([\d,]+)\]', program.as_text())
    return max(math.prod(map(int, text.split(','))) for text in shapes)

  plain, blocked = compiled('plain'), compiled('blocked')
  block = attention_products.block_size(n)
  assert block < n
  assert largest(plain) == n * n  # so the search sees them
  assert largest(blocked) == block * n
  bytes_of = [
    program.memory_analysis().temp_size_in_bytes for program in (plain, blocked)
  ]
  assert bytes_of[1] < 0.8 * bytes_of[0]


def test_live_bytes_and_flops_see_what_blocks_save():
  """64 x 64 pixels, 4 heads, 8 images: 2 GiB of logits, and of weights."""
  x = jax.ShapeDtypeStruct((8, 4096, 4, 64), jnp.bfloat16)
  plain, blocked = (
    jax.make_jaxpr(FORMS[form])(x, x, x) for form in ('plain', 'blocked')
  )
  assert live_bytes.count(plain) > 2 * 2**31
  assert live_bytes.count(blocked) < 2**29
  assert flops.count_flops(plain) == 4 * 8 * 4 * 4096**2 * 64
  odd = jax.ShapeDtypeStruct((1, 4099, 1, 8), jnp.float32)
  blocked_odd = jax.make_jaxpr(attention_products.blocked)(odd, odd, odd)
  assert flops.count_flops(blocked) == flops.count_flops(plain)
  assert flops.count_flops(blocked_odd) == 4 * 4099**2 * 8


@pytest.mark.parametrize(
  ('n', 'form', 'is_blocked'),
  [
    (256, 'auto', False),  # the largest of the configs
    (512, 'auto', False),
    (513, 'auto', True),
    (4096, 'plain', False),
    (4, 'blocked', True),
    (4, 'fused', True),  # CPUs have no kernel
  ],
)
def test_few_pixels_are_plain_unless_a_form_is_named(n, form, is_blocked):
  x = jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)
  program = jax.make_jaxpr(
    lambda q, k, v: attention_products.attend(q, k, v, form)
  )(x, x, x)
  assert ('scan[' in str(program)) == is_blocked


@pytest.mark.parametrize(('n', 'count'), [(256, 4), (64, 16), (512, 1)])
def test_a_cpu_computes_so_many_images_at_once_as_its_cache_holds(n, count):
  """16 images of 4 heads; a mesh of CPUs splits them in two before."""
  mesh = device_mesh.make_mesh(data=2, devices=jax.devices()[:2])
  x = jax.ShapeDtypeStruct((32, n, 4, 8), jnp.float32)

  def loss(q, k, v):
    return attention_products.attend(q, k, v, 'auto').sum()

  step = device_mesh.in_mesh(jax.grad(loss, (0, 1, 2)), mesh)
  program = str(jax.make_jaxpr(step)(x, x, x))
  # What a gradient keeps has the images of both devices outside of them.
  sizes = re.findall(rf'f32\[(\d+),4,{n},{n}\]', program)
  assert min(map(int, sizes)) == count
  assert ('scan[' in program) == (count < 16)


@pytest.mark.parametrize('n', [1, 127, 512, 513, 1024, 4096, 4099, 65536])
def test_the_weights_of_a_block_grow_with_the_pixels_and_not_their_square(n):
  size = attention_products.block_size(n)
  assert 1 <= size <= n
  assert size * n <= max(attention_products.PLAIN_WEIGHTS, 128 * n)
  assert size >= min(n, 128)
