#!/usr/bin/env bash
# torchvision 0.29.1 computes roi_align on a CPU on one thread, forward and backward, however many
# PyTorch has, and its backward takes several times as long as its forward: for 256 boxes on 256
# channels at a quarter of 512 x 512 pixels, longer than a 3 x 3 convolution of the whole map, which has
# a hundred times as many multiplications.  In the training of a detector on a CPU it is a fifth of a
# step, and more cores do not help.
#
# Seen with torchvision 0.29.1, torch 2.14.1 on Python 3.11, two cores (CPU time by wall time, with two
# threads; the threads of a step are busy where it is near 2):
#   convolution: SEEN_CONV
#   roi_align, forward: SEEN_FORWARD
#   roi_align, backward: SEEN_BACKWARD
# Exits with 1 if roi_align uses more than one thread, or its backward is faster than twice its forward.
# Needs two cores that are idle.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import statistics
import sys
import time

import torch
from torchvision.ops import roi_align

torch.set_num_threads(2)
torch.manual_seed(0)
maps = torch.rand(1, 256, 128, 128, requires_grad=True)
corners = torch.rand(256, 2) * 300
boxes = torch.cat([torch.zeros(256, 1), corners, corners + 50 + torch.rand(256, 2) * 150], dim=1)
kernel = torch.rand(256, 256, 3, 3)


def seconds(call):
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measured(call, times=5):
    call()
    runs = [seconds(call)[1:] for _ in range(times)]
    return tuple(map(statistics.median, zip(*runs)))


pooled = roi_align(maps, boxes, 7, 0.25, 0, True)
ones = torch.ones_like(pooled)
with torch.no_grad():
    found = {
        "convolution": measured(lambda: torch.nn.functional.conv2d(maps, kernel, padding=1)),
        "roi_align, forward": measured(lambda: roi_align(maps, boxes, 7, 0.25, 0, True)),
    }
found["roi_align, backward"] = measured(
    lambda: torch.autograd.grad(pooled, maps, ones, retain_graph=True)
)
for name, (wall, cpu) in found.items():
    print(f"{name}: {cpu / wall:.1f} threads, {wall * 1e3:.0f} ms")
forward, backward = found["roi_align, forward"], found["roi_align, backward"]
one_thread = all(cpu / wall < 1.3 for wall, cpu in (forward, backward))
busy = found["convolution"][1] / found["convolution"][0] > 1.5
sys.exit(not (one_thread and busy and backward[0] > 2 * forward[0]))
PYTHON
