"""What a checkpoint is: everything that knows torch and sentence-transformers.

source.py           CHECKPOINT -> a directory: local, hub, an adapter's base
files.py            is every file of it whole?      weight_files.py     weights, by their headers alone
consent.py          refuses a checkpoint that asks for Python code to be run, before anything of it is loaded
loading.py          the one place where a checkpoint is loaded: the reference, and what is traced
own_code.py         code that came with a checkpoint and has run
weights.py          refuses what would be computed from weights that no file has
pickles.py          explains the refusal of a pickle that holds more than tensors
adapter.py          what a PEFT adapter stands on   adapter_layers.py   its tensors in a loaded model
token_types.py      a tokenizer without them
checkpoint.py       kind, labels, activation, limits, prompts, tokenizer, read off the loaded object
cross_encoders.py   bi_encoders.py   sparse_encoders.py   what each kind alone has
chat_templates.py   a pair as one text              decoders.py    rerankers that are language models
modular.py          cross-encoders of modules       pooling.py     token vectors -> one vector
embedders.py        bi-encoders as one module       tracing.py     a module that optimum does not know -> ONNX
ways.py             optimum, or one of torch's two tracers: which are tried, in which order
unsaved.py          refuses what transformers 5 leaves empty of a model whose code is older
releases.py         refuses what the installed transformers would read wrongly of a newer one's checkpoint
static_embeddings.py   encoders without a transformer   routers.py   sparse queries by a table
task_adapters.py       refuses weights that depend on a call's task
"""
