"""Trains the upper layers and the head of a model folder: seeded, with curves.

A second run goes on from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.data import batches
from training.data.batches import Batches
from training.data.lookalikes import Lookalikes, write_lookalikes
from training.data.negatives import RankingList, ranking_lists
from training.data.texts import Texts, read_texts
from training.measure.matching import (
    DOCUMENT_PREFIX,
    MAX_LENGTH_TOKENS,
    QUERY_PREFIX,
    id_sequences,
    token_weights,
)
from training.model import objective
from training.model.base import Floats
from training.model.folder import read_scores, read_tensors, read_tokenizer
from training.model.objective import Material, Outcome, compute
from training.model.states import read_encoder
from training.model.student import Student
from training.model.teacher import teacher_vectors

QUERY_TOKENS = 96
LOG_EVERY = 10
CHECK_EVERY = 50
_FIGURES = ("loss", "first", "first_by_cosine", "first_of_short")


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is trained.

    Attributes:
        first_layer: Layers below it stay as they are.
        pooled_weight: Weight of the pooled cosine in training, for documents of any length.
        head_rate: Learning rate of what is not a layer.
        mixing: How far the shipped weights are on the way from the base's to the trained ones.
        with_teacher: Whether English texts have the teacher's ranking as a second aim.
    """

    n_steps: int = 400
    rate: float = 5e-5
    head_rate: float = 2e-3
    n_warm_up: int = 40
    weight_decay: float = 0.01
    largest_gradient: float = 1.0
    first_layer: int = 6
    pooled_weight: float = 0.5
    scale: float = 30.0
    offset: float = 0.85
    seed: int = 17
    mixing: float = 0.7
    with_teacher: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the steps are drawn from and computed with.

    Attributes:
        lists: One for each query of `texts`, in their order.
        short: The short documents.
    """

    texts: Texts
    lists: list[RankingList]
    short: Lookalikes
    material: Material


def new_student(folder: Path, plan: Plan) -> Student:
    """The student before its first step: the model folder's own layers."""
    torch.manual_seed(plan.seed)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = read_tokenizer(folder)
    lengths = [len(id_sequences(tokenizer, [""], p, 9)[0][0]) for p in _PREFIXES]
    return Student(
        read_tensors(folder),
        n_heads=config["num_attention_heads"],
        n_layers=config["num_hidden_layers"],
        first=plan.first_layer,
        pooled_weight=plan.pooled_weight,
        scale=plan.scale,
        offset=plan.offset,
        skips=(lengths[0] - 1, lengths[1] - 1),
    )


_PREFIXES = (QUERY_PREFIX, DOCUMENT_PREFIX)


def prepare(folder: Path, data: Path, work: Path, plan: Plan) -> Prepared:
    """Reads the texts, finds negatives, and computes all states that stay as they are."""
    tokenizer, encoder = read_tokenizer(folder), read_encoder(folder, plan.first_layer)
    texts = read_texts(data, tokenizer)
    asked, n_prefix = id_sequences(
        tokenizer, [query.text for query in texts.queries], QUERY_PREFIX, QUERY_TOKENS
    )
    read, _ = id_sequences(
        tokenizer, [p.text for p in texts.passages], DOCUMENT_PREFIX, MAX_LENGTH_TOKENS
    )
    read = [
        [*ids[:-1][: passage.max_tokens - 1], ids[-1]]
        for ids, passage in zip(read, texts.passages, strict=True)
    ]
    queries = encoder.states(asked, work=work, label="queries")
    passages = encoder.states(read, work=work, label="passages")
    lists = ranking_lists(texts, queries.pooled, passages.pooled)
    weights = token_weights(read_scores(folder))
    short = write_lookalikes(texts, lists, tokenizer, weights)
    start = read[0][: 1 + len(tokenizer.encode(DOCUMENT_PREFIX, add_special_tokens=False).ids)]
    documents = [[*start, *ids, read[0][-1]] for ids in short.documents]
    lower = replace(encoder, layers=encoder.layers[: plan.first_layer])  # no negatives are sought
    material = Material(
        texts=texts,
        queries=queries,
        documents={
            "passage": passages,
            "short": lower.states(documents, work=work, label="short documents"),
        },
        information=[_information(weights, ids[1 + n_prefix : -1]) for ids in asked],
        teacher=teacher_vectors(texts, work) if plan.with_teacher else None,
    )
    return Prepared(texts, lists, short, material)


def _information(weights: Floats, ids: list[int]) -> Tensor:
    """How rare a text's tokens are, (n_text_tokens,)."""
    return torch.from_numpy(weights[ids])


class Trainer:
    """Steps, checkpoints and curves of one training.

    Raises:
        ValueError: the checkpoint in `work` is of another training.
        RuntimeError: the loss is no number any more.
    """

    def __init__(self, student: Student, prepared: Prepared, plan: Plan, work: Path) -> None:
        self.student = student
        self.curves: list[dict[str, float]] = []
        self._plan = plan
        self.material = prepared.material
        parts = (prepared.texts, prepared.lists)
        self.batches = Batches(*parts, prepared.short, seed=plan.seed)
        self._held_out = Batches(*parts, Lookalikes(), seed=plan.seed, held_out=True)
        self.checkpoint = work / "checkpoint.pt"
        self._fingerprint = _fingerprint(plan, prepared)
        head = [student.importance, student.log_scale, student.offset]
        groups = [
            {"params": list(student.layers.parameters()), "lr": plan.rate},
            {"params": head, "lr": plan.head_rate},
        ]
        self._optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.98), weight_decay=plan.weight_decay
        )

    def run(self, *, until: int | None = None) -> None:
        """Trains to the end of the plan (or `until` a step), from the last checkpoint on."""
        first = self._resume()
        last = self._plan.n_steps if until is None else until
        recent: list[Outcome] = []
        steps = range(first, last)
        with tqdm(steps, initial=first, total=self._plan.n_steps, desc="train") as progress:
            for step in progress:
                recent.append(self._step(step))
                if (step + 1) % LOG_EVERY == 0 or step + 1 == last:
                    progress.set_postfix(self._log(step + 1, recent))
                    recent = []
                if (step + 1) % CHECK_EVERY == 0 or step + 1 == last:
                    self._save(step + 1)

    def _step(self, step: int) -> Outcome:
        self._set_rates(step)
        outcome = compute(self.student, self.batches.step(step), self.material)
        if not bool(outcome.loss.isfinite()):
            raise RuntimeError(f"step {step + 1}: the loss is {float(outcome.loss)}")
        self._optimizer.zero_grad()
        outcome.loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_(self.student.parameters(), self._plan.largest_gradient)
        self._optimizer.step()
        return replace(outcome, loss=outcome.loss.detach())

    def _set_rates(self, step: int) -> None:
        """Up in a line over the warm-up, times what falls in a line, nearly to 0 at the end."""
        share = min(1.0, (step + 1) / self._plan.n_warm_up) * (1 - step / self._plan.n_steps)
        rates = (self._plan.rate, self._plan.head_rate)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share

    def _log(self, step: int, recent: list[Outcome]) -> dict[str, float]:
        row = {"step": step, **_means(recent)}
        if step % CHECK_EVERY == 0 or step == self._plan.n_steps:
            with torch.no_grad():
                found = [
                    compute(self.student, self._held_out.step(n), self.material) for n in range(3)
                ]
            kept = [name for name in _FIGURES if name != "first_of_short"]  # none is held out
            means = _means(found)
            row |= {f"held_out_{name}": means[name] for name in kept}
        self.curves.append(row)
        return row

    def _save(self, step: int) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "step": step,
            "of": self._fingerprint,
            "student": self.student.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "curves": self.curves,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(content, partial)
        partial.rename(self.checkpoint)

    def _resume(self) -> int:
        if not self.checkpoint.exists():
            return 0
        content = torch.load(self.checkpoint, weights_only=True)
        if content.get("of") != self._fingerprint:
            raise ValueError(
                f"{self.checkpoint} is of another plan, base, texts, aims or kind of processor: "
                "delete it to train again"
            )
        self.student.load_state_dict(content["student"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.curves = content["curves"]
        return int(content["step"])


def _fingerprint(plan: Plan, prepared: Prepared) -> str:
    """What a checkpoint is of: the plan, the texts, what the base makes of them, and the aims.

    How far the weights are mixed is chosen after the training.
    """
    constants = [
        (name, value)
        for module in (batches, objective)
        for name, value in sorted(vars(module).items())
        if name.isupper()
    ]
    texts, short = prepared.texts, prepared.short
    candidates = [found.passages for found in prepared.lists]
    parts = (replace(plan, mixing=0.0), constants, texts.queries, texts.passages, candidates)
    digest = hashlib.sha256(repr((*parts, short.examples, short.documents)).encode())
    digest.update(prepared.material.queries.pooled.tobytes())
    for vectors in prepared.material.teacher or ():
        digest.update(vectors.tobytes())
    return digest.hexdigest()


def _means(outcomes: list[Outcome]) -> dict[str, float]:
    return {n: round(float(np.mean([float(getattr(o, n)) for o in outcomes])), 4) for n in _FIGURES}


def train(folder: Path, data: Path, work: Path, plan: Plan) -> Trainer:
    """Trains a model folder's layers, and returns what there is at the end."""
    prepared = prepare(folder, data, work, plan)
    trainer = Trainer(new_student(folder, plan), prepared, plan, work / "train")
    trainer.run()
    return trainer
