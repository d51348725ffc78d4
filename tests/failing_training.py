"""A training of two processes, the second of which fails: to be started anew, in each of them."""

from __future__ import annotations

import argparse
import os

import torch.distributed as dist

from swinv2_backbone.cli import train_net
from swinv2_backbone.d2.engine.step import TrainingStep


def main(args: argparse.Namespace) -> None:
    original = TrainingStep.run_step

    def run_step(self: TrainingStep) -> None:
        if self.iter == 0:
            print(f"rank {dist.get_rank()} trains in process {os.getpid()}", flush=True)
        if dist.get_rank() == 1 and self.iter == 3:
            raise OSError("a disk of one machine failed")
        original(self)

    TrainingStep.run_step = run_step
    train_net.main(args)
