"""A peer for `training.torch_checkpoint`: torchvision's DenseNet in plain NumPy, and PyTorch's two containers.

Written from torchvision/models/densenet.py and torch/serialization.py, without either, and without the code under test.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


# -------------------------------------------------------------------------------------------------------- the network


def random_state(
    blocks: tuple[int, ...], growth: int = 4, stem: int = 8, classes: int = 14, channels: int = 3, seed: int = 0
) -> Arrays:
    """The state dict of torchvision.models.DenseNet(growth, blocks, stem), with weights that keep numbers moderate."""
    rng = np.random.default_rng(seed)
    state: Arrays = {}

    def conv(name: str, n_in: int, n_out: int, side: int) -> None:
        state[f"{name}.weight"] = rng.normal(0, (2 / (n_in * side * side)) ** 0.5, (n_out, n_in, side, side))

    def norm(name: str, n: int) -> None:
        state[f"{name}.weight"] = rng.uniform(0.5, 1.5, n)
        state[f"{name}.bias"] = rng.normal(0, 0.2, n)
        state[f"{name}.running_mean"] = rng.normal(0, 0.2, n)
        state[f"{name}.running_var"] = rng.uniform(0.5, 2, n)
        state[f"{name}.num_batches_tracked"] = np.array(1234)

    conv("features.conv0", channels, stem, 7)
    norm("features.norm0", stem)
    width = stem
    for i, layers in enumerate(blocks, 1):
        for j in range(1, layers + 1):
            layer = f"features.denseblock{i}.denselayer{j}"
            norm(f"{layer}.norm1", width)
            conv(f"{layer}.conv1", width, 4 * growth, 1)
            norm(f"{layer}.norm2", 4 * growth)
            conv(f"{layer}.conv2", 4 * growth, growth, 3)
            width += growth
        if i < len(blocks):
            norm(f"features.transition{i}.norm", width)
            conv(f"features.transition{i}.conv", width, width // 2, 1)
            width //= 2
    norm("features.norm5", width)
    state["classifier.weight"] = rng.normal(0, width**-0.5, (classes, width))
    state["classifier.bias"] = rng.normal(0, 1, classes)
    return {name: tensor.astype(np.float32) for name, tensor in state.items()}


def logits(state: Arrays, films: np.ndarray) -> np.ndarray:
    """Inference in float64: (N, channels, h, w) → (N, classes)."""

    def conv(name: str, x: np.ndarray, stride: int = 1, pad: int = 0) -> np.ndarray:
        kernel = state[f"{name}.weight"].astype(np.float64)
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
        return np.tensordot(windows, kernel, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)

    def norm_relu(name: str, x: np.ndarray) -> np.ndarray:
        kinds = ("weight", "bias", "running_mean", "running_var")
        gain, bias, mean, var = (state[f"{name}.{k}"].astype(np.float64)[None, :, None, None] for k in kinds)
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * gain + bias, 0)

    x = norm_relu("features.norm0", conv("features.conv0", films.astype(np.float64), stride=2, pad=3))
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max(axis=(4, 5))
    block = 1
    while f"features.denseblock{block}.denselayer1.conv1.weight" in state:
        layer = 1
        while f"features.denseblock{block}.denselayer{layer}.conv1.weight" in state:
            name = f"features.denseblock{block}.denselayer{layer}"
            new = conv(f"{name}.conv1", norm_relu(f"{name}.norm1", x))
            new = conv(f"{name}.conv2", norm_relu(f"{name}.norm2", new), pad=1)
            x = np.concatenate([x, new], axis=1)
            layer += 1
        if f"features.transition{block}.conv.weight" in state:
            x = conv(f"features.transition{block}.conv", norm_relu(f"features.transition{block}.norm", x))
            n, c, h, w = x.shape
            x = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))
        block += 1
    pooled = norm_relu("features.norm5", x).mean(axis=(2, 3))
    return pooled @ state["classifier.weight"].astype(np.float64).T + state["classifier.bias"]


# ------------------------------------------------------------------------------------------------------ the containers

STORAGES = {
    "float64": ("DoubleStorage", "<f8"),
    "float32": ("FloatStorage", "<f4"),
    "float16": ("HalfStorage", "<f2"),
    "bfloat16": ("BFloat16Storage", "<u2"),
    "int64": ("LongStorage", "<i8"),
    "uint8": ("ByteStorage", "<u1"),
    "bool": ("BoolStorage", "?"),
}


@dataclass(eq=False)
class Global:
    name: str


@dataclass(eq=False)
class Call:
    """`name(*args)`, by REDUCE or NEWOBJ, then BUILD with the state."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    new: bool = False


@dataclass(eq=False)
class Storage:
    kind: str
    key: str
    numel: int
    view: Any = None


@dataclass(eq=False)
class Raw:
    """Opcodes as they are."""

    opcodes: bytes


@dataclass
class Checkpoint:
    """Collects the numbers, then writes an object in either container."""

    numbers: dict[str, bytes] = field(default_factory=dict)
    storages: list[Storage] = field(default_factory=list)

    def storage(self, array: np.ndarray, element: str = "float32") -> Storage:
        name, kind = STORAGES[element]
        flat = np.ascontiguousarray(array).reshape(-1)
        if element == "bfloat16":
            flat = flat.astype("<f4").view("<u4") >> 16
        made = Storage(f"torch.{name}", str(len(self.storages)), flat.size)
        self.storages.append(made)
        self.numbers[made.key] = flat.astype(kind).tobytes()
        return made

    def tensor(self, array: np.ndarray, element: str = "float32", **view: Any) -> Call:
        storage = view.pop("storage", None) or self.storage(array, element)
        shape = view.get("shape", array.shape)
        stride = view.get("stride", tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))))
        args = (storage, view.get("offset", 0), shape, stride, False, OrderedDict())
        return Call("torch._utils._rebuild_tensor_v2", args)

    def state_dict(self, state: Arrays, element: str = "float32") -> OrderedDict[str, Call]:
        kinds = {name: "int64" if name.endswith("num_batches_tracked") else element for name in state}
        return OrderedDict((name, self.tensor(array, kinds[name])) for name, array in state.items())

    def zip(self, node: Any, compression: int = zipfile.ZIP_STORED, order: bytes = b"little") -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as archive:
            archive.writestr("model/data.pkl", _Pickle(legacy=False).dump(node))
            archive.writestr("model/byteorder", order)
            for key, numbers in self.numbers.items():
                archive.writestr(f"model/data/{key}", numbers)
            archive.writestr("model/version", b"3\n")
        return out.getvalue()

    def legacy(self, node: Any, *, python2: bool = False) -> bytes:
        def dump(value: Any) -> bytes:
            return _Pickle(legacy=True, python2=python2).dump(value)

        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        parts = [dump(0x1950A86A20F9469CFC6C), dump(1001), dump(system), dump(node)]
        parts.append(dump([storage.key for storage in self.storages]))
        for storage in self.storages:
            parts += [struct.pack("<q", storage.numel), self.numbers[storage.key]]
        return b"".join(parts)


class _Pickle:
    """Protocol 2, with the memo and the persistent ids that torch.save makes."""

    def __init__(self, *, legacy: bool, python2: bool = False) -> None:
        self.legacy, self.python2 = legacy, python2
        self.memo: dict[Any, int] = {}

    def dump(self, node: Any) -> bytes:
        return b"\x80\x02" + self.of(node) + b"."

    def of(self, node: Any) -> bytes:
        key = (
            ("text", node) if isinstance(node, str) else ("global", node.name) if isinstance(node, Global) else id(node)
        )
        if key in self.memo:
            index = self.memo[key]
            return b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)
        made = self.made(node)
        if not isinstance(node, str | Global | Call | Storage | dict):
            return made
        index = self.memo[key] = len(self.memo)
        return made + (b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index))

    def made(self, node: Any) -> bytes:
        match node:
            case Raw():
                return node.opcodes
            case None:
                return b"N"
            case bool():
                return b"\x88" if node else b"\x89"
            case int():
                if -(1 << 31) <= node < 1 << 31:
                    return b"J" + struct.pack("<i", node)
                length = node.bit_length() // 8 + 1
                return b"\x8a" + bytes([length]) + node.to_bytes(length, "little", signed=True)
            case float():
                return b"G" + struct.pack(">d", node)
            case str():
                if self.python2:
                    return b"U" + bytes([len(node)]) + node.encode("latin-1")
                return b"X" + struct.pack("<I", len(node.encode())) + node.encode()
            case tuple():
                if len(node) > 3:
                    return b"(" + b"".join(map(self.of, node)) + b"t"
                return b"".join(map(self.of, node)) + (b")", b"\x85", b"\x86", b"\x87")[len(node)]
            case list():
                return b"](" + b"".join(map(self.of, node)) + b"e"
            case OrderedDict():
                return self.of(Global("collections.OrderedDict")) + b")R" + self.items(node)
            case dict():
                return b"}" + self.items(node)
            case Global():
                module, _, name = node.name.rpartition(".")
                return f"c{module}\n{name}\n".encode()
            case Storage():
                row = ("storage", Global(node.kind), node.key, "cpu", node.numel)
                return self.of((*row, node.view) if self.legacy else row) + b"Q"
            case Call():
                made = self.of(Global(node.name)) + self.of(node.args) + (b"\x81" if node.new else b"R")
                return made if node.state is None else made + self.of(node.state) + b"b"
        raise TypeError(type(node))

    def items(self, node: dict[Any, Any]) -> bytes:
        return b"(" + b"".join(self.of(k) + self.of(v) for k, v in node.items()) + b"u" if node else b""
