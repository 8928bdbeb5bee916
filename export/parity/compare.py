"""Does the exported graph score like the checkpoint? Every variant against sentence-transformers.

The texts go the way of a request: `server.engine.text.encoder` tokenises and assembles, `server.runtime` runs the
graph, `server.engine.outputs.heads` turns logits into scores. What is compared is what a caller would get: scores after
the activation, or vectors.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from pairwire.export.figures import MAX_DIFF_LIMITS, Difference, Section, VariantParity
from pairwire.server.cpus import usable_cpus
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.heads import Activation
from pairwire.server.engine.text.encoder import EncodedRows, TextEncoder
from pairwire.server.errors import InvalidInput
from pairwire.server.runtime.base import Float32Array, Runtime
from pairwire.server.runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime
from pairwire.v1 import manifest_pb2

from ..checkpoint.checkpoint import Checkpoint, encode
from ..config import Limits, Precision
from ..errors import CheckpointUnsupported
from ..progress import Advance, part_of, silent
from ..texts import BUILT_IN, LONGEST_COMPARED, Input, Texts
from ..variant import MadeVariant
from .without_gpu import checking_runtime

MATES = 32
"""Rows of the batch in which an input meets strangers."""
_NEXT_BUCKET = 16
_REFERENCE_BATCH = 8
"""Rows of a batch of the reference. It sorts by length; small batches keep long texts from padding short ones."""
_ALONE_FROM = 256
"""Tokens above which a row of the reference runs by itself."""
_ANY_PROMPT = "query: "
_ALONE = 0.6
"""Share of the time that running every input by itself takes."""
_SEED = 0
"""Draws the batch-mates; fixed, so that a report can be made again."""


class Reference:
    """The checkpoint's own results for the parity texts, computed once and shared by the variants.

    Raises:
        CheckpointUnsupported: the serving code does not tokenise exactly like the checkpoint's tokenizer, or the
            checkpoint's own results are not numbers.
    """

    def __init__(self, checkpoint: Checkpoint, texts: Sequence[Texts], advance: Advance = silent) -> None:
        self.checkpoint = checkpoint
        self.encoder = checkpoint.text_encoder()
        self.texts = [readable(part, self.encoder, checkpoint) for part in texts]
        self.inputs: list[Input] = [item for part in self.texts for item in part.inputs]
        self.rows = encode(self.encoder, self.inputs, checkpoint)
        check_tokenisation(checkpoint, self.encoder, self.rows, self.inputs)
        self._leave_out_longest()
        with _watched(checkpoint.reference, int(self.rows.lengths.sum()), advance):
            self.results = self._scored()
        check_finite(self.results)

    def _leave_out_longest(self) -> None:
        """Built-in texts of more than ``LONGEST_COMPARED`` tokens are checked for their tokens, and no model runs them.

        What a person gave is run as it is.
        """
        lengths = iter(self.rows.lengths)
        self.texts = [
            Texts(
                [item for item in part.inputs if next(lengths) <= LONGEST_COMPARED or part.origin != BUILT_IN],
                part.origin,
            )
            for part in self.texts
        ]
        self.inputs = [item for part in self.texts for item in part.inputs]
        self.rows = encode(self.encoder, self.inputs, self.checkpoint)

    def _scored(self) -> npt.NDArray[np.float64]:
        """[inputs, columns]; the longest rows by themselves, else they would pad the rest of their batch."""
        long = self.rows.lengths > _ALONE_FROM
        results: dict[int, npt.NDArray[np.float64]] = {}
        for chosen, rows in ((np.flatnonzero(long), 1), (np.flatnonzero(~long), _REFERENCE_BATCH)):
            if len(chosen):
                inputs = [self.inputs[at] for at in chosen]
                results |= zip(chosen.tolist(), _reference_results(self.checkpoint, inputs, rows), strict=True)
        return np.stack([results[at] for at in range(len(self.inputs))])


@contextlib.contextmanager
def _watched(model: Any, tokens: int, advance: Advance) -> Iterator[None]:
    """Tells how much of this many tokens the model's transformer has run, padding included; it changes nothing."""
    done = 0

    def count(_module: object, inputs: tuple[Any, ...], _outputs: object) -> None:
        nonlocal done
        done += int(inputs[0]["input_ids"].numel()) if inputs and "input_ids" in inputs[0] else 0
        advance(min(1.0, done / max(1, tokens)))

    hook = model[0].register_forward_hook(count)
    try:
        yield
    finally:
        hook.remove()


def check_finite(results: npt.NDArray[np.floating]) -> None:
    """Raises where a result of the checkpoint itself is not a number: nothing can be compared with it.

    Raises:
        CheckpointUnsupported: says how many are not.
    """
    broken = int((~np.isfinite(results)).any(axis=1).sum())
    if broken:
        raise CheckpointUnsupported(
            f"sentence-transformers itself gives nan or infinity for {broken} of {len(results)} texts; the checkpoint's"
            " weights are damaged, or its training diverged"
        )


def readable(texts: Texts, encoder: TextEncoder, checkpoint: Checkpoint) -> Texts:
    """Without inputs of no token at all: where no special token stands around them, the library cannot read them."""
    return Texts([item for item in texts.inputs if _has_tokens(item, encoder, checkpoint)], texts.origin)


def _has_tokens(item: Input, encoder: TextEncoder, checkpoint: Checkpoint) -> bool:
    try:
        encode(encoder, [item], checkpoint)
    except InvalidInput:
        return False
    return True


def check_tokenisation(
    checkpoint: Checkpoint, encoder: TextEncoder, rows: EncodedRows, inputs: Sequence[Input]
) -> None:
    """Compares ids and token types of every row with the transformers tokenizer's.

    Raises:
        CheckpointUnsupported: they differ for an input; the sentence says for which.
    """
    tokenizer = checkpoint.reference.tokenizer
    _check_prompt_lengths(checkpoint, encoder)
    if checkpoint.static:
        expected = _looked_up(checkpoint, inputs)
    elif checkpoint.kind is ModelKind.CROSS_ENCODER:
        expected = _read_pairs(checkpoint, inputs)
    else:
        expected = tokenizer(
            [checkpoint.default_prompt + item[0] for item in inputs],
            truncation="longest_first",
            max_length=checkpoint.rules.max_length,
        )
        expected.setdefault("token_type_ids", [None] * len(inputs))
    for index in range(len(inputs)):
        batch = encoder.assemble([(rows, index)], int(rows.lengths[index]))
        ids, types = batch.input_ids[0].tolist(), batch.token_type_ids[0].tolist()
        wanted = expected["input_ids"][index] or []
        if ids == wanted and _same_types(checkpoint, types, expected["token_type_ids"][index]):
            continue
        how = "other token types" if ids == wanted else f"{len(ids)} and {len(wanted)} tokens"
        raise CheckpointUnsupported(
            f"{type(tokenizer).__name__}: parity text {index} is tokenised differently by the serving code ({how}); its"
            " rules cannot be kept exactly"
        )


def _looked_up(checkpoint: Checkpoint, inputs: Sequence[Input]) -> dict[str, list[Any]]:
    """The rows of a table that sentence-transformers takes the mean of; that of zeros where it takes none."""
    from ..checkpoint import static_embeddings

    nothing = [checkpoint.rules.empty_token_id]
    found = static_embeddings.token_ids(checkpoint.reference, [checkpoint.default_prompt + item[0] for item in inputs])
    return {"input_ids": [ids or nothing for ids in found], "token_type_ids": [None] * len(inputs)}


def _same_types(checkpoint: Checkpoint, types: list[int], expected: list[int] | None) -> bool:
    """Where the reference is given no token types, a model that has some takes them all for 0."""
    if expected is not None:
        return types == expected
    if checkpoint.static:
        return True
    parameters = inspect.signature(checkpoint.reference[0].model.forward).parameters
    return not any(types) or "token_type_ids" not in parameters


def _check_prompt_lengths(checkpoint: Checkpoint, encoder: TextEncoder) -> None:
    """Where pooling leaves the prompt out: that the server counts its tokens as sentence-transformers does.

    Raises:
        CheckpointUnsupported: it does not; the sentence says for which prompt.
    """
    if not checkpoint.rules.prompt_excluded:
        return
    for prompt in dict.fromkeys([_ANY_PROMPT, *filter(None, checkpoint.prompts.values())]):
        expected = int(checkpoint.reference.preprocess([_ANY_PROMPT], prompt=prompt)["prompt_length"])
        counted = encoder.encode_texts([_ANY_PROMPT], prompt=prompt).rows[0][2]
        if counted != expected:
            raise CheckpointUnsupported(
                f"the prompt {prompt!r} has {expected} tokens that pooling leaves out, and {counted} in the serving"
                " code, which takes other tokens for special ones; its rules cannot be kept exactly"
            )


def _read_pairs(checkpoint: Checkpoint, inputs: Sequence[Input]) -> dict[str, list[Any]]:
    """What sentence-transformers feeds its model for each pair, prompts, template and truncation included.

    Token types are None where the model is given none.
    """
    prompt = checkpoint.default_prompt or None
    features = [checkpoint.reference.preprocess([list(item)], prompt=prompt) for item in inputs]
    return {
        name: [each[name][0].tolist() if name in each else None for each in features]
        for name in ("input_ids", "token_type_ids")
    }


def compare(
    reference: Reference, variant: MadeVariant, limits: Limits | None = None, advance: Advance = silent
) -> VariantParity:
    """Runs the variant's graph over the reference's texts."""
    limits, precision = limits or Limits(), variant.precision
    with _runtime(variant, reference.checkpoint) as runtime:
        runner = _Runner(runtime, reference, advance)
        results = runner.each_alone()
        among, padded = runner.variance(results, variant.unpadded_from)
    differences = np.abs(results - reference.results).max(axis=1)
    overall = _section("all", results, reference.results, reference.checkpoint.kind)
    limit = MAX_DIFF_LIMITS.get(precision, 0.0) * max(1.0, float(np.abs(reference.results).max()))
    if precision not in MAX_DIFF_LIMITS and limits.max_diff is not None:
        limit = limits.max_diff
    spearman_limit = 0.0 if precision is Precision.FP32 else limits.spearman
    summary = manifest_pb2.ParitySummary(
        samples=overall.samples,
        max_abs_diff=overall.max_abs_diff,
        mean_abs_diff=overall.mean_abs_diff,
        spearman=overall.spearman,
        batch_variance=max(among, padded),
        max_abs_diff_limit=limit,
        spearman_limit=spearman_limit,
    )
    # Written so that a NaN on either side fails.
    finite = np.isfinite(results).all() and np.isfinite(reference.results).all()
    within = (not limit or overall.max_abs_diff <= limit) and (not spearman_limit or overall.spearman >= spearman_limit)
    summary.passed = bool(within and finite)
    return VariantParity(
        variant=variant.name,
        precision=precision,
        summary=summary,
        sections=_sections(results, reference),
        variance_among_mates=among,
        variance_padded=padded,
        worst=_worst(differences, reference),
    )


def _runtime(variant: MadeVariant, checkpoint: Checkpoint) -> contextlib.AbstractContextManager[Runtime]:
    """What runs the variant here; that of a GPU runs on the CPU."""
    if variant.precision is Precision.FP16:
        return checking_runtime(variant.file, checkpoint)
    options = CpuOptions(disabled_optimizers=variant.disabled_optimizers)
    return contextlib.closing(OnnxCpuRuntime(variant.file, options))


class _Runner:
    """Runs rows of the reference through a graph and its head."""

    def __init__(self, runtime: Runtime, reference: Reference, advance: Advance) -> None:
        self._advance = advance
        self._runtime = runtime
        self._reference = reference

    def run(self, indices: Sequence[int], *, extra: int = 0) -> Float32Array:
        """Results [len(indices), columns] of one batch, padded to its longest row and ``extra`` tokens more."""
        reference = self._reference
        length = int(reference.rows.lengths[list(indices)].max()) + extra
        batch = reference.encoder.assemble([(reference.rows, index) for index in indices], length)
        output = self._runtime.run(batch)
        if reference.checkpoint.kind is ModelKind.CROSS_ENCODER:
            return reference.checkpoint.head.scores(output)
        return output

    def each_alone(self) -> Float32Array:
        """Results [inputs, columns] of every row by itself."""
        every = [([index], 0) for index in range(len(self._reference.inputs))]
        return np.concatenate(self._each(every, part_of(self._advance, 0, _ALONE)))

    def variance(self, alone: Float32Array, unpadded_from: int) -> tuple[float, float]:
        """Largest change of a result among ``MATES`` rows of mixed lengths, and padded to the next bucket.

        Rows that would be padded to ``unpadded_from`` tokens or more are left out: the server pads none of those.
        """
        lengths, limit = self._reference.rows.lengths, self._reference.checkpoint.rules.max_length
        longest = unpadded_from - 2 * _NEXT_BUCKET if unpadded_from else limit
        candidates = np.flatnonzero(lengths <= longest)
        rows = np.random.default_rng(_SEED).permutation(candidates)[:MATES]
        extras = np.minimum(2 * _NEXT_BUCKET - lengths[rows] % _NEXT_BUCKET, limit - lengths[rows])
        batches = [(rows.tolist(), 0), *(([int(row)], int(extra)) for row, extra in zip(rows, extras, strict=True))]
        together, *padded = self._each(batches, part_of(self._advance, _ALONE, 1))
        among = np.abs(together - alone[rows]).max()
        off = [np.abs(result - alone[row]).max() for result, row in zip(padded, rows, strict=True)]
        return float(among), float(max(off, default=0.0))

    def _each(self, batches: Sequence[tuple[list[int], int]], advance: Advance) -> list[Float32Array]:
        """What `run` makes of each batch of rows and extra tokens."""
        results: list[Float32Array] = []
        # A run takes one thread; as in the server, several of them share the session. That of a GPU is one thread's.
        with ThreadPoolExecutor(usable_cpus() if isinstance(self._runtime, OnnxCpuRuntime) else 1) as pool:
            for result in pool.map(lambda batch: self.run(batch[0], extra=batch[1]), batches):
                results.append(result)
                advance(len(results) / len(batches))
        return results


def _reference_results(checkpoint: Checkpoint, inputs: Sequence[Input], rows: int) -> npt.NDArray[np.float64]:
    """[inputs, columns], computed in batches of this many rows."""
    model = checkpoint.reference
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        # The library warns about Softmax without an axis; for [rows, labels] torch takes the labels' one.
        results = model.predict(
            [list(item) for item in inputs],
            activation_fn=_activation_of(checkpoint),
            batch_size=rows,
            show_progress_bar=False,
        )
    else:
        texts = [item[0] for item in inputs]
        whole = whole_vectors(checkpoint)
        results = model.encode(texts, batch_size=rows, show_progress_bar=False, **whole)
    return np.asarray(results, dtype=np.float64).reshape(len(inputs), -1)


def whole_vectors(checkpoint: Checkpoint) -> dict[str, Any]:
    """Options of ``encode``: all numbers are compared, also those that the checkpoint would cut off."""
    if checkpoint.kind is ModelKind.SPARSE_ENCODER:
        return {"max_active_dims": checkpoint.dimensions, "convert_to_sparse_tensor": False}
    return {"truncate_dim": checkpoint.dimensions}


def _activation_of(checkpoint: Checkpoint) -> Any:
    """None for what the library has resolved itself; Sigmoid where that gives the bare logits of a multi-label head.

    What a person asks for comes before either.
    """
    import torch

    modules = {
        Activation.IDENTITY: torch.nn.Identity(),
        Activation.SIGMOID: torch.nn.Sigmoid(),
        Activation.SOFTMAX: torch.nn.Softmax(dim=-1),
    }
    asked = checkpoint.asked
    if asked.anything:
        activation = modules[asked.activation or checkpoint.activation]
        return lambda logits: activation(asked.scale * logits + asked.bias)
    bare = isinstance(checkpoint.reference.activation_fn, torch.nn.Identity)
    return modules[Activation.SIGMOID] if bare and checkpoint.activation is Activation.SIGMOID else None


def _sections(results: Float32Array, reference: Reference) -> list[Section]:
    sections, start = [], 0
    for part in reference.texts:
        end = start + len(part.inputs)
        expected = reference.results[start:end]
        sections.append(_section(part.origin, results[start:end], expected, reference.checkpoint.kind))
        start = end
    return sections


def _section(origin: str, results: Float32Array, expected: npt.NDArray[np.float64], kind: ModelKind) -> Section:
    differences = np.abs(results.astype(np.float64) - expected)
    if kind is ModelKind.CROSS_ENCODER:
        correlation = _spearman(results, expected)
    else:
        similarities = _cosines if kind is ModelKind.BI_ENCODER else _dot_products
        correlation = _spearman(similarities(results)[:, None], similarities(expected)[:, None])
    return Section(
        origin=origin,
        samples=len(results),
        max_abs_diff=float(differences.max()),
        mean_abs_diff=float(differences.mean()),
        spearman=correlation,
    )


def _spearman(results: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    """Mean of the columns' rank correlations. A column that is constant in the reference has no order to keep.

    NaN where either side is not finite: there is no rank of what is no number.
    """
    if not (np.isfinite(results).all() and np.isfinite(expected).all()):
        return float("nan")
    columns = [column for column in range(expected.shape[1]) if np.ptp(expected[:, column]) > 0]
    values = [
        0.0 if np.ptp(results[:, column]) == 0 else float(spearmanr(results[:, column], expected[:, column]).statistic)
        for column in columns
    ]
    return float(np.mean(values)) if values else 1.0


def _cosines(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Cosine of every two rows, each two once."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.maximum(norms, 1e-12)).astype(np.float64)
    return np.asarray((unit @ unit.T)[np.triu_indices(len(unit), k=1)])


def _dot_products(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Of every two rows, each two once: how sparse vectors are compared."""
    vectors = vectors.astype(np.float64)
    return np.asarray((vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)])


def _worst(differences: npt.NDArray[np.float64], reference: Reference, count: int = 5) -> list[Difference]:
    origins = [(part.origin, index) for part in reference.texts for index in range(len(part.inputs))]
    return [
        Difference(origins[at][0], origins[at][1], int(reference.rows.lengths[at]), float(differences[at]))
        for at in np.argsort(-differences)[:count]
    ]
