"""Images of nine bands from files to a trained model, through the tools, in both dialects.

The objects stand out in the band 7 alone, which is no color: a model that finds them has read it.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from scripts import CONFIGS, tool
from small_configs import SMALL

from swinv2_backbone.d2 import (
    load_lazy_config,
    load_plan,
    load_predictor,
    plan_from_lazy,
    prepare,
)
from swinv2_backbone.d2.config.bands import number_of_bands
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.engine.training import load_for_evaluation
from swinv2_backbone.d2.export.model import load_model

N, SIDE, SEEN = 9, 64, 7
MEAN = [1000.0 * (band + 1) for band in range(N)]
MEAN_AND_STD = ["MODEL.PIXEL_MEAN", str(MEAN), "MODEL.PIXEL_STD", str([300.0] * N)]


def scene(seed: int) -> tuple[np.ndarray, list[int]]:
    """(SIDE, SIDE, N) uint16 of noise around the means, and the box (x, y, w, h) of its object."""
    random = np.random.default_rng(seed)
    pixels = random.normal(MEAN, 100, (SIDE, SIDE, N))
    x, y = random.integers(4, SIDE - 30, 2)
    pixels[y : y + 24, x : x + 20, SEEN] += 1500
    return pixels.round().astype(np.uint16), [int(x), int(y), 20, 24]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The same six images as TIFF files with a COCO file, and as arrays with label images."""
    root = tmp_path_factory.mktemp("bands")
    for folder in ("tiff", "arrays", "labels"):
        (root / folder).mkdir()
    (root / "classes.txt").write_text("water\nship\n")
    images, annotations = [], []
    for number in range(6):
        pixels, (x, y, w, h) = scene(number)
        planar = ("contig", "separate")[number % 2]
        stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
        name = f"{number}.tif"
        tifffile.imwrite(
            root / "tiff" / name, stored, photometric="minisblack", planarconfig=planar
        )
        np.save(root / "arrays" / f"{number}.npy", np.moveaxis(pixels, 2, 0))
        labels = np.zeros((SIDE, SIDE), np.uint8)
        labels[y : y + h, x : x + w] = 1
        cv2.imwrite(str(root / "labels" / f"{number}.png"), labels)
        images.append({"id": number + 1, "file_name": name, "height": SIDE, "width": SIDE})
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        ship = {"id": number + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0}
        ship |= {"bbox": [x, y, w, h], "area": w * h, "segmentation": [corners]}
        annotations.append(ship)
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "ship"}]
    (root / "ships.json").write_text(json.dumps(content))
    yield root
    for name in [name for name in DatasetCatalog if name.startswith("bands_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def run(name: str, *arguments: object) -> None:
    module, words = tool(name), [str(one) for one in arguments]
    module.main(module.parser().parse_args(words) if name == "train_net" else words)


@pytest.fixture(scope="module")
def yaml(data) -> list[str]:
    """Overrides of a detector."""
    custom = "DATASETS.CUSTOM"
    return [
        *SMALL,
        *("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "INPUT.FORMAT", "BANDS"),
        *("INPUT.DISPLAY_BANDS", "(7, 1, 0)", *MEAN_AND_STD),
        *(f"{custom}.TRAIN.NAME", "bands_train", f"{custom}.TEST.NAME", "bands_test"),
        *(f"{custom}.TRAIN.JSON", str(data / "ships.json")),
        *(f"{custom}.TEST.JSON", str(data / "ships.json")),
        *(f"{custom}.TRAIN.IMAGES", str(data / "tiff"), f"{custom}.TEST.IMAGES"),
        *(str(data / "tiff"), "MODEL.ROI_HEADS.NUM_CLASSES", "1", "SOLVER.STEPS", "()"),
        *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64, 96)"),
    ]


@pytest.fixture(scope="module")
def detector(data, yaml) -> Path:
    """The folder of a detector, trained for three iterations and evaluated, also with flips."""
    folder = data / "detector"
    run(
        *("train_net", "--config-file", CONFIGS / "mask_rcnn_swinv2.yaml", *yaml),
        *("SOLVER.MAX_ITER", "3", "OUTPUT_DIR", folder),
    )
    return folder


def test_a_detector_of_nine_bands_is_trained_and_evaluated(detector):
    results = json.loads((detector / "inference" / "results.json").read_text())
    augmented = json.loads((detector / "inference_TTA" / "results.json").read_text())
    assert "AP" in results["bbox"] and "AP" in str(augmented)
    weights = torch.load(detector / "model_final.pth", weights_only=True)["model"]
    assert weights["backbone.bottom_up.swinv2.patch_embed.proj.weight"].shape[1] == N


def test_its_predictions_are_drawn_on_the_chosen_bands(detector, data, tmp_path):
    run(
        *("predict", "--config-file", detector / "config.yaml", "--input", data / "tiff"),
        *("--output", tmp_path / "drawn", "--confidence", "0.99"),
        *("MODEL.WEIGHTS", detector / "model_final.pth"),
    )
    records = json.loads((tmp_path / "drawn" / "detections.json").read_text())
    assert [record["height"] for record in records] == 6 * [SIDE]
    drawn = cv2.imread(str(tmp_path / "drawn" / "0.tif"))
    x, y, w, h = (side * drawn.shape[0] // SIDE for side in scene(0)[1])
    inside = drawn[y + 8 : y + h - 8, x + 8 : x + w - 8].mean((0, 1))
    assert inside[2] > 230 > inside[:2].max()  # red, from the band 7


def test_a_file_with_other_bands_is_named_and_the_others_are_predicted(detector, data, tmp_path):
    np.save(tmp_path / "four.npy", scene(0)[0][:, :, :4])
    predictor = load_predictor(
        str(detector / "config.yaml"), ["MODEL.WEIGHTS", str(detector / "model_final.pth")]
    )
    with pytest.raises(ValueError, match=r"four.npy: .*\(64, 64, 4\), but MODEL.PIXEL_MEAN .* 9"):
        predictor.read(tmp_path / "four.npy")
    with pytest.raises(ValueError, match="the image has 4 channels or bands, but .* takes 9"):
        predictor(scene(0)[0][:, :, :4])


def test_its_worst_images_are_drawn(detector, tmp_path):
    run(
        *("analyze_results", "--config-file", detector / "config.yaml"),
        *("--output", tmp_path / "report", "--worst", "2"),
    )
    pictures = sorted((tmp_path / "report" / "worst").iterdir())
    assert len(pictures) == 2 and cv2.imread(str(pictures[0])).std() > 10


@pytest.mark.slow
def test_its_file_for_other_programs_takes_nine_bands(detector, data, tmp_path, capsys):
    run(
        *("export_model", "--config-file", detector / "config.yaml", "--what", "backbone+fpn"),
        *("--weights", detector / "model_final.pth", "--format", "torch-export"),
        *("--output", tmp_path / "fpn.pt2", "--picture", data / "tiff" / "0.tif"),
    )
    notes = capsys.readouterr().out
    assert "float32 (batch, 9, height, width), BANDS, as they are stored" in notes


THREE = ["MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]", "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"]
THREE += ["INPUT.DISPLAY_BANDS", "()"]
LOADERS = {  # functions (config file, weights, overrides) -> model
    "predict": lambda file, weights, opts: (
        load_predictor(str(file), [*opts, "MODEL.WEIGHTS", str(weights)]).model
    ),
    "export": lambda file, weights, opts: load_model(str(file), str(weights), opts)[0],
    "evaluate": lambda file, weights, opts: load_for_evaluation(
        load_plan(str(file), [*opts, "MODEL.WEIGHTS", str(weights)]), resume=False
    ),
}


@pytest.mark.parametrize("load", LOADERS)
def test_its_weights_go_into_a_model_of_three_bands_only_by_a_stated_rule(load, detector):
    weights = detector / "model_final.pth"
    file = detector / "config.yaml"
    with pytest.raises(ValueError, match="of 9 channels or bands, .* for 3 .*MODEL.SWINV2.STEM"):
        LOADERS[load](file, weights, THREE)
    model = LOADERS[load](file, weights, [*THREE, "MODEL.SWINV2.STEM", "mean"])
    name = "backbone.bottom_up.swinv2.patch_embed.proj.weight"
    third = torch.load(weights, weights_only=True)["model"][name].sum(1, keepdim=True) / 3
    assert torch.allclose(model.state_dict()[name], third.expand(-1, 3, -1, -1), atol=1e-6)


def test_a_dataset_with_another_number_of_bands_stops_before_training(data, yaml, tmp_path):
    four = ["MODEL.PIXEL_MEAN", str(MEAN[:4]), "MODEL.PIXEL_STD", str([1.0] * 4)]
    opts = [*yaml, *four, "INPUT.DISPLAY_BANDS", "()", "OUTPUT_DIR", str(tmp_path)]
    plan = load_plan(str(CONFIGS / "mask_rcnn_swinv2.yaml"), opts)
    with pytest.raises(ValueError) as error:
        prepare(plan)
    assert "0.tif: it has 9 bands, but MODEL.PIXEL_MEAN" in str(error.value)
    assert "has 4 numbers" in str(error.value)


LAZY = """
from detectron2.config import LazyCall as L, LazyConfig

from swinv2_backbone.d2 import register_coco

base = LazyConfig.load("{base}")
model, dataloader, train = base.model, base.dataloader, base.train
optimizer, lr_multiplier = base.optimizer, base.lr_multiplier

model.pixel_mean = {mean}
model.pixel_std = {std}
model.backbone.bottom_up.in_channels = 9
model.roi_heads.num_classes = 1
dataloader.train.mapper.image_format = "BANDS"  # of testing, too
train.display_bands = [7, 1, 0]
train.init_checkpoint = ""
datasets = dict(
    train=L(register_coco)(name="bands_lazy_train", json_file="{json}", images="{images}"),
    test=L(register_coco)(
        name="bands_lazy_test", json_file="{json}", images="{images}", for_evaluation=True
    ),
)
dataloader.train.dataset.names = "bands_lazy_train"
dataloader.test.dataset.names = "bands_lazy_test"
"""
TINY = [
    *("train.device=cpu", "train.amp.enabled=false", "train.max_iter=2"),
    *("dataloader.train.num_workers=0", "dataloader.train.total_batch_size=2"),
    *("dataloader.train.mapper.augmentations.0.short_edge_length=[64]",),
    *("dataloader.test.mapper.augmentations.0.short_edge_length=64",),
    *(f"model.backbone.bottom_up.{one}" for one in ("variant=null", "embed_dim=16")),
    *(f"model.backbone.bottom_up.{one}" for one in ("depths=[1,1,1,1]", "num_heads=[1,2,4,8]")),
    *("model.backbone.bottom_up.window_size=4", "model.backbone.out_channels=32"),
    *("model.proposal_generator.pre_nms_topk=[40,40]", "model.roi_heads.batch_size_per_image=16"),
    *("model.proposal_generator.post_nms_topk=[20,20]", "model.roi_heads.box_head.fc_dims=[64,64]"),
    "model.roi_heads.mask_head.conv_dims=[32,32]",
]


@pytest.fixture(scope="module")
def lazy(data) -> Path:
    text = LAZY.format(
        base=CONFIGS / "mask_rcnn_swinv2.py",
        mean=MEAN,
        std=[300.0] * N,
        json=data / "ships.json",
        images=data / "tiff",
    )
    (data / "ships.py").write_text(text)
    return data / "ships.py"


def test_a_lazy_config_trains_evaluates_and_predicts_on_bands(lazy, data, tmp_path):
    run("train_net", "--config-file", lazy, *TINY, f"train.output_dir={tmp_path}")
    assert json.loads((tmp_path / "inference" / "results.json").read_text())["bbox"]
    opts = [*TINY, f"train.init_checkpoint={tmp_path / 'model_final.pth'}"]
    three = ["model.pixel_mean=[1,2,3]", "model.pixel_std=[1,1,1]", "train.display_bands=[]"]
    three += ["model.backbone.bottom_up.in_channels=3", "train.stem=zero"]
    assert load_predictor(str(lazy), [*opts, *three]).channels == 3
    assert load_model(str(lazy), None, [*opts, *three])[0].pixel_mean.numel() == 3
    predictor = load_predictor(str(lazy), opts)
    pixels = predictor.read(data / "tiff" / "0.tif")
    assert pixels.shape == (SIDE, SIDE, N)
    assert predictor.draw(pixels, predictor(pixels)).shape[2] == 3
    assert predictor.display_bands == (7, 1, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.backbone.bottom_up.in_channels=3", "model.backbone.bottom_up.in_channels is 3"),
        ("dataloader.train.mapper.image_format=RGB", "dataloader.train.mapper.image_format=BANDS"),
        ("dataloader.test.mapper.image_format=RGB", "dataloader.test.mapper.image_format is 'RGB'"),
        ("++dataloader.train.mapper.bands=4", "dataloader.train.mapper.bands is 4"),
        ("++datasets.test.bands=4", "datasets.test.bands is 4, but model.pixel_mean has 9"),
        ("train.display_bands=[9,0,1]", "train.display_bands (9, 0, 1) has 9"),
        ("model.pixel_std=[1,1,1]", "model.pixel_mean has 9 numbers, but model.pixel_std has 3"),
        ("model.vis_period=10", "model.vis_period=0"),
        (
            "dataloader.test.mapper._target_=detectron2.data.DatasetMapper",
            "dataloader.test.mapper is Detectron2's DatasetMapper",
        ),
    ],
)
def test_contradictions_of_a_lazy_config_are_named_by_its_keys(change, words, lazy):
    with pytest.raises(ConfigError) as error:
        load_plan(str(lazy), [*TINY, change])
    assert words in str(error.value) and "MODEL." not in str(error.value)


def test_a_model_without_a_mean_may_take_any_number_of_bands(lazy):
    cfg = load_lazy_config(str(lazy), TINY)
    del cfg.model.pixel_mean
    prepare(plan_from_lazy(load_lazy_config(str(lazy), TINY)))  # registers the datasets
    plan = validate(plan_from_lazy(cfg))
    assert number_of_bands(plan) is None
    assert plan.factories.train_loader().mapper.bands is None


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["INPUT.FORMAT", "bands"], "INPUT.FORMAT must be in capitals, BANDS"),
        (["INPUT.FORMAT", "RGB"], "INPUT.FORMAT RGB has 3 channels, but MODEL.PIXEL_MEAN has 9"),
        (["INPUT.DISPLAY_BANDS", "(0, 1, 9)"], "INPUT.DISPLAY_BANDS (0, 1, 9) has 9, but the 9"),
        (["INPUT.DISPLAY_BANDS", "(0, 1)"], "INPUT.DISPLAY_BANDS must be"),
        (["INPUT.DISPLAY_BANDS", "(0, 1, 2, 3)"], "INPUT.DISPLAY_BANDS must be three bands"),
        (["INPUT.COLOR_AUG_SSD", "True"], "set INPUT.COLOR_AUG_SSD False"),
        (["MODEL.PIXEL_STD", "[1.0]"], "but MODEL.PIXEL_STD has 1: give both"),
        (["MODEL.PIXEL_STD", str([0.0] * N)], "MODEL.PIXEL_STD must be"),
        (["VIS_PERIOD", "5"], "set VIS_PERIOD 0"),
    ],
)
def test_contradictions_of_a_yaml_are_named_by_its_keys(opts, words, yaml):
    with pytest.raises(ConfigError) as error:
        load_plan(str(CONFIGS / "mask_rcnn_swinv2.yaml"), [*yaml, *opts])
    assert words in str(error.value)


@pytest.mark.slow
def test_a_segmentor_learns_what_only_one_of_the_bands_shows(data, tmp_path):
    run(
        *("train_net", "--config-file", CONFIGS / "upernet_swinv2_demo.yaml", *SMALL),
        *("MODEL.DEVICE", "cpu", "INPUT.FORMAT", "BANDS", *MEAN_AND_STD),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2", "DATASETS.CUSTOM.NAMES", data / "classes.txt"),
        *("DATASETS.CUSTOM.TRAIN.NAME", "bands_sem_train", "DATASETS.CUSTOM.TEST.NAME"),
        *("bands_sem_test", "DATASETS.CUSTOM.TRAIN.IMAGES", data / "arrays"),
        *("DATASETS.CUSTOM.TEST.IMAGES", data / "arrays", "DATASETS.CUSTOM.TRAIN.LABELS"),
        *(data / "labels", "DATASETS.CUSTOM.TEST.LABELS", data / "labels"),
        *("INPUT.COLOR_AUG_SSD", "False", "SOLVER.EMA.ENABLED", "False", "SOLVER.IMS_PER_BATCH"),
        *("6", "SOLVER.MAX_ITER", "40", "SOLVER.WARMUP_ITERS", "2", "SOLVER.BASE_LR", "0.003"),
        *("TEST.EVAL_PERIOD", "0", "TEST.BEST_METRIC", "", "OUTPUT_DIR", tmp_path, "SEED", "1"),
        *("TEST.AUG.ENABLED", "False"),
    )
    results = json.loads((tmp_path / "inference" / "results.json").read_text())
    assert results["sem_seg"]["mIoU"] > 80
    run(
        *("predict", "--config-file", tmp_path / "config.yaml", "--input", data / "arrays"),
        *("--output", tmp_path / "drawn", "MODEL.WEIGHTS", tmp_path / "model_final.pth"),
    )
    labels = cv2.imread(str(tmp_path / "drawn" / "0.npy.png_labels.png"), cv2.IMREAD_UNCHANGED)
    truth = cv2.imread(str(data / "labels" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert (labels == truth).mean() > 0.9
