"""A Keras functional graph, read from its JSON and built again out of OpenVINO operations, without TensorFlow.

Keras keeps images as (N, height, width, channels). Here a rank 4 value lives as (N, channels, height, width), which is
the order of OpenVINO's operations; whatever Keras says of axes is translated at the door of each layer.
"same" is TensorFlow's: the odd pixel of padding goes below and right, and averages leave the padding out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset1, opset15

from schemas.errors import BundleInvalid

Array: TypeAlias = NDArray[np.float32]
Node: TypeAlias = Any  # ov.Node; OpenVINO ships no types for its operations
Key: TypeAlias = tuple[str, int, int]  # Keras history of a tensor: layer, call of the layer, output of the call

TO_NCHW: Final = [0, 3, 1, 2]
TO_NHWC: Final = [0, 2, 3, 1]
EPSILON: Final = 1e-7  # keras.config.epsilon(), which Normalization divides by at least


@dataclass(frozen=True, slots=True)
class Layer:
    """One entry of the functional config, with the weights at hand."""

    name: str
    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, NDArray[np.floating[Any]]]

    def weight(self, leaf: str) -> Array:
        """The variable `<layer>/<leaf>`."""
        path = f"{self.name}/{leaf}"
        if path not in self.weights:
            raise BundleInvalid(f"layer {self.name} ({self.kind}): the bundle has no weight {path!r}; export it again")
        return np.asarray(self.weights[path], dtype=np.float32)

    def per_channel(self, values: Any, rank: int) -> Node:
        """A constant that broadcasts along the channels of a value of this rank."""
        array = np.asarray(values, dtype=np.float32)
        if array.size == 1:
            return opset15.constant(array.reshape(()))
        return opset15.constant(array.reshape((1, -1, 1, 1) if rank == 4 else (1, -1)))

    def must(self, option: str, *allowed: Any) -> None:
        if self.config.get(option, allowed[0]) not in allowed:
            raise self.unknown(f"{option} = {self.config[option]!r}")

    def unknown(self, what: str) -> BundleInvalid:
        return BundleInvalid(
            f"layer {self.name} ({self.kind}): {what} cannot be served by OpenVINO; "
            'set [model] runtime = "tensorflow", or export another architecture'
        )


def build(graph_json: str, weights: Mapping[str, NDArray[np.floating[Any]]]) -> ov.Model:
    """The graph as an OpenVINO model: one uint8 (N, H, W, 3) input; Keras' named outputs, float32, channels last.

    Parameters
    ----------
    graph_json:
        What `keras.Model.to_json` says of a functional model with one input and a dictionary of outputs.
    weights:
        Keras variable path → array of any float type.

    Raises
    ------
    BundleInvalid
        Not such a graph; a layer or an option that is not known here; a weight that is missing or misshapen.
    """
    try:
        config = json.loads(graph_json)["config"]
        values, image = _walk(config, weights)
        outputs = {name: values[_key(history)] for name, history in config["output_layers"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleInvalid(f"not a Keras functional graph with named outputs ({error!r}); export it again") from error
    results = []
    for name, value in outputs.items():
        last = opset15.transpose(value, TO_NHWC) if _rank(value) == 4 else value
        result = opset15.result(last)
        result.output(0).set_names({name})
        results.append(result)
    return ov.Model(results, [image])


def _walk(config: Mapping[str, Any], weights: Mapping[str, NDArray[np.floating[Any]]]) -> tuple[dict[Key, Node], Node]:
    """Every tensor of the graph, and the input parameter."""
    values: dict[Key, Node] = {}
    images: list[Node] = []
    waiting: list[tuple[Layer, int, list[Key]]] = []
    for entry in config["layers"]:
        layer = Layer(entry["config"]["name"], entry["class_name"], entry["config"], weights)
        if layer.kind == "InputLayer":
            image = opset15.parameter([-1, *layer.config["batch_shape"][1:]], np.uint8, name=layer.name)
            images.append(image)
            values[layer.name, 0, 0] = opset15.transpose(opset15.convert(image, "f32"), TO_NCHW)
            continue
        if layer.kind not in LAYERS:
            raise layer.unknown("this kind of layer")
        waiting += [(layer, call, list(_histories(node["args"]))) for call, node in enumerate(entry["inbound_nodes"])]
    if len(images) != 1:
        raise BundleInvalid(f"the graph has {len(images)} inputs instead of one image; export it again")
    while waiting:  # a layer that is called twice stands before what its second call reads
        later = []
        for layer, call, inputs in waiting:
            if all(key in values for key in inputs):
                values[layer.name, call, 0] = _apply(layer, [values[key] for key in inputs])
            else:
                later.append((layer, call, inputs))
        if len(later) == len(waiting):
            raise BundleInvalid(f"layer {later[0][0].name}: its input is nowhere in the graph; export it again")
        waiting = later
    return values, images[0]


def _apply(layer: Layer, inputs: list[Node]) -> Node:
    layer.must("data_format", "channels_last", None)
    try:
        return LAYERS[layer.kind](layer, *inputs)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:  # RuntimeError: OpenVINO's own refusal
        raise BundleInvalid(f"layer {layer.name} ({layer.kind}): {error}; export the bundle again") from error


def _histories(args: Any) -> Iterator[Key]:
    """The Keras tensors in the arguments of a call, in order."""
    if isinstance(args, list):
        for item in args:
            yield from _histories(item)
    elif isinstance(args, dict) and args.get("class_name") == "__keras_tensor__":
        yield _key(args["config"]["keras_history"])


def _key(history: list[Any]) -> Key:
    layer, call, output = history
    return layer, call, output


def _rank(value: Node) -> int:
    return len(value.get_output_partial_shape(0))


def _activate(layer: Layer, value: Node) -> Node:
    name = layer.config["activation"]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise layer.unknown(f"activation {name!r}")
    return ACTIVATIONS[name](value)


def _biased(layer: Layer, value: Node) -> Node:
    if not layer.config["use_bias"]:
        return _activate(layer, value)
    bias = layer.per_channel(layer.weight("bias"), _rank(value))
    return _activate(layer, opset15.add(value, bias))


def _window(layer: Layer, dilations: list[int]) -> dict[str, Any]:
    layer.must("padding", "valid", "same")
    auto_pad = {"valid": "VALID", "same": "SAME_UPPER"}[layer.config["padding"]]
    strides = list(layer.config["strides"] or layer.config["pool_size"])
    pads = {"pads_begin": [0, 0], "pads_end": [0, 0], "auto_pad": auto_pad}
    return {"strides": strides, **pads} | ({"dilations": dilations} if dilations else {})


def _convolve(layer: Layer, x: Node, kernel: Array, groups: int) -> Node:
    """`kernel` as Keras has it: (height, width, channels in / groups, channels out)."""
    window = _window(layer, list(layer.config["dilation_rate"]))
    filters = kernel.transpose(3, 2, 0, 1)
    if groups == 1:
        return opset15.convolution(x, opset15.constant(np.ascontiguousarray(filters)), **window)
    grouped = filters.reshape(groups, filters.shape[0] // groups, *filters.shape[1:])
    return opset15.group_convolution(x, opset15.constant(np.ascontiguousarray(grouped)), **window)


def _depthwise(layer: Layer, x: Node, kernel: Array) -> Node:
    """`kernel` as Keras has it: (height, width, channels in, multiplier)."""
    height, width, channels, multiplier = kernel.shape
    return _convolve(layer, x, kernel.reshape(height, width, 1, channels * multiplier), channels)


def _pointwise(x: Node, filters: Node) -> Node:
    return opset15.convolution(x, filters, [1, 1], [0, 0], [0, 0], [1, 1])


def _is_pointwise(x: Node) -> bool:
    if x.get_type_name() != "Convolution" or list(x.get_attributes()["strides"]) != [1, 1]:
        return False
    return list(x.get_input_shape(1))[2:] == [1, 1]


def conv2d(layer: Layer, x: Node) -> Node:
    return _biased(layer, _convolve(layer, x, layer.weight("kernel"), layer.config.get("groups", 1)))


def depthwise_conv2d(layer: Layer, x: Node) -> Node:
    return _biased(layer, _depthwise(layer, x, layer.weight("kernel")))


def separable_conv2d(layer: Layer, x: Node) -> Node:
    pointwise = np.ascontiguousarray(layer.weight("pointwise_kernel").transpose(3, 2, 0, 1))
    return _biased(
        layer, _pointwise(_depthwise(layer, x, layer.weight("depthwise_kernel")), opset15.constant(pointwise))
    )


def dense(layer: Layer, x: Node) -> Node:
    kernel = layer.weight("kernel")
    if _rank(x) == 4:  # along the channels of every pixel: a 1 x 1 convolution
        return _biased(layer, _pointwise(x, opset15.constant(np.ascontiguousarray(kernel.T[:, :, None, None]))))
    return _biased(layer, opset15.matmul(x, opset15.constant(kernel), False, False))


def batch_normalization(layer: Layer, x: Node) -> Node:
    layer.must("axis", 3, -1, [3], [-1])
    scale = 1.0 / np.sqrt(layer.weight("moving_variance").astype(np.float64) + layer.config["epsilon"])
    if layer.config["scale"]:
        scale = scale * layer.weight("gamma")
    shift = -layer.weight("moving_mean") * scale
    if layer.config["center"]:
        shift = shift + layer.weight("beta")
    rank = _rank(x)
    return opset15.add(opset15.multiply(x, layer.per_channel(scale, rank)), layer.per_channel(shift, rank))


def rescaling(layer: Layer, x: Node) -> Node:
    rank = _rank(x)
    scaled = opset15.multiply(x, layer.per_channel(layer.config["scale"], rank))
    return opset15.add(scaled, layer.per_channel(layer.config["offset"], rank))


def normalization(layer: Layer, x: Node) -> Node:
    layer.must("invert", False)
    layer.must("axis", -1, 3, [-1], [3])
    mean, variance = layer.config.get("mean"), layer.config.get("variance")
    if mean is None:  # adapted to data instead of given
        mean, variance = layer.weight("mean"), layer.weight("variance")
    scale = 1.0 / np.maximum(np.sqrt(np.asarray(variance, dtype=np.float64)), EPSILON)
    rank = _rank(x)
    centred = opset15.subtract(x, layer.per_channel(mean, rank))
    return opset15.multiply(centred, layer.per_channel(scale, rank))


def zero_padding2d(layer: Layer, x: Node) -> Node:
    (top, bottom), (left, right) = layer.config["padding"]
    zero = opset15.constant(np.float32(0))
    return opset15.pad(
        x, opset15.constant([0, 0, top, left]), opset15.constant([0, 0, bottom, right]), "constant", zero
    )


def max_pooling2d(layer: Layer, x: Node) -> Node:
    return opset1.max_pool(x, kernel_shape=list(layer.config["pool_size"]), **_window(layer, []))


def average_pooling2d(layer: Layer, x: Node) -> Node:
    def pool(value: Node) -> Node:
        window = _window(layer, [])
        return opset1.avg_pool(value, kernel_shape=list(layer.config["pool_size"]), exclude_pad=True, **window)

    # An average over pixels and a sum over channels commute. Pooled first, DenseNet's transitions convolve a quarter of
    # the pixels: 7 % of the whole network.
    if _is_pointwise(x):
        return _pointwise(pool(x.input_value(0)), x.input_value(1))
    return pool(x)


def global_average_pooling2d(layer: Layer, x: Node) -> Node:
    return opset15.reduce_mean(x, opset15.constant([2, 3]), layer.config["keepdims"])


def activation(layer: Layer, x: Node) -> Node:
    return _activate(layer, x)


def relu(layer: Layer, x: Node) -> Node:
    layer.must("threshold", 0, 0.0, None)
    layer.must("negative_slope", 0, 0.0, None)
    top = layer.config.get("max_value")
    return opset15.relu(x) if top is None else opset15.clamp(x, 0.0, float(top))


def add(layer: Layer, first: Node, *rest: Node) -> Node:
    for value in rest:
        first = opset15.add(first, value)
    return first


def custom_scale_layer(layer: Layer, first: Node, second: Node) -> Node:
    """The residual of keras.applications.InceptionResNetV2."""
    return opset15.add(first, opset15.multiply(second, layer.per_channel(layer.config["scale"], 0)))


def concatenate(layer: Layer, *values: Node) -> Node:
    axis: int = layer.config["axis"]
    rank = _rank(values[0])
    return opset15.concat(list(values), TO_NCHW.index(axis % rank) if rank == 4 else axis % rank)


def flatten(layer: Layer, x: Node) -> Node:
    return _reshape(x, [-1])


def reshape(layer: Layer, x: Node) -> Node:
    return _reshape(x, layer.config["target_shape"])


def _reshape(x: Node, target: list[int]) -> Node:
    if _rank(x) == 4:
        x = opset15.transpose(x, TO_NHWC)
    x = opset15.reshape(x, opset15.constant([0, *target]), special_zero=True)
    return opset15.transpose(x, TO_NCHW) if _rank(x) == 4 else x


def identity(layer: Layer, x: Node) -> Node:
    """What acts in training only."""
    return x


ACTIVATIONS: Final[Mapping[str, Callable[[Node], Node]]] = {
    "linear": lambda x: x,
    "relu": opset15.relu,
    "relu6": lambda x: opset15.clamp(x, 0.0, 6.0),
    "sigmoid": opset15.sigmoid,
    "tanh": opset15.tanh,
    "silu": opset15.swish,
}

LAYERS: Final[Mapping[str, Callable[..., Node]]] = {
    "Activation": activation,
    "Add": add,
    "AveragePooling2D": average_pooling2d,
    "BatchNormalization": batch_normalization,
    "Concatenate": concatenate,
    "Conv2D": conv2d,
    "CustomScaleLayer": custom_scale_layer,
    "Dense": dense,
    "DepthwiseConv2D": depthwise_conv2d,
    "Dropout": identity,
    "Flatten": flatten,
    "GlobalAveragePooling2D": global_average_pooling2d,
    "MaxPooling2D": max_pooling2d,
    "Normalization": normalization,
    "ReLU": relu,
    "Rescaling": rescaling,
    "Reshape": reshape,
    "SeparableConv2D": separable_conv2d,
    "SpatialDropout2D": identity,
    "ZeroPadding2D": zero_padding2d,
}
