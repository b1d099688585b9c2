"""From the images of a complete study to what is to be predicted: items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import InferenceConfig
from .arrivals import Instance
from .folder import key_of
from .rules import Rule, matching_rule


@dataclass(frozen=True)
class Plan:
    """One image or volume for one model.

    Attributes:
        member: Key of the series or the instance that it is.
        rule: What is done with it.
        instances: Its images.
        fingerprint: Same content, model and rule, same fingerprint.
    """

    member: str
    rule: Rule
    instances: tuple[Instance, ...]
    fingerprint: str

    @property
    def is_whole(self) -> bool:
        """Whether all of its files are still there."""
        return all(instance.file is not None for instance in self.instances)


def make_plans(
    instances: Sequence[Instance], rules: Sequence[Rule], models: Mapping[str, str], inference: InferenceConfig
) -> list[Plan]:
    """What is to be predicted of a study: each radiograph by itself, and the slices of a series together.

    Args:
        instances: All of the study.
        rules: In order.
        models: SHA-256 of each model that the rules name.
        inference: How models are asked.
    """
    groups: dict[tuple[str, str, bool], list[Instance]] = {}
    chosen: dict[str, Rule] = {}
    for instance in instances:
        rule = matching_rule(rules, instance.facts, instance.origin)
        if rule is None:
            continue
        chosen[rule.name] = rule
        facts = instance.facts
        member = facts.series_uid if facts.is_slice else facts.uid
        groups.setdefault((rule.name, member, facts.is_slice), []).append(instance)
    return [
        Plan(
            key_of(member),
            chosen[name],
            tuple(found),
            _fingerprint(found, chosen[name], models[chosen[name].model], inference),
        )
        for (name, member, _), found in groups.items()
    ]


def _fingerprint(instances: Sequence[Instance], rule: Rule, sha256: str, inference: InferenceConfig) -> str:
    content = [
        sorted([one.facts.study_uid, one.facts.series_uid, one.facts.uid, one.digest] for one in instances),
        [sha256, sorted(rule.results), sorted(rule.send_to), inference.model_dump(mode="json")],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
