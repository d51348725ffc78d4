"""int8 linear layers on the CPU compared with float32: size, time and error.

Dynamic quantization (torch.ao): weights are int8 in the file, inputs are quantized at run time by
their own range, and products are accumulated as integers.  A block with such layers is computed by
its modules, so float32 computed by modules is timed as well.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

from benchmarking.candidates import OURS, Candidate, build
from benchmarking.comparison import Plan, progress
from benchmarking.figures import FLOAT
from benchmarking.machine import describe
from benchmarking.results import Content
from benchmarking.runs import features_of, runner
from benchmarking.settings import Setting
from benchmarking.timing import alternate, device_clock, in_milliseconds, stopwatch
from benchmarking.weights import random_backbone, random_images

BY_MODULES, INT8 = "float32 by modules", "int8 linear layers"


def unfit(setting: Setting) -> str | None:
    """Return why int8 cannot be compared at a setting, or None."""
    if setting.device != "cpu" or setting.dtype != "float32" or setting.training:
        return "int8 is compared with float32, forward, on the CPU"
    return None


def quantize(model: nn.Module) -> nn.Module:
    """Return a copy with int8 linear layers, except for the MLP of the position bias.

    The position bias runs its MLP only once, and reads the weights without calling the layers.
    """
    layers = {
        name: default_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".cpb_mlp." not in name
    }
    with warnings.catch_warnings():  # torch.ao will move to another package
        warnings.simplefilter("ignore")
        return quantize_dynamic(model, layers, dtype=torch.qint8)


def compare_quantized(setting: Setting, plan: Plan) -> Content:
    """Compare size, time and error of the features; return the content of a result."""
    torch.set_num_threads(setting.threads)
    weights, images = random_backbone(setting), random_images(setting)
    plain = build(Candidate(OURS), setting, weights)
    models: dict[str, nn.Module] = {
        FLOAT: plain,
        BY_MODULES: build(Candidate(OURS, "reference"), setting, weights),
        INT8: quantize(plain),
    }
    runs = {name: runner(model, images, setting) for name, model in models.items()}
    features = {name: features_of(model, images, setting) for name, model in models.items()}
    progress(f"  timing {', '.join(runs)}")
    clock = device_clock(setting.device)
    turns = {name: stopwatch(run, clock) for name, run in runs.items()}
    seconds = alternate(turns, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    ms = in_milliseconds(seconds)
    return {
        "setting": setting.as_json(),
        "machine": describe(setting.device, setting.threads),
        "models": {
            name: {
                "bytes": file_size(model),
                "ms": ms[name],
                **errors(features[name], features[FLOAT]),
            }
            for name, model in models.items()
        },
        "failed": {},
    }


def file_size(model: nn.Module) -> int:
    """Return the bytes of the weights in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def errors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the largest error over the largest value, and the mean error over the mean value.

    Each is the maximum over the features.
    """
    apart = {name: (found[name] - value).abs() for name, value in expected.items()}
    return {
        "max_error": max(
            (apart[name].max() / value.abs().max()).item() for name, value in expected.items()
        ),
        "mean_error": max(
            (apart[name].mean() / value.abs().mean()).item() for name, value in expected.items()
        ),
    }
