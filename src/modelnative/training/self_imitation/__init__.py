"""Self-imitation, problem by problem: a table of solved training problems that grows, and is imitated.

| module | what it has |
|---|---|
| `solutions` | the table: many training problems, and the best program found so far for each |
| `variation` | programs of solved problems, edited at random while they are played on others |
| `search` | turns of a program search for the problems of a stage |
| `curriculum` | which episodes are played: new problems, unsolved ones, and known programs to imitate |

It uses `sample`, `begin`, `step` and `feedback` of a task, the verdict of its verifier and the flag of keys without
effect; never its oracle, its reward, its targets or its registers, and never a held-out problem.
"""
