"""CoreML packages (.mlpackage, a folder) for one shape, converted by coremltools.

CoreML itself runs on macOS alone.  Elsewhere the operators of the written package are evaluated by
PyTorch (coreml_operators.py).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from swinv2_backbone.export.formats.coreml_operators import evaluate
from swinv2_backbone.export.formats.format import (
    INPUT,
    Format,
    Notes,
    Options,
    Run,
    missing_modules,
    output_names,
)
from swinv2_backbone.export.formats.tracing import trace

WEIGHTS = Path("Data", "com.apple.CoreML", "weights")  # in a package


def write_coreml(
    model: nn.Module, images: Tensor, path: Path, notes: Notes, options: Options
) -> None:
    import coremltools

    if options.half:
        raise ValueError("a CoreML file in half precision could not be compared with the model")
    graph = trace(model, images, fixed=True).run_decompositions({})
    package = coremltools.convert(
        graph,
        convert_to="mlprogram",
        outputs=[coremltools.TensorType(name=name) for name in output_names(model, images)],
        compute_precision=coremltools.precision.FLOAT32,  # the default is float16
        minimum_deployment_target=coremltools.target.iOS15,
    )
    package.user_defined_metadata.update(notes)
    package.save(str(path))


def read_coreml(path: Path) -> tuple[Run, dict[str, str]]:
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = coremltools.utils.load_spec(str(path))
    program = load(spec, spec.specificationVersion, str(path / WEIGHTS))
    main = program.functions["main"]
    shape = tuple(main.inputs[INPUT].shape)

    def run(images: Tensor) -> dict[str, Tensor]:
        if tuple(images.shape) != shape:
            raise ValueError(f"the file takes images of shape {shape}, not {tuple(images.shape)}")
        return evaluate(main, {INPUT: images})

    return run, dict(spec.description.metadata.userDefined)


COREML = Format(
    ".mlpackage",
    missing_modules("coreml", "coremltools"),
    write_coreml,
    read_coreml,
    needs_size=True,
)
