"""Time by operation of `benchmarks/op_times.py`, from traces as XLA has them.

The traces are written here in the text form of the profiler's own protocol
buffer, and read by JAX's own reader.
"""

import pytest
from jax.profiler import ProfileData

from benchmarks import op_times

# The lines of a compiled program that state what its operations are. Types of
# tuples, layouts of TPUs and targets of GPUs are in the form that XLA prints.
PROGRAM = """HloModule jit_step, is_scheduled=true

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.9 = f32[] add(%a, %b)
}

%fused_computation.1 (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %transpose.3 = f32[8,4]{1,0} transpose(%p), dimensions={1,0}
}

%fused_computation.2 (p: f32[4,8]) -> f32[4] {
  %p = f32[4,8]{1,0:T(8,128)} parameter(0)
  %multiply.1 = f32[4,8]{1,0:T(8,128)} multiply(%p, %p)
  ROOT %reduce.1 = f32[4]{0} reduce(%multiply.1, %c), to_apply=%region_0.1
}

%fused_computation.3 (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %exponential.1 = f32[4,8]{1,0} exponential(%p)
}

ENTRY %main.5 (x: f32[4,8]) -> (f32[4], /*index=1*/f32[4,8]) {
  %x = f32[4,8]{1,0} parameter(0)
  %convolution.2 = f32[1,4,4,8]{3,2,1,0} convolution(%x, %k), window={size=3x3}
  %dot.7 = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}
  %transpose_fusion = f32[8,4]{1,0} fusion(%x), kind=kLoop, \
calls=%fused_computation.1
  %multiply_reduce_fusion.4 = f32[4]{0} fusion(%x), kind=kInput, \
calls=%fused_computation.2
  exp_fusion = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=fused_computation.3
  %cudnn-conv.1 = (f32[4,8]{1,0}, u8[1024]{0}) custom-call(%x, %k), \
custom_call_target="__cudnn$convForward", backend_config={"algorithm":"dot"}
  %gemm.2 = f32[4,4]{1,0} custom-call(%x), \
custom_call_target="__cublas$lt$matmul"
  %fmha.1 = f32[4,4]{1,0} custom-call(%x), \
custom_call_target="__cudnn$fmhaSoftmax"
  %other.1 = f32[4,4]{1,0} custom-call(%x), custom_call_target="Sharding"
  %while.1 = (s32[], f32[4]) while(%t), condition=%c, body=%b
  %all-reduce.3 = f32[4]{0} all-reduce(%m), to_apply=%region_0.1
  %copy.4 = f32[4,8]{0,1} copy(%x)
  ROOT %tuple.1 = (f32[4]{0}, f32[4,8]{1,0}) tuple(%m, %exp_fusion)
}
"""
KINDS = {
  'convolution.2': 'convolution',
  'dot.7': 'matrix product',
  'transpose_fusion': 'copy, transpose, pad',
  'multiply_reduce_fusion.4': 'reduction',
  'exp_fusion': 'elementwise',
  'cudnn-conv.1': 'convolution',
  'gemm.2': 'matrix product',
  'fmha.1': 'attention',
  'other.1': 'custom call',
  'while.1': 'loops and calls',
  'all-reduce.3': 'collective',
  'copy.4': 'copy, transpose, pad',
}


@pytest.mark.parametrize('name', KINDS)
def test_an_operation_is_what_is_inside_it(name):
  assert op_times.kinds_of(PROGRAM)[name] == KINDS[name]


def test_self_time_is_without_the_operations_within():
  """A loop of 100 holds a call of 50, which holds 20; another 30 follows."""
  events = [
    ('inner', 20, 20),
    ('loop', 0, 100),
    ('after', 100, 30),
    ('call', 10, 50),
  ]
  found = dict(op_times.self_times(events))
  assert found == {'loop': 50, 'call': 30, 'inner': 20, 'after': 30}


def event(metadata, start_us, length_us, op=None):
  stats = f'stats {{ metadata_id: 1 str_value: "{op}" }}' if op else ''
  return (
    f'events {{ metadata_id: {metadata} offset_ps: {start_us * 10**6} '
    f'duration_ps: {length_us * 10**6} {stats} }}\n'
  )


def plane(name, lines):
  """A plane of a trace: lines is {name of a line: its events}."""
  text = f'planes {{ name: "{name}"\n'
  for number, (title, events) in enumerate(lines.items()):
    text += f'lines {{ id: {number} name: "{title}"\n{events}}}\n'
  for number, title in enumerate(('host event', 'kernel_a', 'graph_kernel')):
    text += (
      f'event_metadata {{ key: {number + 1} value {{ id: {number + 1} '
      f'name: "{title}" }} }}\n'
    )
  return text + ('stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }\n}\n')


def written(folder, text):
  """Writes a trace into a folder, where the profiler would."""
  path = folder / 'plugins' / 'profile' / 'now' / 'host.xplane.pb'
  path.parent.mkdir(parents=True)
  path.write_bytes(ProfileData.text_proto_to_serialized_xspace(text))
  return folder


def test_threads_of_a_cpu_add_up_and_host_events_do_not_count(tmp_path):
  trace = plane(
    '/host:CPU',
    {
      'python': event(1, 0, 5000),
      'worker 1': event(1, 0, 1000, 'while.1')
      + event(1, 100, 300, 'convolution.2')
      + event(1, 500, 300, 'convolution.2'),
      'worker 2': event(1, 0, 250, 'convolution.2') + event(1, 300, 99),
    },
  )
  found = op_times.read(written(tmp_path, trace), PROGRAM)
  assert [(op.name, op.count) for op in found] == [
    ('convolution.2', 3),
    ('while.1', 1),
  ]
  assert [op.seconds for op in found] == pytest.approx([850e-6, 400e-6])
  assert found[0].kind == 'convolution'


def test_of_a_gpu_the_streams_count_and_of_a_tpu_the_operations(tmp_path):
  host = plane('/host:CPU', {'worker': event(1, 0, 900, 'convolution.2')})
  gpu = plane(
    '/device:GPU:0',
    {
      'Stream #13(Compute)': event(2, 0, 70, 'cudnn-conv.1') + event(3, 80, 30),
      'XLA Modules': event(1, 0, 999),
    },
  )
  found = op_times.read(written(tmp_path / 'gpu', host + gpu), PROGRAM)
  assert [(op.name, op.kind) for op in found] == [
    ('cudnn-conv.1', 'convolution'),
    ('graph_kernel', 'graph_kernel'),
  ]
  assert sum(op.seconds for op in found) == pytest.approx(100e-6)

  tpu = plane(
    '/device:TPU:0',
    {
      'XLA Modules': event(1, 0, 500, 'jit_step'),
      'XLA Ops': event(1, 0, 40, 'dot.7'),
    },
  )
  found = op_times.read(written(tmp_path / 'tpu', host + tpu))
  assert [op.name for op in found] == ['dot.7']
  assert found[0].kind == 'dot'  # Without the program: XLA's name.


def test_the_tables_have_shares_and_runs_of_a_step():
  found = [
    op_times.Operation('convolution.2', 'convolution', 6e-3, 4),
    op_times.Operation('convolution.9', 'convolution', 1e-3, 2),
    op_times.Operation('copy.4', 'copy, transpose, pad', 1e-3, 2),
  ]
  text = op_times.table(found, steps=2, seconds=0.010)
  assert '2 steps of 5.00 ms; their operations add up to 4.00 ms' in text
  assert '| convolution | 3.500 | 87.5% | 3 |\n' in text
  assert '| convolution.2 | 3.000 | 75.0% | 2 | convolution |\n' in text


def test_a_folder_without_operations_is_refused(tmp_path, capsys):
  with pytest.raises(ValueError, match='holds no trace'):
    op_times.read(tmp_path)
  trace = plane('/host:CPU', {'python': event(1, 0, 10)})
  with pytest.raises(ValueError, match='xprof_traceme=true before JAX starts'):
    op_times.read(written(tmp_path, trace))
  with pytest.raises(SystemExit):
    op_times.main([str(tmp_path)])
  assert 'holds no operation' in capsys.readouterr().err


def test_the_command_reads_the_program_beside_the_trace(tmp_path, capsys):
  trace = plane('/host:CPU', {'worker': event(1, 0, 2000, 'gemm.2')})
  folder = written(tmp_path, trace)
  (folder / op_times.PROGRAM).write_text(PROGRAM, encoding='utf-8')
  op_times.main([str(folder), '--steps=2'])
  assert '| gemm.2 | 1.000 | 100.0% | 0.5 | matrix product |' in (
    capsys.readouterr().out
  )
