"""The worlds that peers are measured on must be the task itself; the peers themselves need not be installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from modelnative.tasks.arithmetic.problems import CTX
from modelnative.tasks.arithmetic.task import COUNTS, Arithmetic

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"


def load(file: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PEERS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def worlds() -> ModuleType:
    return load("worlds.py", "peer_worlds")  # "worlds" is a helper of tests


def pins(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    exact = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in exact}


def test_the_peers_pin_what_the_project_pins() -> None:
    """`set_up.sh` installs by both files at once, and pip refuses two versions of one package."""
    ours, theirs = pins(ROOT / "constraints.txt"), pins(PEERS / "requirements.txt")
    assert {name: theirs[name] for name in theirs if ours.get(name, theirs[name]) != theirs[name]} == {}
    assert "cloudpickle" in ours.keys() & theirs.keys(), "the two files share packages"


def test_the_world_in_jax_is_the_tensor_task(worlds: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observations, verdicts and ends of whole episodes, products near the limit of the display included."""
    jnp = pytest.importorskip("jax.numpy", reason="JAX is installed by benchmarks/peers/set_up.sh")
    monkeypatch.setitem(sys.modules, "worlds", worlds)
    peer = load("jax_ppo.py", "peer_jax")
    n, generator, task = 20_000, torch.Generator().manual_seed(2), Arithmetic()
    problems = task.sample(torch.randint(3, (n,), generator=generator), generator)
    program, state, token = task.oracle(problems), task.begin(problems), torch.full((n,), CTX)
    numbers = jnp.asarray((problems.key % 10**6).numpy(), jnp.int32)
    theirs = peer.begin(jnp.asarray(problems.stage.numpy(), jnp.int32), numbers)
    running, large = torch.ones(n, dtype=torch.bool), 0
    for t in range(task.spec.horizon):
        observed = worlds.observe(problems, token, task.feedback(state))
        seen = torch.from_numpy(peer.np.array(peer.observe(theirs))).long()
        assert torch.equal(seen[running], observed[running])
        action = torch.where(torch.arange(n) < n // 3, program[:, t], keys(n, generator))
        squares = (torch.arange(n) % 3 == 2) & (t < 11)  # 9 MUL 9 STO MUL RCL STO MUL RCL ...: to the limit
        action = torch.where(squares, torch.tensor([9, 11, 9, 15, 11, 16, 15, 11, 16, 15, 11])[min(t, 10)], action)
        step = task.step(state, action)
        theirs, success, ended = peer.press(theirs, jnp.asarray(action.numpy(), jnp.int32))
        right, over = (torch.from_numpy(peer.np.array(x)) for x in (success, ended))
        assert torch.equal(right[running], step.success[running])
        state, token = step.state, action
        running &= ~(step.done | torch.tensor(t == task.spec.horizon - 1))
        assert torch.equal(~over[running], running[running])
        large += int((state.calculator.value.abs() > 10**7).sum())
    assert not bool(running.any())
    assert large > 100


def test_a_training_in_jax_plays_and_learns(worlds: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="JAX is installed by benchmarks/peers/set_up.sh")
    monkeypatch.setitem(sys.modules, "worlds", worlds)
    peer = load("jax_ppo.py", "peer_jax")
    for options in ({}, {"pairs": True, "shuffle": False}):
        training = peer.JAX(worlds.Stages(), 0, environments=64, steps=12, **options)
        before = peer.np.array(training.train["parameters"]["heads"])
        assert training.update() == 64 * 12
        after = peer.np.array(training.train["parameters"]["heads"])
        assert peer.np.isfinite(after).all()
        assert abs(after - before).max() > 1e-4
    action, _ = training.act(worlds.TensorWorld(5, worlds.Stages(), 0).observation, training.begin(5))
    assert action.shape == (5,)


def test_a_training_in_skrl_unrolls_what_it_played_and_learns(
    worlds: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update's first pass over a rollout must give the log-probabilities of that rollout, past ends as well."""
    pytest.importorskip("skrl", reason="skrl is installed by benchmarks/peers/set_up.sh")
    monkeypatch.setitem(sys.modules, "worlds", worlds)
    training = load("skrl_ppo.py", "peer_skrl").SKRL(worlds.Stages(), 0, environments=64, steps=16)
    update, first, names = training.agent.update, [], ["observations", "actions", "terminated", "log_prob"]

    def watched(**when: int) -> None:
        ((seen, action, ended, log_prob),) = training.agent.memory.sample_all(names, sequence_length=16)
        ((memory,),) = training.agent.memory.sample_all(["rnn_policy_0"], sequence_length=16)
        assert ended.view(64, 16)[:, :-1].any()
        with torch.no_grad():
            hidden, _ = training.model.remember(seen, memory.transpose(0, 1), ended)
            again = training.model.actor(hidden).log_softmax(-1).gather(1, action.long())
        torch.testing.assert_close(again, log_prob)
        first.append(training.model.actor.weight.clone())
        update(**when)

    monkeypatch.setattr(training.agent, "update", watched)
    assert [training.update() for _ in range(3)] == [64 * 16] * 3
    assert len(first) == 3, "it learns once in an update"
    after = training.model.actor.weight.detach()
    assert float((after - first[0].detach()).abs().max()) > 1e-4
    assert bool(after.isfinite().all())
    action, _ = training.act(worlds.TensorWorld(5, worlds.Stages(), 0).observation, training.begin(5))
    assert action.shape == (5,)


def line(name: str, peer: str, rate: float) -> dict[str, Any]:
    """A result of `compare.py throughput`, as far as tables and pictures read it."""
    configuration = {"peer": peer, "threads": 1}
    measured = {"steps_per_second": rate, "steps": 1000, "cpu_seconds": 0.5, "parameters": 44_819}
    return {"name": name, "schedule": "uniform", "configuration": configuration, "start": "now", **measured}


def test_table_and_picture_leave_out_families_without_results(tmp_path: Path) -> None:
    compare = load("compare.py", "peer_compare")
    kinds = {name: compare.family(line(name, known["peer"], 1.0)) for name, known in compare.CONFIGURATIONS.items()}
    assert set(kinds.values()) == set(compare.FAMILIES) - {"ours"}
    assert kinds["skrl-8192"] == "skrl"
    lines = [line("ours-uniform-8192", "ours", 300.0), line("skrl-512", "skrl", 100.0)]
    table = compare.throughput_table(lines)
    assert "| skrl GRU, batched | skrl-512 | 3.00 (3.00–3.00) |" in table
    assert "JAX" not in table
    assert compare.throughput_table(lines[:1]).endswith("| 300 (300–300) | 2,000 |"), "no peer, no ratio"
    compare.plot(lines, tmp_path / "chart.svg")
    drawn = (tmp_path / "chart.svg").read_text()
    assert "skrl-512" in drawn
    assert "jax" not in drawn


@pytest.mark.parametrize("command", ["table", "plot"])
def test_without_any_result_there_is_no_traceback(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = load("compare.py", "peer_compare")
    monkeypatch.setattr(compare, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", command])
    with pytest.raises(SystemExit):
        compare.main()
    assert "no results yet; measure some first" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def keys(n: int, generator: torch.Generator) -> torch.Tensor:
    """Random keys, half of them the oracle's kind, so that registers fill and episodes last."""
    likely = torch.tensor([9, 8, 3, 11, 11, 12, 13, 15, 16])
    some = likely[torch.randint(len(likely), (n,), generator=generator)]
    return torch.where(torch.rand(n, generator=generator) < 0.9, some, torch.randint(18, (n,), generator=generator))


def test_the_plain_world_is_the_tensor_task(worlds: ModuleType) -> None:
    n, generator, task = 3000, torch.Generator().manual_seed(0), Arithmetic()
    problems = task.sample(torch.randint(3, (n,), generator=generator), generator)
    program = task.oracle(problems)
    state = task.begin(problems)
    plain = [worlds.PlainWorld(worlds.Stages(), 0) for _ in range(n)]
    stages, numbers = problems.stage.tolist(), (problems.key % 10**6).tolist()
    first = [world.begin(*given) for world, *given in zip(plain, stages, numbers, strict=True)]
    token = torch.full((n,), CTX)
    assert worlds.observe(problems, token, task.feedback(state)).tolist() == first
    ended = torch.zeros(n, dtype=torch.bool)
    total = 0.0
    for t in range(task.spec.horizon):
        action = torch.where(torch.arange(n) < n // 3, program[:, t], keys(n, generator))
        step = task.step(state, action)
        observation = worlds.observe(problems, action, step.feedback)
        done = step.done | torch.tensor(t == task.spec.horizon - 1)
        for i in (~ended).nonzero()[:, 0].tolist():
            seen, reward, end = plain[i].step(int(action[i]))
            assert seen == observation[i].tolist()
            assert (reward, end) == (float(step.reward[i]), bool(done[i]))
            total += reward
        state, ended = step.state, ended | done
    assert bool(ended.all())
    assert total >= n // 3  # the oracle's programs succeeded, in both


def test_the_tensor_world_resets_to_new_training_problems_and_hides_nothing(worlds: ModuleType) -> None:
    n, generator = 64, torch.Generator().manual_seed(1)
    world = worlds.TensorWorld(n, worlds.Stages(), seed=3)
    twins = [worlds.PlainWorld(worlds.Stages(), 0) for _ in range(n)]

    def copy(i: int) -> list[int]:
        stage, number = int(world.problems.stage[i]), int(world.problems.key[i]) % 10**6
        assert number in worlds.training_numbers(stage)
        return list(twins[i].begin(stage, number))

    assert world.reset().tolist() == [copy(i) for i in range(n)]
    ends = 0
    for _ in range(60):
        action = keys(n, generator)
        observation, reward, ended = world.step(action)
        for i in range(n):
            seen, twin_reward, twin_ended = twins[i].step(int(action[i]))
            assert (twin_reward, twin_ended) == (float(reward[i]), bool(ended[i]))
            assert observation[i].tolist() == (copy(i) if twin_ended else seen)
        ends += int(ended.sum())
    assert ends > 5 * n
    assert set(world.problems.stage.tolist()) == {0, 1, 2}


def test_the_threshold_schedule_opens_stages_one_by_one(worlds: ModuleType) -> None:
    stages = worlds.Stages("threshold", block=10)
    assert stages.weights() == [1.0, 0.0, 0.0]
    stages.observe(0, 10, 9)
    assert stages.opened == 1  # 0.9 is not more than 0.9
    stages.observe(0, 10, 10)
    assert stages.weights() == [0.02, 1.0, 0.0]
    stages.observe(0, 10, 10)
    assert stages.opened == 2  # only the newest stage opens another


def test_the_verdict_of_a_peer_counts_every_problem(worlds: ModuleType) -> None:
    task = Arithmetic()

    class Oracle(worlds.Peer):  # type: ignore[misc, name-defined]
        """Types the oracle's program for T0 and T1, and gives up on T2."""

        def update(self) -> int:
            return 0

        def begin(self, n: int) -> int:
            return 0

        def act(self, observation: torch.Tensor, memory: int) -> tuple[torch.Tensor, int]:
            stage = observation[:, 0]
            count = torch.tensor(COUNTS)[stage]
            places = observation[:, 1:6] * (torch.arange(5) < count[:, None])
            number = torch.zeros_like(stage)
            for place in range(5):
                number = torch.where(place < count, number * 10 + places[:, place], number)
            program = task.oracle(task.problems(stage, number))
            return torch.where(stage == 2, 17, program[:, memory]), memory + 1

    rates = worlds.verify(Oracle())
    assert rates == {split: {"T0": 1.0, "T1": 1.0, "T2": 0.0} for split in ("train", "heldout")}
