"""Metrics of a training, read and drawn."""

from __future__ import annotations

import json

import pytest
from analysis_cases import (
    assert_is_a_picture,
    pixels,
)

from swinv2_backbone.d2.evaluation.analysis.training_curves import draw_training, read_metrics


def test_metrics_of_a_resumed_training_are_those_written_last(tmp_path):
    lines = [
        {"iteration": 19, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 2.0, "lr": 0.2},
        {"iteration": 19, "total_loss": 2.5},
        {"iteration": 29, "total_loss": 2.0},
        {"iteration": 39, "total_loss": 1.5, "bbox/AP": float("nan")},
    ]
    file = tmp_path / "metrics.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    series = read_metrics(file)
    assert list(series["total_loss"].items()) == [(19, 2.5), (29, 2.0), (39, 1.5)]
    assert series["lr"] == {19: 0.1, 39: 0.2}


@pytest.mark.parametrize("line", ['{"iteration": 3, "tot', '{"lr": 1}', "[1]", "3"])
def test_a_broken_line_of_metrics_is_named(tmp_path, line):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 1}\n' + line + '\n{"iteration": 2}\n')
    with pytest.raises(ValueError, match="line 2 of .*metrics.json"):
        read_metrics(file)


def test_an_incomplete_last_line_of_metrics_is_left_out(tmp_path, caplog):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 1, "lr": 3}\n{"iteration": 2, "l')
    assert read_metrics(file) == {"lr": {1: 3}}
    assert f"{file}: the last line is incomplete" in caplog.text


def test_training_curves_show_losses_learning_rate_and_scores(tmp_path):
    values = {10: 2.0, 20: 1.0}
    names = ["total_loss", "loss_cls", "lr", "bbox/AP", "bbox/AP-cat", "sem_seg/mIoU", "time"]
    figure = draw_training(dict.fromkeys(names, values))
    shown = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert shown == [["total_loss", "loss_cls"], ["lr"], ["bbox/AP", "sem_seg/mIoU"]]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[10, 2], [20, 1]]
    assert_is_a_picture(pixels(figure, tmp_path))


def test_without_curves_there_is_no_picture():
    assert draw_training({"time": {1: 2.0}}) is None
