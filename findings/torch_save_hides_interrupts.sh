#!/usr/bin/env bash
# torch.save to an open file (or a stream of fsspec, gzip, ...) turns Ctrl-C and SystemExit into an
# ordinary RuntimeError: "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0".  Its zip
# writer is in C++ and calls file.write; what a signal handler raises there is replaced when the writer
# is closed.  "except Exception", as around a checkpoint that may fail, then swallows Ctrl-C and the
# sys.exit of a SIGTERM handler, and a DataLoader's report of a killed worker loses its text.  Only
# __context__ still has it.  A signal in the very first write, or torch.save to a file's name, is not
# affected.
#
# Seen with torch 2.14.1, numpy 2.4.6 on Python 3.11:
#   SIGINT in write 1: KeyboardInterrupt, except Exception lets it pass
#   SIGINT in write 2: RuntimeError, except Exception swallows KeyboardInterrupt
#   SIGTERM in write 2: RuntimeError, except Exception swallows SystemExit
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 numpy==2.4.6
"$folder/env/bin/python" - "$folder/weights.pth" <<'PYTHON'
import signal
import sys

import torch


class Interrupted:
    """An open file, in whose n-th write a signal arrives."""

    def __init__(self, file, number, at):
        self.file, self.number, self.left = file, number, at

    def write(self, data):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def outcome(number, at):
    """Save with a signal in a write; return the error, and the one that it replaces."""
    with open(sys.argv[1], "wb") as file:
        try:
            torch.save({"weight": torch.ones(3000)}, Interrupted(file, number, at))
        except BaseException as error:
            return type(error), type(error.__context__)
    return None, None


signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
seen = []
for number, at in ((signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2)):
    error, replaced = outcome(number, at)
    seen.append((error, replaced))
    swallowed = isinstance(error, type) and issubclass(error, Exception)
    words = f"swallows {replaced.__name__}" if swallowed else "lets it pass"
    name = getattr(error, "__name__", error)
    print(f"{number.name} in write {at}: {name}, except Exception {words}")
expected = [
    (KeyboardInterrupt, type(None)),
    (RuntimeError, KeyboardInterrupt),
    (RuntimeError, SystemExit),
]
sys.exit(seen != expected)
PYTHON
