"""The settings of the trained model that a file, or the config.json beside it, states.

timm and Hugging Face normalize the position bias by the window that a model is built with, unless
pretrained windows are given, and neither saves it with the weights.  It is read where a training
states it: in timm's ``args`` and ``model_args``, in Hugging Face's config (also one that is nested,
as ``backbone_config`` is), in Lightning's ``hyper_parameters`` and in the config.json of
segmentation_models_pytorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from swinv2_backbone.checkpoints import built_windows
from swinv2_backbone.checkpoints.architecture import Architecture, architecture_of
from swinv2_backbone.checkpoints.built_windows import IMAGE_SIZES, Publisher
from swinv2_backbone.checkpoints.layouts.hugging_face import HUGGING_FACE
from swinv2_backbone.checkpoints.layouts.layout import Layout
from swinv2_backbone.checkpoints.layouts.microsoft import MICROSOFT, SIMMIM
from swinv2_backbone.checkpoints.layouts.timm import FEATURES_ONLY, TIMM
from swinv2_backbone.checkpoints.pickled import plain
from swinv2_backbone.checkpoints.pretrained_sources import settings_beside
from swinv2_backbone.checkpoints.pretrained_window import PretrainedWindows
from swinv2_backbone.variants import VARIANTS

Settings = Mapping[str, Any]

# Where timm's scripts, timm's config.json, and users' scripts name a model.
NAMES = (
    *("model", "arch", "architecture", "model_name", "name"),
    *("encoder_name", "encoder", "backbone_name", "backbone"),
)
# timm records the arguments of a model with these; what is not there has its default.
RECORDED = {"img_size", "in_chans", "num_classes"}

# Defaults of Hugging Face's Swinv2Config, which a config.json may leave out.
HUGGING_FACE_DEFAULTS = {
    "image_size": 224,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
}

# A setting -> its values in every SwinV2 here.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", "gelu_python"),
    "act_layer": ("gelu",),
    "layer_norm_eps": (1e-5,),
    "norm_layer": ("layernorm", "LayerNorm"),
    "mlp_ratio": (4,),
    "patch_size": (4, [4, 4]),
    "use_absolute_embeddings": (False,),
}


# The rule by which a publisher's pretrained windows follow from the settings of its model, by the
# name of the layout.  torchvision's and mmpretrain's files have tables instead.
RULES = {
    TIMM.name: built_windows.TIMM,
    FEATURES_ONLY.name: built_windows.TIMM,
    MICROSOFT.name: built_windows.TIMM,
    SIMMIM.name: built_windows.TIMM,
    HUGGING_FACE.name: built_windows.HUGGING_FACE,
}

IN_FILE = ("args", "model_args", "hyper_parameters")  # keys of settings in a file


class Build(NamedTuple):
    """The arguments that a model was built with.

    Attributes:
        settings: the arguments; some that have their defaults may be left out.
        name: the published model with these defaults, by timm's name; "" if there is none.
        place: the keys that lead to the settings, for messages.
        loose: the settings are a user's own; a name or a size in them may be of something else.
    """

    settings: Settings
    name: str = ""
    place: str = ""
    loose: bool = False


def settings_of(path: Path, layout: Layout, content: Any) -> list[tuple[list[Build], str]]:
    """Return the settings of the trained model in a file and beside it, each with its source.

    A file of our own may have any pretrained windows, whatever is beside it.

    Raises:
        ValueError: the settings are damaged, or of a model that a SwinV2 here cannot be.
    """
    if layout.name not in RULES:
        return []
    stated = plain(content)
    keys = ", ".join(key for key in IN_FILE if isinstance(stated, dict) and key in stated)
    try:
        found = [
            (builds_in(stated), f"{keys or 'settings'} in the file"),
            (builds_in(settings_beside(path)), "config.json beside it"),
        ]
    except (RecursionError, ValueError) as error:
        raise ValueError(f"the pretrained windows cannot be read: {error}") from error
    for builds, source in found:
        check_builds(builds, source)
    return found


def builds_in(stated: Any) -> list[Build]:
    """Return the arguments of every SwinV2 in plain settings, at any depth."""
    found = (_build(place, settings) for place, settings in _dicts_in(stated))
    return [build for build in found if build is not None]


def check_builds(builds: list[Build], source: str) -> None:
    """Check that a SwinV2 here can have the settings of a publisher's.

    Raises:
        ValueError: it cannot; the message has the reason.
    """
    for build in builds:
        for key, values in FIXED.items():
            value = build.settings.get(key)
            if value is not None and value not in values and not build.loose:
                raise ValueError(
                    f"{source} has {build.place}{key} {value!r}, where every SwinV2 here has "
                    f"{values[0]!r}: its features would be others"
                )


def windows_of_builds(
    builds: list[Build], architecture: Architecture, publisher: Publisher, source: str
) -> PretrainedWindows | None:
    """Return the pretrained windows that follow from the settings of a training.

    Args:
        builds: the arguments of the models.
        architecture: the size of the model in the file.
        publisher: the rule by which the windows of a model follow from its settings.
        source: where the settings are, for the report.

    Returns:
        None if the settings do not determine them.

    Raises:
        ValueError: the settings are of another model, or are no windows.
    """
    answers = []
    for build in builds:
        try:
            found = None
            if _is_of(build, architecture, source):
                found = publisher.windows(build.settings, build.name, len(architecture.depths))
        except ValueError:
            if not build.loose:
                raise
        if found is not None:
            answers.append(found)
    if len({pretrained for pretrained, _ in answers}) != 1:
        return None  # nothing, or contradictions
    return PretrainedWindows(answers[0][0], source, answers[0][1])


def _build(place: str, settings: Settings) -> Build | None:
    """Return the arguments of a model that are in one dict of settings, or None."""
    if settings.get("model_type") == "swinv2":
        return Build({**HUGGING_FACE_DEFAULTS, **settings}, place=place)
    name = _published_name(settings)
    inner = settings.get("model_kwargs")  # of timm's train.py, whose default is {}
    if name and isinstance(inner, Mapping):
        return Build(inner, name, f"{place}model_kwargs.")
    inner = settings.get("model_args")
    if name and isinstance(inner, Mapping) and (set(inner) >= RECORDED or "window_size" in inner):
        with_size = _with_image_size(inner, settings.get("pretrained_cfg"))
        return Build(with_size, name, f"{place}model_args.")
    if name and "_model_class" in settings:  # of segmentation_models_pytorch
        return Build(settings, name, place)
    # In users' own settings, what is not stated may be anything.
    if "window_size" in settings and any(settings.get(key) for key in IMAGE_SIZES):
        return Build(settings, name, place, loose=True)
    return None


def _published_name(settings: Settings) -> str:
    for key in NAMES:
        name = settings.get(key)
        if isinstance(name, str):
            name = name.replace("hf-hub:", "hf_hub:").removeprefix("hf_hub:timm/")
            name = name.removeprefix("tu-").partition(".")[0]  # a prefix of smp, a tag of timm
            name = name.removesuffix("_22k").removesuffix("_22kft1k")
            if name in VARIANTS:
                return name
    return ""


def _with_image_size(arguments: Settings, pretrained_cfg: Any) -> Settings:
    """Add the image size in timm's ``pretrained_cfg``, the default of its models."""
    size = pretrained_cfg.get("input_size") if isinstance(pretrained_cfg, Mapping) else None
    return {"img_size": size[-2:], **arguments} if isinstance(size, list) else arguments


def _dicts_in(value: Any, place: str = "") -> Iterator[tuple[str, Settings]]:
    if isinstance(value, Mapping):
        yield place, value
        for key, inner in value.items():
            # timm's arguments are not also a user's own settings.
            if key not in ("model_args", "model_kwargs", "pretrained_cfg"):
                yield from _dicts_in(inner, f"{place}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from _dicts_in(inner, place)


def _is_of(build: Build, architecture: Architecture, source: str) -> bool:
    """Return whether the settings are of a model of this size.

    Raises:
        ValueError: a publisher's settings are of another size.
    """
    own = {"embed_dim": architecture.embed_dim} | {
        key: list(getattr(architecture, key)) for key in ("depths", "num_heads")
    }
    default = architecture_of(build.name)._asdict() if build.name else {}
    for key, size in own.items():
        value = build.settings.get(key, default.get(key))
        # A file of fewer stages has the first ones.
        value = (
            list(value)[: len(architecture.depths)] if isinstance(size, list) and value else value
        )
        if value is not None and value != size:
            if build.loose:
                return False
            raise ValueError(f"{source} is of another model: {key} {value}, not {size}")
    # Some published models of a size have pretrained windows of their own.
    fixed = [
        name
        for name, variant in VARIANTS.items()
        if architecture_of(name) == architecture
        and variant.pretrained_window_sizes != variant.window_sizes
    ]
    given = "pretrained_window_sizes" in build.settings
    return not (build.loose and not build.name and not given and fixed)
