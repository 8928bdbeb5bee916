"""Opens model packages: verifies, loads the graph, measures what batches cost."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from pathlib import Path

from pairwire.v1 import manifest_pb2

from ...clock import Clock
from ...errors import ConfigInvalid, PackageInvalid, PairwireError, StartupError
from ...package import Package, read_package
from ...reasons import is_of_the_machine, reason_of
from ..config import EngineConfig
from ..text.encoder import TextEncoder
from ..watchdog import Watchdog
from .cpu import open_on_cpu
from .manifest import rules_of
from .model import Model
from .query_table import open_query_table

logger = logging.getLogger(__name__)


def load_model(
    directory: Path | str, config: EngineConfig, timer: Clock | None = None, watchdog: Watchdog | None = None
) -> Model:
    """A package, verified, on the provider that the settings and the wheel of onnxruntime say, warm.

    Blocks for some seconds; run it off the event loop. On a CPU costs are measured in the thread's CPU time where a run
    has one thread, unless ``timer`` says otherwise: on a busy machine the wall clock makes long runs, which are
    interrupted more often, look dearer than they are. ``watchdog`` ends runs that hang.

    Raises:
        PackageInvalid: missing, damaged, or a graph that cannot be loaded or run.
        RuntimeMissing: neither or both onnxruntime wheels are installed, or no GPU can be used where one was asked for.
    """
    from ...runtime.wheels import check_wheels

    wheel = check_wheels()
    package = read_package(directory)
    variant = choose_variant(package, config, wheel)
    graph = package.graph_file(variant)
    try:
        encoder = TextEncoder.from_file(package.tokenizer_file, rules_of(package.manifest))
        if variant.provider == "cuda":
            from .cuda import open_on_gpu

            model = open_on_gpu(package.manifest, variant, graph, encoder, config)
        else:
            model = open_on_cpu(package.manifest, variant, graph, encoder, config, timer, watchdog)
        model = dataclasses.replace(model, query_table=open_query_table(package))
        _probe(model, watchdog)
    except PairwireError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever tokenizers and onnxruntime raise: types of their own, and Rust's panics
        if is_of_the_machine(error):
            raise StartupError(f"{graph}: {reason_of(error)}") from error
        raise PackageInvalid(
            f"{graph}: cannot be loaded and run ({reason_of(error)}); export the model again"
        ) from error
    logger.info("loaded model %r, variant %s, from %s", model.name, model.variant, directory)
    return model


def _probe(model: Model, watchdog: Watchdog | None) -> None:
    if watchdog is None:
        model.probe()
    else:
        interrupt = functools.partial(model.runtime.interrupt, threading.get_ident())
        watchdog.run(f"the first run of model {model.name!r}", model.probe, interrupt)


def choose_variant(package: Package, config: EngineConfig, wheel: str) -> manifest_pb2.Variant:
    """The variant that is asked for by name, or the best one for the provider.

    Raises:
        PackageInvalid: the package has none.
        ConfigInvalid: a variant of another provider is asked for than the provider.
    """
    if config.variant:
        variant = package.variant(config.variant)
        if config.provider not in ("auto", variant.provider):
            raise ConfigInvalid(f"variant: {variant.name} runs on {variant.provider}, provider says {config.provider}")
        return variant
    provider = config.provider
    if provider == "auto":
        has_cuda = any(variant.provider == "cuda" for variant in package.manifest.variants)
        provider = "cuda" if wheel == "onnxruntime-gpu" and has_cuda else "cpu"
        if wheel == "onnxruntime-gpu" and not has_cuda:
            logger.warning(
                "%s has no variant for a GPU and runs on the CPU; export it with --precision fp16", package.directory
            )
    return package.variant(provider=provider)
