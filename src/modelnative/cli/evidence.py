"""Commands that show what was learned, and what a task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import modelnative as mn
from modelnative.cli.parser import Once, Parser, add_options, print_json, show
from modelnative.cli.parser import report as print_progress

STAGES, ALL = "stages", ", such as T2 (default: all)"
CERTIFY = """\
For every stage: success of the oracle (1.000 where the task claims it), random actions, doing nothing, the commonest
answer, the best fixed program, a network without memory and one that cannot see the problem; and how many problems
are in both splits. Every problem is played where a stage has no more than --problems; otherwise that many are drawn,
and figures come with a 95% interval.

    modelnative certify mypkg:MyTask --no-train

Below the table it says what is wrong and what to do: a rule of the contract that is broken, an oracle's
counterexample, problems that nobody can solve, agents that succeed without doing what the stage asks (from 0.2 a
warning, from 0.5 a defect), networks that had too few updates to show anything. A stage takes --seconds of training
(20), and up to a minute or two on one core for the rest: most of it searches for the best fixed program and, for your
own tools without `solve`, for the oracle's programs. Progress goes to standard error. Ctrl-C shows what was measured
so far. Exit code 1: there is a defect.
"""


INSPECT = """\
Two greedy episodes of one stage are stopped before the same action, one thing is exchanged between them (the context
that the network reads, its hidden state, the feedback, the last token, registers of the tools), and they go on. The
outcome shows who carries what. Then the agent plays without its hidden state, without feedback and so on. At last,
linear probes ask whether later actions are known in advance, beyond what six controls know, and whether it is used.

    modelnative inspect runs/first --stage T2

The result is also written to RUN/inspect.json, with 95% Wilson intervals of all shares; `modelnative report RUN` then
shows it in the report.
"""

COMPARE = """\
Each RUN is a run folder, a sweep, or a folder of `train --seeds`. Trainings that differ in more than their seed and
task are in different groups. Each group gets the interquartile mean of its trainings with a bootstrap interval over
seeds, and the probability that one of its trainings beats one of the first group.

    modelnative compare runs/ppo runs/grpo --metric updates

A difference is claimed only if both intervals support it, for all groups together at 95%.
"""

CLINIC = """\
Fifteen faults that people met in recipes for reinforcement learning, each planted in a training of its own. A healthy
and a sick twin are audited for two updates: does the audit see the fault, and does it stay silent on the healthy twin?

    modelnative clinic "length bias" --curves

Several of the faults cannot be seen in a learning curve. The same audits run in every training; see --alarms of
`modelnative train`. With names of cases, their public reports and the remedy are shown too. Exit code 1: a fault was
missed, or a healthy twin raised an alarm.
"""


def evaluate(arguments: Sequence[str]) -> int:
    """`modelnative evaluate`."""
    parser = Parser(
        "evaluate", "Every problem is played once, greedily; of a stage with more than 150,000, a fixed sample is."
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="the run folder")
    add("--stage", dest="stages", nargs="+", action="extend", metavar="STAGE", help=f"{STAGES} to play{ALL}")
    add("--split", default="all", help="train, heldout (never trained on), or all, which shows both (default: all)")
    episodes = "write a JSON line for every episode to this file"
    add("--episodes", dest="episodes_file", type=Path, metavar="FILE", help=episodes)
    add("--sampled", action="store_true", help="sample the actions at temperature 1, from the run's seed")
    add_options(parser, "options of the task to change, to test on what was not trained on, such as shapes=unseen")
    add(
        "--floors", action="store_true", help="show what the oracle and agents that should fail reach, too; see certify"
    )
    add("--json", action="store_true", help="print JSON instead of a table")
    given = parser.given(arguments)
    folder, as_json = given.pop("folder"), given.pop("json")
    from modelnative.studio import certificate as pictures
    from modelnative.studio import tables

    evaluation = mn.evaluate(folder, **given, progress=print_progress if given["floors"] else None)
    if as_json:
        print_json(evaluation.as_dict())
    else:
        tables.show([tables.results(evaluation), *pictures.comparison(evaluation)])
        print(evaluation.line())
    return 0


def explain(arguments: Sequence[str]) -> int:
    """`modelnative explain`."""
    parser = Parser("explain", "How sure the policy was, what the tool did, and what the oracle would write.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--stage", required=True, action=Once, help="the problem's stage, such as T2")
    parser.add_argument("--problem", required=True, action=Once, help='the problem, such as "3 7 2 4 5"')
    found = parser.read(arguments)
    from modelnative.studio import tables

    tables.show(tables.explanation_page(mn.explain(found.folder, stage=found.stage, problem=found.problem)))
    return 0


def inspect(arguments: Sequence[str]) -> int:
    """`modelnative inspect`."""
    parser = Parser("inspect", INSPECT)
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="the run folder")
    add("--stage", dest="stages", nargs="+", action="extend", metavar="STAGE", help=f"{STAGES}{ALL}")
    add("--pairs", type=int, default=500, metavar="N", help="pairs of problems in each stage (default: 500)")
    add("--no-probes", dest="probes", action="store_false", help="do not ask what is known in advance")
    add("--units", action="store_true", help="which units each stage needs, and whether the other stages need them")
    place = "write the JSON to this file (default: RUN/inspect.json)"
    add("--out", dest="file", type=Path, metavar="FILE", help=place)
    add("--json", action="store_true", help="print JSON instead of tables")
    given = parser.given(arguments)
    folder, as_json = given.pop("folder"), given.pop("json")
    given["file"] = given["file"] or folder / "inspect.json"
    from modelnative.studio import inspection as pictures

    show(mn.inspect(folder, **given, progress=print_progress).as_dict(), pictures.page, as_json)
    return 0


def report(arguments: Sequence[str]) -> int:
    """`modelnative report`."""
    parser = Parser("report", "A damaged file is named, in the report and here, and the rest of the report is written.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder, or that of a sweep or of train --seeds")
    folder = parser.read(arguments).folder
    paths, faults = mn.report(folder)
    for fault in faults:
        print_progress(f"missing: {fault}")
    for path in paths:
        print(path)
    return 0


def tasks(arguments: Sequence[str]) -> int:
    """`modelnative tasks`."""
    parser = Parser("tasks", "With a name: its stages, vocabulary, options, and the oracle's program.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a task's name, or package.module:Class")
    name = parser.read(arguments).name
    from modelnative.studio import tables

    tables.show(tables.task_page(name) if name else [tables.task_list()])
    return 0


def certify(arguments: Sequence[str]) -> int:
    """`modelnative certify`."""
    parser = Parser("certify", CERTIFY)
    add = parser.add_argument
    add("task", metavar="TASK", help="a task's name, package.module:Class, or a run folder: the task of that run")
    add("--stage", nargs="+", action="extend", metavar="STAGE", help=f"{STAGES} to measure{ALL}")
    add_options(parser, "options of the task")
    add("--problems", type=int, default=100_000, metavar="N", help="draw N of a stage with more (default: 100000)")
    seconds = "of training a stage, shared by the two networks; not of all (default: 20)"
    add("--seconds", type=float, default=20.0, help=seconds)
    add("--no-train", dest="train", action="store_false", help="do not train the two networks")
    place = "write the JSON to this file (of a run folder: certificate.json in it)"
    add("--out", dest="file", type=Path, metavar="FILE", help=place)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print a section of a Markdown page")
    given = parser.given(arguments)
    as_json, as_markdown = given.pop("json"), given.pop("markdown")
    from modelnative.studio import certificate as pictures

    certificate = mn.certify(**given, progress=print_progress)
    if as_markdown:
        print(pictures.markdown(certificate))
    else:
        show(certificate, pictures.page, as_json)
    if certificate.interrupted:
        return 130
    return 0 if certificate.sound else 1


def compare(arguments: Sequence[str]) -> int:
    """`modelnative compare`."""
    parser = Parser("compare", COMPARE)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders; every group is compared with the first")
    add("--metric", default="success", help="success, heldout, sampled, updates, episodes, steps or seconds")
    add("--stage", action=Once, help="the stage to compare, such as T2 (default: the mean over stages)")
    add("--out", type=Path, metavar="FOLDER", help="write comparison.json, .svg and .png there")
    add("--json", action="store_true", help="print JSON instead of a table")
    found = parser.read(arguments)
    from modelnative.studio import comparison as pictures

    compared = mn.compare(*found.runs, metric=found.metric, stage=found.stage, out=found.out)
    show(compared, pictures.page, found.json)
    return 0


def clinic(arguments: Sequence[str]) -> int:
    """`modelnative clinic`."""
    parser = Parser("clinic", CLINIC)
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help="names of faults, such as 'length bias' (default: all)")
    add("--seeds", type=int, default=1, help="of every case, from 0 on (default: 1)")
    add("--curves", action="store_true", help="train both twins for 120 updates, and show what they reach")
    add("--json", action="store_true", help="print JSON instead of a table")
    found = parser.read(arguments)
    from modelnative.studio import clinic as pictures

    diagnoses = mn.clinic(found.cases or None, seeds=found.seeds, curves=found.curves, progress=print_progress)
    show(diagnoses, pictures.page, found.json)
    return 0 if all(each.passed for each in diagnoses) else 1


def tutorial(arguments: Sequence[str]) -> int:
    """`modelnative tutorial`."""
    parser = Parser("tutorial", "The published recipe and a corrected one are trained side by side.")
    parser.add_argument("--seed", type=int, default=0, help="of both trainings (default: 0)")
    parser.add_argument("--updates", type=int, default=100, help="of the corrected recipe (default: 100)")
    found = parser.read(arguments)
    from modelnative.studio import tables
    from modelnative.studio import tutorial as pictures

    tables.show(pictures.page(mn.tutorial(seed=found.seed, updates=found.updates)))
    return 0
