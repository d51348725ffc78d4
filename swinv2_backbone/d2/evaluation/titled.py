"""A title above the tables of an evaluation."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class Titled(DatasetEvaluator):
    """An evaluator that logs a title before it computes, and thus logs, its results.

    Args:
        title: what is evaluated, and how.
        evaluator: one evaluator, or a list of several.
    """

    def __init__(self, title: str, evaluator: DatasetEvaluator | list[DatasetEvaluator]):
        self.title = title
        if isinstance(evaluator, list):
            evaluator = DatasetEvaluators(evaluator)
        self.evaluator: Any = evaluator

    def reset(self) -> None:
        self.evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        self.evaluator.process(inputs, outputs)

    def evaluate(self) -> Any:
        if comm.is_main_process():
            logger.info(f"---- {self.title} ----")
        return self.evaluator.evaluate()
