#!/usr/bin/env bash
# litert-torch 0.10.0 drops the transpose of a constant matrix that is broadcast to a batch before it:
# x @ c.expand(B, k, n).mT is computed with the numbers of c in their order, as if c were (n, k).  The
# shape is right, so that nothing warns.  A constant that is transposed first, or has its batch in
# memory, is right.
#
# Seen with litert-torch 0.10.0, ai-edge-litert 2.3.0, torch 2.14.1 on Python 3.11 (rows of the first
# product, for c = 1 2 3 4 / 5 6 7 8 and x = 0 ... 23):
#   expand, then mT: [34.0, 40.0] (PyTorch: [20.0, 44.0]), wrong
#   mT, then expand: [20.0, 44.0] (PyTorch: [20.0, 44.0]), right
#   a batch in memory, then mT: [20.0, 44.0] (PyTorch: [20.0, 44.0]), right
#   no batch, mT: [20.0, 44.0] (PyTorch: [20.0, 44.0]), right
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    litert-torch==0.10.0 ai-edge-litert==2.3.0 litert-converter==0.5.0 ai-edge-quantizer==0.10.0 \
    torch==2.14.1 torchao==0.18.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$folder/env/bin/python" - 2>/dev/null <<'PYTHON' | tail -n 4
import sys

import litert_torch
import torch

X = torch.arange(24.0).view(2, 3, 4)
C = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
FORMS = {
    "expand, then mT": lambda c, x: x @ c.expand(2, 2, 4).mT,
    "mT, then expand": lambda c, x: x @ c.mT.expand(2, 4, 2),
    "a batch in memory, then mT": lambda c, x: x @ torch.stack([c, c]).mT,
    "no batch, mT": lambda c, x: x @ c.mT,
}


class Product(torch.nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form
        self.register_buffer("c", C)

    def forward(self, x):
        return self.form(self.c, x)


lines, same = [], True
for name, form in FORMS.items():
    model = Product(form).eval()
    found, expected = torch.as_tensor(litert_torch.convert(model, (X,))(X)), model(X)
    right = torch.allclose(found, expected)
    rows = [one[0, 0].tolist() for one in (found, expected)]
    lines.append(f"{name}: {rows[0]} (PyTorch: {rows[1]}), {'right' if right else 'wrong'}")
    same &= right == (name != "expand, then mT")
print(*lines, sep="\n")  # below the lines of litert-torch
sys.exit(not same)
PYTHON
