"""Weights of a backbone from a file, or torchvision's own for ImageNet."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from models.errors import NetworkError, did_you_mean
from models.networks.multi_exit import MultiExitNetwork

#: Entries under which files of weights keep their weights, beside an optimiser's state and such.
_ENTRIES = ("state_dict", "model", "model_state_dict")

#: torchvision networks whose weights have auxiliary classifiers, which are not built here.
_AUXILIARY = ("googlenet", "inception_v3")
_AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")

#: Names such as ``denselayer1.norm.1.weight`` in torchvision's files of DenseNets.
_OLD_DENSENET = re.compile(
    r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$"
)

#: Prefixes that wrappers put before the names of weights.
_PREFIXES = ("module.", "_orig_mod.")


def load_weights(network: MultiExitNetwork, file: Path | None) -> bool:
    """Put weights into the backbone of ``network``.

    A classifier for other classes is left as it was: it has to be trained.

    Args:
        file: safetensors, or a state dict saved with ``torch.save`` (alone or under
            ``state_dict``), its names with or without the prefix ``module.``. None takes
            torchvision's best weights for ImageNet, downloaded where they are absent.

    Returns:
        Whether the backbone's own classifier is among the weights.

    Raises:
        NetworkError: the file is unreadable, or misses weights, or has foreign ones.
    """
    where = str(file) if file else "torchvision's ImageNet weights file"
    weights = _read(file) if file else _imagenet_weights(network.architecture.backbone)
    if network.architecture.backbone in _AUXILIARY:
        weights = {
            name: value
            for name, value in weights.items()
            if not name.startswith(_AUXILIARY_PREFIXES)
        }
    expected = network.backbone.state_dict()
    weights = {_name(name, expected): value for name, value in weights.items()}
    # Some files leave out how many batches a batch norm has seen, which is never used here.
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - weights.keys() - optional)
    foreign = sorted(weights.keys() - expected.keys())
    last = _classifier_names(network)
    misfits = [
        name
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if foreign or set(missing) - last or set(misfits) - last:
        raise NetworkError(
            f"{where} does not hold the weights of {network.architecture.backbone}:"
            + _list("missing", sorted(set(missing) - last))
            + _list("foreign", foreign, expected)
            + "".join(
                f"\n  {name} has shape {tuple(weights[name].shape)}, expected "
                f"{tuple(expected[name].shape)}"
                for name in sorted(set(misfits) - last)[:5]
            )
        )
    whole = not set(misfits) and not set(missing)
    taken = {name: value for name, value in weights.items() if whole or name not in last}
    network.backbone.load_state_dict(as_state_dict(taken, network.backbone), strict=False)
    return whole


def as_state_dict(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Any]:
    """``tensors`` as a state dict of ``module``, with the versions that some modules look for."""
    state = OrderedDict(tensors)
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    return state


def _classifier_names(network: MultiExitNetwork) -> set[str]:
    """Names of the backbone's own classifier's weights within the backbone."""
    parameters = {
        id(value)
        for part in network.classifier(network.exit_count)
        for value in (part.parameters() if isinstance(part, nn.Module) else [part])
    }
    return {name for name, value in network.backbone.named_parameters() if id(value) in parameters}


def _imagenet_weights(backbone: str) -> Mapping[str, Tensor]:
    try:
        # torchvision's own builder renames what old files call otherwise.
        network = torchvision_models.get_model(backbone, weights="DEFAULT")
    except (ValueError, KeyError) as error:
        raise NetworkError(
            f"torchvision has no ImageNet weights for {backbone}; name a file"
        ) from error
    except (OSError, RuntimeError) as error:
        raise NetworkError(
            f"torchvision's ImageNet weights for {backbone} cannot be downloaded: {error}\n"
            "Name a local file instead, or put it where torch.hub looks for it."
        ) from error
    weights: Mapping[str, Tensor] = network.state_dict()
    return weights


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NetworkError(
            f"{path}: not a readable file of weights: {error.strerror or error}"
        ) from error
    except Exception as error:
        # Foreign files fail in many ways; what torch advises, to load them as code, is unsafe.
        raise NetworkError(
            f"{path}: not a readable file of weights (truncated, foreign, or with code in it): "
            f"{type(error).__name__}"
        ) from error
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise NetworkError(f"{path}: holds no state dict, a mapping of names to tensors")
    return content


def _name(written: str, expected: Mapping[str, Tensor]) -> str:
    """A weight's name without what wrappers put before it, as torchvision writes it today."""
    while written.startswith(_PREFIXES) and written not in expected:
        written = written.partition(".")[2]
    return _OLD_DENSENET.sub(r"\1\2", written)


def _list(kind: str, names: list[str], known: Mapping[str, Tensor] | None = None) -> str:
    shown = [name + (did_you_mean(name, known) if known else "") for name in names[:5]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"\n  {kind}: {', '.join(shown)}{more}" if names else ""
