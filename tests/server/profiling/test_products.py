"""Operations counted by hand, of kernels with the shapes that ONNX Runtime's profile tells."""

import pytest

from pairwire.server.profiling.events import Kernel, Shape
from pairwire.server.profiling.products import Work, executed, operations, work_of

ROWS, LENGTH, HEADS, DIMENSIONS = 3, 16, 4, 8
WIDTH = HEADS * DIMENSIONS


def kernel(operator: str, inputs: list[Shape], output: Shape) -> Kernel:
    return Kernel(operator, "node", 1e-3, tuple(inputs), (output,), 0)


SCORES = kernel(
    "FusedMatMul",
    [(LENGTH, ROWS, HEADS, DIMENSIONS), (LENGTH, ROWS, HEADS, DIMENSIONS)],
    (ROWS, HEADS, LENGTH, LENGTH),
)
WEIGHTED = kernel(
    "MatMul",
    [(ROWS, HEADS, LENGTH, LENGTH), (ROWS, HEADS, LENGTH, DIMENSIONS)],
    (ROWS, HEADS, LENGTH, DIMENSIONS),
)
ONE_TOKEN = kernel(
    "MatMul", [(ROWS, HEADS, 1, DIMENSIONS), (ROWS, HEADS, DIMENSIONS, LENGTH)], (ROWS, HEADS, 1, LENGTH)
)
SOFTMAX = kernel("Softmax", [(ROWS, HEADS, LENGTH, LENGTH)], (ROWS, HEADS, LENGTH, LENGTH))


def dense(inputs: int, outputs: int, operator: str = "MatMulIntegerToFloat", tokens: int = LENGTH) -> Kernel:
    return kernel(operator, [(tokens, ROWS, inputs), (1,), (outputs,)], (tokens, ROWS, outputs))


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (dense(32, 64), 2 * ROWS * LENGTH * 32 * 64),
        (kernel("MatMul", [(ROWS, LENGTH, 32)], (ROWS, LENGTH, 64)), 2 * ROWS * LENGTH * 32 * 64),
        (kernel("MatMul", [(ROWS, LENGTH, 32), (32, 64)], (ROWS, LENGTH, 64)), 2 * ROWS * LENGTH * 32 * 64),
        (kernel("FusedGemm", [(ROWS, 32), (64,)], (ROWS, 64)), 2 * ROWS * 32 * 64),
        (SCORES, 2 * ROWS * HEADS * LENGTH * LENGTH * DIMENSIONS),
        (WEIGHTED, 2 * ROWS * HEADS * LENGTH * LENGTH * DIMENSIONS),
        (ONE_TOKEN, 2 * ROWS * HEADS * LENGTH * DIMENSIONS),
        (
            kernel("MultiHeadAttention", [(ROWS, LENGTH, WIDTH)] * 3, (ROWS, LENGTH, WIDTH)),
            4 * ROWS * LENGTH * LENGTH * WIDTH,
        ),
        (
            kernel("MultiHeadAttention", [(ROWS, 1, WIDTH), (ROWS, HEADS, LENGTH, DIMENSIONS)], (ROWS, 1, WIDTH)),
            4 * ROWS * LENGTH * WIDTH,
        ),
        (
            kernel("Attention", [(ROWS, LENGTH, WIDTH)], (ROWS, LENGTH, WIDTH)),
            2 * ROWS * LENGTH * WIDTH * 3 * WIDTH + 4 * ROWS * LENGTH * LENGTH * WIDTH,
        ),
        (SOFTMAX, 0),
        (kernel("Gelu", [(ROWS, LENGTH, 64)], (ROWS, LENGTH, 64)), 0),
    ],
)
def test_operations_of_a_product(product: Kernel, expected: int) -> None:
    assert operations(product) == expected


def layer(tokens: int = LENGTH) -> list[Kernel]:
    """A BERT layer; all but keys and values at ``tokens`` tokens only."""
    attention = [SCORES, SOFTMAX, WEIGHTED] if tokens == LENGTH else [ONE_TOKEN, SOFTMAX, ONE_TOKEN]
    return [
        dense(WIDTH, WIDTH),
        dense(WIDTH, WIDTH),
        dense(WIDTH, WIDTH, tokens=tokens),
        *attention,
        dense(WIDTH, WIDTH, tokens=tokens),
        dense(WIDTH, 4 * WIDTH, tokens=tokens),
        kernel("Gelu", [(tokens, ROWS, 4 * WIDTH)], (tokens, ROWS, 4 * WIDTH)),
        dense(4 * WIDTH, WIDTH, tokens=tokens),
    ]


HEAD = [kernel("FusedGemm", [(ROWS, WIDTH)], (ROWS, WIDTH)), kernel("MatMul", [(ROWS, WIDTH)], (ROWS, WIDTH))]


@pytest.mark.parametrize("last", [LENGTH, 1], ids=["whole", "last layer at one token"])
def test_work_is_that_of_the_model_as_trained(last: int) -> None:
    kernels = [*layer(), *layer(), *layer(last), *HEAD]
    work = work_of(kernels, LENGTH)
    assert work == Work(layers=3, weights=3 * 12 * WIDTH**2, width=WIDTH)
    assert work.operations([LENGTH] * ROWS) == ROWS * LENGTH * 3 * (24 * WIDTH**2 + 4 * LENGTH * WIDTH)
    assert (executed(kernels) < work.operations([LENGTH] * ROWS)) == (last == 1)


def absorbed(name: str, inputs: list[Shape], output: Shape) -> Kernel:
    return Kernel("FusedMatMul", f"/layer/attention/absorbed/{name}", 1e-3, tuple(inputs), (output,), 0)


def test_a_layer_without_keys_and_values_is_worth_them() -> None:
    projections = [
        absorbed("keys", [(ROWS, HEADS, DIMENSIONS), (HEADS, DIMENSIONS, WIDTH)], (HEADS, ROWS, WIDTH)),
        absorbed("scores", [(HEADS, ROWS, WIDTH), (LENGTH, ROWS, WIDTH)], (ROWS, HEADS, LENGTH)),
        SOFTMAX,
        absorbed("weighted", [(ROWS, HEADS, LENGTH), (LENGTH, ROWS, WIDTH)], (ROWS, HEADS, WIDTH)),
        absorbed("values", [(ROWS, HEADS, WIDTH), (HEADS, WIDTH, DIMENSIONS)], (HEADS, ROWS, DIMENSIONS)),
    ]
    last = [dense(WIDTH, WIDTH, tokens=1), *projections, *layer(1)[6:]]
    assert work_of([*layer(), *last], LENGTH) == Work(layers=2, weights=2 * 12 * WIDTH**2, width=WIDTH)
    assert executed(projections) == 2 * ROWS * (2 * WIDTH * WIDTH + 2 * HEADS * WIDTH * LENGTH)


def test_whole_attention_operators_hold_three_projections() -> None:
    attention = kernel("QAttention", [(ROWS, LENGTH, WIDTH)], (ROWS, LENGTH, WIDTH))
    rest = [dense(WIDTH, WIDTH), dense(WIDTH, 4 * WIDTH), dense(4 * WIDTH, WIDTH)]
    assert work_of([attention, *rest], LENGTH) == Work(layers=1, weights=12 * WIDTH**2, width=WIDTH)


def test_a_model_without_attention_is_worth_its_products() -> None:
    assert work_of([kernel("MatMul", [(ROWS, LENGTH, 8)], (ROWS, LENGTH, 2))], LENGTH) == Work(0, 16, 0)


def test_rows_of_unlike_lengths_add_up() -> None:
    work = Work(layers=2, weights=100, width=10)
    assert work.operations([1, 3]) == (200 + 80) + 3 * (200 + 240)
