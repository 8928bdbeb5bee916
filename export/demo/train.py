"""Trains the adapter: `python -m pairwire.export.demo.train --data DIR --out DIR --stage sts`.

The stages (mixture.py says what they hold) are run one after the other, each with `--init` of the one before.
Under `python -m torch.distributed.run --nproc-per-node N -m ...` N processes share each step's gradient.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn import functional

from .base import EAGER_LIMIT_TOKENS, Pairs, new_model, open_model, save_adapter
from .mixture import Example, build_stage

log = logging.getLogger(__name__)


def example_loss(logits: torch.Tensor, targets: torch.Tensor, list_weight: float) -> torch.Tensor:
    """Return binary cross-entropy to sigmoid(targets), plus KL to softmax(targets) when there are several rows.

    Both arguments are logits, `[rows] float32`; the result is a scalar.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, torch.sigmoid(targets))
    if len(logits) > 1:
        student = functional.log_softmax(logits, dim=0)
        teacher = functional.log_softmax(targets, dim=0)
        loss = loss + list_weight * functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return loss


def make_batches(
    examples: Sequence[Example], lengths: Sequence[int], batch_tokens: int, rng: random.Random
) -> list[list[int]]:
    """Group examples of similar length; a batch's rows x longest row stays under `batch_tokens`.

    `lengths[i]` is the longest row (tokens) of example i. Returns indices in a shuffled order of batches.
    """
    order = sorted(range(len(examples)), key=lambda i: (lengths[i] + rng.random() * 8, i))
    batches: list[list[int]] = []
    rows = 0
    for i in order:
        rows += len(examples[i].texts)
        if not batches or rows * lengths[i] > batch_tokens:
            batches.append([])
            rows = len(examples[i].texts)
        batches[-1].append(i)
    rng.shuffle(batches)
    return batches


def learning_rate(progress: float, peak: float) -> float:
    """Return the rate at `progress` (0..1): 5 % linear warm-up, then a half cosine to a twentieth of the peak."""
    if progress < 0.05:
        return peak * max(progress, 0.0025) / 0.05
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95)))


def _rows(example: Example) -> list[tuple[str, str]]:
    return [(example.query, text) for text in example.texts]


def _batch_loss(model: Any, encoder: Pairs, batch: Sequence[Example], list_weight: float) -> torch.Tensor:
    inputs = encoder.batch([row for example in batch for row in _rows(example)])
    eager = inputs["input_ids"].shape[1] <= EAGER_LIMIT_TOKENS
    model.base_model.model.bert.config._attn_implementation = "eager" if eager else "sdpa"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**inputs).logits
    parts = logits.float()[:, 0].split([len(example.texts) for example in batch])
    losses = [
        example_loss(part, torch.tensor(example.logits), list_weight)
        for part, example in zip(parts, batch, strict=True)
    ]
    return torch.stack(losses).mean()


def _steps(args: argparse.Namespace, examples: list[Example], encoder: Pairs) -> Iterator[tuple[int, int, list[int]]]:
    lengths = [int(encoder.lengths(_rows(example)).max()) for example in examples]
    rng = random.Random(args.seed)
    epochs = [make_batches(examples, lengths, args.batch_tokens, rng) for _ in range(args.epochs)]
    batches = [batch for epoch in epochs for batch in epoch]
    batches = batches[: len(batches) - len(batches) % _processes()]
    tokens = sum(length * len(example.texts) for length, example in zip(lengths, examples, strict=True))
    log.info("%d examples, %d batches, %.2f M tokens an epoch", len(examples), len(batches), tokens / 1e6)
    mine = batches[_rank() :: _processes()]
    yield from ((step, len(mine), batch) for step, batch in enumerate(mine))


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _share(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place."""
    if not distributed.is_initialized():
        return
    flat: Any = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= _processes()
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def train(args: argparse.Namespace) -> None:
    """Train one stage and write the adapter to `args.out`, with a checkpoint every `args.save_steps` steps."""
    encoder = Pairs(args.max_length)
    examples = build_stage(args.stage, args.data, args.cache, args.data_seed, args.size)
    model = open_model(args.init, trainable=True) if args.init else new_model(args.seed)
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.lr, weight_decay=0.01)
    started, running = time.monotonic(), 0.0
    for step, steps, batch in _steps(args, examples, encoder):
        elapsed = torch.tensor([time.monotonic() - started])
        _share([elapsed])  # so that all processes agree on when to stop
        minutes = elapsed.item() / 60
        progress = max(step / steps, minutes / args.minutes)
        if progress >= 1.0:
            log.info("time budget reached at step %d of %d", step, steps)
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, args.lr)
        loss: Any = _batch_loss(model, encoder, [examples[i] for i in batch], args.list_weight)
        optimizer.zero_grad()
        loss.backward()
        _share([weight.grad for weight in weights if weight.grad is not None])
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            log.info("step %d/%d loss %.4f, %.1f min", step + 1, steps, running, minutes)
        if (step + 1) % args.save_steps == 0 and _rank() == 0:
            save_adapter(model, args.out)
    if _rank() == 0:
        save_adapter(model, args.out)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; every path is an argument."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with stsb-en, qnli, xquad and scifact")
    parser.add_argument("--out", type=Path, required=True, help="directory that receives the adapter")
    parser.add_argument("--init", type=Path, help="adapter to continue from")
    parser.add_argument("--cache", type=Path, help="directory for the teacher's embeddings")
    parser.add_argument("--stage", choices=["sts", "sentences", "passages"], required=True)
    parser.add_argument("--size", type=float, default=1.0, help="fraction of the stage's examples to take")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop early, with the rate decayed in time")
    parser.add_argument("--lr", type=float, default=6e-4, help="peak learning rate")
    parser.add_argument("--list-weight", type=float, default=0.5, help="weight of the listwise loss")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="rows x padded length of a batch")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--save-steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7, help="of the new weights and of the batches' order")
    parser.add_argument("--data-seed", type=int, default=7, help="of the draw of examples")
    return parser.parse_args(argv)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    train(parse_arguments())
