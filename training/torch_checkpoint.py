"""Start weights from a published PyTorch DenseNet121 in torchvision's layout, without PyTorch.

For instance the CheXNet replicas jrzech/reproduce-chexnet and arnoweng/CheXNet, and TorchXRayVision.

A checkpoint is a pickle beside raw numbers, and a pickle is a program: loading one runs whatever its author wrote into
it. Here its opcodes are carried out on inert nodes alone. No class is looked up, nothing is called, and what the file
would have built is only written down (`_Made`); from that the tensors are found. `pickle.Unpickler` with a `find_class`
of its own would not do: its memo table grows to any index that the file names, and its dictionaries hash any key.

Three containers, as their writers make them: zip (torch.save since PyTorch 1.6), legacy (before, what the models of
2017 and 2018 are) and safetensors. Source: torch/serialization.py, torch/_utils.py; safetensors' README.
"""

from __future__ import annotations

import io
import json
import math
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from schemas.findings import Label

Array: TypeAlias = NDArray[np.float32]
Node: TypeAlias = Any  # what the opcodes leave: None, numbers, strings, lists, tuples, dicts, and the shapes below

# The outputs of the replicas' heads, in their order (CLASS_NAMES, PRED_LABEL).
CHEXNET: Final[tuple[Label, ...]] = (
    Label.ATELECTASIS,
    Label.CARDIOMEGALY,
    Label.EFFUSION,
    Label.INFILTRATION,
    Label.MASS,
    Label.NODULE,
    Label.PNEUMONIA,
    Label.PNEUMOTHORAX,
    Label.CONSOLIDATION,
    Label.EDEMA,
    Label.EMPHYSEMA,
    Label.FIBROSIS,
    Label.PLEURAL_THICKENING,
    Label.HERNIA,
)
# torchxrayvision.datasets.default_pathologies; the last four are no labels of NIH.
XRV: Final[tuple[Label | None, ...]] = (
    Label.ATELECTASIS,
    Label.CONSOLIDATION,
    Label.INFILTRATION,
    Label.PNEUMOTHORAX,
    Label.EDEMA,
    Label.EMPHYSEMA,
    Label.FIBROSIS,
    Label.EFFUSION,
    Label.PNEUMONIA,
    Label.PLEURAL_THICKENING,
    Label.CARDIOMEGALY,
    Label.NODULE,
    Label.MASS,
    Label.HERNIA,
    *(None, None, None, None),
)

_LARGEST: Final = 512 << 20  # bytes of a file; a DenseNet121 has 28 MiB of weights, 85 with Adam's moments
_OPERATIONS: Final = 1_000_000  # of one pickle; a whole DenseNet121 module takes 75,000
_NAMES: Final = 20_000  # tensors and modules; a DenseNet121 has 2,500, and Adam as many moments again
_DEPTH: Final = 64  # of modules within modules
_LONGEST: Final = 256  # characters of the name of one module in another
_AXES: Final = 16
_HEADER: Final = 16 << 20  # bytes of JSON
_MAGIC: Final = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_PROTOCOL: Final = 1001  # torch.serialization.PROTOCOL_VERSION
_MEND: Final = (
    "load it with the program that wrote it, save the state dict alone with torch.save(model.state_dict(), FILE), and "
    "name that file"
)

# NumPy's view of an element; bfloat16 is the upper half of a float32.
_ELEMENTS: Final[Mapping[str, str]] = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
}
_STORAGES: Final[Mapping[str, str]] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "_UntypedStorage": "uint8",
}
_SAFETENSORS: Final[Mapping[str, str]] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Weights that a model of ours starts from."""

    weights: dict[str, Array]  # by Keras variable path; every path of the model, ready to be loaded
    columns: tuple[int, ...]  # the outputs whose last layer came from the checkpoint; the others are as they were
    scaling: Literal["densenet121", "xrv"]  # of the input, a name of `network.SCALINGS`
    notes: tuple[str, ...]  # for a person: what was left out, what was taken for granted


def start_from(path: Path, own: Mapping[str, Array], labels: Sequence[Sequence[Label]]) -> Start:
    """Read and convert a checkpoint: `read_checkpoint`, then `densenet121_from_torch`."""
    return densenet121_from_torch(read_checkpoint(path), own, labels, source=path)


def read_checkpoint(path: Path) -> dict[str, Array]:
    """The state dict of a checkpoint; nothing of the file is ever executed.

    A state dict, a dict that holds one ("state_dict", "model", ...), or a whole module, of which the parameters and
    the persistent buffers are taken.

    Returns
    -------
        Tensor by its name in PyTorch, float32 whatever the file's element type, C order; kernels (out, in, h, w).

    Raises
    ------
    ConfigurationError
        The file cannot be read, is none of the three containers, is broken, or holds no tensors.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise _Fault(f"{size} bytes are more than any DenseNet121 has ({_LARGEST} are the limit); {_MEND}")
        data = path.read_bytes()
        return _state_of(data)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror or error}; name a checkpoint that exists and may be read"
        ) from error
    except _Fault as fault:
        raise ConfigurationError(f"{path}: {fault}") from fault
    except _BROKEN as error:
        raise ConfigurationError(f"{path}: broken PyTorch checkpoint ({_short(error)}); fetch it again") from error


def densenet121_from_torch(
    state: Mapping[str, Array],
    own: Mapping[str, Array],
    labels: Sequence[Sequence[Label]],
    *,
    source: str | Path,
) -> Start:
    """Torchvision's names and axes → the Keras variables of `network.build`.

    Works for any number of blocks and widths that `own` has. Kernels go from (out, in, h, w) to (h, w, in, out).
    PyTorch normalises with an epsilon of 1e-5, Keras' DenseNet with 1.001e-5: the difference goes into gamma, so that
    inference is the same. A checkpoint with one input channel is taken as TorchXRayVision's; each of three equal
    channels then gets a third of the kernel.

    Parameters
    ----------
    state:
        What `read_checkpoint` gives. Any prefix ("module.", "densenet121.", ...), and "norm.1" for "norm1".
    own:
        The model's weights as they are (`network.weights_of`): which variables there are, their shapes, and the
        start values of what the checkpoint does not have.
    labels:
        For each output of the last layer the labels that it answers for, as in `description.outputs`; fewer than the
        layer has, or none, leave the rest alone. An output of several labels starts from the mean of their columns.
    source:
        The file's name, for messages.

    Raises
    ------
    ConfigurationError
        The checkpoint is not of the model's layout: tensors missing, left over, of other shapes, or not finite.
    """
    names = {path: name for path in own if (name := _torch_name(path)) is not None}
    if _ANCHOR not in names.values():
        raise ConfigurationError(
            f"{source}: PyTorch checkpoints start a DenseNet121, and this backbone is another; "
            'set model.backbone = "densenet121", or model.start otherwise'
        )
    features, head = _without_prefix(state, source)
    grey = features[_ANCHOR].shape[1:2] == (1,)
    wanted = {name: _torch_shape(own[path].shape) for path, name in names.items()}
    if grey:
        out, _, *kernel = wanted[_ANCHOR]
        wanted[_ANCHOR] = (out, 1, *kernel)
    _insist(features, wanted, source)

    weights = dict(own)
    for path, name in names.items():
        tensor: NDArray[np.floating[Any]] = features[name]
        if path.endswith("/kernel"):
            channels = own[path].shape[2]
            if tensor.shape[1] != channels:
                tensor = np.repeat(tensor / channels, channels, axis=1)
            tensor = tensor.transpose(2, 3, 1, 0)
        elif path.endswith("/gamma"):
            tensor = _with_keras_epsilon(tensor, features[name.removesuffix("weight") + "running_var"])
        weights[path] = np.ascontiguousarray(tensor, dtype=np.float32)

    notes = []
    if grey:
        notes.append("one input channel: taken as TorchXRayVision's, which sees pixels from -1024 to 1024")
    columns: tuple[int, ...] = ()
    order, note = _order_of(head, weights["bn/gamma"].size, grey=grey)
    notes.append(note)
    if order and "maps/kernel" in own:
        columns = _with_head(weights, head, order, labels)
    return Start(weights=weights, columns=columns, scaling="xrv" if grey else "densenet121", notes=tuple(notes))


# ---------------------------------------------------------------------------------------------------- the conversion

_TORCH_EPSILON: Final = 1e-5
_KERAS_EPSILON: Final = 1.001e-5  # keras.applications.DenseNet121
_KINDS: Final = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_STEM: Final = {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0", "bn": "features.norm5"}
_IN_LAYER: Final = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}
_DENSE: Final = re.compile(r"conv(\d+)_block(\d+)_(0_bn|1_conv|1_bn|2_conv)")
_TRANSITION: Final = re.compile(r"pool(\d+)_(bn|conv)")
_OLD_SPELLING: Final = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # torchvision before 0.2.1 or so
_ANCHOR: Final = "features.conv0.weight"
_NO_WEIGHTS: Final = re.compile(r"(.*\.)?(num_batches_tracked|op_threshs)")
_OTHERS: Final = (
    (re.compile(r"(.*\.)?layer1\.0\.conv1\.weight"), "a ResNet"),
    (re.compile(r"(.*\.)?(patch_embed|conv_proj|class_token|cls_token)\b.*"), "a vision transformer"),
    (re.compile(r"(.*\.)?features\.0\.(0\.)?weight"), "a VGG, MobileNet or EfficientNet"),
    (re.compile(r"(.*\.)?Conv2d_1a_3x3\..*"), "an Inception"),
)


def _torch_name(path: str) -> str | None:
    """torchvision's name of a Keras variable; None where DenseNet has none, as for the head.

    "conv2_block1_0_bn/gamma" → "features.denseblock1.denselayer1.norm1.weight".
    """
    layer, _, kind = path.rpartition("/")
    module = _STEM.get(layer)
    if dense := _DENSE.fullmatch(layer):
        module = f"features.denseblock{int(dense[1]) - 1}.denselayer{dense[2]}.{_IN_LAYER[dense[3]]}"
    elif between := _TRANSITION.fullmatch(layer):
        module = f"features.transition{int(between[1]) - 1}.{'norm' if between[2] == 'bn' else 'conv'}"
    return f"{module}.{_KINDS[kind]}" if module and kind in _KINDS else None


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _without_prefix(state: Mapping[str, Array], source: str | Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """The tensors of the network, and of its head, under torchvision's present names.

    Raises
    ------
    ConfigurationError
        Not one network, or not a DenseNet.
    """
    found = [name for name in state if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    if len(found) != 1:
        kind = next((kind for pattern, kind in _OTHERS if any(pattern.fullmatch(name) for name in state)), "")
        what = f"{len(found)} networks" if found else kind or "no DenseNet"
        raise ConfigurationError(
            f"{source}: {what}: expected one tensor {_ANCHOR}, found {len(found)} "
            f"among {len(state)} ({_some(state)}); start from a DenseNet121 in torchvision's layout"
        )
    prefix = found[0].removesuffix(_ANCHOR)
    features: dict[str, Array] = {}
    head: dict[str, Array] = {}
    for name, tensor in state.items():
        if _NO_WEIGHTS.fullmatch(name):
            continue
        ours = name.removeprefix(prefix)
        if ours.startswith("classifier."):
            head[ours.removeprefix("classifier.")] = tensor
            continue
        ours = _OLD_SPELLING.sub(r"\1\2.", ours)
        if ours in features:
            raise ConfigurationError(f"{source}: {_quoted(name)} is there in two spellings; {_MEND}")
        features[ours] = tensor
    return features, head


def _insist(features: Mapping[str, Array], wanted: Mapping[str, tuple[int, ...]], source: str | Path) -> None:
    faults = []
    missing = [name for name in wanted if name not in features]
    extra = [name for name in features if name not in wanted]
    other = [name for name, shape in wanted.items() if name in features and features[name].shape != shape]
    if missing:
        faults.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if extra:
        faults.append(f"{len(extra)} are too many ({_some(extra)})")
    if other:
        shapes = [f"{name} is {features[name].shape} and should be {wanted[name]}" for name in other[:3]]
        faults.append(f"{len(other)} have another shape ({'; '.join(shapes)}{'; ...' if len(other) > 3 else ''})")
    if faults:
        raise ConfigurationError(
            f"{source}: another layout: expected {_layout(wanted)}, found {_layout(features)}; {', '.join(faults)}; "
            "start from a DenseNet121 in torchvision's layout"
        )
    wrong = [name for name in wanted if not np.isfinite(features[name]).all()]
    wrong += [name for name in wanted if name.endswith("running_var") and (features[name] < 0).any()]
    if wrong:
        raise ConfigurationError(
            f"{source}: {len(wrong)} tensors hold numbers that no trained network has ({_some(wrong)}: not finite, or "
            "a negative variance); fetch the file again, or take a checkpoint of an earlier epoch"
        )


def _layout(names: Iterable[str]) -> str:
    """ "blocks of 6-12-24-16 layers"."""
    layers: dict[int, set[int]] = {}
    for name in names:
        if match := re.match(r"features\.denseblock(\d{1,4})\.denselayer(\d{1,4})\.", name):
            layers.setdefault(int(match[1]), set()).add(int(match[2]))
    return f"blocks of {'-'.join(str(len(layers[i])) for i in sorted(layers)) or 'no'} layers"


def _with_keras_epsilon(gamma: Array, variance: Array) -> NDArray[np.float64]:
    """gamma / sqrt(variance + 1e-5) = result / sqrt(variance + 1.001e-5)."""
    wide = variance.astype(np.float64)
    ratio = np.sqrt((wide + _KERAS_EPSILON) / (wide + _TORCH_EPSILON))
    return np.asarray(gamma.astype(np.float64) * ratio)


def _order_of(head: Mapping[str, Array], features: int, *, grey: bool) -> tuple[tuple[Label | None, ...], str]:
    """The labels of the head's outputs, and a note; no labels where the head is of no use to us."""
    if not head:
        return (), "no classifier: the last layer starts as it was"
    layer = next(iter(head)).rpartition(".")[0]
    prefix = f"{layer}." if layer else ""
    weight, bias = head.get(f"{prefix}weight"), head.get(f"{prefix}bias")
    if len(head) != 2 or weight is None or bias is None or weight.shape != (bias.size, features) or bias.ndim != 1:
        return (), f"a classifier that is not one linear layer ({_some(head)}) was left out"
    if not np.isfinite(weight).all() or not np.isfinite(bias).all():
        return (), "a classifier with numbers that are not finite was left out"
    known: Mapping[tuple[bool, int], tuple[tuple[Label | None, ...], str]] = {
        (False, len(CHEXNET)): (
            CHEXNET,
            "14 outputs: taken in CheXNet's order of NIH's findings (CheXpert has 14 too, in another order: if this is "
            "one, only the last layer's start is worse)",
        ),
        (True, len(XRV)): (
            XRV,
            "18 outputs: taken in TorchXRayVision's order (variants that never saw NIH's films leave some untrained)",
        ),
    }
    return known.get((grey, bias.size), ((), f"a classifier of {bias.size} outputs was left out: unknown order"))


def _with_head(
    weights: dict[str, Array],
    head: Mapping[str, Array],
    order: Sequence[Label | None],
    labels: Sequence[Sequence[Label]],
) -> tuple[int, ...]:
    """Lay the head's rows over the columns of the last layer; which they were."""
    (matrix,) = (tensor for tensor in head.values() if tensor.ndim == 2)  # (outputs, features)
    (offsets,) = (tensor for tensor in head.values() if tensor.ndim == 1)
    kernel, bias = weights["maps/kernel"].copy(), weights["maps/bias"].copy()  # (1, 1, features, K), (K,)
    set_columns = []
    for column, answers in enumerate(labels[: bias.size]):
        if not answers or not all(label in order for label in answers):
            continue
        rows = [order.index(label) for label in answers]
        kernel[0, 0, :, column] = matrix[rows].mean(axis=0)
        bias[column] = offsets[rows].mean()
        set_columns.append(column)
    weights["maps/kernel"], weights["maps/bias"] = kernel, bias
    return tuple(set_columns)


# ---------------------------------------------------------------------------------------------------- the containers


class _Fault(Exception):
    """What is wrong with the file, in words for a person, without its name."""


_BROKEN: Final = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RuntimeError, MemoryError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, slots=True)
class _Global:
    """The name of a class or function, e.g. "torch._utils._rebuild_tensor_v2"; never looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of numbers outside the pickle."""

    key: str
    element: str  # a key of _ELEMENTS, or the unknown type's own name
    numel: int
    start: int = 0  # the first element, where an old file has a view of another storage


@dataclass(slots=True)
class _Made:
    """What the file would have built: which name it would have called, with what, and what it would have set."""

    name: str
    args: tuple[Node, ...]
    state: Node = None
    items: dict[Node, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: numbers of a storage, in elements."""

    storage: _Storage
    element: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _state_of(data: bytes) -> dict[str, Array]:
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length <= min(len(data) - 8, _HEADER):
        return _safetensors(data, length)
    if data.startswith(b"PK\x03\x04"):
        return _zip(data)
    if data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return _legacy(data)
    raise _Fault(f"not a PyTorch checkpoint, but {_kind_of(data)}; name a file that torch.save or safetensors wrote")


_KINDS_OF_FILE: Final = (
    (re.compile(rb"$"), "an empty file"),
    (re.compile(rb"\s*<"), "a web page (a download that was answered with an error)"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer (fetch the file itself with git lfs pull)"),
    (re.compile(rb"\x89HDF"), "an HDF5 file (Keras' weights are named with imagenet:FILE)"),
    (re.compile(rb"(?s).{257}ustar"), "a tar archive (name what is in it; PyTorch before 0.1.9 wrote such files too)"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive (unpack it first)"),
)


def _kind_of(data: bytes) -> str:
    return next((kind for pattern, kind in _KINDS_OF_FILE if pattern.match(data[:512])), "something else")


def _zip(data: bytes) -> dict[str, Array]:
    """<name>/data.pkl, <name>/data/<key> for each storage, <name>/byteorder; all of them stored, none packed."""
    if data.count(b"PK\x01\x02") > _NAMES:  # each makes an object before the first can be looked at
        raise _Fault(f"a zip archive of more than {_NAMES} parts; {_MEND}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise _Fault("a zip archive whose parts are larger than itself; torch.save packs nothing; fetch it again")
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Fault("a zip archive, but not one of torch.save (no data.pkl); unpack it and name what is in it")
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{folder}code/") for name in entries):
            raise _Fault(
                "a TorchScript archive; save torch.jit.load(FILE).state_dict() with torch.save, and name that file"
            )

        def part(name: str) -> bytes:
            if name not in entries:
                raise _Fault(f"truncated: {_quoted(name)} is missing in the archive; fetch it again")
            return archive.read(entries[name])

        big = f"{folder}byteorder" in entries and part(f"{folder}byteorder").strip() == b"big"
        machine = _Machine()
        root = machine.run(io.BytesIO(part(pickles[0])))
        numbers: dict[str, bytes] = {}

        def read(storage: _Storage) -> bytes:
            if storage.key not in numbers:
                numbers[storage.key] = part(f"{folder}data/{storage.key}")
            return numbers[storage.key]

        return _arrays(_named(root), read, order=">" if big else "<", budget=len(data))


def _legacy(data: bytes) -> dict[str, Array]:
    """Five pickles: magic number, protocol, system, the object, the storages' keys; then each storage's count and
    numbers, little-endian whatever the system was."""
    file = io.BytesIO(data)
    if _Machine().run(file) != _MAGIC:
        raise _Fault(f"a pickle, but not a checkpoint of torch.save; {_MEND}")
    protocol = _Machine().run(file)
    if protocol != _PROTOCOL:
        raise _Fault(f"torch.save's protocol {_short(protocol)}, expected {_PROTOCOL}; {_MEND}")
    _Machine().run(file)
    machine = _Machine()
    root = machine.run(file)
    keys = _Machine().run(file)
    if not isinstance(keys, list):
        raise _Fault("broken: the list of storages is missing; fetch it again")
    numbers: dict[str, bytes] = {}
    for key in map(_text, keys):
        storage = machine.storages.get(key)
        if storage is None or storage.element not in _ELEMENTS:
            raise _Fault(f"a storage of unknown type ({storage.element if storage else 'none'}); {_MEND}")
        count = int.from_bytes(file.read(8), "little")
        length = storage.numel * np.dtype(_ELEMENTS[storage.element]).itemsize
        left = len(data) - file.tell()
        if count != storage.numel or length > left:
            raise _Fault(
                f"truncated or broken: storage {_quoted(key)} should have {storage.numel} numbers ({length} bytes), "
                f"says {count}, and {left} bytes are left; fetch it again"
            )
        numbers[key] = file.read(length)

    def read(storage: _Storage) -> bytes:
        if storage.key not in numbers:
            raise _Fault(f"truncated: storage {_quoted(storage.key)} is missing; fetch it again")
        return numbers[storage.key]

    return _arrays(_named(root), read, order="<", budget=len(data))


def _safetensors(data: bytes, length: int) -> dict[str, Array]:
    """Eight bytes, the header's length; the header in JSON: name → dtype, shape, data_offsets; then the numbers."""
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    views: dict[str, _View] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = _ints(entry["data_offsets"])
        shape = _ints(entry["shape"])
        element = _SAFETENSORS.get(entry["dtype"], f"safetensors' {_short(entry['dtype'])}")
        size = np.dtype(_ELEMENTS[element]).itemsize if element in _ELEMENTS else 0
        if not 0 <= first <= last <= len(body) or math.prod(shape) * size != last - first:
            raise _Fault(f"broken: {_quoted(name)} does not fit into the file; fetch it again")
        stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        views[name] = _View(_Storage(f"{first}:{last}", element, math.prod(shape)), element, 0, shape, stride)

    def read(storage: _Storage) -> memoryview:
        first, _, last = storage.key.partition(":")
        return body[int(first) : int(last)]

    return _arrays(views.items(), read, order="<", budget=len(data))


def _arrays(
    views: Iterable[tuple[str, _View]],
    read: Callable[[_Storage], bytes | memoryview],
    *,
    order: Literal["<", ">"],
    budget: int,
) -> dict[str, Array]:
    """The numbers of each tensor. Everything is checked against the storage before memory is asked for.

    Views may overlap (tied weights) and repeat (a stride of nought), so that a small file can ask for any amount: no
    honest checkpoint has more numbers than bytes, and that is the budget.
    """
    arrays: dict[str, Array] = {}
    for name, view in views:
        storage, element = view.storage, view.element
        if element not in _ELEMENTS or storage.element not in _ELEMENTS:
            raise _Fault(f"{_quoted(name)} is of the type {element}, which is not read; {_MEND}")
        kind = np.dtype(_ELEMENTS[element]).newbyteorder(order)
        numbers = read(storage)
        if len(numbers) != storage.numel * np.dtype(_ELEMENTS[storage.element]).itemsize:
            raise _Fault(
                f"truncated or broken: the storage of {_quoted(name)} should have {storage.numel} numbers of "
                f"{storage.element} and has {len(numbers)} bytes; fetch it again"
            )
        count = math.prod(view.shape)
        budget -= count
        if len(view.stride) != len(view.shape) or min((view.offset, *view.shape, *view.stride)) < 0 or budget < 0:
            raise _Fault(f"broken: {_quoted(name)} has a shape that no tensor of this file can have; fetch it again")
        if count == 0:
            arrays[name] = np.zeros(view.shape, np.float32)
            continue
        last = view.offset + sum((n - 1) * step for n, step in zip(view.shape, view.stride, strict=True))
        if last >= len(numbers) // kind.itemsize:
            raise _Fault(
                f"broken: {_quoted(name)} reaches to number {last} of a storage of {len(numbers) // kind.itemsize}; "
                "fetch it again"
            )
        flat = np.frombuffer(numbers, kind, count=last + 1 - view.offset, offset=view.offset * kind.itemsize)
        strided = np.lib.stride_tricks.as_strided(flat, view.shape, [kind.itemsize * n for n in view.stride])
        if element == "bfloat16":
            arrays[name] = np.asarray(np.left_shift(strided, 16, dtype=np.uint32, order="C")).view(np.float32)
        else:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
                arrays[name] = np.array(strided, np.float32, order="C")
    return arrays


# --------------------------------------------------------------------------------------------- what the pickle holds

_REBUILDS: Final = frozenset(
    {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
)
_WRAPPERS: Final = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.autograd.variable.Variable",
    }
)
_FROM_TYPE: Final = frozenset({"torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2"})
# Where programs keep their network, in the order in which they are asked.
_USUAL_KEYS: Final = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")


def _named(root: Node) -> Iterator[tuple[str, _View]]:
    """Name and place of each tensor of the state dict that is somewhere in the checkpoint."""
    node, where = root, "the checkpoint"
    for _ in range(_DEPTH):
        if _module(node) is not None:
            return _of_module(node)
        if not isinstance(node, dict):
            break
        inner = {key: value for key, value in node.items() if isinstance(key, str) and _holds_more(value)}
        usual: list[str] = [key for key in _USUAL_KEYS if key in inner]
        tensors = [(key, view) for key, value in node.items() if isinstance(key, str) and (view := _tensor(value))]
        if not usual and tensors:
            return iter(tensors)
        likely: list[str] = usual or [key for key in inner if "optim" not in key and "sched" not in key]
        if not usual and len(likely) != 1:
            break
        node, where = inner[likely[0]], likely[0]
    found = type(node).__name__ if not isinstance(node, _Made) else node.name
    keys = f" with {_some(map(str, node))}" if isinstance(node, dict) else ""
    raise _Fault(f"no state dict and no module in it: {_short(where)} is {_short(found)}{keys}; {_MEND}")


def _holds_more(node: Node) -> bool:
    return (isinstance(node, dict) and bool(node)) or _module(node) is not None


def _module(node: Node) -> dict[Node, Node] | None:
    """The attributes of a torch.nn.Module, whatever its class; None for anything else."""
    if not isinstance(node, _Made):
        return None
    state = node.state[0] if isinstance(node.state, tuple) and node.state else node.state
    return state if isinstance(state, dict) and isinstance(state.get("_modules"), dict) else None


def _of_module(root: Node) -> Iterator[tuple[str, _View]]:
    """As torch.nn.Module.state_dict: parameters and persistent buffers, then those of the modules within."""
    left = _NAMES  # modules may stand in several places, or within themselves
    pending: list[tuple[str, Node, int]] = [("", root, 0)]
    while pending:
        prefix, node, depth = pending.pop()
        attributes = _module(node)
        if attributes is None:
            continue
        parameters, buffers = attributes.get("_parameters"), attributes.get("_buffers")
        passing = attributes.get("_non_persistent_buffers_set")
        passing = passing.args[0] if isinstance(passing, _Made) and passing.args else passing
        parts = [part for part in (parameters, buffers, attributes["_modules"]) if isinstance(part, dict)]
        left -= sum(map(len, parts)) + (len(passing) if isinstance(passing, list) else 0)
        if left < 0 or depth > _DEPTH:
            raise _Fault(f"broken: more modules within modules than any network has; {_MEND}")
        hidden = {name for name in passing if isinstance(name, str)} if isinstance(passing, list) else set()
        for part in parts[:-1]:
            for name, value in part.items():
                view = _tensor(value)
                if view is not None and not (part is buffers and name in hidden):
                    yield prefix + _part(name), view
        inner = [(f"{prefix}{_part(name)}.", module, depth + 1) for name, module in attributes["_modules"].items()]
        pending.extend(reversed(inner))


def _part(name: Node) -> str:
    if not isinstance(name, str) or len(name) > _LONGEST:
        raise _Fault(f"broken: a module or tensor of an impossible name; {_MEND}")
    return name


def _tensor(node: Node) -> _View | None:
    """The tensor that a node stands for; None where it stands for none."""
    for _ in range(4):
        if not isinstance(node, _Made):
            return None
        if node.name in _REBUILDS:
            return _view(node)
        if node.name in _FROM_TYPE:
            function, _, args, *_ = node.args
            node = _Made(function.name, args) if isinstance(function, _Global) and isinstance(args, tuple) else None
        elif node.name in _WRAPPERS:
            # Before PyTorch 0.2 a variable's tensor was the first of its five attributes.
            older = node.state if isinstance(node.state, tuple) and len(node.state) == 5 else (None,)
            node = node.args[0] if node.args else older[0]
        else:
            return None
    return None


def _view(node: _Made) -> _View:
    storage, offset, shape, stride, *rest = node.args
    if not isinstance(storage, _Storage):
        raise _Fault("broken: a tensor without a storage; fetch it again")
    element = storage.element
    if node.name.endswith("_v3"):
        element = rest[2].name.removeprefix("torch.")
    (start,) = _ints((offset,))
    return _View(storage, element, storage.start + start, _ints(shape), _ints(stride))


def _ints(values: Node) -> tuple[int, ...]:
    if isinstance(values, _Made) and values.name == "torch.Size":
        (values,) = values.args
    if (
        not isinstance(values, tuple | list)
        or len(values) > _AXES
        or not all(type(value) is int and abs(value) < 1 << 63 for value in values)
    ):
        raise _Fault("broken: a tensor's shape is no row of a few whole numbers; fetch it again")
    return tuple(values)


# ------------------------------------------------------------------------------------------------------- the opcodes


class _Machine:
    """Carries out a pickle's opcodes on inert nodes (Lib/pickletools.py describes each).

    A call becomes a `_Made`, a global a `_Global`, a persistent id a `_Storage`. Python 2's strings are read as
    Latin-1. Dict keys that are neither strings nor numbers are dropped: no state dict has them, and hashing what a
    stranger nested can take for ever.
    """

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Node] = []
        self._below: list[list[Node]] = []  # the stacks under each open mark
        self._memo: dict[int, Node] = {}
        self._left = _OPERATIONS

    def run(self, file: io.BytesIO) -> Node:
        """One pickle, from the file's position to after its STOP.

        Raises
        ------
        _Fault
            An opcode that no checkpoint needs, or too many of them.
        ValueError, LookupError, TypeError
            The pickle is broken.
        """
        for opcode, argument, _ in pickletools.genops(file):
            self._spend(1)
            name = opcode.name
            if name in _CONSTANTS:
                self._stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name != "STOP":
                raise _Fault(f"the operation {name}, which no checkpoint needs; {_MEND}")
        return self._stack.pop()

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _Fault(f"more than {_OPERATIONS} operations in its pickle; {_MEND}")

    def push(self, node: Node) -> None:
        self._stack.append(node)

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Node]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.since_mark()

    def pop_mark(self, _: object) -> None:
        self.since_mark()

    def last(self, count: int) -> None:
        """The last `count` nodes become one tuple."""
        if len(self._stack) < count:
            raise IndexError("empty stack")
        cut = len(self._stack) - count
        self._stack[cut:] = [tuple(self._stack[cut:])]

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def extend(self, items: list[Node]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):  # sets are lists here; what else appends to itself is of no interest
            target.extend(items)

    def update(self, flat: list[Node]) -> None:
        target = self._stack[-1]
        into = target.items if isinstance(target, _Made) else target
        for key, value in _pairs(flat):
            into[key] = value

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_Global(f"{module}.{name}"))

    def name_from_stack(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_Global(f"{_text(module)}.{_text(name)}"))

    def call(self, _: object) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        if isinstance(args, tuple) and args and isinstance(args[0], list):
            self._spend(4 * len(args[0]))  # an ordered dict of one list may be asked for again and again
        self._stack.append(_made(function, args))

    def call_with_names(self, _: object) -> None:
        self._stack.pop()
        self.call(None)

    def old_instance(self, argument: str | None) -> None:
        items = self.since_mark()
        if argument is None:
            function, *items = items
        else:
            function = _Global(argument.replace(" ", ".", 1))
        self._stack.append(_made(function, tuple(items)))

    def build(self, _: object) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], _Made):
            self._stack[-1].state = state

    def persistent(self, _: object) -> None:
        kind, *rest = self._stack.pop()
        if kind == "module":  # a class, its file and its source
            self._stack.append(rest[0])
            return
        if kind != "storage" or len(rest) < 4 or not isinstance(rest[0], _Global):
            raise _Fault(f"broken: an unknown persistent id {_short(kind)}; {_MEND}")
        key, (numel,) = _text(rest[1]), _ints((rest[3],))
        element = _STORAGES.get(rest[0].name.rpartition(".")[2], _short(rest[0].name))
        if numel < 0:
            raise _Fault(f"broken: storage {_quoted(key)} has {numel} numbers; fetch it again")
        storage = _Storage(key, element, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise _Fault(f"broken: storage {_quoted(key)} is described in two ways; fetch it again")
        if len(rest) > 4 and rest[4] is not None:
            _, start, _ = rest[4]
            storage = _Storage(key, element, numel, *_ints((start,)))
        self._stack.append(storage)


def _made(function: Node, args: Node) -> Node:
    name = function.name if isinstance(function, _Global) else "?"
    args = args if isinstance(args, tuple) else (args,)
    if name in {"collections.OrderedDict", "collections.defaultdict"}:
        # Python 2 gives the pairs as a list, Python 3 sets them afterwards; a defaultdict's first is its factory.
        pairs = args[0] if args and isinstance(args[0], list) else []
        return dict(_pairs([node for pair in pairs for node in (pair[0], pair[1])]))
    return _Made(name, args)


def _pairs(flat: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if key is None or isinstance(key, str | bytes | int | float):
            yield key, value


def _text(node: Node) -> str:
    if not isinstance(node, str | int):
        raise _Fault(f"broken: a name that is no text; {_MEND}")
    return str(node)


_CONSTANTS: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_ACTIONS: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda m, _: m.push(m._stack[-1]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.last(1),
    "TUPLE2": lambda m, _: m.last(2),
    "TUPLE3": lambda m, _: m.last(3),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "EMPTY_SET": lambda m, _: m.push([]),
    "FROZENSET": lambda m, _: m.push(m.since_mark()),
    "APPEND": lambda m, _: m.extend([m._stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.since_mark()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": lambda m, _: m.push(dict(_pairs(m.since_mark()))),
    "SETITEM": lambda m, _: m.update([m._stack.pop(-2), m._stack.pop()]),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_names,
    "INST": _Machine.old_instance,
    "OBJ": _Machine.old_instance,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}


# ---------------------------------------------------------------------------------------------------------- the words


def _short(value: object) -> str:
    """What a stranger wrote, fit for one line of a message."""
    if not isinstance(value, str | int | float | Exception):
        value = type(value).__name__
    text = str(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a very large number"
    text = "".join(c if c.isprintable() else "?" for c in text[:120])
    return text or type(value).__name__


def _quoted(name: str) -> str:
    return f'"{_short(name)}"'


def _some(names: Iterable[str]) -> str:
    """The first three of them."""
    listed = list(names)
    return ", ".join(_short(name) for name in listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"
