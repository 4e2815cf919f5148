"""Finds the config key that a misspelt or foreign name means.

It looks through the keys of all sections, and knows what other programs call
the values that are set most often. It imports nothing heavy, because the
command line uses it too.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cdm.config import optional_keys

# {key of cdm, or option of its commands: names in other programs (Lightning,
# Hugging Face, Improved Diffusion, the unofficial SR3, ...)}.
OTHER_NAMES = {
  'optimizer.learning_rate': 'lr rate base_lr learn_rate step_size',
  'optimizer.warmup_steps': 'warmup lr_warmup_steps num_warmup_steps',
  'optimizer.clip_norm': 'grad_clip max_grad_norm gradient_clip_val '
  'clip_grad_norm clip_grad',
  'optimizer.weight_decay': 'wd',
  'optimizer.b1': 'beta1 adam_beta1',
  'optimizer.b2': 'beta2 adam_beta2',
  'train.batch_size': 'batch bs bsz batchsize global_batch_size '
  'train_batch_size total_batch_size per_device_train_batch_size',
  'train.num_steps': 'epochs num_epochs max_epochs num_train_epochs steps '
  'max_steps num_train_steps total_steps training_steps max_train_steps '
  'train_num_steps train_steps iterations num_iterations n_iter '
  'lr_anneal_steps',
  'train.accumulation': 'gradient_accumulation_steps accumulation_steps '
  'grad_accum grad_accumulation accumulate_grad_batches accum_iter '
  'gradient_accumulate_every',
  'train.save_every_steps': 'save_every save_interval save_steps '
  'checkpoint_every checkpointing_steps save_and_sample_every ckpt_freq',
  'train.log_every_steps': 'log_every log_interval logging_steps print_freq '
  'log_every_n_steps',
  'train.keep_checkpoints': 'max_to_keep save_top_k save_total_limit '
  'checkpoints_total_limit',
  'train.init_from': 'pretrained pretrained_model pretrained_model_path '
  'init_checkpoint finetune_from resume_checkpoint pretrained_path',
  'eval.every_steps': 'eval_every eval_steps eval_interval val_freq '
  'val_check_interval evaluation_steps validation_steps',
  'ema.decay': 'ema_decay ema_rate ema_beta ema',
  'seed': 'random_seed rng_seed manual_seed global_seed',
  'pipeline.image_size': 'resolution img_size imsize image_resolution '
  'hr_size res img_resolution',
  'lowres.size': 'small_size lr_size l_resolution low_res_size',
  'pipeline.worker_count': 'num_workers workers n_workers data_workers '
  'dataloader_num_workers',
  'pipeline.flip': 'random_flip hflip augment_horizontal_flip',
  'train_data.path': 'data_dir data_path data_root dataset_path dataroot '
  'train_data_dir dataset data root train_dir',
  'model.dtype': 'fp16 bf16 mixed_precision precision amp use_fp16 use_bf16 '
  'half_precision',
  'model.features': 'channels num_channels model_channels dim ch '
  'base_channels inner_channel hidden_size',
  'model.multipliers': 'channel_mult ch_mult dim_mults channel_multiplier '
  'channel_mults channel_multipliers',
  'model.num_blocks': 'num_res_blocks res_blocks n_resnet_blocks',
  'model.attention_resolutions': 'attn_resolutions attn_res',
  'model.num_classes': 'n_classes class_cond classes label_dim',
  'model.remat': 'gradient_checkpointing use_checkpoint remat_policy '
  'activation_checkpointing',
  'model.attention': 'attention_kernel attn_implementation use_flash_attention '
  'flash_attention enable_flash enable_xformers',
  'schedule.num_steps': 'timesteps num_timesteps diffusion_steps '
  'num_diffusion_timesteps num_train_timesteps n_timestep',
  'schedule.kind': 'beta_schedule noise_schedule',
  'method.prediction': 'prediction_type objective parameterization '
  'pred_type mean_type',
  'method.label_dropout': 'cond_drop_prob uncond_prob class_dropout_prob '
  'p_uncond unconditional_prob',
  'sampler.guidance_weight': 'guidance_scale cfg_scale cfg guidance '
  'guidance_strength w',
  'sampler.guide': 'gnet guiding_net guidance_model weak_model bad_model',
  'sampler.grid.spacing': 'sampling_steps num_inference_steps ddim_steps '
  'sampling_timesteps timestep_respacing num_sampling_steps',
  '--workdir': 'output_dir out_dir outdir logdir log_dir save_dir exp_dir '
  'checkpoint_dir results_folder workdir work_dir run_dir default_root_dir',
}
# What another program's name usually asks for, where it is not the same value.
EXAMPLES = {'model.dtype': 'bfloat16'}
_MEANING = {
  other: key for key, others in OTHER_NAMES.items() for other in others.split()
}
# Where a name stands in several sections, the earlier of these is meant.
_ORDER = (
  'train', 'optimizer', 'pipeline', 'model', 'method', 'sampler', 'schedule',
  'ema', 'lowres', 'train_data', 'mesh', 'eval',
)  # fmt: skip
_NEAR_HERE, _NEAR_ELSEWHERE = 0.6, 0.8


def hint(config: Any, dotted: str, here: str = '') -> str | None:
  """Returns the key of a config that a name most likely means.

  Args:
    config: the whole config, a mapping of mappings.
    dotted: what was given, e.g. 'train.lr'.
    here: dotted name of the section that exists, in which the rest of `dotted`
      is not found; '' is the config itself.

  Returns:
    A dotted key that exists, or the option '--workdir'; None if nothing is
    near.
  """
  keys = list(_leaves(config))
  keys += [
    key
    for key in optional_keys.OPTIONAL
    if key not in keys and key.split('.')[0] in config
  ]
  last = _plain(dotted.split('.')[-1])
  known = meaning(last)
  if known in keys or known == '--workdir':
    return known
  # Where a name stands in several sections, the first by rank is kept.
  everywhere = {k.split('.')[-1]: k for k in sorted(keys, key=_rank)[::-1]}
  if last in everywhere:
    return everywhere[last]
  inside = f'{here}.' if here else ''
  siblings = {
    k.split('.')[-1]: k
    for k in keys
    if k.startswith(inside) and k.count('.') == inside.count('.')
  }
  near = nearest(last, list(siblings), _NEAR_HERE)
  if near:
    return siblings[near]
  near = nearest(last, list(everywhere), _NEAR_ELSEWHERE)
  return everywhere[near] if near else None


def meaning(name: str) -> str | None:
  """Returns the key, or the option '--workdir', for another program's name."""
  return _MEANING.get(_plain(name))


def nearest(
  name: str, known: Collection[str], cutoff: float = _NEAR_HERE
) -> str | None:
  """Returns the known name that is most like a name; None if none is near."""
  near = difflib.get_close_matches(name[:200], known, n=1, cutoff=cutoff)
  return near[0] if near else None


def _plain(name: str) -> str:
  return name.replace('-', '_').lower()[:200]


def _rank(key: str) -> tuple[int, str]:
  head = key.split('.')[0]
  return (_ORDER.index(head) if head in _ORDER else len(_ORDER), key)


def _leaves(node: Any, prefix: str = '') -> Iterator[str]:
  """Yields the dotted names of all values; a stage is named, not numbered."""
  for name, value in children(node).items():
    if children(value):
      yield from _leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}'


def children(node: Any) -> Mapping[str, Any]:
  """Returns what can be addressed below a node: {name: node}, {} for a value.

  Args:
    node: a section, a sequence of sections such as `stages`, or a value. A
      section of such a sequence is called by its `name`, or else its index.
  """
  if isinstance(node, str | bytes):
    return {}
  if hasattr(node, 'keys'):
    return {str(key): node[key] for key in node}
  if isinstance(node, Sequence) and all(hasattr(s, 'keys') for s in node):
    return {str(s['name'] if 'name' in s else i): s for i, s in enumerate(node)}
  return {}
