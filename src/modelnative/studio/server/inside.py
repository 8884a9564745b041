"""A look inside an agent: what is carried where, switches, one problem through the training, episodes by kind."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from modelnative.errors import UserError, in_words, require
from modelnative.evidence.episode_choice import KINDS, find_episodes
from modelnative.evidence.explain import Explanation, explain
from modelnative.evidence.inspect import inspect
from modelnative.evidence.switches import DONOR, Switch, choices, switched
from modelnative.policies.contract import Policy
from modelnative.studio.inspection import sections
from modelnative.studio.player import Episode
from modelnative.studio.server.agents import BEST, Agents, parsed, typed
from modelnative.studio.server.library import bounded_json
from modelnative.tasks.contract.task import AnyTask

PAIRS = 100  # of problems, of an inspection that is made here
KEPT = 16  # inspections in memory
MOST = 100  # checkpoints that play one problem
# What a checkpoint that is deleted meanwhile, or was written by another network, may raise.
ERRORS = (LookupError, OSError, RuntimeError, TypeError, UserError, ValueError)


class Inside:
    """Answers questions about what is inside an agent.

    Args:
        agents: loads and locks them.
    """

    def __init__(self, agents: Agents) -> None:
        self.agents = agents
        self._made: OrderedDict[tuple[str, ...], list[dict[str, Any]]] = OrderedDict()

    def choices(self, asked: Asked) -> dict[str, Any]:
        """What can be replaced in an episode, and by what."""
        with self.agents.lock:
            policy, task, problems = self._problem(asked)
            found = choices(policy, task, problems)
        return {"carriers": [{"name": name, "sources": list(sources)} for name, sources in found]}

    def switched(self, asked: Asked) -> dict[str, Any]:
        """An episode with a switch on, beside the undisturbed one and the donor's; what players read."""
        switch = Switch(asked.text("carrier"), asked.text("source"), asked.whole("key"))
        with self.agents.lock:
            policy, task, problems = self._problem(asked)
            donor = parsed(task, asked.text("stage"), asked.text("donor")) if switch.source == DONOR else None
            found = switched(policy, task, problems, switch, donor)
        told = found.as_dict()
        for name in ("own", "changed", "donor"):
            explanation: Explanation | None = getattr(found, name)
            told[name] = None if explanation is None else Episode("", explanation).as_dict()
        return told

    def inspection(self, name: str) -> dict[str, Any]:
        """What `modelnative inspect` has written into the folder of a run."""
        path = self.agents.library.folder(name) / "inspect.json"
        if not path.exists():
            return {"stages": [], "pairs": 0}
        return self._shown(bounded_json(path))

    def inspect(self, asked: Asked) -> dict[str, Any]:
        """Inspect one stage, with fewer pairs than `modelnative inspect` and without probes; nothing is written."""
        key = (asked.text("run"), asked.text("weights"), asked.text("stage"))
        with self.agents.lock:
            policy, task, _ = self.agents.agent(*key[:2])
            if key not in self._made:
                found = inspect(policy, task, stages=[key[2]], pairs=PAIRS, probes=False)
                self._made[key] = [stage.as_dict() for stage in found.stages]
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
            return self._shown({"stages": self._made[key], "pairs": PAIRS})

    def through(self, asked: Asked) -> dict[str, Any]:
        """One problem, played greedily by the checkpoints of a run, oldest first."""
        name, stage, problem = asked.text("run"), asked.text("stage"), asked.text("problem")
        with self.agents.lock:
            updates = self.agents.checkpoints(name)
            require(bool(updates), "run", name, "one with checkpoints")
            task = self.agents.agent(name, BEST)[1]
            problems = parsed(task, stage, problem)
        count = len(updates)
        if count > MOST:
            updates = [updates[i * (count - 1) // (MOST - 1)] for i in range(MOST)]
        played: list[dict[str, Any]] = []
        notes: list[str] = []
        for update in updates:  # others may play in between
            with self.agents.lock:
                try:
                    policy = self.agents.agent(name, str(update), keep=False)[0]
                    explanation = explain(policy, task, problems)
                except ERRORS as error:
                    notes.append(f"checkpoint {update}: {in_words(error)}")
                    continue
            rows = tuple(dataclasses.replace(row, attention=()) for row in explanation.rows)
            explanation = dataclasses.replace(explanation, rows=rows, heads=())
            played.append({"update": update, "episode": Episode("", explanation).as_dict()})
        return {"checkpoints": played, "notes": notes[:5]}

    def find(self, asked: Asked) -> dict[str, Any]:
        """Episodes of one kind."""
        kind, stage = asked.text("kind"), asked.text("stage")
        with self.agents.lock:
            policy, task, _ = self.agents.agent(asked.text("run"), asked.text("weights"))
            found, played = find_episodes(policy, task, task.spec.stage_index(stage), kind)
            listed = [{**vars(episode), "problem": typed(task, episode.problem)} for episode in found]
        return {"episodes": listed, "played": played, "kinds": KINDS}

    def _problem(self, asked: Asked) -> tuple[Policy, AnyTask, Any]:
        policy, task, _ = self.agents.agent(asked.text("run"), asked.text("weights"))
        return policy, task, parsed(task, asked.text("stage"), asked.text("problem"))

    @staticmethod
    def _shown(found: Any) -> dict[str, Any]:
        require(isinstance(found, dict), "inspect.json", type(found).__name__, "what modelnative inspect writes")
        stages = [dataclasses.asdict(section) for section in sections(found)]
        return {"stages": stages, "pairs": found.get("pairs")}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request asks for, each field checked when it is read."""

    fields: Mapping[str, Any]

    @classmethod
    def of(cls, found: Any) -> Asked:
        """From JSON.

        Raises:
            UserError: it is no object.
        """
        require(isinstance(found, dict), "request", "not an object", "a JSON object")
        return cls(found)

    def text(self, name: str) -> str:
        """A text.

        Raises:
            UserError: it is missing, or something else.
        """
        value = self.fields.get(name)
        require(isinstance(value, str), name, value, "a text")
        return str(value)

    def number(self, name: str, default: float) -> float:
        """A number.

        Raises:
            UserError: it is something else.
        """
        value = self.fields.get(name, default)
        require(type(value) in (int, float), name, value, "a number")
        return float(value)

    def whole(self, name: str, most: int = 1 << 32) -> int:
        """A whole number from 0.

        Raises:
            UserError: it is missing, or something else.
        """
        value = self.fields.get(name)
        allowed = f"a whole number from 0 to {most - 1:,}"
        require(type(value) is int and 0 <= value < most, name, value, allowed)
        return int(value)  # type: ignore[arg-type]
