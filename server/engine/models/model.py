"""A loaded model: text in, scores or vectors out, and all that the engine must know of it. Reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import InvalidInput
from ...runtime.base import Float32Array, Runtime
from ...runtime.packed import PackedRuntime, is_packed
from ..batching.buckets import Ladder
from ..batching.cost import Costs
from ..batching.planner import PackingPlanner
from ..kinds import InputType, ModelKind
from ..outputs.heads import Head
from ..results import ModelInfo
from ..text.encoder import EncodedRows, TextEncoder
from ..text.token_ids import check_texts

if TYPE_CHECKING:
    from pairwire.v1.manifest_pb2 import ModelManifest

    from .query_table import QueryTable


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Model:
    """What serves requests under one name."""

    name: str
    kind: ModelKind
    manifest: ModelManifest
    variant: str
    encoder: TextEncoder
    runtime: Runtime | PackedRuntime
    ladder: Ladder
    costs: Costs
    planner: PackingPlanner | None = None
    """What makes its batches, where its rows are not padded."""
    labels: tuple[str, ...] = ()
    """Cross-encoders: in the order of the logits."""
    head: Head = field(default_factory=Head)
    """Cross-encoders: what makes scores of logits, unless a request asks for another activation."""
    dimensions: int = 0
    """Bi-encoders and sparse encoders: length of a whole vector."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str = ""
    default_dimensions: int = 0
    """Bi-encoders: numbers of a vector that a request gets unless it asks for others; 0 means all."""
    max_active_dims: int = 0
    """Sparse encoders: most weights of a vector unless a request asks for another number; 0 means all."""
    query_table: QueryTable | None = None
    """Sparse encoders whose queries need no model."""
    default_input_type: InputType | None = None
    """What such a model takes texts for, unless a request says; None where a request must."""

    @property
    def outputs(self) -> int:
        """Numbers that the graph gives for a row."""
        return len(self.labels) if self.kind is ModelKind.CROSS_ENCODER else self.dimensions

    @property
    def graph_sha256(self) -> str:
        """What tells its graph from every other; the model's name where the manifest does not say."""
        return next((each.sha256 for each in self.manifest.variants if each.name == self.variant), "") or self.name

    def prompt(self, name: str | None, literal: str | None = None) -> str:
        """What is put before texts: ``literal``, else the prompt of that name, else the default one, which may be none.

        Raises:
            InvalidInput: no prompt has that name (the sentence lists those that there are), a literal comes
                together with a name, or is not Unicode text.
        """
        if literal is not None:
            if name is not None:
                raise InvalidInput("prompt", f"given together with the prompt_name {name!r}; give one of the two")
            check_texts([literal], "prompt")
            return literal
        name = self.default_prompt_name or None if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(repr(known) for known in sorted(self.prompts)) or "none at all"
            raise InvalidInput("prompt_name", f"{name!r} is unknown; model {self.name!r} has {known}")
        return self.prompts[name]

    def table_for(self, input_type: InputType | None) -> QueryTable | None:
        """What texts of that type are looked up in; None where the graph reads them.

        Raises:
            InvalidInput: nobody says which of its two ways the model should take.
        """
        if self.query_table is None:
            return None
        chosen = input_type or self.default_input_type
        if chosen is None:
            raise InvalidInput(
                "input_type", f"not set, and model {self.name!r} reads queries and documents in two ways; say which"
            )
        return self.query_table if chosen is InputType.QUERY else None

    def active_dims(self, wanted: int | None) -> int:
        """Most weights of a sparse vector: what is asked for, or what the checkpoint does; 0 means all.

        Raises:
            InvalidInput: less than 1.
        """
        if wanted is not None and wanted < 1:
            raise InvalidInput("max_active_dims", f"{wanted}; at least 1, or leave it out for what the model does")
        return self.max_active_dims if wanted is None else wanted

    def run(self, rows: Sequence[tuple[EncodedRows, int]], length: int) -> Float32Array:
        """[rows, outputs] float32 of rows padded to ``length``, or of rows one after the other.

        Raises:
            ValueError: the graph gave another shape than the manifest says.
            Whatever the runtime raises.
        """
        if is_packed(self.runtime):
            return self._checked(self.runtime.run_packed(self.encoder.pack(rows)), len(rows))
        return self._checked(self.runtime.run(self.encoder.assemble(rows, length)), len(rows))

    def probe(self) -> Float32Array:
        """[1, outputs] float32 of the smallest bucket; raises what ``run`` would."""
        return self._checked(self.runtime.run(self.encoder.blank(1, self.ladder.lengths[0])), 1)

    def info(self, workers: int) -> ModelInfo:
        """The description for people and for GetModel."""
        return ModelInfo(
            name=self.name,
            kind=self.kind,
            manifest=self.manifest,
            variant=self.variant,
            max_length=self.ladder.lengths[-1],
            bucket_lengths=self._buckets(),
            runtime=self.runtime.info,
            workers=workers,
        )

    def _buckets(self) -> tuple[int, ...]:
        """What batches are padded to: lengths of rows, or tokens of whole batches where rows are not padded."""
        return self.runtime.shapes.tokens if is_packed(self.runtime) else self.ladder.lengths

    def _checked(self, values: Float32Array, rows: int) -> Float32Array:
        expected = (rows, self.outputs)
        if values.shape != expected:
            raise ValueError(f"the graph of {self.name!r} gave {values.shape}, expected {expected}")
        return values


def on_gpu(models: Iterable[Model]) -> bool:
    """Whether all of them run on a GPU."""
    return all(is_packed(model.runtime) for model in models)
