"""GRU PPO in one compiled program of JAX, in purejaxrl's structure (Lu et al., 2022: `ppo_rnn.py`), written anew.

What makes that structure: the environment is a pure function of arrays; rollout, advantages, minibatches and optimizer
are loops inside one jitted function (`lax.scan`), so that nothing is dispatched from Python between two updates; whole
environments are shuffled into minibatches; the hidden state is reset by the done flag.

The environment is the task of worlds.py; `tests/test_peers.py` plays both side by side where JAX is installed. Settings
that make it faster here were searched: see `pairs` and `shuffle`.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

# Before JAX is imported: one thread for each device; several devices share the environments (see `devices`).
_DEVICES = int(os.environ.get("PEER_DEVICES", "1"))
os.environ.setdefault(
    "XLA_FLAGS",
    f"--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count={_DEVICES}",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from jax import lax, random  # noqa: E402
from worlds import HIDDEN, HORIZON, LIMIT, PLACES, Peer, Stages, training_numbers  # noqa: E402

Tree = Any  # nested dictionaries of arrays
DIGITS, ACTIONS, CONTEXT = 8, 18, 6
CTX, MUL, ADD, SUB, ANS, STO, RCL, EOS = range(10, 18)
EMPTY = LIMIT  # marks an empty register
COUNTS = (3, 4, 5)
OFFSETS = np.cumsum([0, *PLACES[:-1]])


# The environment, n episodes side by side


def begin(stage: jax.Array, number: jax.Array) -> Tree:
    """Episodes of given problems, int32 [n] each; the digits of `number` are the operands."""
    count = stage + COUNTS[0]
    powers = 10 ** jnp.maximum(count[:, None] - 1 - jnp.arange(5), 0)
    operands = jnp.where(jnp.arange(5) < count[:, None], number[:, None] // powers % 10, 0)
    a, b, c, d, e = operands.T
    target = a * b + c - jnp.where(stage == 1, d, 0) - jnp.where(stage == 2, d * e, 0)
    place = jnp.arange(CONTEXT)
    context = jnp.where(place < count[:, None], jnp.pad(operands, ((0, 0), (0, 1))), EOS)
    context = jnp.where(place == count[:, None], CTX, context)
    empty, zero = jnp.full_like(stage, EMPTY), jnp.zeros_like(stage)
    registers = {"value": empty, "memory": empty, "accumulator": zero, "pending": zero, "age": zero}
    return {"stage": stage, "context": context, "target": target, "token": jnp.full_like(stage, CTX), **registers}


def press(state: Tree, key: jax.Array) -> tuple[Tree, jax.Array, jax.Array]:
    """One key, int32 [n], of each episode: the state after it, success and whether the episode has ended, bool [n]."""
    value, memory, left, pending = (state[name] for name in ("value", "memory", "accumulator", "pending"))
    typed = jnp.where(key < CTX, key, memory)
    # A product of 32-bit numbers may overflow: one that floats say is far too large is not computed exactly.
    far = (pending == MUL) & (jnp.abs(left.astype(jnp.float32) * typed.astype(jnp.float32)) > 1.5 * LIMIT)
    result = jnp.where(pending == MUL, left * typed, jnp.where(pending == SUB, left - typed, left + typed))
    result = jnp.where(pending == 0, typed, result)
    types = (key < CTX) | ((key == RCL) & (memory != EMPTY))
    types &= ~far & (jnp.abs(result) < LIMIT)
    stores = (key == STO) & (value != EMPTY)
    operates = ((key >= MUL) & (key <= SUB) & (value != EMPTY)) | stores
    ended = (key == ANS) | (key == EOS) | (state["age"] + 1 >= HORIZON)
    after = {
        **state,
        "token": key,
        "age": state["age"] + 1,
        "value": jnp.where(types, result, value),
        "memory": jnp.where(stores, value, memory),
        "accumulator": jnp.where(operates, value, left),
        "pending": jnp.where(stores, 0, jnp.where(operates, key, pending)),
    }
    return after, (key == ANS) & (value == state["target"]), ended


def observe(state: Tree) -> jax.Array:
    """Stage, context, previous token, display: int32 [n, 17]."""
    value = state["value"]
    size, powers = jnp.abs(value)[:, None], 10 ** jnp.arange(DIGITS - 1, -1, -1)
    shown = (value != EMPTY)[:, None] & ((size >= powers) | (powers == 1))
    digits = jnp.where(shown, size // powers % 10, EOS)
    sign = jnp.where(value < 0, SUB, EOS)[:, None]
    return jnp.concatenate([state["stage"][:, None], state["context"], state["token"][:, None], sign, digits], 1)


# The network


def initialize(key: jax.Array) -> Tree:
    """Parameters: embeddings, a GRU, an actor and a critic."""
    keys = random.split(key, 5)
    orthogonal = jax.nn.initializers.orthogonal()
    table = random.normal(keys[0], (sum(PLACES), HIDDEN)) * len(PLACES) ** -0.5
    bound = HIDDEN**-0.5
    blocks = [orthogonal(k, (HIDDEN, HIDDEN)) for k in random.split(keys[2], 3)]
    heads = jax.nn.initializers.orthogonal(0.01)(keys[3], (HIDDEN, ACTIONS + 1))
    return {
        "table": table,
        "input": random.uniform(keys[1], (HIDDEN, 3 * HIDDEN), minval=-bound, maxval=bound),
        "recurrent": jnp.concatenate(blocks, 1),
        "bias": jnp.zeros(3 * HIDDEN),
        "inner": jnp.zeros(HIDDEN),
        "heads": heads,
        "heads_bias": jnp.zeros(ACTIONS + 1),
    }


def tables(parameters: Tree, pairs: bool) -> Tree:
    """What observations are looked up in; with `pairs` a row for every two tokens, which halves the look-ups."""
    single = [parameters["table"][o : o + size] for o, size in zip(OFFSETS, PLACES, strict=True)]
    if not pairs:
        return single
    couples = [(a[:, None] + b[None]).reshape(-1, HIDDEN) for a, b in zip(single[1::2], single[2::2], strict=True)]
    return [single[0], *couples]


def read(found: Tree, observation: jax.Array, pairs: bool) -> jax.Array:
    """The sum of the embeddings: [n, 17] -> [n, 64]."""
    columns = observation.T
    if pairs:
        columns = [columns[0], *(a * ACTIONS + b for a, b in zip(columns[1::2], columns[2::2], strict=True))]
    total = found[0][columns[0]]
    for rows, column in zip(found[1:], columns[1:], strict=True):
        total += rows[column]
    return total


def remember(parameters: Tree, x: jax.Array, h: jax.Array) -> jax.Array:
    """One step of the GRU: inputs and hidden states [n, 64] -> hidden states."""
    a, b = x @ parameters["input"] + parameters["bias"], h @ parameters["recurrent"]
    reset, update = jnp.split(jax.nn.sigmoid(a[:, : 2 * HIDDEN] + b[:, : 2 * HIDDEN]), 2, 1)
    candidate = jnp.tanh(a[:, 2 * HIDDEN :] + reset * (b[:, 2 * HIDDEN :] + parameters["inner"]))
    return candidate + update * (h - candidate)


def predict(parameters: Tree, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities [..., 18] and values [...]."""
    out = h @ parameters["heads"] + parameters["heads_bias"]
    return jax.nn.log_softmax(out[..., :ACTIONS]), out[..., ACTIONS]


# The update


def draw_problems(key: jax.Array, n: int, weights: jax.Array, numbers: jax.Array, sizes: jax.Array) -> Tree:
    """New training problems."""
    choice, place = random.uniform(key, (2, n))
    stage = jnp.searchsorted(jnp.cumsum(weights), choice * weights.sum()).clip(0, 2).astype(jnp.int32)
    return begin(stage, numbers[stage, (place * sizes[stage]).astype(jnp.int32)])


def update(train: Tree, weights: jax.Array, data: tuple[jax.Array, jax.Array], options: Any) -> tuple[Tree, jax.Array]:
    """Play `steps` of every environment and learn from them; the episodes that ended, and successes, of each stage."""
    parameters, found = train["parameters"], tables(train["parameters"], options["pairs"])
    n, numbers, sizes = len(train["world"]["stage"]), *data

    def play(carry: Tree, _: None) -> tuple[Tree, Tree]:
        world, h, key = carry
        key, drawing, sampling = random.split(key, 3)
        seen = observe(world)
        h = remember(parameters, read(found, seen, options["pairs"]), h)
        log_probs, value = predict(parameters, h)
        action = random.categorical(sampling, log_probs).astype(jnp.int32)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]
        after, success, ended = press(world, action)
        fresh = draw_problems(drawing, n, weights, numbers, sizes)
        after = jax.tree.map(
            lambda new, old: jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, after
        )
        stages = (world["stage"][:, None] == jnp.arange(3)) & ended[:, None]
        counts = jnp.stack([stages.sum(0), (stages & success[:, None]).sum(0)])
        taken = {"seen": seen, "action": action, "log_prob": log_prob, "value": value}
        taken |= {"reward": success.astype(jnp.float32), "ended": ended}
        return (after, jnp.where(ended[:, None], 0.0, h), key), (taken, counts)

    start = train["hidden"]
    (world, hidden, key), (taken, counts) = lax.scan(
        play, (train["world"], start, train["key"]), None, options["steps"]
    )
    ahead = predict(parameters, remember(parameters, read(found, observe(world), options["pairs"]), hidden))[1]

    def estimate(carry: tuple[jax.Array, jax.Array], at: Tree) -> Any:
        last, value = carry
        alive = 1.0 - at["ended"]
        error = at["reward"] + options["gamma"] * value * alive - at["value"]
        last = error + options["gamma"] * options["trace"] * alive * last
        return (last, at["value"]), last

    _, advantage = lax.scan(estimate, (jnp.zeros(n), ahead), taken, reverse=True, unroll=4)
    taken |= {"advantage": advantage, "target": advantage + taken["value"]}

    def learn(carry: Tree, part: Tree) -> tuple[Tree, None]:
        gradient = jax.grad(loss)(carry["parameters"], part, options)
        if options["devices"] > 1:
            gradient = lax.pmean(gradient, "devices")
        return adam(carry, gradient, options), None

    key, mixing = random.split(key)
    order = random.permutation(mixing, n) if options["shuffle"] else jnp.arange(n)
    count = options["minibatches"]

    def shuffled(x: jax.Array) -> jax.Array:  # [steps, n, ...] -> [minibatches, steps, n / minibatches, ...]
        x = x[:, order] if options["shuffle"] else x
        return x.reshape(len(x), count, n // count, *x.shape[2:]).swapaxes(0, 1)

    parts = jax.tree.map(shuffled, taken) | {"start": shuffled(start[None])[:, 0]}
    learned = {name: train[name] for name in ("parameters", "mean", "square", "count")}
    learned, _ = lax.scan(learn, learned, parts)
    return {**learned, "world": world, "hidden": hidden, "key": key}, counts.sum(0)


def loss(parameters: Tree, part: Tree, options: Any) -> jax.Array:
    """Clipped surrogate, clipped value loss and entropy of one minibatch of whole environments."""
    found = tables(parameters, options["pairs"])

    def step(h: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        seen, ended = at
        after = remember(parameters, read(found, seen, options["pairs"]), h)
        return jnp.where(ended[:, None], 0.0, after), after

    _, hidden = lax.scan(step, part["start"], (part["seen"], part["ended"]))
    log_probs, value = predict(parameters, hidden)
    log_prob = jnp.take_along_axis(log_probs, part["action"][..., None], 2)[..., 0]
    ratio = jnp.exp(log_prob - part["log_prob"])
    advantage = part["advantage"]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clip = options["clip"]
    policy = -jnp.minimum(ratio * advantage, ratio.clip(1 - clip, 1 + clip) * advantage).mean()
    near = part["value"] + (value - part["value"]).clip(-clip, clip)
    errors = jnp.maximum((value - part["target"]) ** 2, (near - part["target"]) ** 2)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return policy + 0.25 * errors.mean() - options["entropy"] * entropy


def adam(carry: Tree, gradient: Tree, options: Any) -> Tree:
    """One step of Adam, the gradient's norm clipped."""
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    scale = jnp.minimum(1.0, options["gradient_norm"] / (norm + 1e-6))
    count = carry["count"] + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * scale * g, carry["mean"], gradient)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * (scale * g) ** 2, carry["square"], gradient)
    rate, root = options["learning_rate"] / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
    after = jax.tree.map(lambda p, m, s: p - rate * m / (jnp.sqrt(s) / root + 1e-5), carry["parameters"], mean, square)
    return {"parameters": after, "mean": mean, "square": square, "count": count}


class JAX(Peer):
    """One training.

    Args:
        stages: where problems are drawn from.
        seed: of weights, problems and actions.
        environments: how many; steps: of every environment in a rollout; minibatches: of an update.
        pairs: look two places of an observation up at once; shuffle: the environments among the minibatches.
        learning_rate, gamma, trace, clip, entropy, gradient_norm: as in PPO.
    """

    def __init__(
        self,
        stages: Stages,
        seed: int = 0,
        *,
        environments: int = 512,
        steps: int = 12,
        minibatches: int = 4,
        pairs: bool = False,
        shuffle: bool = True,
        learning_rate: float = 2.5e-3,
        gamma: float = 1.0,
        trace: float = 0.95,
        clip: float = 0.2,
        entropy: float = 0.01,
        gradient_norm: float = 0.5,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "stages", "seed")}
        options["devices"] = self.devices = _DEVICES
        self.stages, self.played = stages, environments * steps
        numbers = [training_numbers(stage) for stage in range(len(COUNTS))]
        padded = np.zeros((3, max(map(len, numbers))), np.int32)
        for row, known in zip(padded, numbers, strict=True):
            row[: len(known)] = known
        data = jnp.asarray(padded), jnp.asarray([len(known) for known in numbers])
        keys = random.split(random.key(seed), 2 + self.devices)
        parameters = initialize(keys[0])
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(parameters))
        each, weights = environments // self.devices, jnp.asarray(stages.weights())

        def first(key: jax.Array) -> Tree:
            zeros = jax.tree.map(jnp.zeros_like, parameters)
            return {
                "parameters": parameters,
                "mean": zeros,
                "square": zeros,
                "count": jnp.zeros(()),
                "world": draw_problems(key, each, weights, *data),
                "hidden": jnp.zeros((each, HIDDEN)),
                "key": random.split(key)[0],
            }

        run = partial(update, data=data, options=options)
        if self.devices > 1:
            self.train = jax.pmap(first)(keys[2:])
            self.run = jax.pmap(run, axis_name="devices", in_axes=(0, None), donate_argnums=0)
        else:
            self.train, self.run = jax.jit(first)(keys[2]), jax.jit(run, donate_argnums=0)

    def update(self) -> int:
        self.train, counts = self.run(self.train, jnp.asarray(self.stages.weights()))
        episodes, wins = np.asarray(counts).reshape(-1, 2, 3).sum(0).tolist()  # waits until all is computed
        if not self.stages.uniform:
            for stage in range(len(COUNTS)):
                self.stages.observe(stage, episodes[stage], wins[stage])
        return self.played

    def begin(self, n: int) -> jax.Array:
        return jnp.zeros((n, HIDDEN))

    def act(self, observation: torch.Tensor, memory: jax.Array) -> tuple[torch.Tensor, jax.Array]:
        parameters = self.train["parameters"]
        if self.devices > 1:
            parameters = jax.tree.map(lambda leaf: leaf[0], parameters)
        action, memory = greedy(parameters, jnp.asarray(observation.numpy()), memory)
        return torch.from_numpy(np.array(action)).long(), memory


@jax.jit
def greedy(parameters: Tree, observation: jax.Array, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The likeliest actions, and the hidden states after them."""
    memory = remember(parameters, read(tables(parameters, False), observation, False), memory)
    return predict(parameters, memory)[0].argmax(-1), memory
