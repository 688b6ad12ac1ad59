"""Weights of other people's networks: read without running code, loaded only where they fit."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lalib.data.checks import LalibError, listed
from lalib.data.downloads import check_digest


def read_weights(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a state dict by name, of a .pth or a .safetensors file, without running any code of it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights must be 'DEFAULT', None or the path of a file, got {str(path)!r}")
    if sha256 is not None:
        check_digest(Path(path), "SHA-256", sha256.lower(), "Fetch it again.")
    try:
        safe = Path(path).suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))  # as files of a training hold it
        return {key: value.detach() for key, value in state.items()}
    except Exception as error:  # what parsers raise on a damaged file shares no base class
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {code[1]}, and code in a file is not run" if code else "damaged, or no state dict"
        raise LalibError(f"{path} cannot be read as weights: {reason}") from error


def fill(net: nn.Module, names: list[str], state: dict[str, Tensor], what: str) -> None:
    """Load a state dict; LalibError, which begins with `what`, if it is of another network. names: with the last layer,
    which may differ."""
    # older files of densenets call norm1 norm.1
    state = {re.sub(r"(denselayer.*(?:norm|conv))\.([12])", r"\1\2", key): value for key, value in state.items()}
    own = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    odd = {"missing": own.keys() - state, "unknown": state.keys() - names}
    odd["of another shape"] = [key for key in own.keys() & state if own[key].shape != state[key].shape]
    if said := [f"{len(keys)} {how} ({listed(sorted(keys))})" for how, keys in odd.items() if keys]:
        raise LalibError(f"{what}: of its {len(own)} tensors {', '.join(said)}")
    net.load_state_dict(state, strict=False)
