"""Owns the device that a worker trains on: threads and memory before the first tensor, and its name after."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def configure(threads: int | None = None, *, gpu_memory_bytes: int | None = None) -> None:
    """Set up the backend of this process; call it before anything else touches Keras.

    `threads` limits the cores that operations use (None leaves the backend's choice). GPUs get memory as they
    need it instead of all at once; `gpu_memory_bytes` is the most on each, for a GPU that workers share.
    Raises: RuntimeError if the backend was already in use with other settings.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras  # Loading Keras loads the backend; that must come after the settings above.

    if keras.config.backend() != "tensorflow":
        return  # JAX takes its threads from the cores that the process may use.
    import tensorflow as tf

    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        if gpu_memory_bytes is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=gpu_memory_bytes // 2**20)
            tf.config.set_logical_device_configuration(gpu, [limit])


def make_deterministic() -> None:
    """Make operations repeat to the bit, for the rest of this process."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def forget_feeds() -> None:
    """Let go of what fed batches to trainings that are over; TensorFlow's default graph keeps it otherwise."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.compat.v1.reset_default_graph()


def has_accelerator() -> bool:
    """Whether Keras trains on something else than the processor."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if keras.config.backend() == "jax":
        import jax

        return str(jax.default_backend()) != "cpu"
    return False


def device_name() -> str:
    """The name of the device that Keras trains on, such as 'NVIDIA H200' or a processor's name."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            details = tf.config.experimental.get_device_details(gpus[0])
            return str(details.get("device_name", gpus[0].name))
    elif keras.config.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return str(device.device_kind)
    return _processor_name()


def thread_count() -> int:
    """How many threads one operation may use."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        chosen = int(tf.config.threading.get_intra_op_parallelism_threads())
        if chosen:
            return chosen
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Layers that are built inside compute in `name`, with variables in float32; then all is as before.

    'auto' builds as float32: what is trained has had its precision chosen.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if name in ("float32", "auto") else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _processor_name() -> str:
    description = Path("/proc/cpuinfo")
    if description.is_file():
        for line in description.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown processor"
