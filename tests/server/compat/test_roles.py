"""A call that names no model is answered by the one that fits, or by the one that the operator chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pairwire.server.compat.roles import Role, Roles
from pairwire.server.config import RolesConfig
from pairwire.server.engine import Engine
from pairwire.server.errors import ConfigInvalid, InvalidInput, ModelNotFound, WrongModelKind
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import manifest_pb2
from tests.server import serving
from tests.server.engine import toys


def scorer(name: str, labels: Sequence[str] = ("LABEL_0",)) -> manifest_pb2.ModelManifest:
    return toys.cross_encoder_manifest(name, labels=labels)


def embedder(name: str) -> manifest_pb2.ModelManifest:
    return toys.bi_encoder_manifest(name)


def engine(*manifests: manifest_pb2.ModelManifest) -> Engine:
    return Engine(
        [toys.toy_model(FakeRuntime(outputs=len(each.labels) or each.dimensions), each) for each in manifests]
    )


async def test_the_only_model_that_can_do_it_answers() -> None:
    async with engine(embedder("mini"), scorer("demo"), scorer("nli", ("no", "yes"))) as served:
        roles = Roles(lambda: served, RolesConfig())
        roles.check()
        assert {role: roles.name(role) for role in Role if role is not Role.SPARSE} == {
            Role.EMBED: "mini",
            Role.RERANK: "demo",
            Role.PREDICT: "nli",
            Role.INFO: "mini",
        }
        with pytest.raises(
            WrongModelKind, match=r"no loaded model does this \(sparse\); there is 'mini' \(bi-encoder\)"
        ):
            roles.find(Role.SPARSE)


async def test_one_cross_encoder_ranks_and_predicts() -> None:
    async with engine(scorer("demo")) as served:
        roles = Roles(lambda: served, RolesConfig())
        assert roles.name(Role.PREDICT) == roles.name(Role.RERANK) == roles.name(Role.INFO) == "demo"


async def test_of_several_the_operator_chooses_and_a_call_may_name_another() -> None:
    async with engine(scorer("a"), scorer("b"), embedder("c")) as served:
        with pytest.raises(InvalidInput, match=r"'a', 'b' could answer; name one of them, or .*--default-rerank-model"):
            Roles(lambda: served, RolesConfig()).find(Role.RERANK)
        roles = Roles(lambda: served, RolesConfig(default_rerank_model="b", default_info_model="c"))
        assert roles.name(Role.RERANK) == "b"
        assert roles.name(Role.RERANK, "a") == "a"
        assert roles.name(Role.INFO) == "c"
        with pytest.raises(ModelNotFound):
            roles.find(Role.RERANK, "other")
        with pytest.raises(WrongModelKind):
            roles.find(Role.RERANK, "c")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (RolesConfig(default_rerank_model="gone"), "^default_rerank_model: no model 'gone' is loaded"),
        (RolesConfig(default_embed_model="demo"), "^default_embed_model: model 'demo' is a cross-encoder"),
        (RolesConfig(default_rerank_model="nli"), "^default_rerank_model: model 'nli' has several labels"),
    ],
)
async def test_a_choice_that_cannot_work_keeps_the_server_from_starting(config: RolesConfig, sentence: str) -> None:
    async with engine(scorer("demo"), scorer("nli", ("no", "yes"))) as served:
        with pytest.raises(ConfigInvalid, match=sentence):
            Roles(lambda: served, config).check()


async def test_the_server_looks_at_the_choice_when_it_starts(scorer_package: Path) -> None:
    from dataclasses import replace

    settings = replace(serving.config(scorer_package), roles=RolesConfig(default_rerank_model="gone"))
    with pytest.raises(ConfigInvalid, match="default_rerank_model"):
        async with serving.serve(settings=settings):
            raise AssertionError("it serves")
