"""A float32 graph -> an int8 graph that scores like it. Knows numpy and onnx; torch is never here.

quantize.py     the whole way                       findings.py     what was done to which tensor, and why
calibrate.py    what activations look like          sensitivity.py  which products bear int8 least
coding.py       how a tensor becomes uint8          rounding.py     how weights become int8
ordering.py     channels sorted by their size       products.py     sums that both of these need
nodes.py        the operators of an int8 product
"""
