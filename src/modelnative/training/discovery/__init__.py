"""A search for procedures: programs of keys and copies that solve every problem of a stage, found without an oracle.

| module | what it has |
|---|---|
| `procedures` | what a procedure is made of, and playing many of them on many problems at once |
| `edits` | random procedures, and random and systematic changes of known ones |
| `macros` | short sequences of keys that lead the tools to conditions not seen before |
| `population` | the procedures that solve some problems, and which of them are edited next |
| `search` | the search for a stage, generation after generation |

It uses `sample`, `begin`, `step` and `feedback` of a task, the verdict of its verifier and the flag of keys without
effect; never its oracle, its reward, its targets or its registers.
"""
