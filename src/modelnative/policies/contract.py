"""What a policy is to everything else: a module that reads tokens and feedback and predicts the next action."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from modelnative.tasks.contract.task import Problems


@dataclass
class PolicyOutput:
    """What a policy computes for T tokens of n episodes.

    Attributes:
        logits: float [T, n, V], unnormalized log-probabilities of the next action.
        value: float [T, n], the expected sum of the rewards to come; zeros for a policy without a critic.
        state: the state after the last token, see `Policy`.
        hidden: float [T, n, width], the features that the heads read, for probing; None if there are none.
        copied: float [T, n, C], how much of the next action's probability is copied from each context position; None
            without a copy head.

    `Policy.forward_rollout` returns the same with one leading dimension, M selected tokens, and without a state.
    """

    logits: Tensor
    value: Tensor
    state: Any = None
    hidden: Tensor | None = None
    copied: Tensor | None = None

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities of the next action, of the shape of `logits`."""
        return self.logits.log_softmax(-1)

    def map(self, function: Callable[[Tensor], Tensor]) -> PolicyOutput:
        """The same with `function` applied to every tensor but the state."""
        hidden = None if self.hidden is None else function(self.hidden)
        copied = None if self.copied is None else function(self.copied)
        return PolicyOutput(function(self.logits), function(self.value), self.state, hidden, copied)


class Policy(nn.Module):
    """The base class of policies. Any `nn.Module` with `initial_state` and `forward` can take its place.

    The same `forward` acts (T = 1) and learns (T = the length of the episodes), so that the two cannot differ. Row i
    of a result must depend on row i of the arguments alone.

    The state is a tensor, or tuples, lists, dicts or dataclasses of tensors, each with the n episodes first. The
    rollout selects rows of it when episodes end.

    Attributes:
        parallel: whether its operations share the cores by themselves. Else a large batch is split among threads.
    """

    parallel: bool = False

    def initial_state(self, problems: Problems) -> Any:
        """Read the problems and return the state before the first token.

        Args:
            problems: n of them; a policy may read `context`, int64 [n, C], and `stage`, int64 [n].
        """
        raise NotImplementedError

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        """Return the parts of the state that `inspect` exchanges between two problems, by names for people.

        A part is a tuple of fields; a field of a field is written with a dot, and the empty name is the whole state.
        The part `context`, if there is one, is what the policy reads of the problem and does not change. `hidden state`
        is what it writes itself.
        """
        return {"hidden state": ("",)}

    def forward(self, tokens: Tensor, feedback: Tensor, state: Any) -> PolicyOutput:
        """Predict the action after each token.

        Args:
            tokens: int64 [T, n], the previous actions; the first one of an episode is `TaskSpec.start`.
            feedback: int64 [T, n, F], the tool's feedback to them.
            state: before the first of them, from `initial_state` or an earlier output.
        """
        raise NotImplementedError

    def attention(self, tokens: Tensor, feedback: Tensor, state: Any) -> Tensor | None:
        """Return what `forward` attends to, for a look inside; by default None, of a policy without attention.

        Args:
            tokens, feedback, state: as of `forward`.

        Returns:
            float [T, n, layers, heads, C + S]: weights that sum to 1 over the C places of the context and the S tokens
            of the episode so far, of which the first is `TaskSpec.start`.
        """
        return None

    def forward_rollout(
        self, problems: Problems, tokens: Tensor, feedback: Tensor, lengths: Tensor | None, selected: Tensor | None
    ) -> PolicyOutput:
        """Predict the actions of whole episodes at selected tokens only.

        This default calls `forward` and selects from its output. A policy may override it to save work.

        Args:
            problems: n of them.
            tokens, feedback: as in `forward`, from the start of the episodes; after its end a row means nothing.
            lengths: int64 [n], the tokens of each episode, longest first; None if that is not known.
            selected: int64 [M], positions in the flattened [T, n] tokens; None for all T * n.

        Returns:
            The output at the selected tokens: logits float [M, V], value float [M]; no state, and features only as far
            as they cost nothing.
        """
        output = self(tokens, feedback, self.initial_state(problems)).map(lambda tensor: tensor.flatten(0, 1))
        if selected is not None:
            output = output.map(lambda tensor: tensor.index_select(0, selected))
        return dataclasses.replace(output, state=None)


def forward_rollout(policy: nn.Module, *arguments: Any) -> PolicyOutput:
    """`Policy.forward_rollout`, also of a module that is not a `Policy`."""
    method: Callable[..., PolicyOutput] = getattr(type(policy), "forward_rollout", Policy.forward_rollout)
    return method(policy, *arguments)


def select_rows(state: Any, rows: Tensor) -> Any:
    """The rows (int64 [m]) of a policy's state.

    Example:
        >>> import torch
        >>> select_rows((torch.arange(3), {"h": torch.arange(6).view(3, 2)}), torch.tensor([2]))
        (tensor([2]), {'h': tensor([[4, 5]])})
    """

    def own(part: Any) -> Any:
        return part.select_rows(rows) if hasattr(part, "select_rows") else None

    return map_tensors(state, lambda tensor: tensor.index_select(0, rows), own)


def map_tensors(
    tree: Any, function: Callable[[Tensor], Tensor], instead: Callable[[Any], Any] = lambda part: None
) -> Any:
    """The same structure of tuples, lists, dicts and dataclasses with `function` applied to every tensor.

    Args:
        tree: the structure.
        function: of a tensor.
        instead: what takes the place of a part of the structure; None: the same for what is in it.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if (found := instead(tree)) is not None:
        return found
    if isinstance(tree, dict):
        return {name: map_tensors(value, function, instead) for name, value in tree.items()}
    if isinstance(tree, tuple | list):
        parts = (map_tensors(value, function, instead) for value in tree)
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = (field.name for field in dataclasses.fields(tree))
        return dataclasses.replace(tree, **{f: map_tensors(getattr(tree, f), function, instead) for f in fields})
    return tree
