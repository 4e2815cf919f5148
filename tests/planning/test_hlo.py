"""Collectives and loops, read from a compiled program's text."""

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.planning import hlo


def text(*, entry, others=''):
  body = textwrap.indent(textwrap.dedent(entry).strip(), '  ')
  return (
    f'HloModule jit_step, num_partitions=8\n\n{textwrap.dedent(others)}\n'
    f'ENTRY %main (p: f32[8]) -> f32[8] {{\n{body}\n}}\n'
  )


def read(**parts):
  return hlo.collectives(text(**parts), devices=8)


@pytest.mark.parametrize(
  ('line', 'kind', 'payload', 'group', 'wire'),
  [
    (
      '%a = f32[4,6]{1,0} all-reduce(%p), replica_groups={{0,1,2,3},{4,5,6,7}}'
      ', to_apply=%add',
      *('all-reduce', 96, 4, 2 * 96 * 3 / 4),
    ),
    (
      '%a = (bf16[4]{0:T(128)S(1)}, /*index=1*/f32[2,2]{1,0}) all-reduce(%p, '
      '%q), replica_groups=[1,8]<=[8], to_apply=%add',
      *('all-reduce', 8 + 16, 8, 2 * 24 * 7 / 8),
    ),
    (
      '%a = bf16[8,4]{1,0} all-gather(%p), replica_groups=mesh'
      "['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}"
      ', dimensions={0}',
      *('all-gather', 64, 4, 64 * 3 / 4),
    ),
    (
      '%a = (f32[2]{0}, f32[8]{0}) all-gather-start(%p), '
      'replica_groups=[2,4]<=[8], dimensions={0}',
      *('all-gather', 32, 4, 32 * 3 / 4),
    ),
    (
      '%a = f32[2]{0} reduce-scatter(%p), replica_groups=[2,4]<=[4,2]T(1,0), '
      'dimensions={0}',
      *('reduce-scatter', 32, 4, 32 * 3 / 4),
    ),
    (
      '%a = f32[8]{0} all-to-all(%p), replica_groups={}',
      *('all-to-all', 32, 8, 32 * 7 / 8),
    ),
    (
      '%a = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%p),'
      ' source_target_pairs={{0,1},{1,0}}',
      *('collective-permute', 32, 8, 32),
    ),
  ],
)
def test_a_collective_has_its_kind_bytes_and_group(
  line, kind, payload, group, wire
):
  (found,) = read(entry=line)
  assert (found.kind, found.payload_bytes, found.group) == (
    kind,
    payload,
    group,
  )
  assert found.wire_bytes == wire


@pytest.mark.parametrize(
  ('groups', 'slices'),
  [
    ('replica_groups={{0,1,2,3},{4,5,6,7}}', 1),
    ('replica_groups={{0,4},{1,5},{2,6},{3,7}}', 2),
    ('replica_groups=[2,4]<=[8]', 1),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', 2),
    ('replica_groups=[2,4]<=[4,2]T(1,0)', 2),
    ('replica_groups={}', 2),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 1),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", 2),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", 2),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([8]) {'b'}", 1),
  ],
)
def test_a_group_lies_in_as_many_slices_as_its_devices(groups, slices):
  line = f'%a = f32[8]{{0}} all-reduce(%p), {groups}, to_apply=%add'
  (found,) = hlo.collectives(text(entry=line), devices=8, num_slices=2)
  assert found.slices == slices


@pytest.mark.parametrize(
  ('pairs', 'between'), [('{0,1},{1,0}', 0), ('{3,4},{4,3}', 32)]
)
def test_a_permutation_sends_between_slices_where_a_pair_does(pairs, between):
  line = (
    '%a = f32[8]{0} collective-permute(%p), channel_id=1, '
    f'source_target_pairs={{{pairs}}}'
  )
  (found,) = hlo.collectives(text(entry=line), devices=8, num_slices=2)
  assert (found.between_bytes, found.wire_bytes) == (between, 32 - between)


def test_what_leaves_a_slice_is_counted_apart_from_what_does_not():
  """Sixteen devices of two slices sum 960 bytes: first eight, then pairs."""
  line = '%a = f32[240]{0} all-reduce(%p), replica_groups=[1,16]<=[16]'
  found = hlo.collectives(text(entry=line), devices=16, num_slices=2)
  assert hlo.summary(found) == {
    'all-reduce': {
      'count': 1,
      'payload_bytes': 960,
      'wire_bytes': 2 * 960 * 7 // 8,
    },
    'all-reduce between slices': {
      'count': 1,
      'payload_bytes': 120,
      'wire_bytes': 2 * 120 // 2,
    },
  }


# As libtpu 0.0.50.1 writes the sum of a gradient over two slices v5e:4x4.
MEGASCALE = """
  %s = f32[4]{0} reduce-scatter(%p), channel_id=1, replica_groups={{0,1,2,3},{4,, metadata={op_name="barrier"}
  %r = f32[4]{0} reduce-scatter(%q), channel_id=1, replica_groups={{0,1,2,3},{4,, metadata={op_name="barrier"}
  %send = (f32[4]{0:T(128)}, u32[]{:S(2)}, token[]) send(%s, %t), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[4]{0:T(128)}, u32[]{:S(2)}, token[]) recv(%t), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %g = f32[16]{0} all-gather(%d), channel_id=1, replica_groups={{0,1,2,3},{4,
"""  # noqa: E501


def test_a_transfer_of_the_host_is_what_a_slice_sends_to_the_others():
  lines = MEGASCALE.replace('{4,', '{4,5,6,7}}')
  found = hlo.collectives(text(entry=lines), devices=16, num_slices=2)
  assert {
    kind: (row['count'], row['payload_bytes'])
    for kind, row in hlo.summary(found).items()
  } == {
    'reduce-scatter': (2, 2 * 64),
    'all-gather': (1, 64),
    'all-reduce between slices': (1, 16),
  }


def test_the_end_of_an_asynchronous_one_counts_nothing():
  found = read(
    entry="""
    %s = f32[8]{0} all-reduce-start(%p), replica_groups=[1,8]<=[8]
    %d = f32[8]{0} all-reduce-done(%s)
    """
  )
  assert [one.kind for one in found] == ['all-reduce']


def test_pieces_that_share_a_channel_are_one():
  part = """
  %{0} (q: f32[8]) -> f32[8] {{
    %g = f32[8]{{0}} all-gather(%q), channel_id=7, replica_groups=[1,8]<=[8]
  }}
  """
  found = read(
    entry="""
    %a = f32[8]{0} fusion(%p), kind=kCustom, calls=%begin
    %b = f32[8]{0} fusion(%a), kind=kCustom, calls=%finish
    """,
    others=textwrap.dedent(part.format('begin'))
    + textwrap.dedent(part.format('finish')),
  )
  assert len(found) == 1


def test_layers_that_share_a_channel_are_as_many_as_their_names():
  line = (
    '%{0} = f32[8]{{0}} all-gather(%p), channel_id=1, '
    'replica_groups=[1,8]<=[8], metadata={{op_name="jit(step)/{1}/gather"}}'
  )
  layers = ('conv1', 'conv2', 'conv2')  # the last two are pieces of one
  entry = [line.format(f'a{i}', layer) for i, layer in enumerate(layers)]
  assert len(read(entry='\n'.join(entry))) == 2


def test_sums_over_other_groups_that_share_channel_and_name_are_two():
  line = (
    '%{0} = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={1}, '
    'to_apply=%add, metadata={{op_name="jit(step)/shard_map/psum"}}'
  )
  groups = ('[1,8]<=[8]', '[4,2]<=[2,4]T(1,0)', '[1,8]<=[8]')
  entry = [line.format(f'a{i}', each) for i, each in enumerate(groups)]
  assert len(read(entry='\n'.join(entry))) == 2


def test_one_device_alone_exchanges_nothing():
  line = '%a = f32[8]{0} all-reduce(%p), replica_groups={{0},{1}}'
  assert read(entry=line) == []


LOOP = """
%body (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups=[1,8]<=[8]
}

%condition (c: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}
"""
WHILE = '%w = (s32[], f32[8]) while(%t), condition=%condition, body=%body'


def test_what_a_loop_holds_counts_every_turn():
  (found,) = read(entry=WHILE, others=LOOP)
  assert found.turns == 5
  assert hlo.summary([found]) == {
    'all-reduce': {'count': 5, 'payload_bytes': 160, 'wire_bytes': 280}
  }
  assert hlo.loops(text(entry=WHILE, others=LOOP)) == [5]


def test_a_written_number_of_turns_is_taken():
  written = WHILE + ', backend_config={"known_trip_count":{"n":"3"}}'
  (found,) = read(entry=written, others=LOOP)
  assert found.turns == 3


def test_a_reduction_of_which_a_part_is_kept_is_a_scatter():
  (found,) = read(
    entry='%f = f32[2]{0} fusion(%p), calls=%all-reduce-scatter.3',
    others="""
    %all-reduce-scatter.3 (q: f32[8]) -> f32[2] {
      %r = f32[8]{0} all-reduce(%q), replica_groups=[2,4]<=[8]
    }
    """,
  )
  assert (found.kind, found.payload_bytes) == ('reduce-scatter', 32)


def test_repeated_instructions_are_counted():
  program = text(entry='%a.remat = f32[8]{0} exp(%p)\n%b.remat2.1 = f32[] c()')
  assert hlo.rematerialized(program) == 2
  assert hlo.rematerialized(text(entry='%a = f32[8]{0} exp(%p)')) == 0


def test_a_real_program_is_read_as_it_was_written():
  """Rows over `x`: their sum is one float32 [4], reduced three times."""
  mesh = Mesh(np.array(jax.devices()[:4]), ('x',))
  place = NamedSharding(mesh, PartitionSpec('x'))

  def f(x):
    def turn(total, scale):
      return jnp.sin(total + (scale * x).sum(axis=0)), None

    return jax.lax.scan(turn, jnp.zeros(4), jnp.arange(3.0))[0]

  rows = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=place)
  program = jax.jit(f).lower(rows).compile().as_text()
  assert hlo.summary(hlo.collectives(program, devices=4)) == {
    'all-reduce': {'count': 3, 'payload_bytes': 48, 'wire_bytes': 72}
  }
  assert hlo.loops(program) == [3]
