"""A language model of 100,000 parameters that learns `arithmetic` T0 through TRL's `GRPOTrainer`, on a CPU in minutes.

It checks a whole reinforcement learning stack for language models: chat template, tool calls, masks, groups, rewards,
advantages and updates. Anyone can run it against their versions of TRL and transformers:

    python benchmarks/tiny_llm.py --out tiny_llm.json

The model is a random Qwen2 with its own tokenizer of about 60 words. A short supervised warm start on the oracle's
transcripts stops as soon as 0.3 of the sampled episodes succeed, which is looked at every 10 steps; GRPO does the rest.
The evaluation plays every held-out problem once, by sampling at temperature 1 and greedily. Needs the extra `trl`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from modelnative.bridges.trl import TRLTask
from modelnative.tasks.contract.episode import Episode

SPECIAL = ("<pad>", "<unk>", "<eos>", "<user>", "<assistant>", "<tool>", "<call>", "<end>")
# The rules, the system message, hold for all problems: this model learns them instead of reading them.
TEMPLATE = """{%- for message in messages -%}
{%- if message.role == 'user' %}<user> {{ message.content }} <eos>
{%- elif message.role == 'tool' %}<tool> {{ message.content }} <eos>
{%- elif message.role == 'assistant' %}<assistant> {{ message.content }}
{%- for call in message.tool_calls or [] %}<call> {{ call.function.name }}
{%- for name, value in call.function.arguments.items() %} {{ name }} {{ value }}{%- endfor %} <end>{%- endfor %} <eos>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<assistant>{% endif -%}"""
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<assistant>",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<call>\s*(?P<name>\S+)",
            "close_pattern": r"<end>\s*",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r"\s*(?P<key>keys)\s+(?P<value>.*?)\s*$",
                "value_parser": {"name": "text"},
            },
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"<eos>\s*", "content": "text"},
    },
}


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words, digits and signs of some texts."""
    pieces = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Split(Regex(r"[A-Za-z]+|[0-9]|\S"), "isolated")]
    )
    words = sorted({piece for text in texts for piece, _ in pieces.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pieces
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=list(SPECIAL[3:]),
        chat_template=TEMPLATE,
        padding_side="left",
    )
    fast.response_template = RESPONSE
    return fast


def make_model(vocabulary: int, seed: int, end: int, padding: int) -> Qwen2ForCausalLM:
    """A random model of about 100,000 parameters."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=end,
        pad_token_id=padding,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def random_model(task: TRLTask, seed: int) -> tuple[Any, Any]:
    """A random model and its tokenizer, for the prompts and answers of a task with a calculator."""
    texts = [row["prompt"][-1]["content"] for row in task.rows[:50]] + ["press keys blank no effect MUL ADD SUB STO"]
    texts += ["RCL ANS EOS CTX : - 0 1 2 3 4 5 6 7 8 9 The episode is over success Refused"]
    tokenizer = make_tokenizer(texts)
    return make_model(len(tokenizer), seed, tokenizer.eos_token_id, tokenizer.pad_token_id), tokenizer


def transcript(task: TRLTask, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of an episode that follows the oracle."""
    episode = Episode(task.task)
    episode.begin(row["stage"], seed=row["seed"], index=row["index"], split=row["split"])
    for name, arguments in episode.plan():
        episode.call(name, arguments)
    return episode.messages(closing="")


def labelled(tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """The tokens of a transcript, and the same with −100 for those that the model does not write."""
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    begin, end = tokenizer.convert_tokens_to_ids("<assistant>"), tokenizer.eos_token_id
    labels, own = [], False
    for token in ids:
        labels.append(token if own else -100)
        own = token == begin or (own and token != end)
    return ids, labels


def warm_start(
    model: Any, tokenizer: Any, task: TRLTask, until: float, seed: int, most: int = 1500
) -> tuple[int, float]:
    """Imitate transcripts until a share of sampled episodes succeeds; return the steps, and that share."""
    pairs = [labelled(tokenizer, transcript(task, row)) for row in task.rows]
    width = max(len(ids) for ids, _ in pairs)
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in pairs])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in pairs])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator, reached = torch.Generator().manual_seed(seed), 0.0
    for step in range(1, most + 1):
        rows = torch.randint(len(padded), (64,), generator=generator)
        loss = model(input_ids=padded[rows], labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            reached = success_rate(model, tokenizer, task.rows[:256], task)
            if reached >= until:
                return step, reached
    return most, reached


@torch.no_grad()
def success_rate(model: Any, tokenizer: Any, rows: list[dict[str, Any]], task: TRLTask, greedy: bool = False) -> float:
    """The share of episodes that succeed with the first call, sampled at temperature 1 or greedily."""
    model.eval()
    inputs = tokenizer.apply_chat_template(
        [row["prompt"] for row in rows],
        add_generation_prompt=True,
        tokenize=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    how = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0}
    written = model.generate(
        **{name: inputs[name] for name in ("input_ids", "attention_mask")}, max_new_tokens=24, **how
    )
    model.train()
    won, start = 0, inputs["input_ids"].shape[1]
    for row, ids in zip(rows, written[:, start:], strict=True):
        environment = task.environment_factory()
        environment.reset(**row)
        text = tokenizer.decode(ids).partition("<eos>")[0].split()
        if text[:3] == ["<call>", "press", "keys"] and "<end>" in text:
            environment.press(" ".join(text[3 : text.index("<end>")]))
        won += environment._episode.success
    return won / len(rows)


def trainer_for(
    model: Any,
    tokenizer: Any,
    task: TRLTask,
    held: TRLTask,
    steps: int,
    seed: int,
    folder: str,
    iterations: int = 1,
    rate: float = 5e-4,
    batch: int = 64,
    generations: int = 8,
    length: int = 64,
) -> Any:
    """TRL's trainer for the task. With more than one iteration it stores log-probabilities, which are then audited."""
    from trl import GRPOConfig, GRPOTrainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=batch,
            num_generations=generations,
            num_generations_eval=1,
            max_completion_length=length,
            mask_truncated_completions=True,  # what is written after the end of the episode must not be reinforced
            max_tool_calling_iterations=2,
            max_steps=steps,
            num_iterations=iterations,
            learning_rate=rate,
            lr_scheduler_type="constant",
            beta=0.0,
            temperature=1.0,
            top_k=0,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            seed=seed,
            report_to=[],
            save_strategy="no",
            logging_steps=10,
            disable_tqdm=True,
        )
        return GRPOTrainer(
            model=model,
            args=config,
            processing_class=tokenizer,
            train_dataset=task.train_dataset,
            eval_dataset=held.train_dataset,
            environment_factory=task.environment_factory,
            reward_funcs=task.reward_funcs,
        )


def run(
    steps: int, seed: int, until: float, target: float, iterations: int = 1, **options: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Warm start and GRPO; return what was measured, and the tensors of the last audit.

    `options` are of `trainer_for`.
    """
    from transformers import TrainerCallback

    from modelnative.bridges.trl_audit import audit_trainer

    task = TRLTask("arithmetic", stages=["T0"], count=4000, seed=seed)  # nearly all of the 800 problems
    held = TRLTask("arithmetic", stages=["T0"], count=2000, seed=seed, split="heldout")  # all 200, many times
    model, tokenizer = random_model(task, seed)
    problems = list({row["prompt"][-1]["content"]: row for row in held.rows}.values())  # each once
    started, started_processor = time.perf_counter(), time.process_time()

    def played() -> dict[str, float]:
        rates = {
            name: success_rate(model, tokenizer, problems, held, name == "greedy") for name in ("sampled", "greedy")
        }
        return {name: round(rate, 4) for name, rate in rates.items()}

    warm, reached = warm_start(model, tokenizer, task, until, seed)
    warm_seconds = time.process_time() - started_processor
    before = played()
    curve: list[dict[str, float]] = []

    class Curve(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if logs and "reward" in logs:
                point = {"step": state.global_step, "success": logs["episode/success"]}
                curve.append(point)
                seconds = time.perf_counter() - started
                print(f"step {state.global_step:4d}  success {point['success']:.3f}  {seconds:.0f} s", flush=True)
                control.should_training_stop |= point["success"] >= target

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(model, tokenizer, task, held, steps, seed, folder, iterations, **options)
        trainer.add_callback(Curve())
        audit = audit_trainer(trainer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            trainer.train()
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": seed,
        "options": {"steps": steps, "until": until, "target": target, **options},
        "warm start": {"steps": warm, "sampled success": reached, "processor seconds": round(warm_seconds, 1)},
        "held-out problems": len(problems),
        "held out before": before,
        "held out after": played(),
        "GRPO steps": trainer.state.global_step,
        "seconds": round(time.perf_counter() - started, 1),
        "processor seconds": round(time.process_time() - started_processor, 1),
        "audits": len(audit.audits),
        "alarms": [alarm.check for alarm in audit.alarms],
        "curve": curve,
        "versions": {name: version(name) for name in ("trl", "transformers", "torch", "datasets")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    return result, audit.last


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="GRPO steps at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", type=float, default=0.3, help="success at which the warm start stops")
    parser.add_argument("--target", type=float, default=0.99, help="success at which GRPO stops")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of GRPO")
    parser.add_argument("--batch", type=int, default=64, help="episodes of a step")
    parser.add_argument("--generations", type=int, default=8, help="episodes of a problem in a batch")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument(
        "--tensors",
        type=Path,
        help="a safetensors file for the tensors of the last audit; with two updates for each batch",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    torch.set_num_threads(1)  # more are slower for so small a model, and much slower on a busy machine
    iterations = 2 if arguments.tensors else 1
    options = {name: getattr(arguments, name) for name in ("rate", "batch", "generations")}
    result, tensors = run(arguments.steps, arguments.seed, arguments.until, arguments.target, iterations, **options)
    print(json.dumps({name: value for name, value in result.items() if name != "curve"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.tensors:
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, arguments.tensors)


if __name__ == "__main__":
    main()
