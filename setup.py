import re
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
INIT = (ROOT / "swinv2_backbone" / "__init__.py").read_text(encoding="utf-8")
IMAGES = ["imagecodecs", "pillow-heif", "tifffile"]
NOTEBOOK = [f"{name}; python_version >= '3.11'" for name in ("ipykernel", "nbclient")]

# The kernels of kernels/cpu/native, which need no Python: one file for every version from 3.10 on.
# Without a compiler that can build it, the package is installed without it.  OpenMP is that of
# PyTorch, found when the file is loaded, so it is not linked.
NATIVE = "swinv2_backbone/kernels/cpu/native"
KERNELS = Extension(
    f"{NATIVE}/_kernels".replace("/", "."),
    [f"{NATIVE}/native.cpp"],
    depends=[f"{NATIVE}/kernels.h", f"{NATIVE}/roi_align.h"],
    extra_compile_args=[
        "-O3",
        "-std=c++17",
        "-fopenmp",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffp-contract=fast",
        "-Wno-psabi",
        "-g0",
    ],
    py_limited_api=True,
    optional=True,
)


class BuildPy(build_py):
    """Copies configs and constraints.txt into the package; a repository has them at its top."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib, "swinv2_backbone")
        shutil.rmtree(package / "configs", ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / "configs", package / "configs", ignore=ignored)
        shutil.copy(ROOT / "constraints.txt", package)


setup(
    name="swinv2_backbone",
    version=re.search(r'^__version__ = "(.+)"$', INIT, re.M)[1],
    description="Swin Transformer V2 backbone for Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The swinv2_backbone authors",
    license="Apache-2.0",
    keywords="swin transformer v2, detectron2, object detection, instance segmentation, "
    "semantic segmentation, pytorch, computer vision",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    project_urls={
        "Paper": "https://arxiv.org/abs/2111.09883",
        "Detectron2": "https://github.com/facebookresearch/detectron2",
    },
    packages=find_packages(include=["swinv2_backbone*"]),
    cmdclass={"build_py": BuildPy},
    ext_modules=[KERNELS],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    entry_points={"console_scripts": ["swinv2 = swinv2_backbone.cli.main:main"]},
    package_data={"swinv2_backbone": ["py.typed"]},
    python_requires=">=3.10",
    # Before 2.10 a pickled weight file could run code even with weights_only=True.
    install_requires=["torch>=2.10", "numpy"],
    extras_require={
        "weights": ["safetensors", "tqdm"],  # for .safetensors files and a progress bar
        "hub": ["huggingface_hub>=0.25", "safetensors"],  # for hf://org/name and push_to_hub
        # The dependencies of Detectron2, which `swinv2 install-detectron2` installs: it has no
        # release on PyPI under its own name.
        "d2": [
            "black",
            "cloudpickle",
            "fvcore>=0.1.5,<0.1.6",
            "hydra-core>=1.1",
            "iopath>=0.1.7,<0.1.10",
            "matplotlib",
            "omegaconf>=2.1,<2.4",
            "opencv-python",
            "orjson",  # reads annotation files three times as fast as json
            "packaging",
            "pillow>=9.1",
            "pycocotools>=2.0.2",
            "safetensors",
            "scipy",  # assigns predicted masks to objects, to train a MaskTransformer
            "setuptools<81",  # with pkg_resources
            "shapely",  # to crop polygon masks
            "tabulate",
            "tensorboard",
            "termcolor>=1.1",
            "torchvision",
            "tqdm>4.29.0",
            "yacs>=0.1.8",
        ],
        # For images that Pillow cannot read, or reads wrong: HEIC, and TIFF of many kinds.
        "images": IMAGES,
        # The site of docs/; on Python 3.10 no release of them agrees with what the tests need.
        "docs": [
            "furo; python_version >= '3.11'",
            "myst-parser; python_version >= '3.11'",
            "sphinx; python_version >= '3.11'",
        ],
        "notebook": NOTEBOOK,  # docs/tour.ipynb
        # To export to ONNX and OpenVINO and to run the result; torch-export and AOTInductor need
        # PyTorch alone.
        "export": ["onnx", "onnxruntime", "onnxscript", "openvino"],
        # Formats for one image size, with what converts to them.
        "coreml": ["coremltools"],
        "litert": ["ai-edge-litert", "litert-torch"],
        # Experiment trackers for TRACKING.TRACKERS.
        "mlflow": ["mlflow>=3"],
        "wandb": ["wandb>=0.31"],
        # For tables of paths and results in Parquet, and to predict on a Ray cluster.
        "parquet": ["pyarrow"],
        "ray": ["ray[data]"],
        "test": [
            "huggingface_hub",
            "hypothesis",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "timm",
            "torchvision",
            "transformers",
            *IMAGES,
            *NOTEBOOK,
        ],
    },
)
