"""One episode of any task as a language model plays it: typed calls, feedback in words, a state that is JSON.

The bridges to other libraries are built on it. It needs torch alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.errors import UserError, choose, unknown
from modelnative.tasks import make_task, require_task, task_entries
from modelnative.tasks.contract.calls import Call, Refusal
from modelnative.tasks.contract.task import SPLITS, AnyTask, Problems, Split, State, require

CLOSING = "Done."  # what the assistant says after the end in transcripts: the model learns to make no more calls
NOTHING = "OK"  # the answer to a call whose feedback is blank: some models read no empty text


@dataclass(frozen=True)
class Shown:
    """What a call led to.

    Attributes:
        text: what the model reads.
        reward: the sum of the rewards of the keys.
        over: whether the episode is over.
        success: the verifier's verdict.
        truncated: whether the episode is over because its keys are used up.
        invalid: how many of the keys had no effect.
        refused: whether the call was refused: nothing was changed, and `text` says why.
    """

    text: str
    reward: float = 0.0
    over: bool = False
    success: bool = False
    truncated: bool = False
    invalid: int = 0
    refused: bool = False


class Episode:
    """An episode of one problem. `begin` comes first, and starts a new episode whenever it is called.

    A call presses keys, the tokens of the task, and what it leads to is what these tokens lead to in the task. A call
    that cannot be made is *refused*: the answer says why, and nothing changes. The problem's target and the registers
    of the tools are never shown.

    Args:
        task: a task or the name of one.

    Attributes:
        task: the task.
        stage: the name of the stage.
        keys: the names of all keys pressed so far.
        done: whether a key has ended the episode.
        truncated: whether the keys are used up.
        success: the verifier's verdict.
        score: the sum of all rewards.
        invalid: how many keys had no effect.
        refused: how many calls were refused.

    Example:
        >>> episode = Episode("arithmetic")
        >>> print(episode.begin("T0", problem="3 4 5"))
        a=3 b=4 c=5. Compute a*b + c.
        >>> print(episode.call("press", {"keys": "3 MUL 4"}).text)
        3: 3
        MUL: 3
        4: 12
        >>> episode.call("press", {"keys": "ADD 5 ANS"}).success
        True
        >>> episode.call("press", {"keys": "1"})
        Shown(text='Refused: the episode is over.', reward=0.0, over=True, success=True, truncated=False, invalid=0, \
refused=True)
        >>> Episode.of(episode.to_json()).success
        True
    """

    def __init__(self, task: AnyTask | str) -> None:
        self.task = make_task(task) if isinstance(task, str) else require_task(task)
        self._calls = {call.name: call for call in self.task.calls()}
        self._problems: Problems | None = None
        self._state: State
        self._where: dict[str, Any] = {}
        self.stage = ""
        self._restart([])

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The calls in the format of OpenAI's function calling."""
        return [call.schema() for call in self._calls.values()]

    @property
    def calls(self) -> list[Call]:
        """The calls."""
        return list(self._calls.values())

    @property
    def rules(self) -> str:
        """What holds for every problem of the task: a text for the system message."""
        uses = ", ".join(f"{call.name} uses {call.uses}" for call in self._calls.values())
        limit = f"An episode is over after {self.task.spec.horizon} keys: {uses}."
        return "\n".join(filter(None, (self.task.rules(), limit)))

    @property
    def over(self) -> bool:
        """Whether the episode is over."""
        return self.done or self.truncated

    def begin(
        self,
        stage: str,
        *,
        problem: str | None = None,
        seed: int | None = None,
        index: int = 0,
        split: Split = "train",
    ) -> str:
        """Begin an episode; return its prompt and what the tools show before the first key.

        Args:
            stage: the name of the stage.
            problem: the problem as a text that `Task.parse` accepts.
            seed: or the seed of a sequence of problems. No two seeds share a sequence.
            index: the place in that sequence.
            split: which problems are drawn.

        Raises:
            UserError: an argument is not allowed; or not exactly one of `problem` and `seed` is given.
        """
        number = self.task.spec.stage_index(stage)
        require((problem is None) != (seed is None), "problem, seed", (problem, seed), "one of the two")
        where: dict[str, Any] = {"problem": problem}
        if problem is not None:
            problems = self.task.parse(number, problem)
        else:
            where = {"seed": seed, "index": index, "split": choose("split", split, SPLITS)}
            problems = draw(self.task, number, seed, index, split)  # type: ignore[arg-type]  # seed is no None here
        self.stage, self._problems, self._where = stage, problems, where
        self._restart([])
        return self.opening

    @property
    def opening(self) -> str:
        """The prompt, and what the tools show before the first key."""
        problems = self._begun()
        shown = self._shown(self.task.begin(problems))
        return "\n".join(filter(None, (self.task.prompt(problems, 0), shown)))

    def call(self, name: str, arguments: Mapping[str, Any] | str | None = None) -> Shown:
        """Make a call. `arguments` may also be the text of a JSON object, as some libraries give it."""
        self._begun()
        try:
            if self.over:
                raise Refusal("the episode is over.")
            if name not in self._calls:
                raise Refusal(unknown("function", name, self._calls))
            call = self._calls[name]
            keys = call.keys(self._state, call.checked(_decoded(arguments)))
            if not call.shows_each:
                self._require_effect(name, keys)
        except Refusal as refusal:
            self.refused += 1
            text = f"Refused: {refusal}"
            return Shown(text, over=self.over, success=self.success, truncated=self.truncated, refused=True)
        return self._press(keys, call.shows_each)

    def press(self, keys: str | Sequence[str]) -> Shown:
        """Press keys by their names. Keys after the end of the episode are not pressed.

        Raises:
            UserError: there is no such key.
        """
        self._begun()
        words = keys.split() if isinstance(keys, str) else list(keys)
        self.task.spec.token_ids(words)
        if self.over:
            self.refused += 1
            text = "Refused: the episode is over."
            return Shown(text, over=True, success=self.success, truncated=self.truncated, refused=True)
        return self._press(words, True)

    def valid(self) -> list[str]:
        """The names of the keys that the tools accept now; see `Task.valid`."""
        self._begun()
        if self.over:
            return []
        return [self.task.spec.vocabulary[token] for token in self.task.valid(self._state)[0].nonzero()[:, 0].tolist()]

    def plan(self, keys: Sequence[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Return the calls that press some keys from here on, by default those of the oracle from the start.

        Raises:
            UserError: no calls press these keys, or the task has no oracle.
        """
        trial = copy.copy(self)
        if keys is None:
            end, program = self.task.spec.end, self.task.oracle(self._begun())[0].tolist()
            keys = [self.task.spec.vocabulary[token] for token in program if token != end]
            trial._restart([])
        rest, made = list(keys), list[tuple[str, dict[str, Any]]]()
        while rest:
            found = ((call, call.read(trial._state, rest)) for call in self._calls.values())
            call, read = next(((call, read) for call, read in found if read), (None, None))
            if call is None or read is None:
                raise UserError(f"keys: {' '.join(rest)!r} is not allowed; expected keys that calls press")
            made.append((call.name, read[0]))
            trial.keys = []
            trial._press(rest[: read[1]], False)
            rest = rest[read[1] :]
        return made

    def messages(self, closing: str = CLOSING) -> list[dict[str, Any]]:
        """Return the episode so far as a chat, for supervised training: `messages` of a row; `tools` are the others.

        The calls are those that press the keys so far; what was refused is left out. Each is a message of the assistant
        with one tool call, and one of the tool with what the model reads. The rules are the system message.

        Args:
            closing: what the assistant says after the end of the episode, without a call.

        Raises:
            UserError: no calls press these keys.

        Example:
            >>> episode = Episode("arithmetic")
            >>> _ = episode.begin("T0", problem="3 4 5"), episode.press("3 MUL 4 ADD 5 ANS")
            >>> [message["role"] for message in episode.messages()]
            ['system', 'user', 'assistant', 'tool', 'assistant']
            >>> episode.messages()[2]["tool_calls"][0]["function"]
            {'name': 'press', 'arguments': {'keys': '3 MUL 4 ADD 5 ANS'}}
        """
        again = copy.copy(self)
        again._restart([])
        chat: list[dict[str, Any]] = [_message("system", self.rules), _message("user", self.opening)]
        for name, arguments in again.plan(self.keys):
            shown, function = again.call(name, arguments), {"name": name, "arguments": arguments}
            if shown.refused:
                raise UserError(f"keys: {' '.join(self.keys)!r} is not allowed; expected keys that calls press")
            chat.append({**_message("assistant", ""), "tool_calls": [{"type": "function", "function": function}]})
            chat.append({**_message("tool", shown.text), "name": name})
        return [*chat, _message("assistant", closing)] if self.over else chat

    def to_json(self) -> dict[str, Any]:
        """Return the episode as a JSON object: the problem and the keys, from which `of` plays it again."""
        self._begun()
        episode = {"task": self.task.spec.name, "options": self.task.options(), "stage": self.stage, **self._where}
        return {**episode, "keys": list(self.keys), "refused": self.refused}

    @classmethod
    def of(cls, data: Mapping[str, Any], task: AnyTask | None = None) -> Episode:
        """Play an episode again.

        Args:
            data: what `to_json` returned.
            task: its task; needed unless it is one of the library's or of a plug-in, because a name in JSON must not
                make this process import a module.

        Raises:
            UserError: the data are not what `to_json` returns, or are of another task.
        """
        given: object = data
        fields = {"task", "options", "stage", "keys", "refused"}
        right = isinstance(given, Mapping) and fields <= {*given} <= {*fields, "problem", "seed", "index", "split"}
        require(right, "episode", given, "what Episode.to_json returns")
        if task is None:
            task = make_task(choose("task", data["task"], task_entries()), **data["options"])
        same = (task.spec.name, json.dumps(task.options(), sort_keys=True))
        other = (data["task"], json.dumps(data["options"], sort_keys=True))
        require(other == same, "episode", other, f"an episode of the task {same}")
        episode = cls(task)
        episode.begin(data["stage"], **{k: data[k] for k in ("problem", "seed", "index", "split") if k in data})
        keys = task.spec.token_ids(list(data["keys"]))
        if keys:
            episode._press(list(data["keys"]), False)
        require(len(episode.keys) == len(keys), "keys", data["keys"], "keys of one episode, none after its end")
        episode.refused = int(data["refused"])
        return episode

    def _begun(self) -> Problems:
        if self._problems is None:
            raise UserError("episode: it has not begun; call begin first")
        return self._problems

    def _restart(self, keys: list[str]) -> None:
        self.keys, self.score, self.invalid, self.refused = keys, 0.0, 0, 0
        self.done = self.truncated = self.success = False
        if self._problems is not None:
            self._state = self.task.begin(self._problems)

    def _shown(self, state: State) -> str:
        return self.task.show(self.task.feedback(state)[0].tolist()) if self.task.spec.feedback_width else ""

    def _require_effect(self, name: str, keys: Sequence[str]) -> None:
        """Raise a `Refusal` if one of the keys has no effect."""
        trial = copy.copy(self)
        trial.keys, trial.invalid = list(self.keys), 0
        trial._press(keys, False)
        if trial.invalid:
            raise Refusal(f"{name} has no effect here")

    def _press(self, keys: Sequence[str], each: bool) -> Shown:
        spec, reward, invalid, lines, shown = self.task.spec, 0.0, 0, list[str](), ""
        for key, token in zip(keys, spec.token_ids(list(keys)), strict=True):
            if self.over:
                lines.append(f"The episode is over: {key} and the keys after it were not pressed.")
                break
            step = self.task.step(self._state, torch.tensor([token]))
            self._state, self.keys = step.state, [*self.keys, key]
            self.done, self.success = bool(step.done), self.success or bool(step.success)
            self.truncated = not self.done and len(self.keys) >= spec.horizon
            reward, invalid = reward + float(step.reward), invalid + int(step.invalid)
            shown = self.task.show(step.feedback[0].tolist()) if spec.feedback_width else ""
            if each and (shown or step.invalid):
                lines.append(f"{key}: {shown or 'blank'}{' (no effect)' * int(step.invalid)}")
        if not each and shown and not self.done:
            lines.append(shown)
        if self.over:
            verdict = "success" if self.success else "all keys are used up" if self.truncated else "no success"
            lines.append(f"The episode is over: {verdict}.")
        self.score, self.invalid = self.score + reward, self.invalid + invalid
        return Shown("\n".join(lines) or NOTHING, reward, self.over, self.success, self.truncated, invalid)


def draw(task: AnyTask, stage: int, seed: int, index: int, split: Split = "train") -> Problems:
    """Return problem number `index` of a seed's sequence, a batch of one.

    The generator's seed is a hash of all arguments, so that problem i + 1 of seed s is not problem i of seed s + 1.

    Args:
        task: the task.
        stage: the index of the stage.
        seed: any whole number.
        index: the place in the sequence, from 0 on.
        split: which problems are drawn.
    """
    require(type(seed) is int, "seed", seed, "a whole number")
    require(type(index) is int and index >= 0, "index", index, "a whole number from 0 on")
    text = json.dumps([seed, index, task.spec.stages[stage], split])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    drawn: Problems = task.sample(torch.tensor([stage]), generator, split)
    return drawn


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _decoded(arguments: Mapping[str, Any] | str | None) -> object:
    """The arguments of a call, which may be the text of a JSON object."""
    if arguments is None or arguments == "":
        return {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError as error:
        raise Refusal(f"the arguments are no JSON: {error}") from error
