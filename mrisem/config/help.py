"""Text of `mrisem VERB --help`: the main options with their defaults, and three examples."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mrisem.config.choices import CONF
from mrisem.config.overrides import repair

_MAX_LINE = 100  # characters of a line
_MAX_OPTION = 34  # characters of the column of options
# Description of each option, after the verb's name if the option means something else there. A
# colon at the end: the choices of the group follow.
_SENTENCES = {
    "data": "which scans:",
    "data.root": "folder with multicoil_train, multicoil_val",
    "data.acquisition": "fastMRI's name, such as AXT2; null: all of the anatomy",
    "data.max_slices": "central slices of each scan; null: all",
    "data.train_subjects": "remaining: all but the bank's subjects; auxiliary: those",
    "data.validation_subjects": "training subjects held out to select a checkpoint; 0: none",
    "mask": "pattern of the samples:",
    "mask.acceleration": "columns over sampled ones; [4,8]: each scan draws one",
    "model": "method:",
    "model.checkpoint": "weights to start from, such as unrolled_mini, which ships",
    "fit": "how a network meets each scan:",
    "fit.iterations": "steps of the fit to each scan",
    "objective": "what is minimised:",
    "prior": "what guides:",
    "prior.weight": "weight of the prior beside the data; null: nothing is guided",
    "encoder": "network that the prior looks through:",
    "generator": "network of images that prior=generative uses:",
    "encoder.path": "its checkpoint, a folder or hub name; null: the usual one",
    "auxiliary.root": "where the bank's images are: a data set, or DICOM or NIfTI",
    "auxiliary.acquisition": "contrast of the bank's images; null: as the prior says",
    "auxiliary.n_subjects": "subjects of the bank",
    "scale": "sizes of networks, fits and simulated data:",
    "trainer.devices": "GPUs or processes that share the work",
    "trainer.max_epochs": "passes over the training data",
    "experiment": "a whole recipe:",
    "seed": "seed of masks, splits, starting weights and noise",
    "paths.cache": "folder of banks and sensitivity maps",
    "output_dir": "run folder; the same command continues there",
    "skip_existing": "true: keep what is there; false: make it again",
    "on_error": "what to do with a scan that cannot be read: raise, skip",
    "source": "folder of DICOM or NIfTI images to simulate scans from; null: subjects",
    "source_anatomy": "what those images show: brain, knee",
    "source_plane": "axial, coronal, sagittal; null: across thick voxels",
    "source_slice_step": "mm from one slice to the next, at least",
    "source_train": "first subjects that go to multicoil_train",
    "anatomies": "simulated subjects: brain, knee",
    "n_train": "simulated subjects for training and banks",
    "n_val": "simulated subjects that are reconstructed",
    "n_slices": "slices of each scan",
    "size": "pixels along the edge of an image",
    "n_coils": "receiver coils",
    "snr_factor": "times the signal-to-noise ratio of each contrast",
    "lesions.val": "which of the subjects that are reconstructed have lesions: some, none, all",
    "reference": "method that all are tested against; null: each without its prior",
    "crop": "full, or width: the central square that fastmri.evaluate scores",
    "audit_slices": "slices that pictures show of what a prior changed; 0: none",
    "logger": "where scores go beside the folder:",
    "runs": "run folders, or folders of several",
    "title": "heading; null: the question that the runs answer",
    "error_window": "error maps show 0 to this share of the grey window",
    "embedding": "picture of embeddings: pca, or umap, which takes half a minute",
    "embedding_slices": "slices whose paths that picture shows; 0: no picture",
    "adapt root": "folder whose images are adapted to: multicoil_train, or DICOM or NIfTI",
    "adapt pairs": "or pairs of your own: JSONL of image, question, answer",
    "adapt acquisition": "which scans, such as AXT2; of images: what they are taken for",
    "adapt n_subjects": "subjects, held-out ones among them",
    "adapt size": "pixels along the edge of slices of images; null: 192",
    "held_out": "share of the subjects whose answers are counted, not trained on",
    "earlier": "pairs that may be forgotten; null: simulated scans of the other anatomy",
    "parts": "what is adapted: vision, aligner, language",
    "rank": "inner width of the factors",
    "alpha": "scale of the factors' product, in units of the rank",
    "dropout": "share of the factors' inputs that training sets to zero",
    "steps": "steps of training",
    "batch_size": "images of a step, each with all its questions",
    "learning_rate": "largest rate of AdamW",
    "gradient_checkpointing": "true: less memory, more time",
    "adapt encoder": "model that is adapted, one of Janus:",
    "compression": "how it is made cheaper:",
    "compress encoder": "teacher, the encoder that is compressed:",
    "compress held_out": "share of the auxiliary subjects that measures are taken on",
    "format": "nifti: NAME.nii.gz; dicom: a folder of slices; ismrmrd: NAME.mrd",
    "voxel_mm": "mm between columns, rows and slices; null: as the files say",
    "evaluate data.root": "folder with the targets; null: as each run recorded",
    "evaluate data.split": "folder multicoil_SPLIT of the targets; null: as recorded",
    "evaluate output_dir": "run folder that is scored, or a folder of several",
    "export output_dir": "run folder, or a folder of several; written is its export/",
    "export skip_existing": "true: leave what is newer than its reconstruction",
    "report output_dir": "folder of the page: report/index.html there",
    "simulate output_dir": "folder of brain/ and knee/",
}
# Options in the help of each verb.
_RUN = ("data", "data.root", "data.acquisition", "data.max_slices", "mask", "mask.acceleration")
_GUIDE = ("prior", "prior.weight", "encoder", "encoder.path", "generator", "auxiliary.root")
_OPTIONS = {
    "simulate": (
        *("source", "source_anatomy", "source_plane", "source_slice_step", "source_train"),
        *("anatomies", "lesions.val", "n_train", "n_val", "n_slices", "size", "n_coils"),
        *("snr_factor", "scale", "seed", "output_dir", "skip_existing"),
    ),
    "bank": (
        *("data", "data.root", "data.acquisition", "prior", "encoder", "encoder.path"),
        *("auxiliary.root", "auxiliary.acquisition", "auxiliary.n_subjects", "scale"),
        *("paths.cache", "seed"),
    ),
    "train": (
        *("data", "data.root", "data.train_subjects", "data.validation_subjects", "mask"),
        *("mask.acceleration", "model", "objective", "prior", "encoder", "trainer.max_epochs"),
        *("trainer.devices", "scale", "seed", "output_dir", "on_error"),
    ),
    "adapt": (
        *("root", "pairs", "acquisition", "n_subjects", "size", "encoder", "encoder.path"),
        *("parts", "rank", "alpha", "dropout", "steps", "batch_size", "learning_rate"),
        *("held_out", "earlier", "gradient_checkpointing", "seed", "output_dir", "on_error"),
    ),
    "compress": (
        *("compression", "encoder", "encoder.path", "data", "data.root", "data.acquisition"),
        *("prior", "auxiliary.root", "auxiliary.acquisition", "auxiliary.n_subjects"),
        *("held_out", "scale", "seed", "paths.cache", "output_dir"),
    ),
    "reconstruct": (
        *(*_RUN, "model", "model.checkpoint", "fit", "fit.iterations", *_GUIDE),
        *("auxiliary.n_subjects", "scale", "experiment", "trainer.devices", "seed"),
        *("output_dir", "skip_existing", "on_error"),
    ),
    "evaluate": (
        *("output_dir", "data.root", "data.split", "reference", "crop", "audit_slices"),
        "logger",
    ),
    "report": (
        *("runs", "output_dir", "title", "reference", "error_window", "embedding"),
        "embedding_slices",
    ),
    "export": ("output_dir", "format", "voxel_mm", "skip_existing"),
    "doctor": (
        *("experiment", "data", "data.root", "model", "model.checkpoint", "prior"),
        *("encoder", "encoder.path", "paths.cache"),
    ),
}
_EXAMPLES = {
    "simulate": (
        "scale=smoke output_dir=DATA",
        "anatomies=[brain] n_val=10 lesions.val=all output_dir=DATA",
        "source=NIFTI_FOLDER source_train=8 output_dir=DATA",
    ),
    "bank": (
        "data.root=DATA/brain",
        "data.root=DATA/brain encoder=janus_mini auxiliary.n_subjects=5",
        "data.root=DATA/brain auxiliary.root=DICOM_FOLDER",
    ),
    "train": (
        "data.root=DATA/brain output_dir=START",
        "data.root=DATA/brain model=varnet scale=paper trainer.devices=2 output_dir=START",
        "data.root=DATA/brain objective=self_supervised output_dir=START",
    ),
    "adapt": (
        "root=DATA/knee output_dir=ADAPTED",
        "root=DICOM_FOLDER acquisition=CORPD_FBK encoder=janus_pro_1b output_dir=ADAPTED",
        "pairs=PAIRS/pairs.jsonl parts=[language] rank=4 output_dir=ADAPTED",
    ),
    "compress": (
        "data.root=DATA/brain data.acquisition=AXT2 output_dir=STUDENT",
        "compression=pruned compression.cost=0.2 data.root=DATA/brain output_dir=PRUNED",
        "encoder=alexnet data=knee data.root=DATA/knee output_dir=STUDENT",
    ),
    "reconstruct": (
        "data.root=DATA/brain model=cg_sense output_dir=RUNS/cg_sense",
        "data.root=DATA/brain prior=image_same mask.acceleration=8 output_dir=RUNS/8",
        "--multirun data.root=DATA/brain prior=none,image_same output_dir=RUNS",
    ),
    "evaluate": (
        "output_dir=RUN",
        "output_dir=RUNS reference=cg_sense",
        "output_dir=RUN data.root=DATA/brain crop=width",
    ),
    "report": (
        "runs=RUNS output_dir=PAGE",
        "runs=[RUN1,RUN2] reference=unrolled output_dir=PAGE",
        "runs=RUNS embedding=umap output_dir=PAGE",
    ),
    "export": (
        "output_dir=RUN",
        "output_dir=RUNS format=dicom",
        "output_dir=RUN format=ismrmrd voxel_mm=[0.7,0.7,5]",
    ),
    "doctor": (
        "",
        "data.root=DATA/brain experiment=paper_unrolled",
        "encoder=janus_pro_1b encoder.path=WEIGHTS",
    ),
}


def help_text(verb: str, does: str, overrides: Iterable[str], searched: list[str]) -> str:
    """Return the help of a verb, at most 40 lines of 100 characters.

    Args:
        verb: key of the schema's `VERBS`.
        does: sentence on the verb.
        overrides: overrides of the user, which change the defaults that are shown.
        searched: further folders of YAML files.

    Raises:
        InputError: when an override is malformed or its option unknown.
    """
    words = [*overrides]
    if words:  # to repair composes, which takes most of the time
        words = repair(verb, words, CONF, searched)
    if searched:
        words.insert(0, f"hydra.searchpath=[{','.join(f'file://{path}' for path in searched)}]")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose(verb, words, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        rows = [_row(verb, key, config) for key in _OPTIONS[verb]]
    # the column is as wide as its longest option; a few longer ones push their sentence aside
    first = min(_MAX_OPTION, max(len(option) for option, _ in rows)) + 2
    lines = [f"mrisem {verb} [option=value ...]   {does}", ""]
    for option, sentence in rows:
        lines += _wrapped(option, sentence, first)
    lines += ["", "Examples", *(f"  mrisem {verb} {words}".rstrip() for words in _EXAMPLES[verb])]
    lines += ["", f"All options: mrisem {verb} --cfg job. Flags: --multirun, --config-dir, --debug"]
    return "\n".join(lines)


def _row(verb: str, key: str, config: DictConfig) -> tuple[str, str]:
    """Return an option with its default, and its description; for a group also the choices."""
    sentence = _SENTENCES.get(f"{verb} {key}") or _SENTENCES[key]
    if sentence.endswith(":"):
        choices = GlobalHydra.instance().config_loader().get_group_options(key)
        return (
            f"{key}={_shown(config.hydra.runtime.choices[key])}",
            f"{sentence} {', '.join(choices)}",
        )
    value = OmegaConf.select(config, key)
    return f"{key}={_shown(value)}", sentence


def _shown(value: object) -> str:
    """Return a value as the command line has it."""
    if OmegaConf.is_list(value):
        return f"[{','.join(map(_shown, value))}]"  # type: ignore[call-overload]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # short, and the same on every machine
    text, home = str(value), str(Path.home())
    return f"~{text.removeprefix(home)}" if text.startswith(f"{home}/") else text


def _wrapped(option: str, sentence: str, first: int) -> list[str]:
    """Return an option and its sentence as lines with a hanging indent."""
    width = min(_MAX_LINE, shutil.get_terminal_size((_MAX_LINE, 24)).columns)
    gap = max(2, first - len(option))
    text = f"  {option}{' ' * gap}{sentence}"
    indent = " " * (first + 2)
    return textwrap.wrap(
        text, max(60, width), subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
    )
