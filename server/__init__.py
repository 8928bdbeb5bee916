"""The server: model packages in, gRPC out.

    engine/        text -> batches -> scores; knows no network
    runtime/       runs one fixed shape on ONNX Runtime
    rpc/           gRPC: servicers, converters, interceptors
    package.py     reads and verifies a model package
    errors.py      the one tree of errors
    config.py      every option, defined once
    options.py     flags, environment, TOML and help, derived from those definitions
    lifecycle.py   the phases of a serving process
    app.py         one serving process: wires all of these, starts, drains, stops
    serving.py     its life from start to exit code       eventloop.py  its loop and signals
    processes/     several of them on one port, and their supervisor
    metrics.py     every Prometheus series                endpoint.py   the same over HTTP
    logs.py        text on a terminal, JSON elsewhere
    cli.py         `pairwire serve`                       banner.py     what it prints

One request's way: rpc decodes and validates -> engine.text tokenises, truncates and assembles -> engine.scheduler
admits it -> a worker asks for a batch -> engine.planner picks it -> runtime runs it -> engine.heads turns logits into
scores -> rpc answers in input order.
"""
