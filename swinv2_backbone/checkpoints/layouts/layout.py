"""The layout of a publisher's file: a table of names, and one pure function each way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Tensors = dict[str, Tensor]

STAGES = 4


@dataclass(frozen=True)
class Layout:
    """The names and the arrangement of the weights in a publisher's ImageNet classifier.

    Tables map our names to the publisher's; a name also stands for all names below it (``norm1``
    for ``norm1.weight`` and ``norm1.bias``).  In templates ``{i}`` is the stage, ``{before}`` is
    i - 1, ``{even}`` is 2 i and ``{odd}`` is 2 i + 1.

    Attributes:
        name: the publisher.
        stem: names of the patch embedding.
        downsample: template of the merging at the start of our stage i.
        blocks: template of the blocks of stage i; ``.`` and the number of the block follow.
        in_block: names within a block.
        norms: names of the output norms.
        head: name of the linear head.
        root: prefix of the backbone's names in the publisher's own classifier; the head has none.
        small_map_rule: that of the publisher's own model (see :class:`SwinV2`), if it is known.
        to_ours: function that converts the renamed tensors to our arrangement, where renaming alone
            is not enough.
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
    small_map_rule: str | None = None
    to_ours: Callable[[Tensors], Tensors] = dict
    from_ours: Callable[[Tensors], Tensors] = dict

    @property
    def landmark(self) -> str:
        """The name of a parameter that is in every file of this layout and in no other family."""
        return self.logit_scale(0, 0)

    def logit_scale(self, stage: int, block: int) -> str:
        """Return the publisher's name for the logit scale of a block, which every layout has."""
        name = self.theirs(f"layers.{stage}.blocks.{block}.attn.logit_scale")
        assert name is not None
        return name

    def ours(self, key: str) -> str | None:
        """Return our name for one of the publisher's (both without prefix), or None."""
        outside = [(theirs, ours) for ours, theirs in self._outside_blocks()]
        blocks = [(theirs, ours) for ours, theirs in self._blocks()]
        inside = [(theirs, ours) for ours, theirs in self.in_block.items()]
        return _renamed(key, outside) or _renamed_in_block(key, blocks, inside)

    def theirs(self, key: str) -> str | None:
        """Return the publisher's name for one of ours, or None."""
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
    """Return a table of names that are equal in both layouts."""
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
