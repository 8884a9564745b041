"""A trained agent on the Hugging Face Hub: a small run folder with a model card. Needs the extra `hub`."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Evaluation, floor
from modelnative.evidence.notebook import markdown
from modelnative.extras import optional
from modelnative.runs.files import require_new_folder
from modelnative.runs.run import Run

PREFIX = "hf:"  # of a repository where a run folder is expected
PARTS = ("config.json", "task.json", "weights.safetensors", "result.json", "metrics.jsonl")


def push(run: Run, repository: str, private: bool = False) -> str:
    """Upload a finished run, with a model card, and return its address.

    Args:
        run: with a verdict.
        repository: `user/name`.
        private: whether only its owner sees it.

    Raises:
        UserError: the run has no verdict, the package is missing, or the Hub refuses.
    """
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        pack(run, Path(folder))
        try:
            hub.create_repo(repository, exist_ok=True, private=private)
            hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="A trained agent of modelnative")
        except (OSError, ValueError) as error:  # of the network, of a name or a token
            raise UserError(f"to: {repository!r} cannot be written ({error}); log in with: hf auth login") from error
    return f"https://huggingface.co/{repository}"


def fetch(name: str) -> Path:
    """The run folder of `hf:user/name`, downloaded once.

    Raises:
        UserError: the package is missing, or there is no such repository.
    """
    hub, repository = _hub(), name.removeprefix(PREFIX)
    try:
        return Path(hub.snapshot_download(repository, allow_patterns=[*PARTS, "README.md"]))
    except (OSError, ValueError) as error:
        raise UserError(f"run: {name!r} cannot be downloaded ({error})") from error


def pack(run: Run, folder: Path) -> Path:
    """Copy what is needed to load, evaluate and explain the agent, and write the model card.

    Raises:
        UserError: the run has no verdict yet, or the folder holds something.
    """
    require_new_folder("out", folder)
    card = model_card(run)  # which needs the verdict
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (run.path / part).exists():
            shutil.copyfile(run.path / part, folder / part)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def model_card(run: Run) -> str:
    """What the Hub shows: the verdict, how it was found, how to use the agent.

    Raises:
        UserError: the run has no verdict yet.
    """
    result, config = run.result(), run.config
    options = "".join(f", {name}={json.dumps(value)}" for name, value in config.options.items())
    task = markdown(config.task)
    chosen = ", ".join(f"{name} {markdown(getattr(config, name))}" for name in ("core", "algorithm", "curriculum"))
    played = ((result.evaluation, "train"), (result.evaluation, "heldout"), (result.sampled, None))
    rows = "\n".join(
        f"| {' | '.join([markdown(stage), *(_rate(found, stage, split) for found, split in played)])} |"
        for stage in dict.fromkeys(count.stage for count in result.evaluation.counts)
    )
    return f"""---
library_name: modelnative
tags: [reinforcement-learning, tool-use, modelnative]
---
# {task}, learned by one network

A model-native agent: one network chooses every action, tool calls included. It was trained with
[modelnative](https://github.com/modelnative/modelnative) on the task {task}{markdown(options)}, by {chosen}, seed
{config.seed}.

| stage | success, training problems | success, held-out problems | with sampled actions |
| --- | --- | --- | --- |
{rows}

Success is the verifier's verdict on whole episodes, played greedily, by stage: {markdown(result.evaluation.line())}.
The training took {result.updates:,} updates, {result.episodes:,} episodes and {result.seconds:.1f} seconds.

```python
import modelnative as mn

agent = mn.load("hf:USER/NAME")  # this repository
print(mn.evaluate(agent).line())
```
"""


def _rate(evaluation: Evaluation, stage: str, split: str | None) -> str:
    count = evaluation.total(stage, split)
    return f"{floor(count.rate)} ({count.successes:,} of {count.problems:,}{'' if count.whole else ' drawn'})"


def _hub() -> Any:
    return optional("huggingface_hub", "hub", "1.0", "3")
