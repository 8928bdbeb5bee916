"""`pairwire inspect`: what a model package holds, and whether it is whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, tune

if TYPE_CHECKING:
    from pairwire.server.package import Package
    from pairwire.v1.manifest_pb2 import ModelManifest, QueryTable, Variant


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(
        subparsers, "inspect", "show what a model package holds", " Every file is checked against its sha256."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="a directory that `pairwire export` wrote")
    arguments.add_json(parser, "print one object: directory, manifest, problems")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads, verifies and prints; fails where a graph is damaged or missing."""
    from google.protobuf import json_format

    from pairwire.server.package import read_package

    from . import output

    package = read_package(args.directory)
    problems = _problems(package)
    if args.json:
        manifest = json_format.MessageToDict(package.manifest)
        print(output.json_line({"directory": str(args.directory), "manifest": manifest, "problems": problems}))
    else:
        print(_report(package))
        for problem in problems:
            print(f"\nproblem: {problem}")
    return 1 if problems else 0


def _problems(package: Package) -> list[str]:
    from pairwire.server.errors import PackageInvalid

    problems = []
    table = package.manifest.query_table
    for name, sha256 in ((table.file, table.sha256), (table.tokenizer_file, table.tokenizer_sha256)):
        try:
            if package.manifest.HasField("query_table"):
                package.file(name, sha256)
        except PackageInvalid as error:
            problems.append(str(error))
    for variant in package.manifest.variants:
        try:
            package.graph_file(variant)
        except PackageInvalid as error:
            problems.append(str(error))
    return problems


def _report(package: Package) -> str:
    from . import output

    manifest = package.manifest
    facts = [*_origin(manifest), *_reading(manifest)]
    width = max(len(name) for name, _ in facts)
    lines = [f"{manifest.name}: {_kind(manifest)}, {manifest.architecture or 'unknown architecture'}", ""]
    lines += [f"  {name.ljust(width)}  {value}" for name, value in facts]
    head = ("variant", "provider", "precision", "size", "max diff", "mean diff", "spearman", "batch", "parity")
    rows = [_variant_row(variant) for variant in manifest.variants]
    lines += ["", output.table(head, rows, right=[3, 4, 5, 6, 7])]
    for variant in manifest.variants:
        lines += ["", f"{variant.name} ({variant.file})", *_variant_facts(variant)]
    return "\n".join(lines)


def _kind(manifest: ModelManifest) -> str:
    from pairwire.v1 import manifest_pb2

    return manifest_pb2.ModelKind.Name(manifest.kind).removeprefix("MODEL_KIND_").lower().replace("_", "-")


def _origin(manifest: ModelManifest) -> list[tuple[str, str]]:
    revision = f" at {manifest.revision}" if manifest.revision else ""
    tools = ", ".join(f"{name} {version}" for name, version in sorted(manifest.tool_versions.items()))
    facts = [("source", f"{manifest.source or 'unknown'}{revision}"), ("exported", manifest.created or "unknown")]
    if tools:
        facts.append(("with", tools))
    if manifest.HasField("remote_code"):
        code = manifest.remote_code
        facts.append(("ran its code", f"{', '.join(code.files)}, sha256 {code.sha256}"))
    return facts


def _reading(manifest: ModelManifest) -> list[tuple[str, str]]:
    from pairwire.v1 import manifest_pb2, scoring_pb2

    side = "left" if manifest.truncation_side == manifest_pb2.TRUNCATION_SIDE_LEFT else "right"
    facts = [("reads", f"{manifest.max_length} tokens, longer inputs are cut at the {side}")]
    if manifest.vocab_size:
        facts.append(("vocabulary", f"{manifest.vocab_size} tokens"))
    if manifest.kind == manifest_pb2.MODEL_KIND_CROSS_ENCODER:
        activation = scoring_pb2.Activation.Name(manifest.activation).removeprefix("ACTIVATION_").lower()
        facts += [("labels", ", ".join(manifest.labels)), ("activation", activation)]
        facts += _scale(manifest)
        facts += [("template", _template(manifest))] if manifest.HasField("template") else []
    elif manifest.kind == manifest_pb2.MODEL_KIND_SPARSE_ENCODER:
        facts += _sparse_vectors(manifest)
    else:
        facts += _vectors(manifest)
    return [*facts, *_prompts(manifest)]


def _scale(manifest: ModelManifest) -> list[tuple[str, str]]:
    if not (manifest.HasField("score_scale") or manifest.score_bias):
        return []
    scale = manifest.score_scale if manifest.HasField("score_scale") else 1.0
    bias = f" {'-' if manifest.score_bias < 0 else '+'} {abs(manifest.score_bias):g}" if manifest.score_bias else ""
    return [("score", f"{_scaled(scale)} logit{bias}, before the activation")]


def _scaled(scale: float) -> str:
    """A float32 as a person wrote it."""
    return f"{scale:.6g} x"


def _vectors(manifest: ModelManifest) -> list[tuple[str, str]]:
    unit = ", unit length" if manifest.normalized else ""
    pooling = "+".join(manifest.pooling) or "unknown"
    facts = [("vectors", f"{manifest.dimensions} dimensions, {pooling} pooling{unit}")]
    if manifest.default_dimensions:
        facts.append(("by default", f"the first {manifest.default_dimensions} dimensions"))
    facts.append(("int8", "ranges of each dimension" if manifest.int8_low else "no ranges: not to be had as int8"))
    return [*facts, ("similarity", manifest.similarity)] if manifest.similarity else facts


def _sparse_vectors(manifest: ModelManifest) -> list[tuple[str, str]]:
    from pairwire.v1 import embedding_pb2

    most = f"at most {manifest.max_active_dims}" if manifest.max_active_dims else "all"
    facts = [("vectors", f"{manifest.dimensions} dimensions, sparse, {most} weights above 0 kept")]
    if manifest.HasField("query_table"):
        table = manifest.query_table
        facts.append(("queries", f"by a table, at most {table.max_length} tokens; {_compared(table)}"))
        default = embedding_pb2.InputType.Name(manifest.default_input_type).removeprefix("INPUT_TYPE_").lower()
        facts.append(("a text is", "what a request says" if default == "unspecified" else f"a {default} by default"))
    return [*facts, ("similarity", manifest.similarity)] if manifest.similarity else facts


def _compared(table: QueryTable) -> str:
    return f"max diff {table.max_abs_diff:.2g} on {table.samples}" if table.samples else "not checked"


def _template(manifest: ModelManifest) -> str:
    """Its parts as one line of text, with names in braces where texts go."""
    from pairwire.v1 import manifest_pb2

    slots = {
        manifest_pb2.TEMPLATE_SLOT_PROMPT: "{prompt}",
        manifest_pb2.TEMPLATE_SLOT_FIRST: "{first}",
        manifest_pb2.TEMPLATE_SLOT_SECOND: "{second}",
    }
    parts = [
        part.literal if part.HasField("literal") else slots.get(part.slot, "{?}") for part in manifest.template.parts
    ]
    default = manifest.template.default_prompt
    return f"{''.join(parts)!r}{f', prompt {default!r} by default' if default else ''}"


def _prompts(manifest: ModelManifest) -> list[tuple[str, str]]:
    facts = []
    for name, prompt in sorted(manifest.prompts.items()):
        default = " (default)" if name == manifest.default_prompt_name else ""
        facts.append((f"prompt {name}", f"{prompt!r}{default}"))
    if manifest.prompt_excluded:
        facts.append(("prompts", "are read, but left out of pooling"))
    return facts


def _variant_row(variant: Variant) -> tuple[str, ...]:
    from . import output

    size = output.size(variant.size_bytes + variant.data_size_bytes)
    head = (variant.name, variant.provider, variant.precision, size)
    if not variant.HasField("parity"):
        return (*head, "", "", "", "", "not checked")
    parity = variant.parity
    return (
        *head,
        f"{parity.max_abs_diff:.2g}",
        f"{parity.mean_abs_diff:.2g}",
        f"{parity.spearman:.4f}",
        f"{parity.batch_variance:.2g}",
        f"{'passed' if parity.passed else 'FAILED'} on {parity.samples}",
    )


def _variant_facts(variant: Variant) -> list[str]:
    lines = []
    for found in variant.passes:
        reason = f" ({found.reason})" if found.reason else ""
        lines.append(f"  pass {found.name}: {found.rewritten} rewritten{reason}")
    if variant.HasField("calibration"):
        calibration = variant.calibration
        lines.append(f"  calibration {calibration.method}: {calibration.samples} inputs, {calibration.data}")
    if variant.disabled_optimizers:
        lines.append(f"  loaded without the optimizers {', '.join(variant.disabled_optimizers)}")
    if variant.batch_tokens:
        lines.append(f"  batches of at most {variant.batch_tokens} tokens")
    if variant.tunings:
        lines += ["", *tune.tables(variant).splitlines()]
    return lines or ["  no rewrites"]
