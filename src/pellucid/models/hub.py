"""Models by name: a folder, or a name on the Hugging Face hub ("gpt2", "org/name", "org/name@revision"). Imports no torch.

What may be a typing error in a path never goes to the network. A name is asked for on the hub only if nothing of that name is here, it has
the form of a hub name, and no folder called like its first part stands here: with a folder `runs`, "runs/daets" is a path. Whoever wants the
hub's "runs/daets" all the same says "runs/daets@main".
"""

import re
from pathlib import Path

NAME = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)
WANTED = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "tokenizer*", "1_Pooling/*", "2_*/*", "3_*/*"]
PICKLED = ["pytorch_model*.bin"]
REFUSED = ["*.py", "onnx/*", "openvino/*", "coreml/*", "original/*"]


def find(name: str) -> Path:
    """The folder of a model: the one of that path, or the hub's model of that name as it lies in the cache, downloaded if need be.

    A path is returned as it is, whether or not it is there. Raises UserError without the package huggingface_hub, DataError when there is no
    such model, it is gated, or the hub cannot be reached and the model has not been downloaded before.
    """
    if is_path(name):
        return Path(name).expanduser()
    return Path(name)


def is_path(name: str) -> bool:
    """Whether this is meant as a path on this machine."""
    found = NAME.fullmatch(name)
    if Path(name).expanduser().exists() or not found:
        return True
    return not found["revision"] and "/" in name and Path(name).parts[0] != "" and Path(name).parent.exists()
