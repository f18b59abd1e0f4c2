"""Typed schema of the configuration: names, types, ranges, units, defaults and descriptions.

A node with ``_target_`` is also checked against the signature of that class or function. So an
encoder, prior, mask or backbone of another package brings its own schema (`mrisem.config.check`).
Text such as ``${seed}`` is Hydra's reference to another key.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hydra.core.config_store import ConfigStore
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Length = Annotated[float, Field(gt=0)]  # mm
Plane = Literal["axial", "coronal", "sagittal"]
Levels = Annotated[int, Field(ge=1, le=8)]  # poolings: 2**8 pixels is more than a matrix has


def expand(path: Any) -> Any:
    """Expand ``~`` and ``$NAME`` in a path.

    >>> expand("a/b"), expand(None)
    ('a/b', None)
    """
    return os.path.expandvars(os.path.expanduser(path)) if isinstance(path, str) else path  # noqa: PTH111


PathText = Annotated[str, BeforeValidator(expand)]


def reference(text: str, description: str | None = None) -> Any:
    """Make a field whose default is another option, ``${...}``."""
    return Field(text, description=description)


def check_maps(value: str) -> str:
    """Raise ValueError unless the value names an estimator of sensitivity maps or a path."""
    if value not in ("torch", "sigpy", "in_file") and not os.path.exists(value):  # noqa: PTH110
        raise ValueError("torch, sigpy, in_file or a path that exists")
    return value


Maps = Annotated[str, BeforeValidator(expand), AfterValidator(check_maps)]


class Options(BaseModel):
    """Options of one node: unknown keys are refused, numbers finite, types not converted."""

    # validators are built at the first check: `--help` and `--cfg job` only need the defaults
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(cls.model_fields)


class Choice(Options):
    """Node with a name: a choice among the YAML files of a group."""

    name: str = Field("", description="name in tables; empty: that of the chosen YAML")


class Paths(Options):
    """Folders outside the run folder."""

    cache: PathText = Field(description="folder of banks and sensitivity maps")


class Data(Choice):
    """Choice and use of the scans."""

    root: PathText | None = Field(None, description="folder with multicoil_train, multicoil_val")
    acquisition: str | None = Field(None, description="fastMRI's name; null: all of the anatomy")
    split: str = Field("val", description="folder multicoil_<split> that is reconstructed")
    max_slices: Count | None = Field(None, description="central slices of each volume; null: all")
    max_volumes: Count | None = Field(None, description="first volumes of a split; null: all")
    train_subjects: Literal["remaining", "auxiliary"] = Field(
        "remaining", description="subjects of `train`: all but the bank's subjects, or only those"
    )
    validation_subjects: Annotated[int, Field(ge=0)] = Field(
        0, description="training subjects held out to select a checkpoint; 0: the last is named"
    )
    max_validation_slices: Count | None = Field(
        None, description="central slices of each validation volume; null: as data.max_slices"
    )
    paper_subjects: Count = Field(20, description="auxiliary subjects in the paper")
    n_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="processes that read ahead; auto: none on the CPU, else up to 4"
    )
    sensitivity_maps: Maps = Field(
        "torch", description="ESPIRiT of torch or sigpy; in_file: the scans' own; or a path to maps"
    )
    kspace_center: Literal["middle", "corner"] = Field(
        "middle", description="position of the zero frequency in the files; corner: at index 0"
    )
    axes: str | list[str] | None = Field(
        None, description="axes of arrays, such as coil,y,x; null: each format's own order"
    )
    prewhiten: bool = Field(True, description="whiten scans that hold noise samples by them")
    virtual_coils: Count | None = Field(
        None, description="virtual coils to which more coils are compressed (SVD); null: all coils"
    )
    readout: Literal["target", "all"] = reference(
        "${oc.select:model.readout,target}",
        description="image rows reconstructed of an oversampled readout: the target's, or all",
    )


class Auxiliary(Options):
    """Subjects of the bank, and its negatives."""

    root: PathText | None = reference(
        "${data.root}", description="data set of the bank's subjects, or folder of DICOM or NIfTI"
    )
    acquisition: str | None = Field(None, description="contrast; null: see prior.contrast")
    n_subjects: Count = reference("${oc.select:prior.n_auxiliary,${scale.n_auxiliary}}")
    negatives: Literal["zero_filled", "reconstruction", "both"] = Field(
        "zero_filled", description="images of the bank's second side"
    )
    plane: Plane | None = Field(None, description="plane of images; null: across thick voxels")
    slice_step: Length | None = Field(None, description="mm between slices of images; null: 5")
    size: Count | None = Field(None, description="pixels of slices of images; null: as the scans'")


class Steering(Options):
    """Weight and schedule of a prior, in every ``prior`` (`mrisem.tasks.guidance.Steering`)."""

    weight: Number | None = reference(
        "${model.prior_weight}", description="lambda, in mrisem's scale; null: no guidance"
    )
    balance: Number | None = reference(
        "${oc.select:encoder.prior_defaults.balance,null}",
        description="largest gradient norm of the prior over the data term's; null: no limit",
    )
    start_iteration: Annotated[int, Field(ge=0)] = Field(
        0, description="iteration before which the prior is silent"
    )
    every: Count = Field(
        1, description="iterations from one evaluation of a prior to the next; its gradient is kept"
    )
    unmeasured_only: bool = Field(False, description="guide only in k-space that was not measured")
    steering: Any = None


class PriorDefaults(Options):
    """Defaults of a prior that depend on its encoder."""

    components: list[Count | None] | None = None
    level_weights: list[Number] | None = None
    balance: Number | None = None
    jitter: dict[str, Any] | None = None


# Options of an encoder that are no arguments of its ``_target_``.
NO_ARGUMENTS = ("name", "prior_defaults")


class Encoder(Choice):
    """Encoder: the arguments of its ``_target_``, and defaults of priors that use it."""

    path: PathText | None = Field(None, description="checkpoint: folder or hub name")
    adapter: PathText | None = Field(None, description="folder that `mrisem adapt` has written")
    prior_defaults: PriorDefaults = Field(default_factory=PriorDefaults)


class Generator(Choice):
    """A generator: the arguments of its ``_target_``."""

    path: PathText | None = Field(None, description="checkpoint: folder or hub name")


class Prior(Steering, Choice):
    """Prior: steering, and the arguments of its builder."""

    encoder: Encoder | None = Field(None, description="the group encoder, if the builder takes one")
    generator: Generator | None = Field(
        None, description="the group generator, if the builder takes one"
    )
    n_auxiliary: Count | None = Field(None, description="number of subjects of its bank")
    uses_auxiliary: bool = Field(True, description="whether it has a bank of auxiliary images")


class Fit(Choice):
    """Fit of a network to one scan."""

    iterations: Count = reference("${scale.fit.iterations}", description="steps of Adam")
    learning_rate: Rate = Field(1e-3, description="learning rate of Adam")
    halve_every: Count = Field(1000, description="steps after which the rate is halved")
    loss_share: Share | None = reference(
        "${oc.select:model.loss_share,0.4}",
        description="share of the samples held out for the loss; null: network and loss share all",
    )
    calibration: Literal["block", "lines"] = Field(
        "block", description="part of the calibration lines that is never held out"
    )
    validation_share: Share | None = Field(
        None, description="share of the samples held out to stop early on; null: fit to the end"
    )
    patience: Count = Field(8, description="steps without a better prediction of those samples")
    log_every: Count = Field(5, description="steps between two rows of fit.csv")
    rank: Count = reference("${scale.fit.rank}", description="inner width of LoRA's factors")
    targets: str | list[str] = Field("all", description="layers that take factors")
    train_also: list[str] = Field(["log_lambdas"], description="parameters trained beside them")
    settings: Any = None


class Model(Choice):
    """Method: a network or a classical baseline."""

    prior_weight: Number | None = Field(None, description="lambda of a prior, in mrisem's scale")
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = Field(
        None, description="mode of torch.compile for the network; null: not compiled"
    )
    checkpoint: PathText | None = Field(None, description="weights to start from")
    trained_by: str | None = Field(None, description="command that trains it, for messages")
    loss_share: Share | None = Field(None, description="default of fit.loss_share")
    readout: Literal["target", "all"] = Field("target", description="default of data.readout")
    prior_on: Literal["image", "network", "stages"] = Field(
        "image", description="images that the prior sees: final, last network output, all stages"
    )
    loss_on: Literal["image", "stages"] = Field("image", description="images of the data loss")
    task: Any = Field(description="the LightningModule")


class Regulariser(Choice):
    """Conventional regulariser beside the data term."""

    weight: Number = 0.1
    wavelet: str = "db4"
    levels: Count = 3
    term: Any = None


def sizes(base: type[Options] = Options, /, **kinds: Any) -> type[Options]:
    """Make the schema of a part of `Scale`: name -> type."""
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
    return create_model("Sizes", __base__=base, **fields)


Subjects = Annotated[int, Field(ge=0, le=5000)]
Side = Annotated[int, Field(ge=64, multiple_of=2)]  # along the edge of a simulated target
if TYPE_CHECKING:
    Scale = Any
else:
    # The numbers of each part stand in the YAML files of the group ``scale``, without defaults.
    Scale = sizes(
        Choice,
        simulate=sizes(n_train=Subjects, n_val=Subjects, n_slices=Count, size=Side, n_coils=Count),
        n_auxiliary=Count,
        fit=sizes(iterations=Count, slices_at_once=Count, rank=Count),
        train=sizes(epochs=Count, batch_size=Count),
        unrolled=sizes(stages=Count, channels=Count, levels=Levels, cg_iterations=Count),
        unrolled_vit=sizes(
            stages=Count, channels=Count, levels=Levels, n_features=Count, cg_iterations=Count
        ),
        unet=sizes(channels=Count, levels=Levels),
        varnet=sizes(
            cascades=Count,
            channels=Count,
            levels=Levels,
            sensitivity_channels=Count,
            sensitivity_levels=Levels,
        ),
        inr=sizes(
            layers=Count,
            width=Count,
            adaptor_width=Count,
            first_iterations=Count,
            second_iterations=Count,
        ),
    )


class Trainer(Options):
    """Arguments of Lightning's Trainer; those that are not listed are accepted, too."""

    accelerator: str = "auto"
    devices: Count | Literal["auto"] | list[int] = 1
    strategy: str = "auto"
    precision: Literal["32-true", "32", 32, "bf16-mixed"] = Field(
        "32-true", description="precision of networks; FFTs, solves, losses, priors are float32"
    )
    max_epochs: Count | None = None


class Logger(Choice):
    """Logger of curves and scores, beside the run folder."""

    make: Any = None


class Lesions(Options):
    """Simulated subjects with lesions, by split."""

    train: Literal["some", "none", "all"] = "some"
    val: Literal["some", "none", "all"] = "some"


class Verb(Options):
    """Options of every verb."""

    seed: int = Field(ge=0, description="seed of masks, splits, starting weights and noise")
    output_dir: PathText
    paths: Paths


class Bank(Verb):
    """``mrisem bank``."""

    data: Data
    mask: Choice
    model: dict[str, Any]
    encoder: Encoder
    generator: Generator
    prompt: Choice
    prior: Prior
    scale: Scale
    auxiliary: Auxiliary


class Made(Options):
    """Node whose options are the arguments of its ``_target_``."""


class Train(Bank):
    """``mrisem train``."""

    model: Model  # type: ignore[assignment]
    objective: Made
    regulariser: Regulariser
    trainer: Trainer
    logger: Logger
    on_error: Literal["raise", "skip"]


class Reconstruct(Bank):
    """``mrisem reconstruct``."""

    model: Model  # type: ignore[assignment]
    fit: Fit
    regulariser: Regulariser
    trainer: Trainer
    logger: Logger
    metrics: dict[str, str]
    on_error: Literal["raise", "skip"]
    returns: str | None
    skip_existing: bool


class Source(Options):
    """Images from which scans are simulated; without ``source`` the others are refused."""

    source: PathText | None = Field(
        None, description="folder (or file) of DICOM or NIfTI images; null: simulated subjects"
    )
    source_anatomy: Literal["brain", "knee"] = Field("brain", description="folder of the scans")
    source_acquisition: str | None = Field(
        None, description="fastMRI's name that the scans get; null: AXT1, of knees CORPD_FBK"
    )
    source_plane: Plane | None = Field(
        None, description="plane of slices; null: across thick voxels, axial for cubic ones"
    )
    source_slice_step: Length = Field(5.0, description="mm from one slice to the next, at least")
    source_center: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="position of the middle slice, 0: foot, back or left end of the object"
    )
    source_train: Annotated[int, Field(ge=0)] = Field(
        0, description="first subjects that go to multicoil_train; the others to multicoil_val"
    )


class Simulate(Source, Verb):
    """``mrisem simulate``."""

    scale: Scale
    anatomies: list[Literal["brain", "knee"]] = Field(min_length=1)
    skip_existing: bool
    snr_factor: Annotated[float, Field(gt=0, allow_inf_nan=True)]
    lesions: Lesions
    n_train: Subjects
    n_val: Subjects
    n_slices: Count
    size: Side
    n_coils: Count


class Targets(Data):
    """Folder of the targets; null: as each run recorded."""

    split: str | None = None  # type: ignore[assignment]


class Evaluate(Verb):
    """``mrisem evaluate``."""

    data: Targets
    metrics: dict[str, str]
    logger: Logger
    scale: Scale
    reference: str | None
    crop: Literal["full", "width"]
    audit_slices: int = Field(ge=0)


class Report(Verb):
    """``mrisem report``."""

    runs: list[PathText] | PathText
    title: str | None = None
    reference: str | None
    error_window: float = Field(gt=0, le=1)
    embedding: Literal["pca", "umap"] = Field(
        "pca", description="projection of embeddings to the plane; umap takes half a minute more"
    )
    embedding_slices: int = Field(ge=0)


class Export(Verb):
    """``mrisem export``."""

    format: Literal["nifti", "dicom", "ismrmrd"]
    voxel_mm: Annotated[list[Length], Field(min_length=3, max_length=3)] | None
    skip_existing: bool


class Pictures(Options):
    """Scans or images that `mrisem adapt` makes questions of; with ``pairs`` they are refused."""

    root: PathText | None = Field(
        None, description="data set with multicoil_train, or folder of DICOM or NIfTI"
    )
    acquisition: str | None = Field(
        None, description="fastMRI's name: which scans, or what images are taken for"
    )
    n_subjects: Count = Field(20, description="subjects, held-out ones among them")
    max_slices: Count | None = Field(None, description="central slices of each volume; null: all")
    plane: Plane | None = Field(None, description="of slices of images; null: across thick voxels")
    slice_step: Length | None = Field(None, description="mm between slices of images; null: 5")
    size: Count | None = Field(None, description="pixels of slices of images; null: 192")


class Adapt(Pictures, Verb):
    """``mrisem adapt``."""

    encoder: Encoder
    prompt: Choice
    pairs: PathText | None
    earlier: PathText | None
    held_out: Share
    n_images: Count
    parts: Annotated[list[Literal["vision", "aligner", "language"]], Field(min_length=1)]
    rank: Count
    alpha: Length
    dropout: float = Field(ge=0, lt=1)
    steps: Count
    batch_size: Count
    learning_rate: Rate
    save_every: Count
    gradient_checkpointing: bool
    on_error: Literal["raise", "skip"]


class Compress(Bank):
    """``mrisem compress``."""

    compression: Choice
    held_out: Share


VERBS: dict[str, type[Verb]] = {
    "simulate": Simulate,
    "bank": Bank,
    "train": Train,
    "adapt": Adapt,
    "compress": Compress,
    "reconstruct": Reconstruct,
    "evaluate": Evaluate,
    "report": Report,
    "export": Export,
    "doctor": Reconstruct,  # checks a run of `reconstruct` without running it
}


def store_defaults() -> None:
    """Register the schema's defaults, which YAML files include as ``schema/data`` and so on."""
    schemas: dict[str, type[Options]] = {
        "data": Data,
        "auxiliary": Auxiliary,
        "steering": Steering,
        "fit": Fit,
        "source": Source,
        "pictures": Pictures,
    }
    for name, schema in schemas.items():
        defaults = {key: field.get_default() for key, field in schema.model_fields.items()}
        ConfigStore.instance().store(group="schema", name=name, node=defaults)
