"""Checks of the bridge to OpenEnv."""

from __future__ import annotations

import random
import threading
import time

from conformance_registry import EPISODES, FAMILIES, KINDS, calls_of, check, family, reference, summary

from modelnative.tasks.contract.episode import Episode


@check("openenv", "openenv", "its server and two clients at once: 40 problems of two families, half of them spoiled")
def openenv_sessions() -> str:
    import uvicorn
    from openenv import GenericEnvClient

    from modelnative.bridges.openenv import make_app

    won = {}
    for port, name in ((8917, "countdown"), (8918, "dictionary")):
        task, chance, count = family(name), random.Random(7), 0
        server = uvicorn.Server(uvicorn.Config(make_app(task), port=port, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            clients = [GenericEnvClient(base_url=f"http://127.0.0.1:{port}").sync() for _ in range(2)]
            with clients[0] as first, clients[1] as second:
                for index in range(40):
                    episode, stage = Episode(task), task.spec.stages[index % len(task.spec.stages)]
                    opening = episode.begin(stage, seed=8, index=index, split="heldout")
                    for client in (first, second):
                        begun = client.reset(seed=8, index=index, split="heldout")
                        assert begun.observation["text"] == opening, begun
                    for call, arguments in calls_of(episode, chance if index % 2 else None):
                        shown = episode.call(call, arguments)
                        for client in (first, second):
                            answer = client.step({"name": call, "arguments": arguments})
                            found = (answer.observation["text"], answer.done, answer.reward)
                            assert found == (shown.text, shown.over, shown.reward), (found, shown)
                            assert answer.observation["refused"] == shown.refused, answer
                    count += episode.success
        finally:
            server.should_exit = True
            thread.join(10)
        won[name] = (count, 40)
    return f"both sessions equal to the episode; {summary(won)}"


@check(
    "openenv", "openenv", "1,000 oracle and 1,000 spoiled episodes of every family through `TaskEnvironment`", slow=True
)
def openenv_environments() -> str:
    from modelnative.bridges.openenv import CallAction, TaskEnvironment

    won = dict.fromkeys(FAMILIES, (0, 0))
    for name in FAMILIES:
        environment = TaskEnvironment(family(name))
        for played in (played for kind in KINDS for played in reference(name, kind)):
            assert environment.reset(seed=played.seed, index=played.index).text == played.opening, played
            shown = [environment.step(CallAction(name=call, arguments=given)) for call, given in played.calls]
            for field, expected in (
                ("text", played.texts),
                ("reward", played.rewards),
                ("done", played.overs),
                ("refused", played.refused),
            ):
                assert [getattr(each, field) for each in shown] == expected, (field, played)
            assert shown[-1].success == played.success, played
            won[name] = (won[name][0] + played.success, won[name][1] + 1)
        assert won[name][1] == 2 * EPISODES
    return f"texts, rewards and ends equal; {summary(won)}"
