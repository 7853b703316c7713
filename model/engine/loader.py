"""Finds, checks and loads a transformers model, or says in one line why not.

Owns what is refused before weights are read. Everything that a checkpoint or the Hub can get
wrong becomes a ModelLoadError, every family that cannot be served right an UnsupportedModel.
Engine thread, once.
"""

import json
import logging
import reprlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from model.engine.attention import IMPLEMENTATION
from model.engine.config import EngineConfig
from model.engine.errors import ModelLoadError, UnsupportedModel, first_line
from model.resources import available_memory, mib

logger = logging.getLogger(__name__)

SERVED_LAYER_TYPES = {"full_attention", "sliding_attention"}
STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What safetensors calls the types that weights are loaded as."""
GENERATION_CONFIG = "generation_config.json"
UNSAFE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


def load_config(config: EngineConfig) -> PretrainedConfig:
    path = Path(config.model)
    if path.is_dir():
        _check_folder(path)
    elif path.exists() or config.model.startswith((".", "/", "~")) or config.model.count("/") > 1:
        raise ModelLoadError(f"{config.model}: there is no such folder")
    try:
        model_config = AutoConfig.from_pretrained(
            config.model, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:
        # transformers, the Hub client and a checkpoint's own code raise anything here.
        raise _load_error(config, "its config cannot be read", error) from error
    _check_family(config, model_config)
    return model_config


def load_model(
    config: EngineConfig,
    model_config: PretrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[str], None],
) -> PreTrainedModel:
    _check_room(config, dtype)
    on_progress(f"loading the weights of {config.model}")
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            config.model,
            config=model_config,
            dtype=dtype,
            attn_implementation=IMPLEMENTATION,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
        loaded: PreTrainedModel = model.eval().to(device)
    except Exception as error:
        if IMPLEMENTATION in str(error):
            raise UnsupportedModel(
                f"{model_config.model_type} cannot be served right: its attention does not go"
                " through transformers' attention interface"
            ) from error
        raise _load_error(config, "its weights cannot be read", error) from error
    _check_complete(config, report)
    return loaded


def eos_token_ids(model: PreTrainedModel, vocabulary: int) -> tuple[int, ...]:
    """Those that the model can say: the sampler bans them by their place among the logits."""
    stored = getattr(model.config.get_text_config(), "eos_token_id", None)
    generation = getattr(model, "generation_config", None)
    ids = getattr(generation, "eos_token_id", None)
    if ids is None:
        ids = stored
    if ids is None:
        return ()
    named = tuple(ids) if isinstance(ids, list | tuple) else (ids,)
    if not all(type(i) is int for i in named):
        # Without a file of its own the generation config is made of the model's.
        file = "config.json" if ids == stored else GENERATION_CONFIG
        raise ModelLoadError(
            f"{model.name_or_path}: {file}: eos_token_id must be a token id or a list of them,"
            f" not {reprlib.repr(ids)}"
        )
    named = tuple(dict.fromkeys(named))
    if beyond := [i for i in named if not 0 <= i < vocabulary]:
        logger.warning("end tokens %s are outside the vocabulary of %d", beyond, vocabulary)
    return tuple(i for i in named if i not in beyond)


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path}: the folder has no config.json")
    _check_generation_config(path / GENERATION_CONFIG)
    if any(path.glob("*.safetensors")):
        return
    unsafe = sorted(f.name for f in path.iterdir() if f.suffix in UNSAFE_SUFFIXES)
    if unsafe:
        raise ModelLoadError(f"{path}: the weights are in {unsafe[0]}; only safetensors is read")
    raise ModelLoadError(f"{path}: the folder has no .safetensors file")


def _check_generation_config(file: Path) -> None:
    """Optional, so that transformers passes over one that it cannot read, and what it says is
    lost: how an answer ends, and with what values the model is meant to be sampled."""
    if not file.exists():
        return
    try:
        is_object = isinstance(json.loads(file.read_bytes()), dict)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{file}: cannot be read: {first_line(error)}") from error
    if not is_object:
        raise ModelLoadError(f"{file}: must be a JSON object")


def _check_room(config: EngineConfig, dtype: torch.dtype) -> None:
    """Weights of another type are converted in memory, whatever they become later; those of the
    same are pages of their file, which the system takes back."""
    needed = sum(
        size * dtype.itemsize
        for size, stored in _stored_weights(Path(config.model))
        if stored != STORED[dtype]
    )
    memory = available_memory()
    if needed > memory.left:
        name = str(dtype).removeprefix("torch.")
        raise ModelLoadError(
            f"{config.model}: its weights take {mib(needed)} while they are loaded, as {name},"
            f" but there are {mib(memory.left)} {memory.reason}"
        )


def _stored_weights(folder: Path) -> Iterator[tuple[int, str]]:
    """How many numbers each tensor of the checkpoint has, and as what they are stored. Nothing of
    a model that is no folder, or whose files cannot be read: loading it says why."""
    index = folder / "model.safetensors.index.json"
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError, SafetensorError):
        names = {"model.safetensors"}
        if index.is_file():
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        for name in sorted(names):
            with safe_open(folder / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118  # it is no dict
                    tensor = file.get_slice(key)
                    yield prod(tensor.get_shape()), tensor.get_dtype()


def _check_family(config: EngineConfig, model_config: PretrainedConfig) -> None:
    reason = _unserved(model_config, config.trust_remote_code)
    if reason is not None:
        name = (getattr(model_config, "architectures", None) or [model_config.model_type])[0]
        raise UnsupportedModel(f"{name} cannot be served right: {reason}")


def _unserved(model_config: PretrainedConfig, trust_remote_code: bool) -> str | None:
    model_type = model_config.model_type
    architectures = getattr(model_config, "architectures", None) or []
    if getattr(model_config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    if model_config.get_text_config() is not model_config:
        return "it is a multimodal model, and only text-only ones are served"
    remote = trust_remote_code and getattr(model_config, "auto_map", None)
    if not remote and model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return f"transformers has no causal language model of the type {model_type}"
    if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        model_config, "is_decoder", False
    ):
        return "it is an encoder"
    if architectures and not remote and not _is_causal(architectures[0]):
        return "the checkpoint is not a causal language model"
    if getattr(model_config, "num_kv_shared_layers", 0):
        return "some of its layers share keys and values"
    unknown = sorted(set(getattr(model_config, "layer_types", None) or ()) - SERVED_LAYER_TYPES)
    if unknown:
        return f"it has layers of the type {unknown[0]}"
    return None


def _is_causal(architecture: str) -> bool:
    return "CausalLM" in architecture or "LMHead" in architecture


def _check_complete(config: EngineConfig, report: dict[str, Any]) -> None:
    for kind in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(k[0] if isinstance(k, tuple) else k) for k in report.get(kind, ()))
        if keys:
            what = "missing from" if kind == "missing_keys" else "of another shape in"
            raise ModelLoadError(
                f"{config.model}: {len(keys)} weights are {what} the checkpoint, such as {keys[0]}"
            )


def _load_error(config: EngineConfig, what: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(f"{config.model}: {what}: {first_line(error)}")
