"""Owns the sections of a recipe: the settings of data, model, optimizer, augmentation, callbacks and training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# auto: measured on this machine before the first training; a run records what was chosen.
Precision = Literal["float32", "bfloat16", "float16", "auto"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Plain = bool | int | float | str | None


class Settings(BaseModel):
    """Frozen settings that forbid unknown keys and convert nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ValidationSettings(Settings):
    """Which part of the training images is set aside to choose by.

    `stratified` keeps the share of each class; `first` takes the first images, as the guide does.
    """

    method: Literal["stratified", "first"] = "stratified"
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    seed: Seed = 0


class DataSettings(Settings):
    """`reference`: see docs/reference.md; `image_size` resizes to a square of so many pixels;
    `train_limit` trains on a stratified subset of so many images (validation stays whole)."""

    reference: Annotated[str, Field(min_length=1)] = "digits"
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    train_limit: Annotated[int, Field(ge=1)] | None = None
    validation: ValidationSettings = ValidationSettings()


class AttentionSettings(Settings):
    """Squeeze and excitation: each map weighed by all maps' means, through `1 / ratio` as many values.

    Source: Hu et al., 2018.
    """

    enabled: bool = True
    ratio: Annotated[int, Field(ge=1, le=1024)] = 16


class BackboneSettings(Settings):
    """A network of keras.applications without its head, and its weights: `imagenet` (Keras's download), a file, or null.

    `upscale`: times as large as the images it sees them, bilinearly. It stays as it came up to epoch `unfreeze_epoch`
    (counted from 1), which trains it first, at `unfreeze_rate` times the learning rate; null: it is never trained.
    """

    name: Annotated[str, Field(pattern=r"^[A-Z]\w*$")] = "ResNet50"
    weights: Annotated[str, Field(min_length=1)] | None = "imagenet"
    upscale: Annotated[int, Field(ge=1, le=16)] = 1
    unfreeze_epoch: Annotated[int, Field(ge=1)] | None = None
    unfreeze_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1


class ModelSettings(Settings):
    """`guide_cnn`: `depth` blocks of two 3x3 convolutions, `filters` doubling from block to block; the head has two
    dense layers, of `dense_units` and of half as many.

    `mlp`: the head alone.

    `transfer`: `backbone`, the mean of each of its maps, `dense_dropout`, and one dense layer.

    `fast_cnn`: blocks that pool between their convolutions, `filters` in the first and `late_filters` in the others;
    the head is one dense layer on the largest value of each map. `whitening` puts a fixed 2x2 convolution first that
    decorrelates the training images' patches; `initialization: dirac` makes 3x3 convolutions begin as identities.

    `residual` adds what enters a block to what its convolutions make of it; `attention` weighs the maps of a block.
    `test_time_flip`: a prediction is the mean of those for an image and its mirror image; a training step sees one.
    `normalization_momentum` is batch normalisation's: the share of the old moving average that each step keeps.
    `builder` names a function `package.module:function` of one's own instead; it gets `parameters`.
    """

    network: Literal["guide_cnn", "fast_cnn", "mlp", "transfer"] = "guide_cnn"
    backbone: BackboneSettings | None = None
    depth: Annotated[int, Field(ge=1, le=4)] = 3
    filters: Annotated[int, Field(ge=1, le=1024)] = 32
    dropout: Fraction = 0.25
    dense_units: Annotated[int, Field(ge=2, le=65_536)] = 256
    dense_dropout: Fraction = 0.5
    late_filters: Annotated[int, Field(ge=1, le=4096)] = 128
    activation: Literal["relu", "gelu", "silu"] = "relu"
    residual: bool = False
    attention: AttentionSettings | None = None
    whitening: bool = False
    initialization: Literal["glorot", "dirac"] = "glorot"
    normalization_momentum: Fraction = 0.99
    test_time_flip: bool = False
    builder: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    parameters: dict[str, Plain] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> ModelSettings:
        if self.network == "transfer" and (self.backbone is None or self.whitening):
            raise ValueError("network: transfer needs a backbone, which takes images without whitening")
        return self

    @property
    def backbone_in_use(self) -> BackboneSettings | None:
        """The backbone of a `transfer` network; None for any other, one's own included."""
        return self.backbone if self.network == "transfer" and self.builder is None else None

    @property
    def views(self) -> int:
        """Of how many views of an image a prediction is made."""
        return 2 if self.test_time_flip and self.builder is None else 1


class ScheduleSettings(Settings):
    """Learning rate over all steps of `training.epochs`: Keras's CosineDecay or ExponentialDecay, one_cycle, or constant.

    `warmup_epochs` rise linearly from 0 (cosine) or from a fifth of the rate (one_cycle, which then falls linearly, and
    constant, which stays); `decay_rate` is the factor over the whole training (exponential) and the floor as a share of
    the rate (cosine, one_cycle).
    """

    name: Literal["constant", "cosine", "exponential", "one_cycle"]
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    decay_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01

    @model_validator(mode="after")
    def _fits_together(self) -> ScheduleSettings:
        if self.name == "exponential" and (self.warmup_epochs or self.decay_rate == 0.0):
            raise ValueError("an exponential schedule has no warm-up and a decay_rate above 0")
        return self


class LookaheadSettings(Settings):
    """Slow weights that follow the trained ones every `every` steps, and replace them.

    `keep` is the share of the slow ones that stays at the last step; it grows with the cube of the time.
    Source: Zhang et al., 2019, Lookahead Optimizer; the growing share is that of airbench (Jordan, 2024).
    """

    every: Annotated[int, Field(ge=1)] = 5
    keep: Fraction = 0.77


class OptimizerSettings(Settings):
    """A Keras optimizer. `weight_decay` 0 and `clipnorm` null are off; `momentum` is for sgd, rmsprop and muon.

    `muon` takes 3x3 convolutions' kernels as matrices; all else is trained by AdamW there.
    `normalization_rate` multiplies the rate of batch normalisation's offsets. `ema_momentum`: Keras's averages of weights
    over steps; they are what is validated, chosen from and saved, and training goes on from the weights themselves.
    """

    name: Literal["adam", "adamw", "nadam", "sgd", "rmsprop", "muon"] = "adam"
    learning_rate: Annotated[float, Field(gt=0.0, le=100.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    clipnorm: Annotated[float, Field(gt=0.0)] | None = None
    momentum: Fraction = 0.0
    nesterov: bool = False
    normalization_rate: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    lookahead: LookaheadSettings | None = None
    ema_momentum: Fraction | None = None
    schedule: ScheduleSettings | None = None


class MixupSettings(Settings):
    """keras.layers.MixUp: two images and their labels, mixed by a share from Beta(alpha, alpha)."""

    enabled: bool = True
    alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 0.2


class CutmixSettings(Settings):
    """keras.layers.CutMix: a patch of another image, and as much of its label; its size from Beta(factor, factor)."""

    enabled: bool = True
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class RandAugmentSettings(Settings):
    """keras.layers.RandAugment: `num_ops` random changes of colour and shape, `factor` strong."""

    enabled: bool = True
    num_ops: Annotated[int, Field(ge=1, le=11)] = 2
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class AugmentationSettings(Settings):
    """Random changes of training images. `strength` scales rotation and zoom, 1 being the guide's; 0 turns off the flip too.

    `rotation` is in turns (0.1 is up to 36 degrees either way), `zoom` a share of the size, `shift` whole pixels
    either way. `alternating_flip` mirrors each image in every other epoch instead of at random. `contrast` is the most
    by which it changes; `erasing` the share of images that lose a patch.
    """

    strength: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    flip: bool = True
    rotation: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    zoom: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    alternating_flip: bool = False
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    erasing: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    randaugment: RandAugmentSettings | None = None
    mixup: MixupSettings | None = None
    cutmix: CutmixSettings | None = None

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other, and their labels with them."""
        return any(each is not None and each.enabled for each in (self.mixup, self.cutmix))


class PlateauSettings(Settings):
    """keras.callbacks.ReduceLROnPlateau."""

    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = "val_loss"
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    patience: Annotated[int, Field(ge=1)] = 3
    min_lr: Annotated[float, Field(ge=0.0)] = 1e-7


class EarlyStoppingSettings(Settings):
    """keras.callbacks.EarlyStopping with restore_best_weights."""

    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = "val_loss"
    patience: Annotated[int, Field(ge=1)] = 10


class CallbackSettings(Settings):
    """The standard callbacks; null switches one off. ModelCheckpoint is always there."""

    reduce_lr_on_plateau: PlateauSettings | None = PlateauSettings()
    early_stopping: EarlyStoppingSettings | None = EarlyStoppingSettings()


class TrainingSettings(Settings):
    """`seed` sets initialisation, shuffling and augmentation; `deterministic` makes reruns repeat to the bit.

    `label_smoothing` spreads that share of each label over all classes in training; val_loss is without it.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    seed: Seed = 0
    deterministic: bool = True
    label_smoothing: Fraction = 0.0


class ClassicalSettings(Settings):
    """A scikit-learn classifier on pixels in place of a network, for comparison; it is one epoch.

    `c` is for logistic_regression and svm, `trees` for random_forest, `iterations` the most of logistic_regression.
    """

    name: Literal["logistic_regression", "random_forest", "svm"]
    c: Annotated[float, Field(gt=0.0)] = 1.0
    trees: Annotated[int, Field(ge=1, le=100_000)] = 200
    iterations: Annotated[int, Field(ge=1, le=100_000)] = 200


class AtLeast(Settings):
    """A lower bound of a share between 0 and 1."""

    at_least: Annotated[float, Field(ge=0.0, le=1.0)]


class AtMost(Settings):
    """An upper bound of a share between 0 and 1."""

    at_most: Annotated[float, Field(ge=0.0, le=1.0)]


class CheckSettings(Settings):
    """What a training must come to, at its best epoch; null is not asked. They change nothing in the training.

    `gap` is training accuracy less validation accuracy. `test_accuracy` is looked at when a model is promoted.
    """

    train_accuracy: AtLeast | None = None
    val_accuracy: AtLeast | None = None
    gap: AtMost | None = None
    test_accuracy: AtLeast | None = None


class ResourceSettings(Settings):
    """What one worker gets of a node of a Ray cluster; null is left to what the cluster has.

    A GPU belongs to one worker, unless `gpu_fraction` lets several share it; each is then limited to that share of
    its memory.
    """

    num_cpus: Annotated[int, Field(ge=1)] | None = None
    num_gpus: Annotated[int, Field(ge=0, le=1)] | None = None
    gpu_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ResourceSettings:
        if self.num_gpus is not None and self.gpu_fraction is not None:
            raise ValueError(
                "num_gpus and gpu_fraction both say what a worker gets of a GPU; set one of them"
            )
        return self
