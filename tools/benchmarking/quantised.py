"""What int8 gives and costs: linear layers in int8 on the CPU against float32.

Dynamic quantisation (torch.ao): weights are int8 in the file, inputs are rounded as they come, by
their own range, and products are added up in whole numbers.  A block with such layers is computed
by its modules, so that float32 by modules takes its turn too.
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
from benchmarking.machine import describe
from benchmarking.runs import runner
from benchmarking.settings import Setting
from benchmarking.timing import Spread, alternate, device_clock, paired, stopwatch
from benchmarking.weights import random_backbone, random_images

FLOAT, BY_MODULES, INT8 = "float32", "float32 by modules", "int8 linear layers"


def unfit(setting: Setting) -> str | None:
    """Why a setting has no int8, or None."""
    if setting.device != "cpu" or setting.dtype != "float32" or setting.training:
        return "int8 is compared with float32, forward, on the CPU"
    return None


def quantise(model: nn.Module) -> nn.Module:
    """A copy with int8 linear layers, but for the MLP of the position bias.

    That one runs once ever, and reads its weights itself.
    """
    layers = {
        name: default_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".cpb_mlp." not in name
    }
    with warnings.catch_warnings():  # that torch.ao will move to another package
        warnings.simplefilter("ignore")
        return quantize_dynamic(model, layers, dtype=torch.qint8)


def compare_quantised(setting: Setting, plan: Plan) -> dict:
    """Size, time in turns and error of the features, as JSON content."""
    torch.set_num_threads(setting.threads)
    weights, images = random_backbone(setting), random_images(setting)
    plain = build(Candidate(OURS), setting, weights)
    models = {
        FLOAT: plain,
        BY_MODULES: build(Candidate(OURS, "reference"), setting, weights),
        INT8: quantise(plain),
    }
    runs = {name: runner(model, images, setting) for name, model in models.items()}
    features = {name: run() for name, run in runs.items()}
    progress(f"  timing {', '.join(runs)}")
    clock = device_clock(setting.device)
    turns = {name: stopwatch(run, clock) for name, run in runs.items()}
    seconds = alternate(turns, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    return {
        "setting": setting.as_json(),
        "machine": describe(setting.device, setting.threads),
        "models": {
            name: {
                "bytes": file_size(model),
                "seconds": seconds[name],
                "spread": Spread.of(seconds[name]).as_json(),
                "speedup": paired(seconds[FLOAT], seconds[name]).as_json(),
                **errors(features[name], features[FLOAT]),
            }
            for name, model in models.items()
        },
        "failed": {},
    }


def file_size(model: nn.Module) -> int:
    """Bytes of its weights in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def errors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest error relative to the largest value, and the mean relative to the mean.

    Each of the feature where it is worst.
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
