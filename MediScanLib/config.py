"""The settings of config.yaml: what the network looks like, how it is trained, how it is asked.

The defaults live here; `config.yaml` at the root of the repository shows every one of them with its meaning.
Nothing in this file imports torch, so that the command line can check a configuration at once.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator

from .errors import ConfigError

FUSION_DIM = 256
"""Width of the space in which image and clinical values meet."""


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):  # YAML's `yes` would otherwise become the number 1
        raise ValueError("a number is needed")
    return value


Integer = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_no_boolean)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Section):
    """Architecture of a network.

    Attributes:
        backbone: Image encoder.
        spatial_dims: 2 for radiographs and slices, 3 for volumes.
        num_classes: Number of findings.
        clinical_dim: Number of clinical values.
        fusion: How image and clinical values meet.
        dropout_rate: Probability of dropping a pooled or fused feature; dropout touches the head only.
        attention_heads: Heads of the attention fusion; divides `FUSION_DIM`.
        hypercolumns: Whether heads and heat maps see the encoder's cells of stride 16 beside those of stride 32; the
            efficientnet-lite family only.
        weights: Initial weights of the encoder: "imagenet", "none", or the path of a .safetensors or .pt file.
    """

    backbone: Literal[
        "resnet50",
        "densenet121",
        "efficientnet-b3",
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
    ] = "efficientnet-lite0"
    spatial_dims: Literal[2, 3] = 2
    num_classes: Integer = Field(default=5, ge=1)
    clinical_dim: Integer = Field(default=10, ge=1)
    fusion: Literal["gated", "attention"] = "gated"
    dropout_rate: Number = Field(default=0.3, ge=0, lt=1)
    attention_heads: Integer = Field(default=8, ge=1)
    hypercolumns: StrictBool = False
    weights: str = Field(default="imagenet", min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.spatial_dims == 3 and self.backbone.startswith("efficientnet-lite"):
            raise ValueError(
                f"backbone: {self.backbone!r} works on 2D images only; "
                "with spatial_dims 3 use 'resnet50', 'densenet121' or 'efficientnet-b3'"
            )
        if self.hypercolumns and not self.backbone.startswith("efficientnet-lite"):
            raise ValueError(f"hypercolumns: only the efficientnet-lite family has them, not {self.backbone!r}")
        if self.spatial_dims == 3 and self.weights == "imagenet":
            raise ValueError("weights: 'imagenet' holds 2D weights; with spatial_dims 3 use 'none' or a path")
        if FUSION_DIM % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide {FUSION_DIM}; use 8")
        return self


class TrainingConfig(_Section):
    """How a network is trained.

    Attributes:
        input_size: Rows and columns of the network's input, and slices of a volume, in pixels.
        batch_size: Studies per optimizer step, over all processes and accumulated parts together.
        accumulation_steps: Parts of a batch that go through the network one after another, to save memory.
        epochs: Passes over the training split, at most.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Decoupled weight decay of AdamW, for the encoder.
        head_weight_decay: The same for everything behind the encoder, where a strong one is the guard of small data.
        warmup_epochs: Epochs of linear warm-up; no more than `epochs`.
        monitor: What chooses the best epoch on the validation split: the mean AUC over findings, each within its
            source, or the loss; "last" takes the last epoch, where the split is too small to choose by.
        patience: Epochs without improvement on the validation split after which training stops.
        frozen_epochs: Epochs at the start in which the encoder keeps its initial weights.
        encoder_rate: Learning rate of the encoder as a fraction of `learning_rate`.
        frozen_stride: Layers at the start of the encoder that keep their initial weights throughout: those whose
            cells stand at most so many pixels apart; 0 for none.
        frozen_depthwise: Whether depthwise convolutions keep their initial weights throughout.
        standardize_features: Whether the head sees the encoder's features standardized by what they were before the
            first epoch; of no use to an encoder that starts from random weights.
        batch_norm: Statistics of the encoder's batch norms: "frozen", from each "batch", or "auto": frozen where the
            encoder starts from trained weights.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        average_decay: Decay of the exponential moving average of the weights that is kept in their place; 0 for none.
        label_smoothing: Share of the target spread over all findings.
        logit_adjustment: Whether probabilities follow how common findings are in each source, and not in the
            balanced batches.
        location_weight: Weight of the loss on evidence outside the boxes and masks that readers drew on training
            images; without such files it plays no part.
        augmentation: Strength of the random changes of training images; 0 for none.
        image_dropout: Probability of hiding the image of a study that shows its clinical values.
        record_dropout: Probability of hiding all clinical values of a study.
        field_dropout: Probability of hiding a known clinical value.
        mixed_precision: Whether half precision is used where the device is quicker in it and it is safe.
        seed: Of every random draw.
        deterministic: Whether slower algorithms that always give the same result are forced.
        workers: Processes that load images, for each training process.
        disease_weight: alpha of L = alpha L_disease + beta L_severity + gamma L_regularization.
        severity_weight: beta.
        regularization_weight: gamma.
    """

    input_size: Integer = Field(default=224, ge=32)
    batch_size: Integer = Field(default=32, ge=1)
    accumulation_steps: Integer = Field(default=1, ge=1)
    epochs: Integer = Field(default=50, ge=1)
    learning_rate: Number = Field(default=0.001, gt=0)
    weight_decay: Number = Field(default=0.0001, ge=0)
    head_weight_decay: Number = Field(default=0.0001, ge=0)
    warmup_epochs: Integer = Field(default=3, ge=0)
    monitor: Literal["within_source_auc", "loss", "last"] = "within_source_auc"
    patience: Integer = Field(default=10, ge=1)
    frozen_epochs: Integer = Field(default=1, ge=0)
    encoder_rate: Number = Field(default=0.1, gt=0, le=1)
    frozen_stride: Literal[0, 2, 4, 8, 16] = 0
    frozen_depthwise: StrictBool = False
    standardize_features: StrictBool = False
    batch_norm: Literal["auto", "frozen", "batch"] = "auto"
    gradient_clip: Number = Field(default=1.0, ge=0)
    average_decay: Number = Field(default=0.0, ge=0, lt=1)
    label_smoothing: Number = Field(default=0.0, ge=0, lt=1)
    logit_adjustment: StrictBool = False
    location_weight: Number = Field(default=0.0, ge=0)
    augmentation: Number = Field(default=1.0, ge=0, le=2)
    image_dropout: Number = Field(default=0.1, ge=0, lt=1)
    record_dropout: Number = Field(default=0.2, ge=0, lt=1)
    field_dropout: Number = Field(default=0.3, ge=0, lt=1)
    mixed_precision: StrictBool = True
    seed: Integer = Field(default=0, ge=0, lt=2**32)
    deterministic: StrictBool = False
    workers: Integer = Field(default=2, ge=0)
    disease_weight: Number = Field(default=1.0, ge=0)
    severity_weight: Number = Field(default=0.5, ge=0)
    regularization_weight: Number = Field(default=0.01, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} is more than epochs, {self.epochs}")
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"batch_size: {self.batch_size} does not divide into {self.accumulation_steps} parts "
                "(accumulation_steps)"
            )
        return self


class InferenceConfig(_Section):
    """How a network is asked.

    Attributes:
        confidence_threshold: Highest probability of a study below which the prediction is deferred to a human; None
            for the limit of the model, 0.5 where it has none.
        operating_point: Which of the model's thresholds decide what is present; "balanced" where it has no others.
        dropout_samples: Answers of the head that tell how uncertain it is; 0 for none.
        max_batch_size: Images or slices that go through the network at once, at most.
        explainability: Whether heat maps are made.
        severity_scoring: Whether the severity is reported.
        explanation: How heat maps are made; all but the first cost more, see docs/benchmarks.md.
        explanation_against: Finding that heat maps tell the others from; None for everything.
        faithfulness: Whether it is tried if the model leans on what the map of the likeliest finding shows; takes some
            hundred passes through the network.
    """

    confidence_threshold: Fraction | None = None
    operating_point: Literal["balanced", "sensitive", "specific"] = "balanced"
    dropout_samples: Integer = Field(default=30, ge=0, le=1000)
    max_batch_size: Integer = Field(default=8, ge=1)
    explainability: StrictBool = True
    severity_scoring: StrictBool = True
    explanation: Literal["gradcam", "gradcam++", "layercam", "occlusion", "integrated-gradients"] = "gradcam"
    explanation_against: str | None = None
    faithfulness: StrictBool = False


class Config(_Section):
    """All settings.

    Attributes:
        model: Architecture.
        training: Training.
        inference: Inference.
    """

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()


def load_config(path: str | Path | None = None) -> Config:
    """Read settings from a YAML file; what it does not name keeps its default.

    Args:
        path: YAML file; None for the defaults alone.

    Raises:
        ConfigError: The file is missing or no YAML, or a key or a value is not acceptable. The message names
            every such key, its value and what is allowed.
    """
    if path is None:
        return Config()
    path = Path(path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read as a configuration ({reason}). Name a YAML text file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}. Mend that line.") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply. A configuration has sections and keys, no more.") from error
    return parse_config(settings, source=str(path))


def parse_config(settings: object, source: str = "configuration") -> Config:
    """Check settings that were read elsewhere.

    Args:
        settings: Sections and keys as in config.yaml; None for an empty file.
        source: What errors call them.

    Raises:
        ConfigError: As for `load_config`.
    """
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{source}: expected the sections {', '.join(Config.model_fields)}, got {type(settings).__name__}."
        )
    # A section that is written but left empty (`training:`) reads as None and means its defaults.
    settings = {key: {} if value is None and key in Config.model_fields else value for key, value in settings.items()}
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems) + ".") from error


_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def _explain(problem: Any) -> str:
    path = tuple(str(part) for part in problem["loc"])
    key = ".".join(path)
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return f"{key} ({problem['input']!r}) is no setting; {_suggest(path)}"
    section = _section(path[0])
    if len(path) == 1 and problem["type"] != "value_error":
        return f"{key} is {problem['input']!r}; allowed: a section with the keys {', '.join(section.model_fields)}"
    if len(path) == 1:  # raised by a section's own check, which names the key first
        return f"{key}.{problem['ctx']['error']}"
    return f"{key} is {problem['input']!r}; allowed: {_allowed(section, path[1])}"


def _suggest(path: tuple[str, ...]) -> str:
    if len(path) == 1:
        places = {section: section for section in Config.model_fields}
    else:
        places = {field: field for field in _section(path[0]).model_fields}
    here = ", ".join(places)
    for section in Config.model_fields:  # a right key in the wrong place is found too
        for field in _section(section).model_fields:
            places.setdefault(field, f"{section}.{field}")
    nearest = difflib.get_close_matches(path[-1], places, n=1, cutoff=0.6)
    hint = f"did you mean {places[nearest[0]]}? " if nearest else ""
    return f"{hint}allowed: {here}"


def _section(name: str) -> type[BaseModel]:
    annotation = Config.model_fields[name].annotation
    assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation


def _allowed(section: type[BaseModel], field: str) -> str:
    schema = section.model_json_schema()["properties"][field]
    if "anyOf" in schema:  # or null
        schema = {**schema, **schema["anyOf"][0]}
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"])
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    words = [kind[schema["type"]]]
    words += [f"{text} {schema[key]:g}" for key, text in _BOUNDS.items() if key in schema]
    return ", ".join(words)
