"""Whether a model's tokens agree at every boundary: what a rollout splices, what a mask marks, what a trainer is fed.

A story with every boundary in it (prompt, thinking, fence, output, hint, end) is rolled out for real, by an engine that
recites it in the model's own tokens; what came of it is compared character by character and token by token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cort_framework.alignment.findings import BOUNDARIES, Boundary, Finding
from cort_framework.alignment.inputs import check_inputs
from cort_framework.alignment.story import Story, dialects
from cort_framework.alignment.tokens import check_characters, check_end, check_prompt, check_thinking
from cort_framework.interfaces import Tokenizer, Tool, Trainer

__all__ = ["BOUNDARIES", "Boundary", "Finding", "check_inputs", "check_tokens"]


def check_tokens(
    tokenizer: Tokenizer,
    templates: Mapping[str, str],
    tools: Sequence[Tool] = (),
    trainers: Mapping[str, Trainer] | None = None,
) -> list[Finding]:
    """What is to be said of each boundary, in their order; where nothing is wrong, at least one ``ok`` each.

    ``templates``: of the recipe's prompts, by name. ``tools``: what its models can call; they are not started.
    ``trainers``: what would train on these tokens, by the names of their stages.
    """
    found: list[Finding] = []
    for findings in _checks(tokenizer, templates, tools, trainers or {}):
        found += findings
        if any(f.level == "fault" for f in found):
            break  # what comes after would only say it again, in other words
    return sorted(dict.fromkeys(found), key=lambda f: BOUNDARIES.index(f.boundary))


def _checks(
    tokenizer: Tokenizer,
    templates: Mapping[str, str],
    tools: Sequence[Tool],
    trainers: Mapping[str, Trainer],
) -> Iterator[Iterable[Finding]]:
    yield check_characters(tokenizer)
    for name, template in templates.items():
        yield check_prompt(tokenizer, name, template, tools)
    yield check_thinking(tokenizer)
    yield check_end(tokenizer)
    for dialect in dialects(tools) or (None,):
        for finely in (False, True):
            yield Story(tokenizer, dialect, finely).check(trainers)
