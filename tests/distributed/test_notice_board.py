"""Notes of two real processes reach the first, through JAX's own service."""

import socket
import subprocess
import sys

CODE = """
import sys, time, jax
jax.distributed.initialize(f'127.0.0.1:{sys.argv[1]}', 2, int(sys.argv[2]))
from cdm.distributed import notice_board
board = notice_board.open_board('line')
for turn in range(2):  # a later note takes the place of an earlier one
  board.leave({'of': jax.process_index(), 'turn': turn})
  deadline = time.monotonic() + 60
  while jax.process_index() == 0 and time.monotonic() < deadline:
    notes = board.notes()
    if [n['turn'] for n in notes.values()] == [turn, turn]:
      break
    time.sleep(0.05)
    board.leave({'of': 0, 'turn': turn})
  from jax._src import distributed
  distributed.global_state.client.wait_at_barrier(f'turn{turn}', 60_000)
if jax.process_index() == 0:
  print(sorted(board.notes().items()))
"""


def test_the_first_process_reads_the_newest_note_of_each():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = str(free.getsockname()[1])
  running = [
    subprocess.Popen(
      [sys.executable, '-c', CODE, port, str(process)],
      stdout=subprocess.PIPE,
      text=True,
      encoding='utf-8',
    )
    for process in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=180)[0] for process in running]
  finally:
    for process in running:
      process.kill()
  assert outputs[0].splitlines()[-1] == (
    "[(0, {'of': 0, 'turn': 1}), (1, {'of': 1, 'turn': 1})]"
  )
