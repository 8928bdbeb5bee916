from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pairwire.export.passes import constant_reshapes, packed, unpacked
from pairwire.export.passes.view import add_constant
from tests import graphs, packing
from tests.architectures import FIRST

LAYERS, HIDDEN, LENGTH = 2, 32, 24
EVERY = [*FIRST, "cls", "mean"]


@pytest.mark.parametrize("what", EVERY)
def test_results_stay_the_same_but_for_rounding(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    before = packing.fuse(model)
    report = packed.apply(model)
    assert (report.name, report.rewritten, report.reason) == ("packed", LAYERS, "")
    for rows, length in ((6, LENGTH), (1, LENGTH), (3, 2)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        assert packing.close(packing.run(model, feeds), graphs.run(before, feeds))


@pytest.mark.parametrize("what", EVERY)
def test_graph_reads_tokens_one_after_the_other(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packed.apply(model)
    types = ["token_type_ids"] if what in ("bert", "electra") else []
    expected: dict[str, tuple[str, ...]] = dict.fromkeys(("input_ids", *types, "position_ids"), ("tokens",))
    expected |= {"cumulative_lengths": ("rows_and_end",), "token_offset": ("rows", "length")}
    inputs = {
        value.name: tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim) for value in model.graph.input
    }
    assert inputs == expected
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {TensorProto.INT32}
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "rows"
    kinds = graphs.kinds(model)
    assert kinds.count("PackedMultiHeadAttention") == LAYERS
    # Nothing that splits heads, masks padding or repeats types is left; RoBERTa's family counts what is no padding.
    assert {"Softmax", "Reshape", "Transpose", "Expand", "Where"}.isdisjoint(kinds)
    assert kinds.count("CumSum") == (1 if "roberta" in what else 0)


@pytest.mark.parametrize("what", [*FIRST, "cls"])
def test_last_layer_is_computed_at_first_tokens_only(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    before = packing.fuse(model)
    packed.apply(model)
    # What the last attention gives, and the residual beside it.
    assert packing.read_by(model, "packed/begins") == ["Gather", "Gather"]
    # Two products of each attention are inside the operator; none is computed twice.
    assert graphs.kinds(model).count("MatMul") == graphs.kinds(before).count("MatMul") - 2 * LAYERS
    shapes = _shapes(model, ("PackedMultiHeadAttention", "MatMul", "BiasGelu", "SkipLayerNormalization"))
    at = max(index for index, (kind, _) in enumerate(shapes) if kind == "PackedMultiHeadAttention")
    behind = [shape for _, shape in shapes[at + 1 :]]
    assert len(behind) == 6  # output and normalisation; two of the feed-forward with Gelu and normalisation
    assert {rows for rows, _ in behind} == {8}


def test_mean_is_taken_of_the_last_layer_at_all_tokens(plain_graph: packing.Graph) -> None:
    model = plain_graph("mean")
    before = packing.fuse(model)
    packed.apply(model)
    assert packing.read_by(model, "packed/begins").count("Gather") == 0
    assert graphs.kinds(model).count("MatMul") == graphs.kinds(before).count("MatMul") - 2 * LAYERS + 1


@pytest.mark.parametrize("what", EVERY)
def test_row_has_the_same_result_alone_and_among_strangers(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packed.apply(model)
    feeds = graphs.padded_batch()
    together = packing.run(model, feeds)
    assert len({tuple(row) for row in together.round(3).tolist()}) == len(together)  # rows that could be mistaken
    reverse = {name: value[::-1] for name, value in feeds.items()}
    assert packing.close(packing.run(model, reverse)[::-1], together)
    for row in range(len(together)):
        alone = {name: value[row : row + 1] for name, value in feeds.items()}
        assert packing.close(packing.run(model, alone, empty=0, fill=()), together[row : row + 1])


@pytest.mark.parametrize("what", EVERY)
def test_rows_that_fill_the_shape_do_not_matter(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packed.apply(model)
    feeds = graphs.padded_batch(rows=3)
    expected = packing.run(model, feeds, empty=0, fill=())
    assert packing.close(packing.run(model, feeds, empty=3, fill=()), expected)
    assert packing.close(packing.run(model, feeds, empty=0, fill=(1, 30)), expected)
    assert packing.close(packing.run(model, feeds, empty=2, fill=(7,)), expected)


def test_empty_rows_have_finite_results(plain_graph: packing.Graph) -> None:
    for what in ("bert", "mean"):
        model = plain_graph(what)
        packing.fuse(model)
        packed.apply(model)
        unpacked.apply(model)
        result = graphs.run(model, packing.feeds(graphs.padded_batch(), empty=3))
        assert np.isfinite(result).all()


@pytest.mark.parametrize("what", ["roberta", "xlm-roberta"])
def test_positions_count_from_zero_where_a_model_begins_elsewhere(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    plain = next(value for name, value in tables.items() if "position_embeddings" in name)
    packed.apply(model)
    lookup = next(node for node in model.graph.node if node.op_type == "Gather" and "counted" in node.input[1])
    table = next(numpy_helper.to_array(one) for one in model.graph.initializer if one.name == lookup.input[0])
    # The first row is that of a padding token, which is not counted.
    np.testing.assert_array_equal(table, plain[1:])


def test_biases_are_joined_in_the_order_of_queries_keys_and_values(plain_graph: packing.Graph) -> None:
    model = plain_graph("bert")
    packing.fuse(model)
    vectors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    adds = {node.output[0]: node for node in model.graph.node if node.op_type == "Add"}
    packed.apply(model)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    attentions = [node for node in model.graph.node if node.op_type == "PackedMultiHeadAttention"]
    for layer, node in enumerate(attentions):
        names = [f"/bert/encoder/layer.{layer}/attention/self/{part}" for part in ("query", "key", "value")]
        assert list(node.input[:3]) == [f"{name}/MatMul_output_0" for name in names]
        biases = [next(vectors[i] for i in adds[f"{name}/Add_output_0"].input if i in vectors) for name in names]
        np.testing.assert_array_equal(values[node.input[3]], np.concatenate(biases))
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        assert attributes == {"num_heads": 4, "scale": pytest.approx(8**-0.5)}


def test_attention_that_lacks_a_bias_adds_the_others_outside(plain_graph: packing.Graph) -> None:
    model = plain_graph("bert")
    packing.spread_biases(model)
    constant_reshapes.apply(model)
    part = "/bert/encoder/layer.0/attention/self"
    for node in model.graph.node:
        node.input[:] = [f"{part}/key/MatMul_output_0" if i == f"{part}/key/Add_output_0" else i for i in node.input]
    assert packed.apply(model).rewritten == LAYERS
    first, second = (node for node in model.graph.node if node.op_type == "PackedMultiHeadAttention")
    sources = [f"{part}/query/Add_output_0", f"{part}/key/MatMul_output_0", f"{part}/value/Add_output_0"]
    assert list(first.input) == [*sources, "", "token_offset", "cumulative_lengths"]
    assert second.input[3]


def test_attention_of_another_form_is_refused_with_its_name(plain_graph: packing.Graph) -> None:
    model = plain_graph("bert")
    packing.fuse(model)
    softmax = _nodes(model, "Softmax")[1]
    _insert(model, softmax, [helper.make_node("Abs", [softmax.input[0]], ["strange"], name="strange")])
    with pytest.raises(packed.NotPackable, match=f"^attention around {softmax.name} has another form than softmax"):
        packed.apply(model)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_relative_positions_in_the_scores_are_refused(layer: int, plain_graph: packing.Graph) -> None:
    """As in MPNet or T5: the distance of two tokens changes their score."""
    model = plain_graph("bert")
    packing.fuse(model)
    softmax = _nodes(model, "Softmax")[layer]
    n = helper.make_node
    distances = np.abs(np.subtract.outer(np.arange(40), np.arange(40))).astype(np.float32) / 100
    constants = {"from": np.array([0, 0]), "axes": np.array([2, 3]), "table": distances[None, None]}
    for name, value in constants.items():
        add_constant(model, name, value)
    nodes = [
        n("Shape", ["input_ids"], ["long"], start=1, end=2),
        n("Concat", ["long", "long"], ["square"], axis=0),
        n("Slice", ["table", "from", "square", "axes"], ["distance"]),
        n("Add", [softmax.input[0], "distance"], ["biased"], name="biased"),
    ]
    _insert(model, softmax, nodes)
    graphs.run(model, graphs.padded_batch())  # the graph is one that runs
    with pytest.raises(
        packed.NotPackable, match=rf"^attention \S*layer\.{layer}/\S* adds more than a mask of padding, "
    ):
        packed.apply(model)


def test_mask_that_lets_some_of_the_padding_through_is_refused(plain_graph: packing.Graph) -> None:
    model = plain_graph("bert")
    packing.fuse(model)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size == 1 and value < -1e30:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, -20), tensor.name))
    with pytest.raises(packed.NotPackable, match="adds more than a mask of padding"):
        packed.apply(model)


@pytest.mark.parametrize("what", ["roberta", "xlm-roberta"])
def test_padding_token_that_a_text_spells_is_not_counted(what: str, plain_graph: packing.Graph) -> None:
    """RoBERTa's family gives it the position of padding, and what follows the position that it would have had."""
    model = plain_graph(what)
    before = packing.fuse(model)
    packing.pack(model)
    feeds = graphs.padded_batch()
    inside = feeds["attention_mask"].astype(bool)
    spelt = np.where(np.arange(inside.shape[1]) % 3 == 1, 1, feeds["input_ids"])
    plain = np.where(inside, feeds["input_ids"], 1)
    for ids in (plain, np.where(inside, spelt, 1)):
        given = {**feeds, "input_ids": ids}
        assert packing.close(packing.run(model, given), graphs.run(before, given))
    changed = graphs.run(before, {**feeds, "input_ids": np.where(inside, spelt, 1)}) - graphs.run(
        before, {**feeds, "input_ids": plain}
    )
    assert np.abs(changed).max() > 0.01


def test_positions_that_are_counted_otherwise_are_refused(plain_graph: packing.Graph) -> None:
    model = plain_graph("roberta")
    packing.fuse(model)
    equal = next(node for node in model.graph.node if node.op_type == "Equal" and "input_ids" in node.input)
    readers = [node for node in model.graph.node if equal.output[0] in node.input]
    both = helper.make_node("Or", [equal.output[0], "eight"], ["left_out"], name="left_out")
    constant = add_constant(model, "8", np.array(8))
    model.graph.node.insert(list(model.graph.node).index(equal) + 1, both)
    model.graph.node.insert(0, helper.make_node("Equal", ["input_ids", constant], ["eight"], name="eight"))
    for node in readers:
        node.input[:] = ["left_out" if name == equal.output[0] else name for name in node.input]
    graphs.run(model, graphs.padded_batch())  # the graph is one that runs
    with pytest.raises(packed.NotPackable, match=r"looks up neither ids nor positions$|counts positions in a way"):
        packed.apply(model)


def test_lookup_of_neither_ids_nor_positions_is_refused(plain_graph: packing.Graph) -> None:
    model = plain_graph("bert")
    packing.fuse(model)
    lookup = next(node for node in model.graph.node if "position_embeddings" in node.input[0])
    two = add_constant(model, "two", np.array(2))
    _insert(model, lookup, [helper.make_node("Mul", [lookup.input[1], two], ["even"])], at=1)
    graphs.run(model, graphs.padded_batch())
    with pytest.raises(packed.NotPackable, match=f"^{lookup.name} looks up neither ids nor positions$"):
        packed.apply(model)


def _cumulated(model: ModelProto) -> list[NodeProto]:
    return [helper.make_node("CumSum", ["before", add_constant(model, "axis", np.array(1))], ["s"], name="strange")]


def _averaged(model: ModelProto) -> list[NodeProto]:
    axis = add_constant(model, "axis", np.array([1]))
    mean = helper.make_node("ReduceMean", ["before", axis], ["mean"], name="strange")
    return [mean, helper.make_node("Sub", ["before", "mean"], ["s"])]


def _turned(_: ModelProto) -> list[NodeProto]:
    return [
        helper.make_node("Transpose", ["before"], ["turned"], name="strange", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["before", "turned"], ["pairs"]),
        helper.make_node("MatMul", ["pairs", "before"], ["s"]),
    ]


def _normalised(model: ModelProto) -> list[NodeProto]:
    scale = add_constant(model, "scale", np.ones((1, HIDDEN), np.float32))
    return [helper.make_node("LayerNormalization", ["before", scale], ["s"], name="strange", axis=1)]


@pytest.mark.parametrize(
    ("strange", "message"),
    [
        (_cumulated, "^CumSum strange may read other tokens$"),
        (_averaged, "^ReduceMean strange may read other tokens$"),
        (_turned, "^Transpose strange may read other tokens$"),
        (_normalised, "^strange normalises another axis than the last$"),
    ],
)
def test_operator_that_reads_other_tokens_is_refused_with_its_name(
    strange: Callable[[ModelProto], list[NodeProto]], message: str, plain_graph: packing.Graph
) -> None:
    model = plain_graph("bert")
    packing.fuse(model)
    _follow(model, _nodes(model, "LayerNormalization")[0], strange(model))
    graphs.run(model, graphs.padded_batch())  # the graph is one that runs
    with pytest.raises(packed.NotPackable, match=message):
        packed.apply(model)


def test_mask_that_is_read_by_more_than_attention_is_refused(plain_graph: packing.Graph) -> None:
    model = plain_graph("cls")
    packing.fuse(model)
    last = add_constant(model, "last", np.array([-1]))
    n = helper.make_node
    nodes = [
        n("Unsqueeze", ["attention_mask", last], ["long"], name="strange"),
        n("Cast", ["long"], ["inside"], to=TensorProto.FLOAT),
        n("Mul", ["before", "inside"], ["masked"]),
    ]
    _follow(model, _nodes(model, "LayerNormalization")[0], nodes)
    with pytest.raises(packed.NotPackable, match=r"^Unsqueeze strange reads the mask"):
        packed.apply(model)


def test_graph_without_attention_is_refused() -> None:
    model = graphs.toy([helper.make_node("Relu", ["x"], ["y"])], {}, 3)
    before = model.SerializeToString()
    with pytest.raises(packed.NotPackable, match=r"^the graph has no attention$"):
        packed.apply(model)
    assert model.SerializeToString() == before


def _nodes(model: ModelProto, kind: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def _insert(model: ModelProto, reader: NodeProto, nodes: Sequence[NodeProto], *, at: int = 0) -> None:
    """Puts nodes before ``reader``, which reads the last of them as its input ``at``."""
    reader.input[at] = nodes[-1].output[0]
    _add(model, list(model.graph.node).index(reader), nodes)


def _follow(model: ModelProto, node: NodeProto, nodes: Sequence[NodeProto]) -> None:
    """Puts nodes that read "before" behind ``node``; the last of them gives what ``node`` gave."""
    nodes[-1].output[0] = node.output[0]
    node.output[0] = "before"
    _add(model, list(model.graph.node).index(node) + 1, nodes)


def _add(model: ModelProto, index: int, nodes: Sequence[NodeProto]) -> None:
    for node in reversed(nodes):
        model.graph.node.insert(index, node)


def _shapes(model: ModelProto, kinds: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """(operator, shape of what it gives) in order, for 6 rows between one empty and one that fills: 8."""
    here = packing.copy(model)
    unpacked.apply(here)
    named = [(node.op_type, node.output[0]) for node in model.graph.node if node.op_type in kinds]
    del here.graph.output[:]
    here.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 2) for _, name in named)
    values = graphs.run_all(here, packing.feeds(graphs.padded_batch()))
    return [(kind, value.shape) for (kind, _), value in zip(named, values, strict=True)]
