"""The settings of an optimizer on a resume: changed ones from the config, others as saved.

A checkpoint records the settings that its optimizer was built with. A setting that differs in the
resumed training was changed in the config, and the new value is used. All other settings, including
those that training itself changes, come from the checkpoint. The record has the names of the
parameters, because another weight decay or learning-rate factor can change their groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swinv2_backbone.d2.config.options import plain

Groups = list[dict[str, Any]]
PLAIN = (bool, int, float, str, type(None))


def recorded_groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> Groups:
    """Return the settings of each parameter group, with the ``names`` of its parameters."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    name_of = {parameter: name for name, parameter in inner.named_parameters()}
    found: Groups = []
    for place, group in enumerate(optimizer.param_groups):
        settings = {key: plain(value) for key, value in group.items() if key != "params"}
        settings = {key: value for key, value in settings.items() if _is_plain(value)}
        names = [
            name_of.get(parameter, f"group {place}, parameter {number}")
            for number, parameter in enumerate(group["params"])
        ]
        found.append({**settings, "names": names})
    return found


def groups_of_state(state: dict[str, Any], now: Groups) -> Groups:
    """Return the settings in an optimizer's state, for a checkpoint without a record.

    Only those that training leaves unchanged are returned.
    """
    saved = state["param_groups"]
    names = [group.get("names") for group in saved]
    if None in names:
        names = [group["names"] for group in now] + [[]] * (len(saved) - len(now))
    return [
        {
            "names": own,
            "lr": group.get("initial_lr", group["lr"]),
            **({"weight_decay": group["weight_decay"]} if "weight_decay" in group else {}),
        }
        for group, own in zip(saved, names)
    ]


def regrouped(state: dict[str, Any], then: Groups, now: Groups) -> dict[str, Any]:
    """Rearrange an optimizer's state into the groups of ``now``, which have the same parameters.

    Raises:
        ValueError: the parameters are not the same.
    """
    if [group["names"] for group in then] == [group["names"] for group in now]:
        return state
    number_of: dict[str, int] = {}
    group_of: dict[str, dict] = {}
    for group, saved in zip(then, state["param_groups"]):
        number_of |= dict(zip(group["names"], saved["params"]))
        group_of |= dict.fromkeys(group["names"], saved)
    names = [name for group in now for name in group["names"]]
    if other := sorted(set(names) ^ set(number_of)):
        raise ValueError(
            f"the checkpoint was trained with other parameters ({len(other)} differ, such as "
            f"{other[0]}): resume with the same model and frozen parts, or start from its weights, "
            "without --resume"
        )
    groups, first = [], 0
    for group in now:
        own = {
            **group_of[group["names"][0]],
            "params": list(range(first, first + len(group["names"]))),
        }
        groups.append(own | ({"names": group["names"]} if "names" in own else {}))
        first += len(group["names"])
    numbers = [number_of[name] for name in names]
    values = {at: state["state"][old] for at, old in enumerate(numbers) if old in state["state"]}
    return {**state, "state": values, "param_groups": groups}


def take_changes(
    optimizer: torch.optim.Optimizer, then: Groups, now: Groups
) -> dict[str, tuple[list, list]]:
    """Set every setting that differs between two records to its value in ``now``.

    A learning rate keeps its ratio to the one that it started from.

    Returns:
        For each changed setting, its different values then and now.
    """
    group_of = {name: group for group in then for name in group["names"]}
    changes: dict[str, tuple[list, list]] = {}
    for own, group in zip(now, optimizer.param_groups):
        for key, value in own.items():
            before = [group_of[name][key] for name in own["names"] if key in group_of[name]]
            if key == "names" or all(one == value for one in before):
                continue
            _set(group, key, value)
            old, new = changes.setdefault(key, ([], []))
            old += [one for one in dict.fromkeys(before) if one not in old]
            new += [value] if value not in new else []
    return changes


def _set(group: dict[str, Any], key: str, value: Any) -> None:
    if key == "lr" and "initial_lr" in group:
        start = group["initial_lr"]
        group["lr"] = group["lr"] * value / start if start else value
        group["initial_lr"] = value
    else:
        group[key] = value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN)
