"""What a publisher's file looks like: a table of names, and one pure function each way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Tensors = dict[str, Tensor]

STAGES = 4


@dataclass(frozen=True)
class Layout:
    """How a publisher names and arranges the weights of the ImageNet classifier.

    Tables go from our names to theirs; a name stands for itself and for all below it
    (``norm1`` for ``norm1.weight`` and ``norm1.bias``).  In the templates ``{i}`` is the stage,
    ``{before}`` is i - 1, ``{even}`` is 2 i and ``{odd}`` is 2 i + 1.

    Attributes:
        name: of the publisher.
        stem: the patch embedding.
        downsample: the merging that starts our stage i.
        blocks: the blocks of stage i; ``.`` and the number of the block follow.
        in_block: what is in a block.
        norms: the output norms.
        head: the linear head.
        root: what stands before the names of the backbone, but not before the head's, in the
            publisher's own classifier.
        to_ours: from their tensors under our names to our tensors; the work that names cannot do.
        from_ours: the inverse.
    """

    name: str
    stem: Mapping[str, str]
    downsample: str
    blocks: str
    in_block: Mapping[str, str]
    norms: Mapping[str, str]
    head: str
    root: str = ""
    to_ours: Callable[[Tensors], Tensors] = dict
    from_ours: Callable[[Tensors], Tensors] = dict

    @property
    def landmark(self) -> str:
        """The parameter that every file of this layout has, and no file of another family."""
        return self.theirs("layers.0.blocks.0.attn.logit_scale")

    def ours(self, key: str) -> str | None:
        """Our name of one of their names (both without prefix), or None if there is none."""
        outside = [(theirs, ours) for ours, theirs in self._outside_blocks()]
        blocks = [(theirs, ours) for ours, theirs in self._blocks()]
        inside = [(theirs, ours) for ours, theirs in self.in_block.items()]
        return _renamed(key, outside) or _renamed_in_block(key, blocks, inside)

    def theirs(self, key: str) -> str | None:
        """Their name of one of our names, or None if there is none."""
        return _renamed(key, self._outside_blocks()) or _renamed_in_block(
            key, self._blocks(), self.in_block.items()
        )

    def _outside_blocks(self) -> list[tuple[str, str]]:
        merging = [
            (f"layers.{i}.downsample", _at(self.downsample, stage=i)) for i in range(1, STAGES)
        ]
        return [*self.stem.items(), *merging, *self.norms.items()]

    def _blocks(self) -> list[tuple[str, str]]:
        return [(f"layers.{i}.blocks", _at(self.blocks, stage=i)) for i in range(STAGES)]


def _at(template: str, stage: int) -> str:
    return template.format(i=stage, before=stage - 1, even=2 * stage, odd=2 * stage + 1)


def _renamed(key: str, table: Iterable[tuple[str, str]]) -> str | None:
    for old, new in table:
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :]
    return None


def _renamed_in_block(
    key: str, blocks: Iterable[tuple[str, str]], inside: Iterable[tuple[str, str]]
) -> str | None:
    for old, new in blocks:
        number, _, rest = key.removeprefix(f"{old}.").partition(".")
        if key.startswith(f"{old}.") and number.isdecimal():
            renamed = _renamed(rest, inside)
            return renamed and f"{new}.{number}.{renamed}"
    return None


def same(*names: str) -> dict[str, str]:
    """A table of names that are the publisher's as much as ours."""
    return {name: name for name in names}


STEM = same("patch_embed.proj", "patch_embed.norm")
BLOCK = same(
    "attn.logit_scale",
    "attn.q_bias",
    "attn.v_bias",
    "attn.cpb_mlp",
    "attn.qkv",
    "attn.proj",
    "norm1",
    "mlp.fc1",
    "mlp.fc2",
    "norm2",
)
