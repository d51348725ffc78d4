#!/usr/bin/env bash
# litert-torch 0.10.0 takes constants that are not contiguous (a transposed or sliced buffer) for one
# another.  It copies each to a temporary tensor, and keeps what it converted under the address, shape
# and strides of that copy.  The copy is freed, the next one of the same shape often gets the same
# address, and the file holds the values of the earlier constant, without a warning.  How many are
# wrong differs from run to run; after .contiguous(), none is.
#
# Seen with litert-torch 0.10.0, ai-edge-litert 2.3.0, torch 2.14.1 on Python 3.11, for 30 constants:
#   transposed: 29 of 30 outputs have the values of another constant
#   contiguous: 0 of 30 outputs have the values of another constant
# Exits with 1 if all of the transposed ones are right, or a contiguous one is wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    litert-torch==0.10.0 ai-edge-litert==2.3.0 litert-converter==0.5.0 ai-edge-quantizer==0.10.0 \
    torch==2.14.1 torchao==0.18.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$folder/env/bin/python" - 2>/dev/null <<'PYTHON' | tail -n 2
import sys

import litert_torch
import torch

COUNT = 30


class Sums(torch.nn.Module):
    """Adds to its input each of the constants, which are 0, 1, 2, ... everywhere but for a slope."""

    def __init__(self, transposed):
        super().__init__()
        slope = torch.arange(96.0)[:, None].expand(96, 64) / 1000
        for number in range(COUNT):
            constant = slope + number
            self.register_buffer(f"c{number}", constant.T if transposed else constant.T.contiguous())

    def forward(self, x):
        return tuple(x + getattr(self, f"c{number}") for number in range(COUNT))


def wrong(transposed):
    """Return how many outputs of the converted model are not those of the model."""
    model, x = Sums(transposed).eval(), torch.zeros(64, 96)
    found = litert_torch.convert(model, (x,))(x)
    pairs = zip(found, model(x))
    return sum(not torch.allclose(torch.as_tensor(one), other) for one, other in pairs)


# The most of several tries, because the address of a copy is a matter of chance.
counts = {"transposed": max(wrong(True) for _ in range(5)), "contiguous": wrong(False)}
for name, count in counts.items():
    print(f"{name}: {count} of {COUNT} outputs have the values of another constant")
sys.exit(not (counts["transposed"] > 0 and counts["contiguous"] == 0))
PYTHON
