"""HTTP: every protocol that is JSON, over the engine calls of pairwire.v1.

A request's way: listener -> app -> exchange -> traffic and interceptors (those of gRPC) -> route -> engine -> answer.

    service.py    all routes on one application, and the application on a port
    listener.py   the port: uvicorn's protocol with bounds
    app.py        the ASGI application, what every request goes through
    routes.py     what is served where
    exchange.py   a request on its way, as traffic and interceptors see it
    body.py       its body: bounded, inflated
    reading.py    JSON -> typed requests
    answers.py    answers -> JSON
    errors.py     error -> status code, and the families of clients that are told in the same words
    cors.py       which sites' pages may call
    openapi.py    the OpenAPI document, from the routes
    probes.py     health and metrics
    page.py       the page for people, its files in static/
    texts.py      fields that hold texts or token ids
    openai.py     OpenAI: embeddings, models
    rerank.py     Cohere, Jina, vLLM and Infinity: reranking
    vllm.py       vLLM: score, classify
    kserve.py     KServe v2                        kserve_wire.py   its JSON, and raw contents behind it
    tei/          text-embeddings-inference
"""
