"""Where a training differs from the defaults (docs/TRAINING.md)."""

train = dict(
    output_dir="output",
    # Fetched once; or a file of any layout (docs/CHECKPOINTS.md); or empty: random weights.
    init_checkpoint="",
    amp=dict(enabled=True),
    clip=dict(kind="full_model", value=1.0, norm_type=2.0),
)
