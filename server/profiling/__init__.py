"""Where a model's time goes, operator by operator and from text to score, against what the processor can do.

    timers.py    clocks, and a stopwatch of stages      events.py    ONNX Runtime's profile -> kernels
    products.py  kernels -> multiplications             peaks.py     fastest matrix products of this processor
    shapes.py    one batch shape, by operator           texts.py     text in, scores out, stage by stage

Nothing here runs in a server: `pairwire profile` is who calls it.
"""
