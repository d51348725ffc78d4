"""What happens inside a training, seen by spies: both config systems, everything switched on."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import SemanticSegmentor
from detectron2.utils.events import get_event_storage
from scripts import ROOT, tool
from torch import Tensor, nn

from swinv2_backbone.d2.config import lazy_factories
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.demo.dataset import DemoDataset, generate_demo_dataset
from swinv2_backbone.d2.engine import step as step_module
from swinv2_backbone.d2.engine import trainer as engine
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.prepare import prepare
from swinv2_backbone.d2.engine.rehearsal import first_images, shorten
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.trainer import Trainer, load_plan
from swinv2_backbone.d2.engine.training import Training, evaluate_plan
from swinv2_backbone.d2.evaluation.tta import SemanticSegmentorWithTTA

CONFIGS = {
    "yacs": str(ROOT / "configs" / "upernet_swinv2_demo.yaml"),
    "lazy": str(ROOT / "configs" / "upernet_swinv2_demo.py"),
}
NAMES = ("spied_train", "spied_test")
IMAGE, TEST, SIDES = 64, 48, (40, 56)  # short sides: of files, in a test, in its augmentation
IMAGES = 3  # to test on
ITERATIONS, DECAY, RATE = 5, 0.05, 0.001
EVALUATED = [1, 3, ITERATIONS]  # Detectron2 counts one further for what follows the last step
STOPPED = 1  # the iteration whose checkpoint is resumed

EVERYTHING = {
    "yacs": [
        *("SOLVER.MAX_ITER", str(ITERATIONS), "SOLVER.ACCUMULATE", "2"),
        *("SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", str(DECAY)),
        *("SOLVER.AMP.ENABLED", "True", "SOLVER.BIAS_LR_FACTOR", "2.0"),
        *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"),
        *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.25", "SOLVER.CLIP_GRADIENTS.NORM_TYPE", "1.0"),
        *("SOLVER.CHECKPOINT_PERIOD", "2", "MODEL.SWINV2.PARTIAL_WEIGHTS", "True"),
        *("MODEL.SWINV2.STEM", "repeat"),
        *("TEST.EVAL_PERIOD", "2", "TEST.BEST_METRIC", "sem_seg/mIoU", "TEST.AUG.ENABLED", "True"),
    ],
    "lazy": [
        *(f"train.max_iter={ITERATIONS}", "train.accumulate=2"),
        *("train.ema.enabled=True", f"train.ema.decay={DECAY}"),
        *("train.amp.enabled=True", "optimizer.params.bias_lr_factor=2.0"),
        "train.clip={kind: norm, value: 0.25, norm_type: 1.0}",
        *("train.checkpointer.period=1", "train.checkpointer.max_to_keep=4"),
        *("train.partial_weights=True", "train.stem=repeat"),
        *("train.eval_period=2", "train.best_metric=sem_seg/mIoU", "train.test_aug.enabled=True"),
    ],
}
FLIP = {"yacs": "TEST.AUG.FLIP {}", "lazy": "train.test_aug.flip={}"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DemoDataset:
    folder = tmp_path_factory.mktemp("data") / "demo"
    return generate_demo_dataset(folder, num_train=4, num_val=IMAGES, image_size=IMAGE)


@pytest.fixture(autouse=True, scope="module")
def forget_datasets():
    yield
    for name in list(DatasetCatalog):
        if name.startswith(NAMES):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.fixture(scope="module", params=["yacs", "lazy"])
def system(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def opts(system, dataset) -> list[str]:
    """Overrides that make the demo config tiny."""
    splits = (
        ("train", NAMES[0], dataset.train_images, dataset.train_labels),
        ("test", NAMES[1], dataset.val_images, dataset.val_labels),
    )
    if system == "yacs":
        found = [
            *("MODEL.DEVICE", "cpu", "MODEL.SWINV2.EMBED_DIM", "16"),
            *("MODEL.SWINV2.DEPTHS", "(1, 1, 1, 1)", "MODEL.SWINV2.NUM_HEADS", "(1, 2, 4, 8)"),
            *("INPUT.MIN_SIZE_TRAIN", f"({IMAGE},)", "INPUT.MIN_SIZE_TEST", str(TEST)),
            *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.WARMUP_ITERS", "2"),
            *("SOLVER.BASE_LR", str(RATE), "TEST.AUG.MIN_SIZES", str(SIDES)),
            *("DATASETS.CUSTOM.NAMES", str(dataset.classes)),
        ]
        for split, name, images, labels in splits:
            key = f"DATASETS.CUSTOM.{split.upper()}"
            found += [f"{key}.NAME", name, f"{key}.IMAGES", str(images)]
            found += [f"{key}.LABELS", str(labels)]
        return found
    found = [
        *("train.device=cpu", "model.backbone.embed_dim=16", "model.backbone.depths=[1,1,1,1]"),
        *("model.backbone.num_heads=[1,2,4,8]", "dataloader.train.total_batch_size=4"),
        f"dataloader.train.mapper.augmentations.0.short_edge_length=[{IMAGE}]",
        f"dataloader.test.mapper.augmentations.0.short_edge_length=[{TEST}]",
        *(f"optimizer.params.lr={RATE}", f"train.test_aug.min_sizes={list(SIDES)}"),
    ]
    for split, name, images, labels in splits:
        found += [f"datasets.{split}.name={name}", f"dataloader.{split}.dataset.names={name}"]
        found += [f"datasets.{split}.images={images}", f"datasets.{split}.labels={labels}"]
        found += [f"datasets.{split}.names_file={dataset.classes}"]
    return found


def configure(system: str, opts: list[str], folder: Path) -> TrainingPlan:
    output = {"yacs": ["OUTPUT_DIR", str(folder)], "lazy": [f"train.output_dir={folder}"]}[system]
    return prepare(load_plan(CONFIGS[system], [*opts, *output]))


def build_trainer(system: str, opts: list[str], folder: Path, resume: bool = False):
    trainer = engine.build_trainer(configure(system, opts, folder))
    trainer.resume_or_load(resume)
    return trainer


def step_of(trainer) -> TrainingStep:
    return trainer.step if isinstance(trainer, Training) else trainer._trainer


def average_of(trainer):
    return trainer.checkpointer.checkpointables["average"]


def sizes_of(dataset: DemoDataset) -> list[tuple[int, int]]:
    """Of the files to test on: (height, width)."""
    return [cv2.imread(str(path)).shape[:2] for path in sorted(dataset.val_images.iterdir())]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(actual, expected) -> None:
    """To the bit; of nested dicts of tensors."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


class Spy:
    """Writes down what a training does.

    Args:
        batches: of a training that this one is given the images of, by iteration and part; one
            that lacks an entry gets what this training reads.
    """

    def __init__(self, patch: pytest.MonkeyPatch, batches: dict | None = None):
        self.batches = {} if batches is None else batches
        self.learned: list[tuple] = []  # iteration, images, model, autocast: of each forward
        self.clipped: list[tuple] = []
        self.rates: dict[int, list[float]] = {}  # iteration -> of each group
        self.trained: dict[int, dict] = {}  # iteration -> weights after it
        self.optimised: dict[int, dict] = {}  # iteration -> the optimizer's state after it
        self.evaluated: dict[int, dict] = {}  # iteration -> the weights that were evaluated
        self.judges: set[int] = set()  # the models that were evaluated
        self.augmented: list[tuple] = []  # iteration, image size, model
        originals = SemanticSegmentor.forward, step_module.clip_gradients
        self.forward, self.clip = originals
        self.run_step, self.augment = TrainingStep.run_step, SemanticSegmentorWithTTA.forward
        patch.setattr(SemanticSegmentor, "forward", lambda model, x: self._forward(model, x))
        patch.setattr(step_module, "clip_gradients", self._clip)
        patch.setattr(TrainingStep, "run_step", lambda step: self._run_step(step))
        patch.setattr(SemanticSegmentorWithTTA, "forward", lambda model, x: self._tta(model, x))

    def _forward(self, model, inputs):
        now = get_event_storage().iter
        if not model.training:
            self.evaluated.setdefault(now, weights_of(model))
            self.judges.add(id(model))
            return self.forward(model, inputs)
        amp = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        part = sum(iteration == now for iteration, *_ in self.learned)
        self.learned.append((now, len(inputs), id(model), amp))
        torch.manual_seed(10 * now + part)  # for dropout
        return self.forward(model, self.batches.setdefault((now, part), inputs))

    def _clip(self, parameters, kind, value, norm_type=2.0):
        self.clipped.append(({id(p) for p in parameters}, kind, value, norm_type))
        self.clip(parameters, kind, value, norm_type)

    def _run_step(self, step):
        now = get_event_storage().iter
        self.rates[now] = [group["lr"] for group in step.optimizer.param_groups]
        self.run_step(step)
        self.trained[now] = weights_of(step.model)
        self.optimised[now] = copy.deepcopy(step.optimizer.state_dict()["state"])

    def _tta(self, model, inputs):
        now = get_event_storage().iter
        self.augmented += [(now, tuple(one["image"].shape[1:]), id(model.model)) for one in inputs]
        return self.augment(model, inputs)


class Run:
    """A training with everything on."""

    def __init__(self, system, opts, folder, patch, *, resume=False, batches=None):
        torch.manual_seed(0)
        self.folder, self.spy = folder, Spy(patch, batches)
        self.trainer = build_trainer(system, [*opts, *EVERYTHING[system]], folder, resume)
        self.step, self.average = step_of(self.trainer), average_of(self.trainer)

    def file(self, name: str) -> dict:
        return torch.load(self.folder / f"{name}.pth", weights_only=True)


@pytest.fixture(scope="module")
def run(system, opts, tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        found = Run(system, opts, tmp_path_factory.mktemp(system), patch)
        found.trainer.train()
    return found


@pytest.fixture(scope="module")
def resumed(system, opts, run, tmp_path_factory) -> Run:
    """Goes on after ``STOPPED``, with the images that ``run`` saw."""
    folder, name = tmp_path_factory.mktemp(system), f"model_{STOPPED:07d}.pth"
    shutil.copy(run.folder / name, folder)
    (folder / "last_checkpoint").write_text(name)
    with pytest.MonkeyPatch.context() as patch:
        found = Run(system, opts, folder, patch, resume=True, batches=run.spy.batches)
        found.at_first = (
            weights_of(found.step.model),
            weights_of(found.average.averaged),
            copy.deepcopy(found.step.optimizer.state_dict()["state"]),
            found.average.state_dict()["n_averaged"].item(),
        )
        found.trainer.train()
    return found


def test_a_step_is_made_of_parts_of_the_batch_in_bfloat16(run):
    model = id(run.step.model)
    part = (2, model, torch.bfloat16)  # 4 images in 2 parts
    assert run.spy.learned == [(n, *part) for n in range(ITERATIONS) for _ in range(2)]


def test_gradients_of_all_parameters_are_clipped_once_a_step_as_configured(run):
    everything = {id(p) for p in run.step.model.parameters()}
    assert run.spy.clipped == [(everything, "norm", 0.25, 1.0)] * ITERATIONS


def test_the_rate_of_biases_is_multiplied_in_heads_and_backbone(run):
    groups = run.step.optimizer.param_groups
    rates = {name: group["initial_lr"] for group in groups for name in group["names"]}
    names = [f"sem_seg_head.{n}" for n in ("predictor", "auxiliary.2")]
    names.append("backbone.swinv2.patch_embed.proj")
    for name in names:
        assert rates[f"{name}.weight"] == pytest.approx(RATE), name
        assert rates[f"{name}.bias"] == pytest.approx(2 * RATE), name


def test_the_average_is_of_the_weights_after_each_step(run):
    name = "sem_seg_head.predictor.bias"
    expected = run.spy.trained[0][name]
    for iteration in range(1, ITERATIONS):
        # The weight of the past is DECAY from the start, as it is below (1 + n) / (10 + n).
        expected = DECAY * expected + (1 - DECAY) * run.spy.trained[iteration][name]
    torch.testing.assert_close(run.average.averaged.state_dict()[name], expected)
    assert run.average.state_dict()["n_averaged"] == ITERATIONS


def test_the_average_is_what_is_evaluated(run):
    assert list(run.spy.evaluated) == EVALUATED
    assert run.spy.judges == {id(run.average.averaged)} != {id(run.step.model)}
    assert_same(run.spy.evaluated[ITERATIONS], weights_of(run.average.averaged))


def test_files_hold_what_was_evaluated_and_what_was_trained(run):
    last = ITERATIONS - 1
    for name, evaluated, trained in (
        (f"model_{STOPPED:07d}", STOPPED, STOPPED),
        ("model_final", ITERATIONS, last),
    ):
        file = run.file(name)
        assert_same(dict(file["model"]), run.spy.evaluated[evaluated])
        assert_same(dict(file["average"]["trained"]), run.spy.trained[trained])
        assert file["average"]["n_averaged"] == trained + 1
    best = json.loads((run.folder / "model_best.json").read_text())["iterations"]
    evaluated = {steps: weights for steps, weights in zip((2, 4, 5), run.spy.evaluated.values())}
    assert_same(dict(run.file("model_best")["model"]), evaluated[best])


def test_checkpoints_are_as_many_as_configured(system, run):
    found = sorted(int(path.stem[-7:]) for path in run.folder.glob("model_0*.pth"))
    # The last of the five is model_final alone.
    assert found == {"yacs": [1, 3], "lazy": [0, 1, 2, 3]}[system]


def test_augmentation_runs_once_at_the_end_on_images_of_their_own_size(run, dataset):
    model = id(run.average.averaged)
    assert run.spy.augmented == [(ITERATIONS, size, model) for size in sizes_of(dataset)]


@pytest.mark.parametrize("flip", [True, False])
def test_augmentation_has_the_sizes_and_flips_of_the_config(
    system, opts, flip, tmp_path, monkeypatch
):
    on = {"yacs": ["TEST.AUG.ENABLED", "True"], "lazy": ["train.test_aug.enabled=True"]}[system]
    plan = configure(system, [*opts, *on, *FLIP[system].format(flip).split()], tmp_path)
    seen, forward = [], SemanticSegmentor.forward

    def spied(model, inputs):
        seen.extend(min(one["image"].shape[1:]) for one in inputs)
        return forward(model, inputs)

    monkeypatch.setattr(SemanticSegmentor, "forward", spied)
    if system == "yacs":
        results = Trainer.evaluate(plan.config, Trainer.build_model(plan.config))
    else:
        results = evaluate_plan(plan, plan.factories.model())
    assert seen[:IMAGES] == [TEST] * IMAGES
    assert sorted(seen[IMAGES:]) == sorted(SIDES * IMAGES * (2 if flip else 1))
    assert list(results) == ["sem_seg", "sem_seg_TTA"]


def test_partial_weights_and_other_bands_are_for_the_checkpointer_to_allow(run):
    assert run.trainer.checkpointer.partial is True
    assert run.trainer.checkpointer.stem == "repeat"


def test_what_is_off_stays_off(system, opts, tmp_path):
    off = {
        "yacs": ["SOLVER.CLIP_GRADIENTS.ENABLED", "False", "SOLVER.EMA.ENABLED", "False"],
        "lazy": ["train.clip=null", "train.ema.enabled=False"],
    }[system]
    trainer = build_trainer(system, [*opts, *off], tmp_path)
    step = step_of(trainer)
    assert (step.accumulate, step.clip, step.amp_dtype) == (1, None, None)
    assert trainer.evaluated is step.model
    assert "average" not in trainer.checkpointer.checkpointables
    assert trainer.checkpointer.partial is False


def test_a_resumed_training_starts_where_the_file_was_written(run, resumed):
    weights, averaged, state, n_averaged = resumed.at_first
    assert_same(weights, run.spy.trained[STOPPED])
    assert_same(averaged, run.spy.evaluated[STOPPED])
    assert n_averaged == STOPPED + 1
    assert_same(state, run.spy.optimised[STOPPED])
    assert all(one["exp_avg"].any() for one in state.values())


def test_a_resumed_training_runs_the_iterations_that_are_left_at_their_rates(run, resumed):
    left = range(STOPPED + 1, ITERATIONS)
    assert list(run.spy.rates) == list(range(ITERATIONS))
    assert resumed.spy.rates == {n: run.spy.rates[n] for n in left}
    assert len({tuple(rates) for rates in run.spy.rates.values()}) == ITERATIONS


def test_a_resumed_training_ends_as_one_that_was_never_stopped(run, resumed):
    last = ITERATIONS - 1
    assert_same(resumed.spy.trained[last], run.spy.trained[last])
    assert_same(resumed.spy.optimised[last], run.spy.optimised[last])
    assert_same(weights_of(resumed.average.averaged), weights_of(run.average.averaged))
    assert resumed.average.state_dict()["n_averaged"] == ITERATIONS


def test_an_average_starts_from_the_weights_and_the_normaliser_that_are_loaded(
    system, opts, run, tmp_path
):
    weights = run.folder / "model_final.pth"
    wider = {
        "yacs": ["MODEL.WEIGHTS", str(weights), "MODEL.SWINV2.WINDOW_SIZE", "16"],
        "lazy": [f"train.init_checkpoint={weights}", "model.backbone.window_size=16"],
    }[system]
    trainer = build_trainer(system, [*opts, *EVERYTHING[system], *wider], tmp_path)
    averaged = average_of(trainer).averaged
    assert trainer.evaluated is averaged
    assert_same(weights_of(averaged), weights_of(run.average.averaged))
    assert averaged.backbone.swinv2.pretrained_window_sizes == ((8, 8),) * 4


def test_a_rehearsals_annotations_are_those_of_its_images(dataset, tmp_path):
    name, source = f"{NAMES[1]}_objects", dataset.train_json
    register_coco(name, str(source), str(dataset.train_images), mask_format="bitmask")
    before = source.read_text()
    whole = json.loads(before)
    short = first_images(name, str(tmp_path), count=2)
    records = DatasetCatalog.get(short)
    kept = {record["image_id"] for record in records}
    assert [r["image_id"] for r in records] == [r["image_id"] for r in DatasetCatalog.get(name)][:2]
    written = json.loads(Path(MetadataCatalog.get(short).json_file).read_text(encoding="utf-8"))
    assert {image["id"] for image in written["images"]} == kept < {i["id"] for i in whole["images"]}
    annotations = [one for one in whole["annotations"] if one["image_id"] in kept]
    assert written["annotations"] == annotations and 0 < len(annotations) < len(
        whole["annotations"]
    )
    assert written["categories"] == whole["categories"]
    assert source.read_text() == before


def test_a_rehearsal_expects_no_results():
    expected = "[['bbox', 'AP', 40.0, 0.5]]"
    opts = ["MODEL.DEVICE", "cpu", "DATASETS.TEST", "()", "TEST.EXPECTED_RESULTS", expected]
    plan = shorten(load_plan("", opts))
    assert plan.evaluation.expected_results == ()


def start_tool(system: str, opts: list[str], folder: Path, *flags: str):
    where = {"yacs": ["OUTPUT_DIR", str(folder)], "lazy": [f"train.output_dir={folder}"]}[system]
    found = tool("train_net")
    return found.main(
        found.parser().parse_args(["--config-file", CONFIGS[system], *flags, *opts, *where])
    )


def test_a_metric_that_never_comes_is_refused_before_the_model_is_built(
    system, opts, tmp_path, monkeypatch
):
    def built(*_):
        raise AssertionError("the model was built")

    monkeypatch.setattr(Trainer, "build_model", built)
    monkeypatch.setattr(lazy_factories, "instantiate", built)
    wrong = {"yacs": ["TEST.BEST_METRIC", "bbox/AP"], "lazy": ["train.best_metric=bbox/AP"]}
    with pytest.raises(SystemExit, match="'bbox/AP' is not .* must be one of sem_seg/mIoU"):
        start_tool(system, [*opts, *wrong[system]], tmp_path)


@pytest.mark.parametrize("system", ["yacs"], scope="module")  # a LazyConfig expects no results
def test_an_evaluation_exits_if_its_results_are_not_those_expected(system, opts, tmp_path):
    cfg = configure(system, opts, tmp_path).config
    Checkpointer(Trainer.build_model(cfg), str(tmp_path)).save("weights")
    opts = [*opts, "MODEL.WEIGHTS", str(tmp_path / "weights.pth"), "TEST.EXPECTED_RESULTS"]
    right, wrong = "[['sem_seg', 'mIoU', 50, 60]]", "[['sem_seg', 'mIoU', 200, 60]]"
    assert "sem_seg" in start_tool(system, [*opts, right], tmp_path / "right", "--eval-only")
    with pytest.raises(SystemExit) as left:
        start_tool(system, [*opts, wrong], tmp_path / "wrong", "--eval-only")
    assert left.value.code == 1
