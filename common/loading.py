"""A checkpoint is loaded whole, or refused by the name of the first weights that are wrong.

Transformers fills what a checkpoint lacks with random numbers, leaves out what the model has no
place for, and computes with NaN. Each time it says so in a warning, at most.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, BitsAndBytesConfig
from transformers.utils import logging


def load_model(kind, folder, *, four_bit, device, dtype=None, allow_pickle=False, heads=()):
    """The model in a local folder. kind: AutoModelForCausalLM or AutoModel.

    dtype: by default bfloat16 on a GPU, float32 on a CPU; with four_bit NF4 on either. heads: names
    of weights that it has no place for, because the caller reads them (see tensors()). Code that
    comes with a checkpoint is never run. Pickled weights (.bin) are read only with allow_pickle.
    Raises ValueError if weights are missing, left over, of another shape, NaN or infinite.
    """
    check_folder(folder)
    if dtype is None:
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config._attn_implementation = None  # it could name code on the hub
    if getattr(config, "quantization_config", None):
        raise ValueError("its weights are quantized: name the model that they were made of")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would warn of is raised here
    try:
        model, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.bfloat16 if four_bit else dtype,
            quantization_config=nf4 if four_bit else None,
            device_map={"": device},
            use_safetensors=None if allow_pickle else True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)

    for name in sorted(info["missing_keys"]):
        raise ValueError(f"it lacks the weights {name}, which its config.json asks for")
    for name in sorted(set(info["unexpected_keys"]) - set(heads)):
        raise ValueError(f"its config.json has no place for its weights {name}")
    for name, found, wanted in sorted(info["mismatched_keys"]):
        found, wanted = list(found), list(wanted)
        raise ValueError(f"its weights {name} are {found}, and by its config.json {wanted}")
    for name, weight in weights_of(folder):
        if not all_finite(weight):
            raise ValueError(f"its weights {name} are NaN or infinite in part")
    return model.eval()


def check_folder(folder):
    """Raises ValueError if there is no model: transformers would take a name for a hub id."""
    if not Path(folder).is_dir():
        raise ValueError(
            f"{str(folder)!r} is no folder here. If it is a model on the hub, give the folder that "
            f"huggingface_hub.snapshot_download({str(folder)!r}) returns"
        )
    if not Path(folder, "config.json").exists():
        raise ValueError(f"{str(folder)!r} has no config.json: name the folder that a model is in")


def tensors(folder, device, shapes, rows=slice(None)):
    """Weights, or some rows of them, that a checkpoint has beside the model proper: in float32,
    never quantized. shapes: name -> the shape it must have. Raises ValueError if it has not."""
    found = dict(weights_of(folder, names=shapes))
    for name, shape in shapes.items():
        if name not in found:
            raise ValueError(f"it has no weights named {name}, with which PRMs like it score")
        if found[name].shape != shape:
            wrong = list(found[name].shape)
            raise ValueError(f"its weights {name} are {wrong}, and must be {list(shape)} to score")
    return [found[name][rows].to(device, torch.float32) for name in shapes]


def weight_files(folder):
    """The files that transformers reads the weights in a folder from."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if Path(folder, name).exists():
            return [Path(folder, name)]
        index = Path(folder, f"{name}.index.json")
        if index.exists():
            shards = json.loads(index.read_text())["weight_map"].values()
            return [Path(folder, shard) for shard in sorted(set(shards))]
    return []


def weights_of(folder, names=None):
    """(name, tensor) of all weights in a folder, or of those named, each read when it is used."""
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as weights:
                for name in sorted(weights.keys()):
                    if names is None or name in names:
                        yield name, weights.get_tensor(name)
        else:
            for name, weight in torch.load(file, "cpu", mmap=True, weights_only=True).items():
                if names is None or name in names:
                    yield name, weight


def all_finite(weight):
    if not weight.is_floating_point() or weight.numel() == 0:
        return True
    if weight.itemsize == 1:  # float8 has no order
        weight = weight.to(torch.bfloat16)
    low, high = weight.aminmax()
    return bool(low.isfinite() and high.isfinite())
