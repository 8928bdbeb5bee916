from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.consent import check_consent, find_references
from pairwire.export.checkpoint.loading import load_reference
from pairwire.export.errors import CheckpointUnsupported, ConsentMissing
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from tests import checkpoints, embedders

POOLING = "sentence_transformers.sentence_transformer.modules.Pooling"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every kind that asks for nothing."""
    directory = tmp_path_factory.mktemp("plain")
    return {
        "bi": checkpoints.save_bi_encoder(directory / "bi", dense=8),
        "sparse": embedders.save_sparse_encoder(directory / "sparse"),
        "cross": checkpoints.save_cross_encoder(directory / "cross"),
        "modular": checkpoints.save_modular_cross_encoder(directory / "modular"),
        "decoder": checkpoints.save_decoder_reranker(directory / "decoder"),
    }


class Workshop:
    """Copies of the plain checkpoints, and Python files that leave a mark when they are run."""

    def __init__(self, plain: dict[str, Path], directory: Path) -> None:
        self.directory = directory
        self.mark = directory / "MARK"
        self._plain = plain

    def copy(self, kind: str, name: str | None = None) -> Path:
        return Path(shutil.copytree(self._plain[kind], self.directory / (name or f"given-{kind}")))

    def write(self, file: Path, base: str, name: str) -> None:
        """A module with a class that is its base and nothing else."""
        module, _, parent = base.rpartition(".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"open({str(self.mark)!r}, 'a').write(__name__)\nfrom {module} import {parent}\n"
            f"class {name}({parent}):\n    pass\n"
        )


@pytest.fixture
def workshop(plain: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    import transformers.dynamic_module_utils

    # Where transformers copies what it runs: not at home.
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "nothing"))  # so that what transformers appends is taken away again
    return Workshop(plain, tmp_path)


def edit_modules(directory: Path, index: int, **changes: object) -> None:
    modules = json.loads((directory / "modules.json").read_text())
    modules[index] |= changes
    (directory / "modules.json").write_text(json.dumps(modules))


def module_of_bi_encoder(workshop: Workshop) -> Path:
    directory = workshop.copy("bi")
    edit_modules(directory, 1, type="mark_pooling.MyPooling")
    workshop.write(directory / "mark_pooling.py", POOLING, "MyPooling")
    return directory


def first_module(workshop: Workshop) -> Path:
    directory = workshop.copy("bi")
    edit_modules(directory, 0, type="mark_first.MyTransformer")
    workshop.write(
        directory / "mark_first.py", "sentence_transformers.base.modules.transformer.Transformer", "MyTransformer"
    )
    return directory


def module_of_sparse_encoder(workshop: Workshop) -> Path:
    directory = workshop.copy("sparse")
    edit_modules(directory, 1, type="mark_splade.MySplade")
    workshop.write(
        directory / "mark_splade.py", "sentence_transformers.sparse_encoder.modules.SpladePooling", "MySplade"
    )
    return directory


def module_of_cross_encoder(workshop: Workshop) -> Path:
    directory = workshop.copy("modular")
    edit_modules(directory, -1, type="mark_dense.MyDense")
    workshop.write(directory / "mark_dense.py", "sentence_transformers.base.modules.Dense", "MyDense")
    return directory


def auto_map(workshop: Workshop, kind: str, automatic: str, base: str) -> Path:
    directory = workshop.copy(kind)
    file = f"mark_model_{kind}"
    workshop.write(directory / f"{file}.py", base, "Mine")
    checkpoints.edit_json(directory / "config.json", auto_map={automatic: f"{file}.Mine"})
    return directory


def model_of_cross_encoder(workshop: Workshop) -> Path:
    automatic = "AutoModelForSequenceClassification"
    return auto_map(workshop, "cross", automatic, "transformers.BertForSequenceClassification")


def model_of_decoder(workshop: Workshop) -> Path:
    return auto_map(workshop, "decoder", "AutoModelForCausalLM", "transformers.Qwen3ForCausalLM")


def generation_of_decoder(workshop: Workshop) -> Path:
    directory = workshop.copy("decoder")
    file = directory / "custom_generate" / "generate.py"
    file.parent.mkdir()
    file.write_text(f"open({str(workshop.mark)!r}, 'a').write(__name__)\ndef generate(model): ...\n")
    return directory


def tokenizer_of_cross_encoder(workshop: Workshop) -> Path:
    directory = workshop.copy("cross")
    workshop.write(directory / "mark_tokenizer.py", "transformers.BertTokenizerFast", "Mine")
    mapped = {"AutoTokenizer": [None, "mark_tokenizer.Mine"]}
    checkpoints.edit_json(directory / "tokenizer_config.json", auto_map=mapped)
    return directory


def activation_of_dense(workshop: Workshop) -> Path:
    directory = workshop.copy("bi")
    (directory.parent / "beside").mkdir()
    workshop.write(directory.parent / "beside" / "mark_activation.py", "torch.nn.Tanh", "Mine")
    checkpoints.edit_json(directory / "2_Dense" / "config.json", activation_function="mark_activation.Mine")
    return directory


RUN = {
    "a module of a bi-encoder": (module_of_bi_encoder, "modules.json: type names mark_pooling.MyPooling"),
    "the first module": (first_module, r"modules.json: type names mark_first.MyTransformer \(mark_first.py next to it"),
    "a module of a sparse encoder": (module_of_sparse_encoder, "modules.json: type names mark_splade.MySplade"),
    "a module of a cross-encoder": (module_of_cross_encoder, "modules.json: type names mark_dense.MyDense"),
    "a cross-encoder's model": (
        model_of_cross_encoder,
        "config.json: auto_map names mark_model_cross.Mine",
    ),
    "a decoder's model": (model_of_decoder, "config.json: auto_map names mark_model_decoder.Mine"),
    "a decoder's generation": (generation_of_decoder, r"custom_generate/generate.py is run by transformers"),
    "a tokenizer": (tokenizer_of_cross_encoder, "tokenizer_config.json: auto_map names mark_tokenizer.Mine"),
    "an activation": (activation_of_dense, "2_Dense/config.json: activation_function names mark_activation.Mine"),
}
KINDS = {"bi": ModelKind.BI_ENCODER, "sparse": ModelKind.SPARSE_ENCODER}


def refused(workshop: Workshop, checkpoint: str | Path, reason: str) -> str:
    """The sentence; nothing has been run and nothing made."""
    output = workshop.directory / "package"
    config = ExportConfig(checkpoint=str(checkpoint), output=output, precisions=("fp32",), parity=False, tune=False)
    with pytest.raises(ConsentMissing, match=reason) as caught:
        export_checkpoint(config)
    assert "--trust-remote-code runs it" in str(caught.value)
    assert not workshop.mark.exists()
    assert not output.exists()
    return str(caught.value)


@pytest.mark.parametrize("case", RUN)
def test_code_of_a_checkpoint_runs_with_consent_alone(
    case: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = RUN[case]
    directory = make(workshop)
    refused(workshop, directory, reason)
    monkeypatch.syspath_prepend(str(workshop.directory / "beside"))
    kind = KINDS.get(directory.name.removeprefix("given-"), ModelKind.CROSS_ENCODER)
    with quiet_libraries():
        load_reference(directory, kind, trust_remote_code=True)
    assert workshop.mark.read_text()


def test_a_hub_id_is_judged_as_a_directory_is(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    repository = workshop.directory / "hub" / "models--somebody--model"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / COMMIT
    shutil.copytree(module_of_bi_encoder(workshop), blobs)
    for file in [path for path in blobs.rglob("*") if path.is_file()]:  # as the hub's cache has it: links
        link = snapshot / file.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(workshop.directory / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(workshop, "somebody/model", r"modules.json: type names mark_pooling.MyPooling \(mark_pooling.py")
    base = save_adapter(workshop.directory / "adapter", "somebody/model")
    refused(workshop, base, "somebody/model: modules.json: type names mark_pooling.MyPooling")


def save_adapter(directory: Path, base: object, **config: object) -> Path:
    directory.mkdir()
    settings = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "base_model_name_or_path": str(base), **config}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


def test_the_base_of_an_adapter_is_judged_and_the_base_of_that(workshop: Workshop) -> None:
    base = module_of_bi_encoder(workshop)
    adapter = save_adapter(workshop.directory / "first", base)
    refused(workshop, adapter, f"{base}: modules.json: type names mark_pooling.MyPooling")
    above = save_adapter(workshop.directory / "second", adapter)
    refused(workshop, above, f"{adapter}: {base}: modules.json: type names mark_pooling.MyPooling")


def test_a_base_that_lies_inside_the_adapter_is_judged(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = save_adapter(workshop.directory / "adapter", "base")
    module_of_bi_encoder(workshop).rename(adapter / "base")
    refused(workshop, adapter, "modules.json: type names mark_pooling.MyPooling")
    (adapter / "base").rename(workshop.directory / "base")
    monkeypatch.chdir(workshop.directory)  # where peft looks for it
    refused(workshop, adapter, "modules.json: type names mark_pooling.MyPooling")


def test_adapters_that_stand_on_each_other_are_judged_once(tmp_path: Path) -> None:
    save_adapter(tmp_path / "a", tmp_path / "b")
    save_adapter(tmp_path / "b", tmp_path / "a", auto_mapping={"parent_library": "mark"})
    assert len(find_references(tmp_path / "a")) == 1


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"auto_mapping": {"base_model_class": "M", "parent_library": "mark_library"}},
            "parent_library names mark",
        ),
        ({"auto_mapping": {"base_model_class": "m.M", "parent_library": "peft"}}, "base_model_class names m.M"),
        ({"megatron_config": {"a": 1}, "megatron_core": "mark.core"}, "megatron_core names mark.core"),
        ({"tokenizer_kwargs": {"trust_remote_code": True}}, "tokenizer_kwargs.trust_remote_code is true"),
    ],
)
def test_what_peft_would_import_is_judged(config: dict[str, object], reason: str, tmp_path: Path) -> None:
    directory = save_adapter(tmp_path / "adapter", "nowhere/nothing", **config)
    with pytest.raises(ConsentMissing, match=f"adapter_config.json: .*{reason}"):
        check_consent(directory, trusted=False)


def test_what_peft_writes_itself_is_no_code(tmp_path: Path) -> None:
    library = {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}
    defaults = {"megatron_config": None, "megatron_core": "megatron.core", "auto_mapping": library}
    assert find_references(save_adapter(tmp_path / "adapter", "nowhere/nothing", **defaults)) == []


def written(directory: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name).write_text(text, encoding="utf-8")
    return directory


OWN = "sentence_transformers.models.Transformer"
MODULES = [{"idx": 0, "name": "0", "path": "", "type": OWN}]
ROUTER = [*MODULES, {"idx": 1, "name": "1", "path": "1_Router", "type": "sentence_transformers.models.Router"}]


@pytest.mark.parametrize(
    ("files", "places"),
    [
        pytest.param(
            {"modules.json": ROUTER, "1_Router/router_config.json": {"types": {"a": "mark.M"}, "structure": {}}},
            ["1_Router/router_config.json: types.a names mark.M"],
            id="router",
        ),
        pytest.param(
            {"modules.json": ROUTER, "1_Router/config.json": {"types": {"a": OWN, "b": "mark.M"}, "structure": {}}},
            ["1_Router/config.json: types.b names mark.M"],
            id="asym",
        ),
        pytest.param(
            {
                "modules.json": ROUTER,
                "1_Router/router_config.json": {"types": {"a": "sentence_transformers.models.Router"}},
                "1_Router/a/router_config.json": {"types": {"b/c": "sentence_transformers.models.Dense"}},
                "1_Router/a/b/c/config.json": {"activation_function": "mark.swish"},
            },
            ["1_Router/a/b/c/config.json: activation_function names mark.swish"],
            id="router in a router",
        ),
        pytest.param(
            {
                "modules.json": [{**MODULES[0], "path": "whole", "type": "sentence_transformers.SentenceTransformer"}],
                "whole/modules.json": [{**MODULES[0], "type": "mark.M"}],
            },
            ["whole/modules.json: type names mark.M"],
            id="a whole model as a module",
        ),
        pytest.param(
            {"modules.json": MODULES, "wordembedding_config.json": {"tokenizer_class": "mark.Words"}},
            ["wordembedding_config.json: tokenizer_class names mark.Words"],
            id="tokenizer of words",
        ),
        pytest.param(
            {"modules.json": [{**MODULES[0], "type": "somebody/repository--mark.M"}]},
            ["modules.json: type names mark.M of somebody/repository"],
            id="another repository",
        ),
        pytest.param(
            {"modules.json": [{**MODULES[0], "type": "Sentence_Transformers.models.Transformer"}]},
            ["modules.json: type names Sentence_Transformers.models.Transformer"],
            id="upper case",
        ),
        pytest.param(
            {"modules.json": [{**MODULES[0], "type": "sentence_transformers.util.misc.importlib"}]},
            ["modules.json: type names sentence_transformers.util.misc.importlib"],
            id="no class of sentence-transformers",
        ),
        pytest.param(
            {"modules.json": [{**MODULES[0], "type": "sentence_transformers.models.Transformer/../../mark.M"}]},
            ["modules.json: type names sentence_transformers.models.Transformer/../../mark.M"],
            id="a path as a name",
        ),
        pytest.param(
            {"modules.json": f'[{{"path": "", "type": "mark.M", "type": "{OWN}"}}]'},
            ["modules.json: type names mark.M"],
            id="a key that stands twice",
        ),
        pytest.param(
            {"Modules.JSON": [{"path": "", "type": "mark.M"}]},
            ["Modules.JSON: type names mark.M"],
            id="a name in upper case",
        ),
        pytest.param(
            {"config.json": {"sentence_transformers": {"activation_fn": "mark.A"}}},
            ["config.json: sentence_transformers.activation_fn names mark.A"],
            id="activation",
        ),
        pytest.param(
            {"config.json": {"sbert_ce_default_activation_function": "mark.A"}},
            ["config.json: sbert_ce_default_activation_function names mark.A"],
            id="activation of earlier versions",
        ),
        pytest.param(
            {"config_sentence_transformers.json": {"activation_fn": "torch.hub.load"}},
            ["config_sentence_transformers.json: activation_fn names torch.hub.load"],
            id="a function of torch",
        ),
        pytest.param(
            {"config.json": {"activation_fn": "torch.utils.collect_env.main"}},
            ["config.json: activation_fn names torch.utils.collect_env.main"],
            id="a program of torch",
        ),
        pytest.param(
            {"config.json": {"text_config": {"auto_map": {"AutoModel": "mark.M"}}}},
            ["config.json: text_config.auto_map names mark.M"],
            id="auto_map of a part",
        ),
        pytest.param(
            {"preprocessor_config.json": {"auto_map": {"AutoProcessor": "other/code--mark.P"}}},
            ["preprocessor_config.json: auto_map names mark.P of other/code"],
            id="processor",
        ),
        pytest.param(
            {"config.4.0.0.json": {"auto_map": {"AutoModel": "mark.M"}}},
            ["config.4.0.0.json: auto_map names mark.M"],
            id="a config for one version",
        ),
        pytest.param(
            {"sentence_bert_config.json": {"model_args": {"trust_remote_code": True}}},
            ["sentence_bert_config.json: model_args.trust_remote_code is true"],
            id="consent in its own name",
        ),
        pytest.param(
            {"sentence_xlnet_config.json": {"model_kwargs": {"weights_only": False}}},
            ["sentence_xlnet_config.json: model_kwargs.weights_only is false"],
            id="pickles in full",
        ),
        pytest.param(
            {"config.json": {"attn_implementation": "somebody/kernel"}},
            ["config.json: attn_implementation names somebody/kernel"],
            id="a kernel of the hub",
        ),
    ],
)
def test_every_place_that_asks_for_code_is_found(files: dict[str, object], places: list[str], tmp_path: Path) -> None:
    checkpoint = {"config.json": {}} | files
    assert [str(place) for place in find_references(written(tmp_path, checkpoint))] == places


def test_a_folder_outside_the_checkpoint_is_read_where_a_module_names_it(tmp_path: Path) -> None:
    written(tmp_path, {"elsewhere/config.json": {"activation_function": "mark.A"}})
    modules = [*MODULES, {"idx": 1, "path": "../elsewhere", "type": "sentence_transformers.models.Dense"}]
    directory = written(tmp_path / "given", {"modules.json": modules})
    assert [reference.key for reference in find_references(directory)] == ["activation_function"]


def test_links_are_read_and_lead_nowhere_twice(tmp_path: Path) -> None:
    written(tmp_path, {"blobs/1": [{"path": "loop", "type": "mark.M"}]})
    given = written(tmp_path / "given", {"config.json": {}})
    (given / "modules.json").symlink_to(tmp_path / "blobs" / "1")
    (given / "loop").symlink_to(given)
    assert [str(place) for place in find_references(given)] == ["modules.json: type names mark.M"]


def test_what_libraries_write_themselves_asks_for_nothing(plain: dict[str, Path], tmp_path: Path) -> None:
    for directory in plain.values():
        assert find_references(directory) == []
    harmless: dict[str, object] = {
        "config.json": {"auto_map": {}, "activation_function": "gelu_new", "dtype": "torch.float16"},
        "config_sentence_transformers.json": {"prompts": {"class": "Sort this. Give one word.", "a.b": "c.d: "}},
        "sentence_bert_config.json": {"model_args": {"trust_remote_code": False, "attn_implementation": "sdpa"}},
        "1_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Tanh"},
        "2_Dense/config.json": {"activation_function": "torch.nn.Identity"},
        "tokenizer.json": {"model": {"vocab": {"auto_map": 7}}, "auto_map": "no.Class"},
        "vocab.json": {"auto_map": 7, "trust_remote_code": 8},
        "notes.json": "not JSON at all",
        "checkpoint-10/config.json": {"auto_map": {"AutoModel": "mark.M"}},
        ".git/config.json": {"auto_map": {"AutoModel": "mark.M"}},
    }
    (tmp_path / "unnamed.py").write_text("raise SystemExit")
    assert find_references(written(tmp_path, harmless)) == []


@pytest.mark.parametrize("content", ['{"a": ', "[" * 3000 + "]" * 3000, '"\\ud800'])
def test_a_configuration_that_cannot_be_read_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnsupported, match=r"config\.json: (not JSON|nested too deeply)"):
        check_consent(written(tmp_path, {"config.json": content}), trusted=False)


def test_consent_ends_the_questions(tmp_path: Path) -> None:
    check_consent(written(tmp_path, {"modules.json": [{"path": "", "type": "mark.M"}]}), trusted=True)


def test_many_places_are_counted(tmp_path: Path) -> None:
    modules = [{"path": "", "type": f"mark.M{index}"} for index in range(5)]
    with pytest.raises(ConsentMissing, match=r"mark.M0; .*mark.M1; .*mark.M2; and 2 more\. --trust-remote-code"):
        check_consent(written(tmp_path, {"modules.json": modules}), trusted=False)


def test_a_trusted_checkpoint_is_exported(workshop: Workshop) -> None:
    config = ExportConfig(
        checkpoint=str(module_of_bi_encoder(workshop)),
        output=workshop.directory / "package",
        precisions=("fp32",),
        tune=False,
        parity=False,
        trust_remote_code=True,
    )
    assert export_checkpoint(config).package.manifest.dimensions == 8
    assert workshop.mark.exists()
