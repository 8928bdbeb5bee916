"""Clients of HTTP; what the rows mean: table.py."""

from __future__ import annotations

from .client import Client

HTTP_CLIENTS = (
    Client("openai", ("openai==3.57.0", "numpy"), "http/openai_python.py"),
    Client("cohere", ("cohere==7.3.1",), "http/cohere_python.py"),
    Client("cohere-5", ("cohere==5.21.1",), "http/cohere_python.py"),
    Client("huggingface-hub", ("huggingface_hub==2.4.0", "numpy"), "http/hugging_face_python.py"),
    Client("tritonclient-http", ("tritonclient[http]==2.73.0",), "http/triton_python.py"),
    Client("kserve-rest", ("kserve==0.21.0",), "http/kserve_python.py"),
    Client("infinity-client", ("infinity-client==0.0.78",), "http/infinity_python.py"),
    Client("litellm", ("litellm==1.110.2",), "http/litellm_python.py"),
    Client(
        "langchain",
        ("langchain-openai==1.7.4", "langchain-cohere==0.6.0", "langchain-community==0.4.2", "aiohttp"),
        "http/langchain_python.py",
    ),
    Client("langchain-huggingface", ("langchain-huggingface==1.2.3", "numpy"), "http/langchain_hugging_face_python.py"),
    Client(
        "llama-index",
        (
            "llama-index-postprocessor-tei-rerank==0.6.0",
            "llama-index-postprocessor-jinaai-rerank==0.6.0",
            "llama-index-postprocessor-cohere-rerank==0.10.0",
            "llama-index-embeddings-text-embeddings-inference==0.6.0",
            "llama-index-embeddings-openai-like==0.4.0",
        ),
        "http/llama_index_python.py",
    ),
    Client(
        "haystack",
        (
            "haystack-ai==3.4.1",
            "huggingface-api-haystack==3.1.0",
            "jina-haystack==2.0.1",
            "cohere-haystack==11.0.0",
        ),
        "http/haystack_python.py",
    ),
    Client(
        "node", ("openai@6.49.0", "cohere-ai@8.1.0", "@huggingface/inference@4.13.30"), "http/clients.mjs", npm=True
    ),
)
