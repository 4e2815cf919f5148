"""Defines the dicts of `cdm plan`: a request to compile and its results.

They are dicts because they cross from one process to another, and are stored on
disk, as JSON. `roofline.row` adds the estimate of time and cost to the facts.
"""

from typing import Literal, NotRequired, TypedDict

from cdm.planning import hlo


class Request(TypedDict):
  """A program to compile for a slice, as `compilation.measure` takes it.

  Attributes:
    config: path of the config of one stage.
    overrides: [[dotted key, text], ...], applied to the config.
    topology: the slice, e.g. 'v5e:2x2'.
    step: the program, 'train' or 'sample'.
    batch_size: images per batch of 'sample'; 'train' ignores it.
    quick: True to compile with the least effort.
    keep: the cache folder of compiled results, or None for no cache.
    fresh: True to compile again even if the result is cached.
  """

  config: str
  overrides: list[list[str]]
  topology: str
  step: str
  batch_size: int
  quick: bool
  keep: str | None
  fresh: bool


class Memory(TypedDict):
  """The memory that a compiled program takes, in bytes of one device.

  Attributes:
    arguments: the arguments, rounded up to whole tiles.
    outputs: the outputs that are not written over an argument.
    donated: the arguments that are overwritten by outputs.
    temporaries: intermediate results.
    program: the program itself.
  """

  arguments: int
  outputs: int
  donated: int
  temporaries: int
  program: int


class _Compilation(TypedDict):
  """The keys that `Refused` and `Compiled` share.

  Attributes:
    seconds: duration of compiling.
    needed_bytes: memory that one device needs.
    compiler: versions of the compiler; `compile_cached` adds them.
    kept: True if the result was cached; `compile_cached` adds this key, which
      is not stored.
  """

  seconds: float
  needed_bytes: int
  compiler: NotRequired[str]
  kept: NotRequired[bool]


class Refused(_Compilation):
  """The result of compiling a program that does not fit.

  Attributes:
    compiled: False.
    message: the compiler's reason, cut off after 4000 characters.
    memory, flops, bytes_accessed, collectives, loops, rematerialized: None.
  """

  compiled: Literal[False]
  message: str
  memory: None
  flops: None
  bytes_accessed: None
  collectives: None
  loops: None
  rematerialized: None


class Compiled(_Compilation):
  """The result of compiling a program that the compiler accepted.

  Attributes:
    compiled: True.
    message: None.
    memory: the memory of one device by its use.
    flops: FLOPs of one device, with the body of a loop counted once.
    bytes_accessed: bytes that one device reads and writes, with the body of a
      loop counted once.
    collectives: {kind: sum of the collectives of this kind}.
    loops: number of iterations of every loop.
    rematerialized: instructions that the compiler repeats to save memory.
  """

  compiled: Literal[True]
  message: None
  memory: Memory
  flops: float
  bytes_accessed: float
  collectives: dict[str, hlo.CollectiveTotal]
  loops: list[int]
  rematerialized: int


class Work(TypedDict):
  """The work of one run of a program; all None if it does not fit.

  Attributes:
    compiled_flops_per_step: FLOPs of all devices together.
    model_to_compiled_flops: model FLOPs as a fraction of the compiled FLOPs;
      None also if the program has no FLOPs.
    bytes_moved_per_device: bytes that one device reads and writes.
    collectives: {kind: sum of the collectives of this kind}.
    compiler_rematerialized: instructions that the compiler repeats to save
      memory.
  """

  compiled_flops_per_step: float | None
  model_to_compiled_flops: float | None
  bytes_moved_per_device: float | None
  collectives: dict[str, hlo.CollectiveTotal] | None
  compiler_rematerialized: int | None


class Facts(Work):
  """A measured program on a slice, as `compilation.measure` returns it.

  Attributes:
    config: path of the config.
    overrides: 'key=text' of every override.
    step: 'train' or 'sample'.
    topology: the slice, e.g. 'v5e:2x2'.
    devices: number of JAX devices of the slice.
    chips: number of chips of the slice.
    mesh: {axis of the device mesh: number of devices along it}.
    fsdp_is_chosen: True if the config leaves the size of `fsdp` open.
    batch_size: images per batch, on the whole mesh.
    batch_per_device: images per part of the batch.
    accumulation: number of microbatches of a training step.
    parameters: number of scalars in the network's parameters.
    num_steps: steps of the whole training run; None for sampling.
    network_evaluations: how often one run of the program evaluates the network
      on one image.
    evaluation_steps: training steps that take as long as the evaluations of the
      whole run, see `evaluation_share`; 0 for sampling.
    fits: True if the program fits in the memory.
    peak_bytes_per_device: memory that one device needs.
    device_bytes: memory of one device that a program may fill.
    reserved_bytes: memory of one device that the runtime reserves.
    missing_bytes: memory that one device lacks; 0 if the program fits.
    memory: {part of the memory: bytes on one device}, see
      `compilation.memory_parts`.
    model_flops_per_step: FLOPs of one run, counted from the network.
    compiler_message: why the compiler refused the program, or None.
    compiler: versions of the compiler.
    quick: True if it was compiled with the least effort.
    compile_seconds: duration of compiling.
    compiled_before: True if the result was cached.
    cpu_flops: FLOPs per second of a matrix product on this CPU, measured now;
      None for other topologies.
  """

  config: str
  overrides: list[str]
  step: str
  topology: str
  devices: int
  chips: int
  mesh: dict[str, int]
  fsdp_is_chosen: NotRequired[bool]
  batch_size: int
  batch_per_device: float
  accumulation: int
  parameters: int
  num_steps: int | None
  network_evaluations: int
  evaluation_steps: float
  fits: bool
  peak_bytes_per_device: int
  device_bytes: int
  reserved_bytes: int
  missing_bytes: int
  memory: dict[str, int]
  model_flops_per_step: int
  compiler_message: str | None
  compiler: str
  quick: bool
  compile_seconds: float
  compiled_before: bool
  cpu_flops: float | None


class Tried(TypedDict):
  """A batch size that the search for the largest one compiled.

  Attributes:
    batch_size: images per batch, on the whole mesh.
    fits: True if the program fits in the memory.
    peak_bytes_per_device: memory that one device needs.
  """

  batch_size: int
  fits: bool
  peak_bytes_per_device: int


class Largest(TypedDict):
  """The largest batch that fits on a slice, accurate to 1/8.

  Attributes:
    batch_per_device: images per part of the batch; 0 if no batch fits.
    batch_size: images per batch, on the whole mesh; 0 if no batch fits.
    tried: every batch size that was compiled, in ascending order.
  """

  batch_per_device: int
  batch_size: int
  tried: list[Tried]
