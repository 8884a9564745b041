"""The episode player: a script that needs no network, and the episodes that it shows."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from modelnative.evidence.episode_choice import choose_episodes
from modelnative.evidence.explain import Explanation, explain
from modelnative.policies.contract import Policy
from modelnative.runs.result import Result
from modelnative.studio import tables
from modelnative.tasks.contract.task import AnyTask

WEB = Path(__file__).parent / "web"
BUDGET = 1_500_000  # characters of episodes in one report; an episode that does not fit is left out


@dataclass(frozen=True)
class Episode:
    """An episode, and why it is shown.

    Attributes:
        why: such as `right, longest`; may be empty.
        explanation: the episode.
    """

    why: str
    explanation: Explanation

    def as_dict(self) -> dict[str, Any]:
        """What the player reads, JSON-ready."""
        return {**self.explanation.as_dict(), "why": self.why, "verdict": tables.verdict(self.explanation)}


def chosen(policy: Policy, task: AnyTask, result: Result | None) -> list[tuple[str, list[Episode]]]:
    """For each stage a few episodes; a failure comes first, if there is one."""
    stages = []
    for s, stage in enumerate(task.spec.stages):
        count = result.evaluation.total(stage) if result else None
        failures = count is not None and count.successes < count.problems
        found = choose_episodes(policy, task, s, failures=failures)
        stages.append((stage, [Episode(why, explain(policy, task, problem)) for why, problem in found]))
    return stages


def data(stages: list[tuple[str, list[Episode]]]) -> Markup:
    """The episodes as JSON that may stand in a `script` element, whatever their texts are."""
    texts, left = [], BUDGET
    for _, episodes in stages:
        for episode in episodes:
            text = json.dumps(episode.as_dict(), allow_nan=False, separators=(",", ":"))
            left -= len(text)
            texts += [text] if left >= 0 else []
    return _in_script(f"[{','.join(texts)}]")


def script_json(value: Any) -> Markup:
    """JSON that may stand in a `script` element, whatever its texts are."""
    return _in_script(json.dumps(value, allow_nan=False, separators=(",", ":")))


def _in_script(text: str) -> Markup:
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@functools.cache
def asset(name: str) -> Markup:
    """A file of `web/` that stands in a page as it is."""
    return Markup((WEB / name).read_text(encoding="utf-8"))


def content_policy(*scripts: str) -> str:
    """A content security policy: nothing is loaded from anywhere, and no script runs but these.

    Drawings have inline styles; a style without a source of images or fonts can load nothing.
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
