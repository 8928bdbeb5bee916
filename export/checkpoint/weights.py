"""Are the weights of a loaded checkpoint its own? What a file lacks, libraries fill with random numbers and a warning.

While `recorded` is in force, every tensor that transformers would fill so becomes NaN, so that it can be served by no
way round: merged, saved and loaded again, it still is. `check_weights` then refuses what matters. Which tensors matter
is asked of the model: those that the scores or vectors are computed from, by the graph that torch keeps for gradients.
A pooler that no pooling reads is not among them, and neither is a head that another task left behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import WeightsInvalid
from . import unsaved

_NAMED = 3
_ROWS, _LENGTH = 4, 32
"""Of the batch that shows which tensors are read."""
_OUTPUTS = ("scores", "sentence_embedding")
_ADVICE = "save the trained checkpoint again with save_pretrained"


@dataclass(slots=True)
class Load:
    """What transformers said of one model that it read from files."""

    model: Any
    fresh: dict[str, Any] = field(default_factory=dict)
    """Tensors that no file has or that have another shape there, by name."""
    unexpected: list[str] = field(default_factory=list)
    """Names in the files that the model has no place for."""
    mismatched: list[str] = field(default_factory=list)


@contextmanager
def recorded() -> Iterator[list[Load]]:
    """Collects every load of transformers in this process, and makes newly initialised tensors NaN.

    Raises:
        WeightsInvalid: inside, where an index promises a tensor that its file does not have.
    """
    from transformers import PreTrainedModel

    family: Any = PreTrainedModel
    loads: list[Load] = []
    pending: list[tuple[Any, list[str]]] = []
    # transformers 4 gives the names to what fills the tensors, transformers 5 to what makes room for them.
    given = "_move_missing_keys_from_meta_to_device"
    given = given if hasattr(family, given) else "_initialize_missing_keys"
    read, initialise = vars(family)["from_pretrained"], getattr(family, given)

    def initialise_and_mark(model: Any, missing: Iterable[str], *args: Any, **options: Any) -> None:
        empty = unsaved.on_meta(model)
        initialise(model, missing, *args, **options)
        unsaved.mark(model, empty)
        pending.append((model, sorted(missing)))

    def read_and_record(cls: Any, *args: Any, **options: Any) -> Any:
        asked = options.pop("output_loading_info", False)
        # Else a tensor of another shape is an error that does not name it.
        options["ignore_mismatched_sizes"] = True
        model, said = read.__func__(cls, *args, output_loading_info=True, **options)
        missing: list[str] = next((names for known, names in reversed(pending) if known is model), [])
        unsaved.check(model, Path(str(args[0])).name if args else cls.__name__)
        loads.append(_load(model, missing, said or {}, Path(str(args[0])).name if args else cls.__name__))
        return (model, said) if asked else model

    # The lists that from_pretrained gives leave out what a class says is "to ignore", so the names of what is
    # initialised are taken where that happens; nothing public gives them.
    family.from_pretrained = classmethod(read_and_record)
    setattr(family, given, initialise_and_mark)
    try:
        yield loads
    finally:
        family.from_pretrained = read
        setattr(family, given, initialise)


def check_weights(reference: Any, loads: Sequence[Load], name: str) -> None:
    """Raises where scores or vectors would be computed from what is not the checkpoint's.

    ``reference`` is the loaded ``CrossEncoder``, ``SentenceTransformer`` or ``SparseEncoder``, ``loads`` what
    `recorded` collected meanwhile, ``name`` what a person calls the checkpoint.

    Raises:
        WeightsInvalid: tensors that are missing, of another shape, left over, or not finite; and what to do.
    """
    fresh = {key: tensor for load in loads for key, tensor in _current(load).items()}
    lost = list(fresh)
    known = {id(tensor) for tensor in fresh.values()}
    rest = {key: tensor for key, tensor in reference.named_parameters() if id(tensor) not in known}
    damaged = {key.removeprefix("0.model."): tensor for key, tensor in rest.items() if not _is_finite(tensor)}
    if lost or damaged:
        read = _read(reference, [*fresh.values(), *damaged.values()])
        lost = [key for key in lost if id(fresh[key]) in read]
        damaged = {key: tensor for key, tensor in damaged.items() if id(tensor) in read}
    if lost:
        raise WeightsInvalid(f"{name}: {_sentence_of_lost(lost, loads)}")
    for load in loads:
        _check_left_over(load, name)
    if damaged:
        raise WeightsInvalid(
            f"{name}: {_counted(len(damaged), 'tensor')} with NaN or infinite numbers ({listed(list(damaged))});"
            " the file is damaged, or, for an adapter, its base lacks them"
        )


def _load(model: Any, missing: list[str], said: Mapping[str, Any], name: str) -> Load:
    tensors = model.state_dict(keep_vars=True)
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise WeightsInvalid(
            f"{name}: {_counted(len(empty), 'tensor')} {_have(empty)} no numbers ({listed(empty)}): a"
            f" file that the index names lacks it, or only the other one of two tied names is there; {_ADVICE}"
        )
    # One of two tied names is enough: the other is the same tensor.
    known = {id(tensor) for name, tensor in tensors.items() if name not in missing}
    fresh = {name: tensors[name] for name in missing if name in tensors and id(tensors[name]) not in known}
    load = Load(model, fresh)
    load.unexpected = sorted(said.get("unexpected_keys", []))
    load.mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in said.get("mismatched_keys", []))
    for tensor in load.fresh.values():
        if tensor.is_floating_point():  # whole numbers are positions, which a model counts itself
            tensor.data.fill_(float("nan"))
    return load


def _current(load: Load) -> dict[str, Any]:
    """The fresh tensors as they are now, without those that an adapter has given a value.

    A buffer that was converted is another object.
    """
    tensors = load.model.state_dict(keep_vars=True)
    now = {name: tensors.get(name, tensor) for name, tensor in load.fresh.items()}
    return {name: tensor for name, tensor in now.items() if not _is_finite(tensor)}


def _is_finite(tensor: Any) -> bool:
    import torch

    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(bool(torch.isfinite(value)) for value in torch.aminmax(tensor.detach()))  # which keeps NaN


def _read(reference: Any, tensors: Iterable[Any]) -> set[int]:
    """The ids of those tensors that the output is computed from; of all, where the model cannot be asked."""
    import torch

    asked = [tensor for tensor in tensors if tensor.is_floating_point()]
    everything = [*reference.parameters(), *asked]
    before = [tensor.requires_grad for tensor in everything]
    for tensor in everything:
        tensor.requires_grad_(False)
    try:
        for tensor in asked:
            tensor.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():
            output = _output(reference)
        if not output.requires_grad:
            return set()
        gradients = torch.autograd.grad(output.sum(), asked, allow_unused=True)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {id(tensor) for tensor in asked}
    finally:
        for tensor, wanted in zip(everything, before, strict=True):
            tensor.requires_grad_(wanted)
    return {id(tensor) for tensor, gradient in zip(asked, gradients, strict=True) if gradient is not None}


def _output(reference: Any) -> Any:
    """Scores or vectors [rows, n] of random tokens."""
    import torch

    rows = reference[0].model.get_input_embeddings().num_embeddings
    ids = torch.randint(rows, (_ROWS, _LENGTH), generator=torch.Generator().manual_seed(0))
    features = reference({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return next(features[name] for name in _OUTPUTS if features.get(name) is not None)


def _check_left_over(load: Load, name: str) -> None:
    """Tensors inside a part that the model has: of a layer more, or a bias that its configuration leaves out."""
    parts = {key for key, _ in itertools.chain(load.model.named_children(), load.model.base_model.named_children())}
    prefix = f"{load.model.base_model_prefix}."
    inside = [key for key in load.unexpected if key.removeprefix(prefix).partition(".")[0] in parts]
    inside = [key for key in inside if not _is_old_buffer(load.model, key.removeprefix(prefix))]
    if inside:
        raise WeightsInvalid(
            f"{name}: the model of config.json has no place for {_counted(len(inside), 'tensor')} of its weights"
            f" ({listed(inside)}), which would be left out; make config.json agree with the weights"
        )


def _is_old_buffer(model: Any, key: str) -> bool:
    """What earlier releases kept in files and the model now makes itself."""
    buffers = {name.rpartition(".")[2] for name, _ in model.named_buffers()}
    return key.rpartition(".")[2] in buffers


def _sentence_of_lost(lost: Sequence[str], loads: Sequence[Load]) -> str:
    other = sorted({key for load in loads for key in load.mismatched} & set(lost))
    missing = [key for key in lost if key not in other]
    if other and not missing:
        return (
            f"{_counted(len(other), 'tensor')} {_have(other)} another shape in its weights than in config.json"
            f" ({listed(other)}) and would be random numbers; {_ADVICE}"
        )
    prefix = _prefix(missing, [key for load in loads for key in load.unexpected])
    found = f"{_counted(len(missing), 'tensor')} {_are(missing)} missing from its weights ({listed(missing)})"
    if prefix:
        origin = ", which distributed training leaves" if prefix.startswith("module.") else ""
        return f"{found}; the names in the file carry the prefix {prefix!r}{origin}: remove it from them"
    return f"{found} and would be random numbers; {_ADVICE}, with the head that the task needs"


def _prefix(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """What stands before the missing names in the file, if it is the same for most of them."""
    names = set(unexpected)
    candidates = {key[: -len(wanted)] for wanted in missing[:_NAMED] for key in unexpected if key.endswith(wanted)}
    for prefix in sorted(candidates, key=len):
        if prefix and 2 * sum(f"{prefix}{wanted}" in names for wanted in missing) > len(missing):
            return prefix
    return ""


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
