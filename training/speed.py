"""What makes a training step quicker on a backend without changing what it computes.

On TensorFlow Keras writes batch normalisation out in single operations; the fused kernel, and convolutions in bf16
where the processor has it, make a step on a CPU more than twice as quick. Other backends fuse by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

_BF16 = "auto_mixed_precision_onednn_bfloat16"


def gpus() -> int:
    """How many GPUs the backend sees."""
    try:
        return len(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX, where it knows no GPUs at all
        return 0


def devices() -> int:
    """How many devices share each batch. Keras spreads batches over several GPUs on the JAX backend alone."""
    return max(1, gpus()) if keras.backend.backend() == "jax" else 1


def jit() -> bool | str:
    """Keras' own choice but for TensorFlow on a CPU, where compiling takes longer than it saves."""
    return "auto" if gpus() or keras.backend.backend() != "tensorflow" else False


def prepare() -> str:
    """Once per process, before anything is built: same seed, same films, same numbers; all GPUs at work.

    Returns
    -------
        The device in words, for the log and the card.
    """
    backend = keras.backend.backend()
    count = gpus()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if devices() > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    return f"{devices()} GPU, {backend}" if count else f"CPU, {backend}"


@contextmanager
def reduced_precision(*, wanted: bool = True) -> Iterator[None]:
    """Layers in bf16 on a GPU, convolutions in bf16 on TensorFlow's CPU; weights stay float32.

    For training alone: what is measured or exported is in float32.
    """
    if not wanted:
        yield
    elif gpus():
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({_BF16: True})
        try:
            yield
        finally:
            tf.config.optimizer.set_experimental_options({_BF16: False})
    else:
        yield


def fused(model: keras.Model) -> keras.Model:
    """A model for training steps, with its own weights under the same paths; never exported."""
    if keras.backend.backend() != "tensorflow":
        return model
    import tensorflow as tf

    class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if not training or not self.trainable:
                return super().call(inputs, training=False)
            gamma = self.gamma if self.scale else tf.ones_like(self.beta)
            # The kernel's variance is the unbiased one (n - 1), Keras' own divides by n: a part in n apart.
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, self.beta, epsilon=self.epsilon, is_training=True
            )
            self.moving_mean.assign(self.momentum * self.moving_mean + (1.0 - self.momentum) * mean)
            self.moving_variance.assign(self.momentum * self.moving_variance + (1.0 - self.momentum) * variance)
            return outputs

    def clone(layer: keras.Layer) -> keras.Layer:
        kind = FusedBatchNormalization if isinstance(layer, keras.layers.BatchNormalization) else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
