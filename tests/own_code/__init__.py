"""Code as checkpoints bring it: models that transformers does not have, with the tricks of the published ones.

Each file is copied into the checkpoints that `tests.custom` makes, and transformers imports it from there.

new_model.py            GTE ("new"): rotary caches, packed projections, gated GELU, rows without padding
nomic_model.py          NomicBERT: GPT-2's names, rotary on demand, SwiGLU, a mixture of experts
alibi_model.py          JinaBERT: ALiBi that is rebuilt for longer rows, gated GELU
bidirectional_model.py  Llama whose tokens see the whole row, with a pooled classifier
looped_model.py         an encoder that nobody can trace
flash_model.py          XLM-RoBERTa that would take flash attention, and falls back
"""
