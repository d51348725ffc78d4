"""The calls that can create or change a file without checkpoints/durable.py, and why they are safe.

File -> the function with its first argument -> the reason, with the number of such calls if there
are several.  ``test_writers.py`` compares it with the code.
"""

WRITER = "it is the durable writer"
DURABLE = "writes to the file of `with durable(...)` around it"
UNFINISHED = "writes to the path of `with unfinished(...)` around it, or of its caller"
RENAMED = "has its name only when it is complete and was compared, or is only a rename"
PATCHED = "Detectron2's PathManager writes durably within it"
OURS = "a method of this package, which writes through the durable writer"
APPENDED = "only appends lines or records; readers pass over a torn last one"
LOCK = "the lock of a training, which is read as another's until its beat stops"
SCRATCH = "a file of this process alone, in a temporary folder or without a name"
MEMORY = "writes to memory"
OTHER = "writes no file"
KERNEL = "a control file of Linux"
VIDEO = "a video, which no command reads; `predict` writes it again"
PICTURE = "a picture, which no command reads"
MARKED = "counts only when another file says so, which is written after it"
ANEW = "every run writes it anew before it is read"
DAMAGE = "does damage on purpose; its results are written by write_text"

# Folders whose files a run writes anew before it reads them; its results are durable.
FOLDERS = {"tools/exporters": ANEW, "tools/reliability": DAMAGE}

CALLS: dict[str, dict[str, str | tuple[int, str]]] = {
    "swinv2_backbone/checkpoints/durable.py": {
        "os.replace(partial)": WRITER,
        "os.replace(path)": WRITER,
        "os.replace(old)": WRITER,
        "partial.open('wb')": WRITER,
        "file.open('r+b')": WRITER,
    },
    "swinv2_backbone/checkpoints/fetch.py": {
        "os.replace(partial)": RENAMED,
        "target.open('wb')": RENAMED,
    },
    "swinv2_backbone/checkpoints/files.py": {
        "torch.save(dict(content))": DURABLE,
        "_safetensors().torch.save(tensors)": MEMORY,
    },
    "swinv2_backbone/cli/archives.py": {
        "tempfile.TemporaryDirectory()": SCRATCH,
        "tempfile.TemporaryDirectory(file.parent)": SCRATCH,
        "verify(new, digest(new), expected).replace(file)": RENAMED,
        "file.open('wb')": SCRATCH,
        "shutil.copyfileobj(answer)": SCRATCH,
    },
    "swinv2_backbone/cli/calibration.py": {
        "tempfile.TemporaryDirectory(args.output.absolute().parent)": SCRATCH,
    },
    "swinv2_backbone/cli/main.py": {
        "os.open(os.devnull)": OTHER,
    },
    "swinv2_backbone/cli/detectron2_sdist.py": {
        "requirement.write_text(f'pb1-detectron2==0.6 --hash=sha256:{SDI)": SCRATCH,
        "(root / 'detectron2' / '_C.py').write_text(STAND_IN)": SCRATCH,
        "file.write_text(text.replace(row.old, row.new))": SCRATCH,
    },
    "swinv2_backbone/cli/install_detectron2.py": {
        "tempfile.TemporaryDirectory()": (2, SCRATCH),
        "tar.extractall(temporary)": SCRATCH,
    },
    "swinv2_backbone/d2/data/datasets/ade20k.py": {
        "labels.save(part)": UNFINISHED,
    },
    "swinv2_backbone/d2/data/datasets/checked.py": {
        "kept.save(_entry(found))": OURS,
    },
    "swinv2_backbone/d2/data/loading/samples.py": {
        "Image.fromarray(_tiled(cells)).save(part)": UNFINISHED,
    },
    "swinv2_backbone/d2/data/storage/cache.py": {
        "(folder / ENTRY).write_text(text)": UNFINISHED,
    },
    "swinv2_backbone/d2/data/storage/records.py": {
        "np.save(folder / f'{name}.npy')": UNFINISHED,
    },
    "swinv2_backbone/d2/engine/evaluate.py": {
        "save_weights(self.model)": OURS,
    },
    "swinv2_backbone/d2/engine/hooks.py": {
        "self.checkpoints.save()": (2, OURS),
        "self.save()": OURS,
        "self.checkpointer.save(name)": OURS,
    },
    "swinv2_backbone/d2/engine/lock.py": {
        "self.path.open('x')": LOCK,
        "os.replace(self.path)": LOCK,
        "self.path.open('r+')": LOCK,
        "os.link(aside)": LOCK,
    },
    "swinv2_backbone/d2/engine/log_files.py": {
        "setup_logger(str(folder))": APPENDED,
    },
    "swinv2_backbone/d2/engine/metrics.py": {
        "SummaryWriter(self.folder)": APPENDED,
        "os.open(path)": APPENDED,
    },
    "swinv2_backbone/d2/engine/setup.py": {
        "default_setup(config)": PATCHED,
    },
    "swinv2_backbone/d2/evaluation/analysis/report.py": {
        "figure.savefig(part)": UNFINISHED,
    },
    "swinv2_backbone/d2/evaluation/evaluators.py": {
        "torch.save(scores)": DURABLE,
    },
    "swinv2_backbone/d2/export/detector.py": {
        "onnx.save(written)": UNFINISHED,
        "torch.onnx.export(_Tuple(fix_shape(model, images) if optio)": UNFINISHED,
    },
    "swinv2_backbone/d2/inference/batch.py": {
        "cv2.VideoWriter(str(target))": VIDEO,
    },
    "swinv2_backbone/d2/inference/result.py": {
        "Image.fromarray(self.plot()).save(part)": UNFINISHED,
    },
    "swinv2_backbone/d2/inference/scale/first.py": {
        "os.link(mine)": RENAMED,
        "mine.rename(path)": RENAMED,
    },
    "swinv2_backbone/d2/inference/scale/shards.py": {
        "write_table(table)": MEMORY,
    },
    "swinv2_backbone/d2/inference/scale/sources.py": {
        "tempfile.NamedTemporaryFile('.npy')": SCRATCH,
    },
    "swinv2_backbone/d2/inference/tiling/labels.py": {
        "tempfile.TemporaryFile()": SCRATCH,
    },
    "swinv2_backbone/export/formats/aoti.py": {
        "torch._inductor.aoti_compile_and_package(trace(model, images, options.fixed))": UNFINISHED,
    },
    "swinv2_backbone/export/formats/coreml.py": {
        "package.save(str(path))": UNFINISHED,
    },
    "swinv2_backbone/export/formats/litert.py": {
        "archive.writestr(NOTES)": UNFINISHED,
    },
    "swinv2_backbone/export/formats/onnx.py": {
        "torch.onnx.export(graph)": UNFINISHED,
        "program.save(path)": UNFINISHED,
        "onnx.save(half)": UNFINISHED,
    },
    "swinv2_backbone/export/formats/openvino.py": {
        "openvino.save_model(graph)": UNFINISHED,
        "tempfile.TemporaryDirectory(path.parent)": SCRATCH,
    },
    "swinv2_backbone/export/formats/torch_export.py": {
        "torch.export.save(graph)": UNFINISHED,
    },
    "swinv2_backbone/export/int8/file.py": {
        "onnx.save(model)": UNFINISHED,
        "tempfile.TemporaryDirectory(small.parent)": SCRATCH,
    },
    "swinv2_backbone/export/int8/kernels.py": {
        "tempfile.TemporaryDirectory(path.parent)": SCRATCH,
    },
    "swinv2_backbone/export/int8/quantize.py": {
        "onnx.save(written)": SCRATCH,
        "tempfile.TemporaryDirectory(source.parent)": SCRATCH,
    },
    "swinv2_backbone/export/runtimes/child.py": {
        "np.savez(outputs)": SCRATCH,
        "tempfile.TemporaryDirectory()": SCRATCH,
        "copy.write_bytes(path.read_bytes())": SCRATCH,
        "extractor.extract(name)": SCRATCH,
    },
    "swinv2_backbone/export/runtimes/run.py": {
        "tempfile.TemporaryDirectory()": SCRATCH,
        "np.savez(inputs)": SCRATCH,
    },
    "swinv2_backbone/images/windows.py": {
        "imwrite(file)": MEMORY,
    },
    "swinv2_backbone/kernels/operator.py": {
        "self.save(ctx)": OTHER,
        "operator.save(ctx)": OTHER,
    },
    "tools/benchmarking/memory.py": {
        "CLEAR_REFS.write_text('5')": (2, KERNEL),
    },
    "tools/benchmarking/picture.py": {
        "figure.savefig(path)": PICTURE,
    },
    "tools/benchmarking/predicting.py": {
        "tempfile.TemporaryDirectory()": SCRATCH,
    },
    "tools/benchmarking/processes.py": {
        "tempfile.TemporaryDirectory()": SCRATCH,
        "listed.write_text('\\n'.join((str(file.resolve()) for file )": SCRATCH,
        "tempfile.TemporaryDirectory(work)": SCRATCH,
    },
    "tools/benchmarking/quantized.py": {
        "torch.save(model.state_dict())": MEMORY,
    },
    "tools/benchmarking/startup.py": {
        "done.touch()": MARKED,
        "(folder / 'train.json').open('w')": MARKED,
        "json.dump(content)": MARKED,
        "Image.new('RGB', (width, height), (number % 256, 90, 90)).save(pixels)": MARKED,
        "os.link(pixels)": MARKED,
    },
    "tools/benchmarking/trainers.py": {
        "TemporaryDirectory()": SCRATCH,
    },
    "tools/experiments/detectors.py": {
        "TemporaryDirectory()": SCRATCH,
    },
    "tools/experiments/masked.py": {
        "TemporaryDirectory()": SCRATCH,
        "shutil.copy(weights)": MARKED,
        "shutil.copy(picture)": MARKED,
    },
    "tools/experiments/plots.py": {
        "figure.savefig(folder / f'{name}.png')": PICTURE,
    },
    "tools/results/pictures.py": {
        "cv2.imwrite(str(file))": PICTURE,
    },
    "tools/results/sets.py": {
        "(numbered / 'classes.txt').write_text('nucleus\\n')": ANEW,
        "(folder / 'classes.txt').write_text('\\n'.join(classes) + '\\n')": ANEW,
        "link.symlink_to(target.resolve())": ANEW,
        "Image.open(picture).convert('RGB').save(images / picture.name)": ANEW,
        "Image.fromarray(numbers).save(numbered / picture.name)": ANEW,
        "image.save(folder / part / picture.name)": ANEW,
        "Image.fromarray(labels).save(folder / f'{part}_labels' / picture.name)": ANEW,
        "(folder / f'set_{split}.json').replace(folder / f'{split}.json')": RENAMED,
        "Image.open(photo).convert('RGB').save(folder / part / f'{photo.stem}.png')": ANEW,
        "label.save(folder / f'{part}_labels' / f'{photo.ste)": ANEW,
    },
    "tools/results/training.py": {
        "TemporaryDirectory()": (3, SCRATCH),
        "shutil.copy(weights)": MARKED,
        "shutil.copy(picture)": MARKED,
    },
    "tools/runtimes/measure.py": {
        "Path(output).write_text(json.dumps(results))": SCRATCH,
        "tempfile.TemporaryDirectory()": SCRATCH,
    },
    "tools/runtimes/run.py": {
        "write_table(ordered)": OURS,
        "shared.write_text(sysconfig.get_path('purelib') + '\\n')": MARKED,
        "installed.write_text(wanted)": MARKED,
        "save(results)": OURS,
    },
}
