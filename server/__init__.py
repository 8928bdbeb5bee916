"""The server: model packages in, gRPC and HTTP out.

    engine/        text -> batches -> scores; knows no network
    runtime/       runs one fixed shape on ONNX Runtime
    rpc/           gRPC: servicers, converters, interceptors
    compat/        other people's protocols over the same engine calls
    repository/    models that come, are exchanged and go while the server runs
    package.py     reads and verifies a model package     onnx_files.py which files a graph reads
    errors.py      the one tree of errors                 clock.py      the only reader of the time
    reasons.py     other people's exceptions in a line    freed_memory.py  back to the system, or kept
    config.py      every option, defined once
    options.py     flags, environment, TOML and help, derived from those definitions
    lifecycle.py   the phases of a serving process
    app.py         one serving process: wires all of these, starts, drains, stops
    serving.py     its life from start to exit code       eventloop.py  its loop and signals
    health.py      what models mean for services' health
    open_files.py  says when connections take them all    addresses.py   what a host stands for
    processes/     several of them on one port, and their supervisor
    cpus.py        how many CPUs are ours
    metrics.py     every Prometheus series                endpoint.py   the same over HTTP
    logs.py        text on a terminal, JSON elsewhere
    cli.py         `pairwire serve`                       banner.py     what it prints
    security/      who may call, and TLS
    tuning/        chooses by measurement                 profiling/    where a model's time goes

One request's way, file by file: docs/architecture.md. In short: rpc decodes and validates -> engine/text tokenises and
truncates -> engine/batching admits it and picks the next batch when a worker of engine/running asks -> runtime runs it
-> engine/outputs turns logits into scores -> rpc answers in input order.
"""
