"""Train an agent, watch it learn, and show how it solves one problem.

A small budget keeps this under a minute, so it may not solve everything yet; leave out `updates` and it will.
"""

import tempfile
from pathlib import Path

import modelnative as mn
from modelnative.studio.live import LiveView

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, LiveView() as view:
        run = Path(folder) / "run"
        finished = mn.train("arithmetic", out=run, updates=40, callbacks=[view])
        print("result: ", finished.evaluation.line())

        agent = mn.load(run)
        print("agent:  ", sum(p.numel() for p in agent.policy.parameters()), "parameters")

        explanation = mn.explain(agent, stage="T0", problem="3 7 2")
        print("problem:", explanation.problem)
        print("wrote:  ", " ".join(row.token for row in explanation.rows))
        print("oracle: ", " ".join(explanation.oracle))
        print("display:", [row.registers["display"] for row in explanation.rows])
        print("success:", explanation.success)
